"""Effects measured from cells: mean and variance of every condition, and the difference from the controls.

A perturbation's effect on a gene is the mean of the gene's expression over the perturbed cells minus the
mean over the control cells. Expression is ``log2(1 + 1e4 * count / library size)`` (``scale="perturbseq"``)
or the raw count (``scale="mean"``). Only the conditions × genes tables of sums are dense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.labels import CONTROL
from cradlevae.data.storage.stored_matrix import CountMatrix, StoredMatrix
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
        Number of cells of each condition, (conditions,).
    mean
        Mean expression, (conditions, genes); NaN where a condition has no cell.
    variance
        Unbiased variance between cells, (conditions, genes); NaN where a condition has fewer than two cells.
    genes
        Names of the genes, (genes,), or empty.
    symbols
        Symbols of the genes, where their names are others, (genes,), or empty.
    """

    names: tuple[str, ...]
    n_cells: IntArray
    mean: FloatArray
    variance: FloatArray
    genes: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()


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
    total = np.zeros((len(names), matrix.shape[1]))
    total_squared = np.zeros_like(total)
    for part, block in expression_blocks(matrix, scale):
        incidence = indicator(condition[part], len(names))
        _add(total, incidence @ block)
        _add(total_squared, incidence @ block.power(2))
    n_cells = np.bincount(condition[condition >= 0], minlength=len(names)).astype(np.int64)
    mean, variance = moments_of_sums(n_cells, total, total_squared)
    return ConditionMoments(tuple(names), n_cells, mean, variance, tuple(genes), tuple(symbols))


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
    own = variance / np.maximum(n_cells, 1)
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
