"""Mean counts and dispersion of each condition, after every cell is scaled to one library size."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.moments import indicator
from cradlevae.data.storage.stored_matrix import tracked_blocks
from cradlevae.utils.constants import BLOCK_VALUES
from cradlevae.utils.types import FloatArray, IndexArray, IntArray

CONCENTRATIONS = 0.1, 50.0
"""Bounds of the concentration: beyond them, moments do not distinguish concentrations."""

FITTING_ROUNDS = 20
"""Rounds of proportional fitting of conditions and levels."""

PRIOR_CELLS = 20.0
"""Weight of the dispersion that all genes share in that of each gene, in cells."""

PRIOR_OVERDISPERSION = 0.5, 2.0
"""1 / θ of all genes together a priori, and its weight in degrees of freedom: few cells do not tell."""


@dataclass(frozen=True)
class ConditionRates:
    """Counts of each condition after every cell is scaled to one library size, so that all cells have equal weight.

    Attributes
    ----------
    total
        Sums of scaled counts, (conditions, genes).
    n_cells
        Number of cells, (conditions,).
    library_size
        Library size that the cells are scaled to: the median of their library sizes.
    dispersion
        Variance within conditions divided by the mean, (genes,); 1 for Poisson counts.
    concentration
        Concentration θ of a Gamma-Poisson distribution with these moments, (genes,), between 0.1 and 50.
    level_total
        Sums of scaled counts by level of a batch, covariate or context (:attr:`.Experiment.levels`), (levels, genes).
    design
        Number of cells of each condition in each stratum, (conditions, strata).
    stratum_levels
        Levels of each stratum, (strata, factors).
    """

    total: FloatArray
    n_cells: IntArray
    library_size: float
    dispersion: FloatArray
    concentration: FloatArray
    level_total: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    design: IntArray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    stratum_levels: IntArray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))


def condition_rates(data: Experiment, rows: IndexArray) -> ConditionRates:
    """Compute the rates of the conditions from these cells (ascending), in one pass over their counts."""
    n_conditions = len(data.conditions)
    condition = data.condition[rows]
    levels = data.levels[rows]
    n_levels = data.n_levels
    level_total = np.zeros((n_levels, data.n_genes))
    sizes = data.library_size[rows].astype(np.float64)
    library_size = float(np.median(sizes))
    scale = library_size / sizes
    total = np.zeros((n_conditions, data.n_genes))
    squares = np.zeros(data.n_genes)
    for part, block in tracked_blocks(data.counts, rows, "measuring conditions"):
        scaled = sp.csr_matrix(sp.diags(scale[part]) @ block)
        present, codes = np.unique(condition[part], return_inverse=True)
        total[present] += (indicator(codes, len(present)).astype(np.float64) @ scaled).toarray()
        squares += np.bincount(scaled.indices, scaled.data**2, minlength=data.n_genes)
        for of_factor in levels[part].T:
            level_total += indicator(of_factor, n_levels).astype(np.float64).dot(scaled).toarray()
    n_cells = np.bincount(condition, minlength=n_conditions)
    mean = total / np.maximum(n_cells, 1)[:, None]
    free = len(rows) - int(np.count_nonzero(n_cells))  # degrees of freedom: a mean is that of its own cells
    square = (n_cells[:, None] * mean**2).sum(axis=0)
    design, stratum_levels = np.zeros((n_conditions, 1), dtype=np.int64), np.zeros((1, 0), dtype=np.int64)
    if n_levels:
        stratum_levels, strata = np.unique(levels, axis=0, return_inverse=True)
        n_strata = len(stratum_levels)
        design = np.bincount(condition * n_strata + strata.ravel(), minlength=n_conditions * n_strata)
        design = design.reshape(n_conditions, n_strata)
        free -= n_levels - len(data.varied)
        square = _fitted_squares(total, level_total, design, stratum_levels)
    scatter = np.maximum(squares - square, 0.0) * len(rows) / max(free, 1)
    # a count of mean λ scaled by s has the variance s²λ, that is s times its scaled mean
    counting_variance = (np.bincount(condition, scale, minlength=n_conditions)[:, None] * mean).sum(axis=0)
    shared = _shared_overdispersion(scatter - counting_variance, square, len(rows), free)
    expected = counting_variance + shared * square
    scatter = (free * scatter + PRIOR_CELLS * expected) / (free + PRIOR_CELLS)
    excess = np.maximum(scatter - counting_variance, 1e-12)
    concentration = np.clip(square / excess, *CONCENTRATIONS)
    dispersion = np.where(total.sum(axis=0) > 0, scatter / np.maximum(total.sum(axis=0), 1e-12), 1.0)
    return ConditionRates(
        total, n_cells, library_size, np.maximum(dispersion, 1e-2), concentration, level_total, design, stratum_levels
    )


def _fitted_squares(
    total: FloatArray, level_total: FloatArray, design: IntArray, stratum_levels: IntArray
) -> FloatArray:
    """Sums over cells of the squared mean of their condition and stratum, (genes,).

    The means are the product of a factor of the condition and one of each level that has the sums of both (a log-linear
    model, by iterative proportional fitting), so that no table of conditions × strata × genes is needed.
    """
    n_genes = total.shape[1]
    square = np.zeros(n_genes)
    step = max(1, BLOCK_VALUES // max(len(total), len(stratum_levels)))
    for start in range(0, n_genes, step):
        part = slice(start, start + step)
        of_condition = total[:, part] / np.maximum(design.sum(axis=1), 1)[:, None]
        of_level = np.ones_like(level_total[:, part])
        for _ in range(FITTING_ROUNDS):
            of_stratum = of_level[stratum_levels].prod(axis=1)
            of_condition = total[:, part] / np.maximum(design @ of_stratum, 1e-9)
            for factor in stratum_levels.T:
                of_stratum = of_level[stratum_levels].prod(axis=1)
                expected = np.zeros_like(of_level)
                np.add.at(expected, factor, of_stratum * (design.T @ of_condition))
                used = np.unique(factor)
                of_level[used] *= (level_total[used, part] + 0.5) / (expected[used] + 0.5)
        square[part] = (of_condition**2 * (design @ of_level[stratum_levels].prod(axis=1) ** 2)).sum(axis=0)
    return square


def _shared_overdispersion(excess: FloatArray, square: FloatArray, n_cells: int, free: int) -> float:
    """1 / θ of all genes together, each with the weight that its mean gives it.

    Parameters
    ----------
    excess
        Scatter within conditions beyond that of counting, (genes,); below 0 where chance has it so.
    square
        Sums over cells of the squared mean of their condition, (genes,).
    n_cells
        Number of cells.
    free
        Degrees of freedom of the scatter.
    """
    smallest, largest = (1 / bound for bound in reversed(CONCENTRATIONS))
    mean = np.sqrt(square / max(n_cells, 1))
    shared, prior_free = PRIOR_OVERDISPERSION
    prior = shared * prior_free
    for _ in range(5):
        weight = 1 / (1 + shared * mean) ** 2  # square × weight is about the precision of excess / square
        own = float((weight * excess).sum()) / max(float((weight * square).sum()), 1e-12)
        shared = (free * min(max(own, smallest), largest) + prior) / (free + prior_free)
    return shared
