"""Effects measured from cells: mean and variance of every condition, and the difference from the controls.

A perturbation's effect on a gene is the mean of the gene's expression over the perturbed cells minus the
mean over the control cells. Expression is ``log2(1 + 1e4 * count / library size)`` (``scale="perturbseq"``)
or the raw count (``scale="mean"``). Only the conditions × genes tables of sums are dense.

Where cells are of several strata (experimental batches, contexts), both means are taken within strata
(:mod:`cradlevae.data.strata`): a difference between batches is no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.labels import CONTROL
from cradlevae.data.storage.stored_matrix import CountMatrix, StoredMatrix, subset_rows
from cradlevae.data.strata import has_strata, stratum_weights
from cradlevae.errors import DataError
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.types import AnyIntArray, FloatArray, IndexArray, IntArray

Scale = Literal["perturbseq", "mean"]
"""Scale of expression: log2(1 + 1e4·x/Σx), or counts."""

EXPRESSION_CELLS = 8192
"""Number of cells that are transformed together."""

PRIOR_CELLS = 20.0
"""Weight, in cells, of the variance pooled over conditions in each condition, and of that of similar genes in a gene's.
"""

SIMILAR_GENES = 25
"""Genes of similar expression whose variances are averaged."""


@dataclass(frozen=True)
class ConditionMoments:
    """Mean and variance of every gene in every condition.

    Attributes
    ----------
    names
        Canonical names of the conditions, ``control`` among them, (conditions,).
    n_cells
        Number of cells of each condition, (conditions,); within strata, of those in a stratum with controls.
    mean
        Mean expression, (conditions, genes); NaN where a condition has no cell. Within strata, it is the mean of the
        controls plus the effect within strata.
    variance
        Unbiased variance between cells, (conditions, genes); NaN where a condition has fewer than two cells.
    genes
        Names of the genes, (genes,), or empty.
    symbols
        Symbols of the genes, where their names are others, (genes,), or empty.
    n_effective
        Number of cells that the mean is worth beside that of the controls, (conditions,): ``n_cells``, or less where
        the condition and the controls are spread over strata unevenly.
    """

    names: tuple[str, ...]
    n_cells: IntArray
    mean: FloatArray
    variance: FloatArray
    genes: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    n_effective: FloatArray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if len(self.n_effective) != len(self.n_cells):
            object.__setattr__(self, "n_effective", np.asarray(self.n_cells, dtype=np.float64))

    def of(self, rows: Sequence[int] | IndexArray) -> ConditionMoments:
        """The moments of some conditions."""
        return replace(
            self,
            names=tuple(self.names[row] for row in rows),
            n_cells=self.n_cells[rows],
            mean=self.mean[rows],
            variance=self.variance[rows],
            n_effective=self.n_effective[rows],
        )


@dataclass(frozen=True)
class Effects:
    """Effects of perturbations against control, with their standard errors.

    Attributes
    ----------
    names
        Canonical names of the perturbed conditions, (conditions,).
    value
        Mean minus control mean, (conditions, genes); NaN where a condition has no cell.
    standard_error
        Standard error of ``value``, (conditions, genes).
    genes
        Names of the genes, (genes,), or empty.
    """

    names: tuple[str, ...]
    value: FloatArray
    standard_error: FloatArray
    genes: tuple[str, ...] = ()


def condition_moments(
    counts: CountMatrix,
    condition: AnyIntArray,
    names: Sequence[str],
    *,
    scale: Scale = "perturbseq",
    genes: Sequence[str] = (),
    symbols: Sequence[str] = (),
    strata: AnyIntArray | None = None,
    control: str = CONTROL,
) -> ConditionMoments:
    """Compute the mean and variance of expression in each condition, gene by gene.

    Parameters
    ----------
    counts
        Raw counts, (cells, genes), sparse; any numeric type; in memory or on disk.
    condition
        Position of each cell's condition in ``names``, (cells,); a negative code leaves the cell out.
    names
        Canonical names of the conditions.
    scale
        ``"perturbseq"``: log2(1 + 1e4·x/Σx). ``"mean"``: the counts themselves.
    genes
        Names of the genes, stored with the moments.
    symbols
        Their symbols, where their names are others, stored with the moments too.
    strata
        Stratum (experimental batch, context) of each cell, (cells,): means are then taken within strata. ``None``, or
        one stratum, compares all cells of a condition with all controls.
    control
        Name of the controls, for comparisons within strata.

    Notes
    -----
    A cell without counts counts as a cell and contributes 0 to every gene.
    Sums are float64 whatever the counts are.

    Raises
    ------
    DataError
        If the lengths of ``counts``, ``condition``, ``names`` and ``genes`` do not fit.
    """
    matrix = counts if isinstance(counts, StoredMatrix) else sp.csr_matrix(counts)
    condition = np.asarray(condition)
    check_codes(matrix, condition, names)
    if len(genes) not in (0, matrix.shape[1]):
        raise DataError(f"{len(genes)} gene names for {matrix.shape[1]} genes; give one name per gene")
    if strata is not None and has_strata(condition, strata) and control in names:
        return _within_strata(matrix, condition, names, strata, control, scale, tuple(genes), tuple(symbols))
    total = np.zeros((len(names), matrix.shape[1]))
    total_squared = np.zeros_like(total)
    for part, block in expression_blocks(matrix, scale):
        incidence = indicator(condition[part], len(names))
        _add(total, incidence @ block)
        _add(total_squared, incidence @ block.power(2))
    n_cells = np.bincount(condition[condition >= 0], minlength=len(names)).astype(np.int64)
    mean, variance = moments_of_sums(n_cells, total, total_squared)
    return ConditionMoments(tuple(names), n_cells, mean, variance, tuple(genes), tuple(symbols))


def _within_strata(
    counts: CountMatrix,
    condition: AnyIntArray,
    names: Sequence[str],
    strata: AnyIntArray,
    control: str,
    scale: Scale,
    genes: tuple[str, ...],
    symbols: tuple[str, ...],
) -> ConditionMoments:
    """Moments within strata, in two passes: over the controls of each stratum, and over all cells less these."""
    base = list(names).index(control)
    weights = stratum_weights(condition, np.asarray(strata), len(names), base)
    n_strata, n_genes = weights.n_cells.shape[1], counts.shape[1]
    of_controls = np.where(condition == base, weights.codes, -1)
    rows = np.flatnonzero(of_controls >= 0)
    sums = np.zeros((n_strata, n_genes))
    for part, block in expression_blocks(subset_rows(counts, rows), scale):
        _add(sums, indicator(of_controls[rows[part]], n_strata) @ block)
    level = sums / np.maximum(weights.n_controls, 1)[:, None]  # of the controls of each stratum

    weight = weights.of_cells(condition)
    told = np.where(weight > 0, condition, -1)
    weighted, total, squares = np.zeros((3, len(names), n_genes))
    for part, block in expression_blocks(counts, scale):
        incidence = indicator(told[part], len(names))
        _add(weighted, incidence @ sp.csr_matrix(sp.diags(weight[part]) @ block))
        _add(total, incidence @ block)
        own = level[np.repeat(weights.codes[part], np.diff(block.indptr)), block.indices]
        block.data = block.data * (block.data - 2 * own)  # (x − level)² less level², which is added below
        _add(squares, incidence @ block)
    n_cells = weights.n_cells.sum(axis=1)
    mean = level.T @ weights.share[base] + (weighted - weights.share @ level)
    total -= weights.n_cells @ level
    squares += weights.n_cells @ level**2
    free = n_cells - 1
    free[base] = n_cells[base] - np.count_nonzero(weights.n_controls)
    _, variance = moments_of_sums(n_cells, total, squares)
    variance *= (np.maximum(n_cells - 1, 1) / np.maximum(free, 1))[:, None]
    variance[free < 1] = np.nan
    mean[n_cells == 0] = np.nan
    return ConditionMoments(tuple(names), n_cells, mean, variance, genes, symbols, weights.n_effective)


def measured_effects(moments: ConditionMoments, control: str = CONTROL) -> Effects:
    """Subtract the mean of the controls from the mean of each perturbation, with standard errors.

    ``se² = variance_t / n_t + variance_control / n_control``. A condition with one cell has no variance of
    its own; the variance of the controls replaces it, so that its effect does not count as exact.

    Raises
    ------
    DataError
        If there are no control cells.
    """
    base = control_row(moments, control)
    perturbed = np.array([row for row in range(len(moments.names)) if row != base], dtype=np.int64)
    n_cells = moments.n_cells[perturbed, None]
    variance = np.where(n_cells == 1, moments.variance[base], moments.variance[perturbed])
    own = variance / np.where(n_cells == 0, 1, moments.n_effective[perturbed, None])
    squared = own + moments.variance[base] / moments.n_cells[base]
    return Effects(
        tuple(moments.names[row] for row in perturbed),
        moments.mean[perturbed] - moments.mean[base],
        np.sqrt(squared),
        moments.genes,
    )


def control_row(moments: ConditionMoments, control: str = CONTROL) -> int:
    """Return the row of the controls in ``moments``; :class:`DataError` unless there are at least two control cells."""
    if control not in moments.names:
        raise DataError(f"no condition is named {control!r}: effects are measured against control cells")
    row = moments.names.index(control)
    if moments.n_cells[row] < 2:
        raise DataError(f"{moments.n_cells[row]} {control!r} cells: effects need at least two control cells")
    return row


def pooled_variance(moments: ConditionMoments) -> FloatArray:
    """Compute the variance between the cells of a condition, pooled over conditions, (genes,)."""
    free = np.maximum(moments.n_cells - 1, 0).astype(np.float64)
    return np.asarray(free @ np.nan_to_num(moments.variance) / max(float(free.sum()), 1.0))


def steadied_variance(moments: ConditionMoments) -> FloatArray:
    """Compute the variance within conditions, steadied by that of genes of similar mean, (genes,).

    The variance of a gene between a few cells is often far too small by chance: three cells with a count of 1 each have
    none. It is averaged with the mean variance of the genes whose mean expression is nearest, which weighs as much as
    :data:`PRIOR_CELLS` cells; many cells outweigh it. A gene without counts has no variance.
    """
    free = float(np.maximum(moments.n_cells - 1, 0).sum())
    pooled = pooled_variance(moments)
    level = moments.n_cells @ np.nan_to_num(moments.mean)
    order = np.argsort(level, kind="stable")
    order = order[level[order] > 0]
    if len(order) == 0:
        return pooled
    width = min(SIMILAR_GENES, len(order))
    first = np.clip(np.arange(len(order)) - width // 2, 0, len(order) - width)
    sums = np.concatenate([[0.0], np.cumsum(pooled[order])])
    steadied = pooled.copy()
    of_similar = (sums[first + width] - sums[first]) / width
    steadied[order] = (free * pooled[order] + PRIOR_CELLS * of_similar) / (free + PRIOR_CELLS)
    return steadied


def moderated_variance(moments: ConditionMoments) -> FloatArray:
    """Compute the variance in each condition, moderated by that of all conditions, (conditions, genes).

    It is the weighted mean of the condition's own variance (weight: its degrees of freedom) and of the steadied
    variance of all conditions (weight: :data:`PRIOR_CELLS`). Where a rare gene was not detected in any cell of a
    condition, the condition's own variance is 0, and its effect on that gene would count as exact.
    """
    free = np.maximum(moments.n_cells - 1, 0).astype(np.float64)[:, None]
    own = np.where(free > 0, moments.variance, 0.0)
    return np.asarray((free * own + PRIOR_CELLS * steadied_variance(moments)) / (free + PRIOR_CELLS))


def condition_codes(data: Experiment, rows: IndexArray, names: Sequence[str]) -> IntArray:
    """Return the position of each cell's condition in ``names``, (rows,); −1 for a cell of another condition."""
    position = {name: index for index, name in enumerate(names)}
    table = np.array([position.get(name, -1) for name in data.conditions])
    return np.asarray(table[data.condition[rows]])


