"""Batches and contexts of a simulated experiment: which cells are of which, and what they do to the genes.

A *batch* (a 10x lane, a replicate) is a nuisance: it shifts the log rate of every gene, whatever the cell. A *context*
(a cell line, a donor) is of interest: it shifts the log rates as well, and the effect of a perturbation may depend on
it.
The log rate of gene g in a cell of condition t, batch b and context c is

    the rate of an experiment without either + B_bg + C_cg + Σ D_scg over the single perturbations s of t,

up to the normalisation to the cell's library size. B_bg ~ Normal(0, batch_sd²), C_cg ~ Normal(0, CONTEXT_SD²), and

    D_sc = a_sc δ_s + e_sc on the genes that respond to s, 0 elsewhere,

where δ_s are the log rates that the perturbation adds. Half of the variance of D is a gain: the context answers as a
whole more or less strongly (a_sc ~ Normal(0, ½ context_sd² / mean δ_s²)). The other half is each gene's own
(e_scg ~ Normal(0, ½ context_sd²)). Marker genes respond to no perturbation, so that a context does not make the cells
of a perturbation fail quality control.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cradlevae.data.dosage import dosage_table
from cradlevae.data.simulation.design import Design
from cradlevae.data.simulation.ground_truth import GroundTruth
from cradlevae.utils.types import Float32Array, FloatArray, IntArray

CONTEXT_SD = 0.5
"""Sd over genes of a context's shift of the log rate, log2 units: about twice that of a batch."""

LN2 = np.float32(np.log(2.0))
"""Natural log units per log2 unit."""


@dataclass(frozen=True)
class Strata:
    """The batch and the context of each cell.

    Attributes
    ----------
    batch, context
        Number of each cell's batch and context, from 0, (cells,).
    """

    batch: IntArray
    context: IntArray


@dataclass(frozen=True)
class StrataEffects:
    """What batches and contexts do to log rates, in log2 units.

    Attributes
    ----------
    batch_effects
        Shift of the log rate of a gene in a batch, (batches, genes).
    context_effects
        Shift of the log rate of a gene in a context, (contexts, genes).
    context_deviations
        What a perturbation adds to its effect in a context, (perturbations, contexts, genes).
    dosage
        Which single perturbations a condition consists of, 0/1, (conditions, perturbations).
    """

    batch_effects: Float32Array
    context_effects: Float32Array
    context_deviations: Float32Array
    dosage: Float32Array

    def log_shift(self, condition: IntArray, strata: Strata) -> Float32Array | None:
        """Shift of the log rates of cells, natural log, (cells, genes); ``None`` where no cell is ever shifted.

        Parameters
        ----------
        condition
            Position of each cell's condition in the truth's conditions, (cells,).
        strata
            Batch and context of each cell.
        """
        if not self._shifts:
            return None
        shift = self.batch_effects[strata.batch] + self.context_effects[strata.context]
        if self._deviates:
            for context in np.unique(strata.context):
                rows = strata.context == context
                shift[rows] += self.dosage[condition[rows]] @ self.context_deviations[:, context]
        shift *= LN2
        return np.asarray(shift)

    @cached_property
    def _deviates(self) -> bool:
        return bool(self.context_deviations.any())

    @cached_property
    def _shifts(self) -> bool:
        return bool(self.batch_effects.any() or self.context_effects.any() or self._deviates)


def assign_strata(
    design: Design, condition: IntArray, batch_rng: np.random.Generator, context_rng: np.random.Generator
) -> Strata:
    """Draw batch and context of each cell.

    The sizes are as even as they can be: those of the batches, but for the cells that confounding puts elsewhere, and
    those of the contexts among the cells that share condition and batch.

    Parameters
    ----------
    design
        Numbers of batches and contexts, and the confounding of perturbations and batches.
    condition
        Position of each cell's condition, 0 for controls, (cells,).
    batch_rng, context_rng
        Sources of randomness of the two.
    """
    batch = np.zeros(len(condition), dtype=np.int64)
    order = np.lexsort((batch_rng.random(len(condition)), condition))
    sizes = np.bincount(condition)
    place = np.arange(len(condition)) - (np.cumsum(sizes) - sizes)[condition[order]]
    n_own = np.round(design.confounding * sizes)
    n_own[0] = 0
    own = place < n_own[condition[order]]
    batch[order[own]] = (condition[order[own]] - 1) % design.n_batches
    batch[order[~own]] = np.arange((~own).sum()) % design.n_batches

    context = np.zeros(len(condition), dtype=np.int64)
    order = np.lexsort((context_rng.random(len(condition)), batch, condition))
    context[order] = np.arange(len(condition)) % design.n_contexts
    return Strata(batch, context)


def draw_strata_effects(
    design: Design,
    truth: GroundTruth,
    *,
    batch_sd: float,
    context_sd: float,
    batch_rng: np.random.Generator,
    context_rng: np.random.Generator,
) -> StrataEffects:
    """Draw what batches and contexts do to log rates; a single batch, or context, does nothing.

    Parameters
    ----------
    design
        Numbers of batches and contexts.
    truth
        The perturbations and what they do to the genes.
    batch_sd, context_sd
        See :func:`cradlevae.data.simulation.simulate.simulate`, log2 units.
    batch_rng, context_rng
        Sources of randomness of the two.
    """
    n_genes, n_contexts = len(truth.genes), design.n_contexts
    batch_effects = np.zeros((design.n_batches, n_genes))
    if design.n_batches > 1:
        batch_effects = batch_sd * batch_rng.standard_normal(batch_effects.shape)
    context_effects = np.zeros((n_contexts, n_genes))
    deviations = np.zeros((len(truth.perturbations), n_contexts, n_genes), dtype=np.float32)
    if n_contexts > 1:
        context_effects = CONTEXT_SD * context_rng.standard_normal(context_effects.shape)
        responses = (truth.mask * truth.embedding) @ truth.loadings_perturbation.T / LN2
        for response, own in zip(responses, deviations, strict=True):
            own[:] = _deviations(response, n_contexts, context_sd, context_rng)
    return StrataEffects(
        batch_effects=batch_effects.astype(np.float32),
        context_effects=context_effects.astype(np.float32),
        context_deviations=deviations,
        dosage=dosage_table(truth.conditions, truth.perturbations),
    )


def _deviations(response: Float32Array, n_contexts: int, sd: float, rng: np.random.Generator) -> FloatArray:
    """Draw the deviations of one perturbation with log2 response ``response``, (contexts, genes)."""
    gain = rng.standard_normal((n_contexts, 1))
    own = rng.standard_normal((n_contexts, len(response)))
    responds = response != 0
    if not responds.any():
        return np.zeros_like(own)
    profile = response / np.sqrt(np.mean(response[responds] ** 2))
    return np.asarray(sd * np.sqrt(0.5) * (gain * profile + own * responds))
