"""Which genes vary together between cells of a condition, and so are likely to be moved together by a perturbation."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cradlevae.data.moments import expression_blocks, indicator
from cradlevae.data.storage.stored_matrix import CountMatrix, cells_within, subset_rows
from cradlevae.utils.types import AnyIntArray, FloatArray, IndexArray

CELLS = 20_000
"""Most cells that are looked at (a tenth more at most)."""

VALUES = 1e7
"""Most positive counts that are looked at, or so."""

NEIGHBOURS = 10
"""So many cells of a group are taken together: what they vary by is told within their group alone."""

LOADINGS = 40
GENES_PER_LOADING = 7
"""Number of principal components: so many, or one for so many genes where these are few."""

TOLERANCE = 1e-4
"""Relative error of the variances of components."""

TOGETHER = 0.5
"""Share of a gene's prior variance that it has in common with others, where very many cells tell of it."""

PRIOR_CELLS = 5.0
"""Cells for each gene that halve this share: components of few cells are noise."""


def gene_loadings(counts: CountMatrix, rows: IndexArray, group: AnyIntArray) -> FloatArray:
    """Principal components of the correlation of genes between cells of a group, (genes, components).

    Parameters
    ----------
    counts
        Raw counts, (cells, genes).
    rows
        Cells to look at.
    group
        Group of each of these (its condition, and stratum), (rows,).

    Returns
    -------
    L, whose rows all have the same length, at most the root of :data:`TOGETHER`; those of genes without variance are 0.
    Without components where genes or cells are too few.
    """
    chosen = _chosen(group, cells_within(counts, CELLS, VALUES, least=1))
    rows, group = rows[chosen], np.unique(group[chosen], return_inverse=True)[1]
    n_genes, n_groups = counts.shape[1], int(group.max(initial=-1)) + 1
    free = len(rows) - n_groups
    if n_genes < GENES_PER_LOADING or free < 1:
        return np.zeros((n_genes, 0))
    expression = sp.vstack([block for _, block in expression_blocks(subset_rows(counts, rows))]).tocsr()
    n_cells = np.bincount(group, minlength=n_groups)
    mean = sp.csr_matrix(sp.diags(1 / n_cells) @ (indicator(group, n_groups) @ expression))  # groups may be many
    squares = np.asarray(expression.power(2).sum(axis=0)).ravel()
    variance = np.maximum(squares - np.asarray(mean.power(2).T @ n_cells), 0.0) / free
    known = variance > 1e-12 + 1e-12 * squares  # what rounding leaves is none
    rank = min(LOADINGS, int(known.sum()) // GENES_PER_LOADING)
    if rank < 1 or free <= rank:
        return np.zeros((n_genes, 0))
    scale = np.where(known, 1 / np.sqrt(np.where(known, variance * free, 1.0)), 0.0)
    together = TOGETHER * free / (free + PRIOR_CELLS * n_genes)
    return float(together**0.5) * _components(expression, mean, n_cells, scale, rank)


def _chosen(group: AnyIntArray, most: int) -> IndexArray:
    """Positions of at most so many cells or so, spread over groups, with others of their group; ascending."""
    step = -(-len(group) // most)
    if step <= 1:
        return np.arange(len(group))
    place = np.arange(len(group)) // NEIGHBOURS % step == 0
    return np.sort(np.argsort(group, kind="stable")[place])


def _components(
    expression: sp.csr_matrix, mean: sp.csr_matrix, n_cells: AnyIntArray, scale: FloatArray, rank: int
) -> FloatArray:
    """Largest principal components of the correlation, never formed, with rows of unit length, (genes, rank)."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    n_genes = len(scale)
    transposed, of_groups = expression.T.tocsr(), mean.T.tocsr()

    def times(vector: FloatArray) -> FloatArray:
        scaled = scale * np.asarray(vector).ravel()
        return np.asarray(scale * (transposed @ (expression @ scaled) - of_groups @ (n_cells * (mean @ scaled))))

    correlation = LinearOperator((n_genes, n_genes), matvec=times, dtype=np.float64)
    size, direction = eigsh(correlation, k=rank, v0=scale * 1.0, tol=TOLERANCE)
    loadings = np.asarray(direction * np.sqrt(np.maximum(size, 0.0)), dtype=np.float64)
    length = np.sqrt((loadings**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(loadings, length, out=np.zeros_like(loadings), where=length > 1e-6))