def expression_blocks(counts: CountMatrix, scale: Scale = "perturbseq") -> Iterator[tuple[slice, sp.csr_matrix]]:
    """Yield ``(slice of cells, expression)``, the expression as a new CSR float64 block, (cells, genes)."""
    if scale not in ("perturbseq", "mean"):
        raise DataError(f"unknown scale {scale!r}; use 'perturbseq' or 'mean'")
    for start in range(0, counts.shape[0], EXPRESSION_CELLS):
        part = slice(start, min(start + EXPRESSION_CELLS, counts.shape[0]))
        block = sp.csr_matrix(counts[part], dtype=np.float64)
        block.sum_duplicates()
        if scale == "perturbseq":
            block.data = np.log2(1.0 + TARGET_SUM * library_share(block))
        yield part, block


def log_expression(counts: CountMatrix) -> sp.csr_matrix:
    """log2(1 + 1e4·x/Σx) of every count, (cells, genes), sparse, float64; a cell without counts is all zero."""
    return sp.csr_matrix(sp.vstack([block for _, block in expression_blocks(counts)], format="csr"))


def library_share(counts: sp.csr_matrix) -> FloatArray:
    """Divide each stored count by its cell's library size; the order is that of ``counts.data``."""
    library_size = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    per_entry = np.repeat(library_size, np.diff(counts.indptr))
    values = counts.data.astype(np.float64)
    # A cell without counts may still store explicit zeros: its shares are 0, not 0/0.
    return np.divide(values, per_entry, out=np.zeros_like(values), where=per_entry > 0)


