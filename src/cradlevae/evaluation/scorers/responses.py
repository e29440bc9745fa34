"""What metrics of kind "response" are given: which genes respond, and how specifically, by measured effects' noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from cradlevae.data.naming.gene_names import target_columns
from cradlevae.evaluation.metrics.registry import metrics_of
from cradlevae.evaluation.reference_effects import Noise
from cradlevae.utils.types import BoolArray, FloatArray, IndexArray

MOST = 500
"""Perturbations that are looked at, taken at equal distances; thousands would cost minutes and change little."""

FDR = 0.05
"""False discovery rate, within a perturbation, at which held-out cells call a gene."""


@dataclass(frozen=True)
class Responses:
    """Real effects of some perturbations with the genes that respond; target genes are left out (0, weight 0, no hit).

    Attributes
    ----------
    rows
        Which perturbations of the reference these are.
    real
        Their effects, (perturbations, genes).
    own
        The genes that each of them targets, (perturbations, genes).
    weights
        Weight of each gene, (perturbations, genes); rows sum to 1.
    hits
        Which genes held-out cells call, (perturbations, genes).
    """

    rows: IndexArray
    real: FloatArray
    own: BoolArray
    weights: FloatArray
    hits: BoolArray

    def scores(self, predicted: FloatArray) -> dict[str, float]:
        """Every metric of kind ``"response"`` of a prediction for all perturbations of the reference."""
        guess = np.where(self.own, 0.0, predicted[self.rows])
        options = {"weights": self.weights, "hits": self.hits}
        return {entry.name: entry.value(self.real, guess, **options) for entry in metrics_of("response")}


def responses(
    effects: FloatArray, noise: Noise, conditions: Sequence[str], genes: Sequence[str], symbols: Sequence[str] | None
) -> Responses:
    """Which genes respond to at most :data:`MOST` perturbations, and how specifically.

    Parameters
    ----------
    effects, noise
        Measured effects, (perturbations, genes), with their standard errors.
    conditions, genes, symbols
        Names of the rows and the columns, and the genes' symbols where these are others.

    Notes
    -----
    A hit is a gene with |effect| / standard error beyond what chance gives (normal, Benjamini-Hochberg within the
    perturbation). The weight of a gene is the same ratio of the effect minus the mean effect of all perturbations,
    brought to [0, 1] within the perturbation and squared.
    """
    rows = np.unique(np.linspace(0, len(effects) - 1, min(MOST, len(effects))).round().astype(np.intp))
    real, error = effects[rows].copy(), noise.standard_error[rows]
    own = np.zeros(real.shape, dtype=bool)
    for row, columns in enumerate(target_columns([conditions[row] for row in rows], genes, symbols)):
        own[row, columns] = True
    real[own] = 0.0
    hits = false_discovery_control(2.0 * ndtr(-_ratio(real, error)), axis=1) < FDR
    specific = np.where(own, 0.0, _ratio(real - real.mean(axis=0), error))
    return Responses(rows, real, own, _weights(specific), hits & ~own)


def _ratio(value: FloatArray, error: FloatArray) -> FloatArray:
    return np.divide(np.abs(value), error, out=np.zeros_like(value), where=error > 0)


def _weights(score: FloatArray) -> FloatArray:
    """Squares of scores that are brought to [0, 1] within each perturbation; all genes alike where no score differs."""
    low, high = score.min(axis=1, keepdims=True), score.max(axis=1, keepdims=True)
    scaled = np.divide(score - low, high - low, out=np.ones_like(score), where=high > low) ** 2
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))
