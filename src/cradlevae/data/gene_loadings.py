"""Which genes vary together between cells of a condition, and so are likely to be moved together by a perturbation."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cradlevae.data.moments import expression_blocks, indicator
from cradlevae.data.storage.stored_matrix import CountMatrix, subset_rows
from cradlevae.utils.types import AnyIntArray, FloatArray, IndexArray

CELLS = 20_000
"""Most cells that are looked at."""

LOADINGS = 40
GENES_PER_LOADING = 7
"""Number of principal components: so many, or one for so many genes where these are few."""

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
    step = -(-len(rows) // CELLS)
    rows, group = rows[::step], np.unique(group[::step], return_inverse=True)[1]
    n_genes, n_groups = counts.shape[1], int(group.max(initial=-1)) + 1
    free = len(rows) - n_groups
    rank = min(LOADINGS, n_genes // GENES_PER_LOADING)
    if rank < 1 or free <= rank:
        return np.zeros((n_genes, 0))
    expression = sp.vstack([block for _, block in expression_blocks(subset_rows(counts, rows))]).tocsr()
    n_cells = np.bincount(group, minlength=n_groups)
    mean = np.asarray((indicator(group, n_groups) @ expression).todense()) / n_cells[:, None]
    squares = np.asarray(expression.multiply(expression).sum(axis=0)).ravel()
    variance = np.maximum(squares - n_cells @ mean**2, 0.0) / free
    known = variance > 1e-12
    scale = np.where(known, 1 / np.sqrt(np.where(known, variance * free, 1.0)), 0.0)
    together = TOGETHER * free / (free + PRIOR_CELLS * n_genes)
    return float(together**0.5) * _components(expression, mean, n_cells, scale, rank)


def _components(
    expression: sp.csr_matrix, mean: FloatArray, n_cells: AnyIntArray, scale: FloatArray, rank: int
) -> FloatArray:
    """Largest principal components of the correlation, never formed, with rows of unit length, (genes, rank)."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    n_genes = len(scale)
    transposed = expression.T.tocsr()

    def times(vector: FloatArray) -> FloatArray:
        scaled = scale * np.asarray(vector).ravel()
        return np.asarray(scale * (transposed @ (expression @ scaled) - mean.T @ (n_cells * (mean @ scaled))))

    correlation = LinearOperator((n_genes, n_genes), matvec=times, dtype=np.float64)
    size, direction = eigsh(correlation, k=rank, v0=scale * 1.0, tol=1e-6)
    loadings = np.asarray(direction * np.sqrt(np.maximum(size, 0.0)), dtype=np.float64)
    length = np.sqrt((loadings**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(loadings, length, out=np.zeros_like(loadings), where=length > 1e-6))