def indicator(codes: AnyIntArray, n_groups: int) -> sp.csr_matrix:
    """Build the sparse 0/1 incidence matrix, (groups, cells), of cells in groups; negative codes are in no group."""
    cells = np.flatnonzero(codes >= 0)
    ones = np.ones(len(cells))
    return sp.csr_matrix((ones, (codes[cells], cells)), shape=(n_groups, len(codes)))


def moments_of_sums(n_cells: IntArray, total: FloatArray, total_squared: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Compute the mean and the unbiased variance from sums of values and of squares, both (conditions, genes)."""
    n = n_cells[:, None].astype(np.float64)
    mean = np.where(n > 0, total / np.maximum(n, 1.0), np.nan)
    # Differences of large sums can fall a rounding error below zero.
    spread = np.maximum(total_squared - total**2 / np.maximum(n, 1.0), 0.0)
    variance = np.where(n > 1, spread / np.maximum(n - 1.0, 1.0), np.nan)
    return mean, variance


def check_codes(counts: CountMatrix, condition: AnyIntArray, names: Sequence[str]) -> None:
    """Raise :class:`DataError` unless there is one valid condition code per cell and names are unique."""
    if condition.ndim != 1 or len(condition) != counts.shape[0]:
        raise DataError(
            f"condition codes of shape {condition.shape} for {counts.shape[0]} cells; give one code per cell"
        )
    if condition.dtype.kind not in "iu":
        raise DataError(f"condition codes have dtype {condition.dtype}; give integer positions in names")
    if len(condition) and int(condition.max()) >= len(names):
        raise DataError(f"condition code {int(condition.max())} but only {len(names)} names")
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise DataError(f"condition {twice!r} is named twice; names must be unique")


def _add(total: FloatArray, addend: sp.csr_matrix) -> None:
    """Add a sparse matrix to a dense one in place, without a dense copy."""
    entries = addend.tocoo()
    total[entries.row, entries.col] += entries.data  # a product's entries are unique
