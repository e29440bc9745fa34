"""Metrics of kind "response": effects against measured ones, where it is known how surely each gene responds.

Weighted scores (Mejia et al. 2025, "Diversity by Design") weigh genes by how specific their response is to a
perturbation, so that what all perturbations share earns nothing. Hit discovery (Bereket and Leskovec 2026, PerturbHD)
asks how many of the genes that held-out cells call are found among those of largest predicted effect.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cradlevae.evaluation.metrics.registry import metric
from cradlevae.utils.types import BoolArray, FloatArray

TOP = 20
"""Genes of largest predicted effect whose precision is scored."""

BUDGET = 0.05
"""Share of the genes that can be followed up."""

FALSE_SHARE = 0.2
"""Share of the chosen genes that may be wrong."""


@metric(
    "wmse", kind="response", best=0.0, description="mean squared error, weighted by how specific a gene's response is"
)
def wmse(real: FloatArray, predicted: FloatArray, *, weights: FloatArray) -> float:
    """Weighted mean squared error: Σ_g w_g (predicted − real)², mean over perturbations."""
    return float((weights * (real - predicted) ** 2).sum(axis=1).mean())


@metric(
    "weighted_delta_r2",
    kind="response",
    best=1.0,
    description="R² of effects beyond the mean of all perturbations, weighted by how specific a gene's response is",
)
def weighted_delta_r2(real: FloatArray, predicted: FloatArray, *, weights: FloatArray) -> float:
    """Weighted R² over the genes of each perturbation of effects minus the mean real effect, mean over perturbations.

    That mean, given for every perturbation, scores 0 or less. A perturbation without any effect of its own scores 0.
    """
    mean = real.mean(axis=0)
    truth, guess = real - mean, predicted - mean
    centre = (weights * truth).sum(axis=1, keepdims=True)
    spread = (weights * (truth - centre) ** 2).sum(axis=1)
    residual = (weights * (truth - guess) ** 2).sum(axis=1)
    return float(np.mean(1.0 - np.divide(residual, spread, out=np.ones_like(spread), where=spread > 0)))


@metric("hit_precision_20", kind="response", best=1.0, description="share of hits among the 20 genes of largest effect")
def hit_precision_20(real: FloatArray, predicted: FloatArray, *, hits: BoolArray) -> float:
    """Share of the genes of largest |predicted effect| that held-out cells call, mean over perturbations with hits."""
    return _mean([found[min(TOP, len(found)) - 1] / min(TOP, len(found)) for found, _ in _ranked(predicted, hits)])


@metric("hit_recall_5pct", kind="response", best=1.0, description="share of the hits among the top 5 % of the genes")
def hit_recall_5pct(real: FloatArray, predicted: FloatArray, *, hits: BoolArray) -> float:
    """Share of the genes that held-out cells call among the 5 % of largest |predicted effect|, mean as above."""
    return _mean([found[int(np.ceil(BUDGET * len(found))) - 1] / n for found, n in _ranked(predicted, hits)])


@metric("hit_recall_fdr20", kind="response", best=1.0, description="share of the hits found with 20 % false ones")
def hit_recall_fdr20(real: FloatArray, predicted: FloatArray, *, hits: BoolArray) -> float:
    """Largest share of the hits in a choice of largest |predicted effect| of which at most a fifth are none."""
    shares = []
    for found, n in _ranked(predicted, hits):
        place = np.arange(1, len(found) + 1)
        allowed = place - found <= FALSE_SHARE * place * (1 + 1e-9)
        shares.append(found[allowed].max(initial=0.0) / n)
    return _mean(shares)


def _ranked(predicted: FloatArray, hits: BoolArray) -> Iterator[tuple[FloatArray, int]]:
    """Hits among the first 1, 2, … genes by |predicted effect|, and all hits, of each perturbation that has any.

    Of genes that are equally large, each counts as the mean of them: what a random order gives on average.
    """
    for size, hit in zip(np.abs(predicted), hits, strict=True):
        n = int(hit.sum())
        if not n:
            continue
        order = np.argsort(-size, kind="stable")
        tied = np.unique(-size[order], return_inverse=True)[1]
        share = np.bincount(tied, weights=hit[order]) / np.bincount(tied)
        yield np.cumsum(share[tied]), n


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
