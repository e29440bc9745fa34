"""Differentially expressed genes from cells, and how well two sets of them agree.

Wilcoxon rank-sum test of every perturbation against the controls, gene by gene, with tie correction and
without continuity correction, Benjamini-Hochberg within each perturbation. Ranks are those of
log-normalised expression; since the logarithm keeps the order they are computed on count / library size,
where equal shares are exactly equal. Zeros are one tie whose size is known, so only non-zero counts are
ever sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cradlevae.data.labels import CONTROL
from cradlevae.data.moments import check_codes, library_share
from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.utils.types import AnyIntArray, BoolArray, FloatArray


@dataclass(frozen=True)
class DETest:
    """Rank-sum tests of perturbations against control.

    Attributes
    ----------
    names
        Canonical names of the perturbed conditions, (conditions,).
    z
        Standardised rank sum, positive where the gene is higher than in controls, (conditions, genes); 0
        where there is nothing to test (no cells, or one value throughout).
    p_value, q_value
        Two-sided p and its Benjamini-Hochberg adjustment over the genes of a condition, (conditions, genes).
    """

    names: tuple[str, ...]
    z: FloatArray
    p_value: FloatArray
    q_value: FloatArray

    def significant(self, fdr: float = 0.05) -> BoolArray:
        """Which genes are differentially expressed, (conditions, genes)."""
        return np.asarray(self.q_value < fdr)


def rank_sum_tests(
    counts: sp.csr_matrix,
    condition: AnyIntArray,
    names: Sequence[str],
    *,
    control: str = CONTROL,
) -> DETest:
    """Wilcoxon rank-sum test of every condition against the controls.

    Parameters
    ----------
    counts
        Raw counts, (cells, genes), sparse.
    condition
        Position of each cell's condition in ``names``, (cells,); a negative code leaves the cell out.
    names
        Canonical names of the conditions, the control among them.
    control
        Name of the control condition.

    Notes
    -----
    Agrees with ``scipy.stats.mannwhitneyu(..., method="asymptotic", use_continuity=False)``. The work is
    one sort of the non-zero counts of each gene, whatever the number of conditions.

    Raises
    ------
    DataError
        If there are no control cells, or codes and cells do not fit.
    """
    from scipy.special import erfc
    from scipy.stats import false_discovery_control

    matrix = sp.csr_matrix(counts)
    condition = np.asarray(condition)
    check_codes(matrix, condition, names)
    if control not in names or not (condition == list(names).index(control)).any():
        raise DataError(f"no {control!r} cells: differential expression is tested against control cells")
    base = list(names).index(control)
    shares = _shares_by_gene(matrix, condition)
    n_cells = np.bincount(condition[condition >= 0], minlength=len(names)).astype(np.float64)
    z = np.zeros((len(names), matrix.shape[1]))
    assigned = condition[condition >= 0]
    for gene in range(matrix.shape[1]):
        stored = slice(shares.indptr[gene], shares.indptr[gene + 1])
        values, groups = shares.data[stored], assigned[shares.indices[stored]]
        z[:, gene] = _standardised_rank_sums(values[values > 0], groups[values > 0], n_cells, base)
    perturbed = [row for row in range(len(names)) if row != base]
    z = z[perturbed]
    p_value = np.asarray(erfc(np.abs(z) / np.sqrt(2.0)))
    q_value = false_discovery_control(p_value, axis=1) if p_value.size else p_value
    return DETest(tuple(names[row] for row in perturbed), z, p_value, q_value)


def _shares_by_gene(matrix: sp.csr_matrix, condition: AnyIntArray) -> sp.csc_matrix:
    """Count / library size of the cells that have a condition, by column."""
    shares = sp.csr_matrix(matrix[np.flatnonzero(condition >= 0)], dtype=np.float64)
    shares.sum_duplicates()
    shares.data = library_share(shares)
    return sp.csc_matrix(shares)


def _standardised_rank_sums(values: FloatArray, groups: AnyIntArray, n_cells: FloatArray, base: int) -> FloatArray:
    """Tie-corrected z of one gene for every condition against condition ``base``, (conditions,).

    ``values`` and ``groups`` are the gene's non-zero values and their conditions, ``n_cells`` all cells of
    each.
    """
    n_groups = len(n_cells)
    controls = np.sort(values[groups == base])
    n_control = n_cells[base]
    zeros = n_cells - np.bincount(groups, minlength=n_groups)
    # Pairs (perturbed cell, control cell) in which the perturbed cell is higher; ties count half.
    below = np.searchsorted(controls, values, side="left")
    not_above = np.searchsorted(controls, values, side="right")
    beaten = zeros[base] + 0.5 * (below + not_above)
    wins = np.bincount(groups, weights=beaten, minlength=n_groups) + 0.5 * zeros * zeros[base]

    ties = _tie_terms(values, groups, controls, n_groups) + _cubed(zeros + zeros[base])
    n = n_cells + n_control
    variance = n_cells * n_control / 12.0 * (n + 1.0 - ties / np.maximum(n * (n - 1.0), 1.0))
    centred = wins - 0.5 * n_cells * n_control
    # One value throughout leaves no variance but rounding: there is nothing to test.
    testable = variance > 1e-6 * np.maximum(n_cells, 1.0) * n_control
    deviation = np.sqrt(np.maximum(variance, 0.0))
    return np.asarray(np.divide(centred, deviation, out=np.zeros(n_groups), where=testable))


def _tie_terms(values: FloatArray, groups: AnyIntArray, controls: FloatArray, n_groups: int) -> FloatArray:
    """Sum of t³ − t over the tied non-zero values of each condition and the controls, (conditions,)."""
    control_value, control_size = np.unique(controls, return_counts=True)
    alone = _cubed(control_size.astype(np.float64)).sum()
    if not len(values):
        return np.full(n_groups, alone)
    order = np.lexsort((values, groups))
    value, group = values[order], groups[order]
    first = np.flatnonzero(np.r_[True, (value[1:] != value[:-1]) | (group[1:] != group[:-1])])
    size = np.diff(np.r_[first, len(value)]).astype(np.float64)
    value, group = value[first], group[first]
    shared = np.zeros(len(value))
    if len(control_value):
        position = np.minimum(np.searchsorted(control_value, value), len(control_value) - 1)
        shared = np.where(control_value[position] == value, control_size[position], 0).astype(np.float64)
    more = _cubed(size + shared) - _cubed(shared)
    return np.asarray(alone + np.bincount(group, weights=more, minlength=n_groups))


def _cubed(size: FloatArray) -> FloatArray:
    return np.asarray(size**3 - size)


@metric(
    "de_overlap",
    kind="de",
    best=1.0,
    description="share of the real DE genes among as many predicted ones, mean over perturbations",
)
def de_overlap(real: DETest, predicted: DETest, *, fdr: float = 0.05) -> float:
    """Share of a perturbation's real DE genes that the prediction finds, mean over perturbations.

    Where the prediction has more DE genes than there are real ones, only as many of its strongest (by |z|)
    count, so that calling every gene earns nothing. Perturbations without real DE genes are left out; NaN
    if all are.

    Parameters
    ----------
    real, predicted
        Tests of the same perturbations and genes, from real and from generated cells.
    fdr
        False discovery rate below which a gene is differentially expressed.

    Raises
    ------
    DataError
        If the perturbations or genes of the two do not agree.
    """
    _check_same(real, predicted)
    shares = []
    for truth, called, strength in zip(
        real.significant(fdr), predicted.significant(fdr), np.abs(predicted.z), strict=True
    ):
        if truth.any():
            ranked = np.argsort(-np.where(called, strength, -1.0), kind="stable")
            chosen = ranked[: min(int(called.sum()), int(truth.sum()))]
            shares.append(truth[chosen].sum() / truth.sum())
    return float(np.mean(shares)) if shares else float("nan")


@metric(
    "de_direction",
    kind="de",
    best=1.0,
    description="share of the real DE genes predicted to move the right way, mean over perturbations",
)
def de_direction(real: DETest, predicted: DETest, *, fdr: float = 0.05) -> float:
    """Share of a perturbation's real DE genes predicted to move the right way, mean over perturbations.

    The predicted change need not be significant; no change at all is wrong. Perturbations without real DE
    genes are left out; NaN if all are. Parameters and errors as :func:`de_overlap`.
    """
    _check_same(real, predicted)
    agree = np.sign(real.z) == np.sign(predicted.z)
    shares = [
        float(right[truth].mean()) for right, truth in zip(agree, real.significant(fdr), strict=True) if truth.any()
    ]
    return float(np.mean(shares)) if shares else float("nan")


def _check_same(real: DETest, predicted: DETest) -> None:
    if real.names != predicted.names or real.z.shape != predicted.z.shape:
        raise DataError(
            "the two sets of tests must be of the same perturbations and genes, in the same order "
            f"(real {real.z.shape}, predicted {predicted.z.shape})"
        )
