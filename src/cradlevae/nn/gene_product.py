"""Sparse cells and dense profiles times a genes × width matrix: the gene part of the basal encoder's first layer."""

from __future__ import annotations

from typing import Any

import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional as F

from cradlevae.nn.counts import SparseCounts

SPARSE_BELOW = 0.25
"""Share of positive counts below which a processor multiplies them one by one faster than a dense matrix."""


def gene_product(counts: SparseCounts, profiles: Tensor, weight: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Rows minus ``shift``, times ``weight``; the gradient is of ``weight`` only.

    Parameters
    ----------
    counts
        Sparse rows (cells × genes).
    profiles
        Dense rows, (profiles, genes).
    weight
        (genes, width).
    shift
        Subtracted from every row, (genes,).

    Returns
    -------
    tuple
        (cells, width) and (profiles, width).
    """
    n_cells = counts.n_cells
    product = _GeneProduct.apply(counts, profiles, weight, shift)  # type: ignore[no-untyped-call]
    return product[:n_cells], product[n_cells:]


class _GeneProduct(torch.autograd.Function):
    """One product forward, one gradient backward, whatever is sparse and whatever is dense."""

    @staticmethod
    def forward(ctx: Any, counts: SparseCounts, profiles: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
        sparse = weight.device.type == "cpu" and len(counts.values) < SPARSE_BELOW * counts.n_cells * counts.n_genes
        ctx.counts = counts if sparse else None
        dense = profiles if sparse else torch.cat([counts.dense(), profiles])
        ctx.save_for_backward(dense, shift)
        product = dense @ weight
        if sparse:
            product = torch.cat([_rows_times(counts.genes, counts.starts, counts.values, weight), product])
        return product.sub_(shift @ weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        dense, shift = ctx.saved_tensors
        grad, counts = grad_outputs[0], ctx.counts
        if counts is None:
            grad_weight = dense.T @ grad
        else:
            n = counts.n_cells
            grad_weight = _rows_times(*_by_gene(counts), grad[:n].contiguous())
            grad_weight.addmm_(dense.T, grad[n:])
        return None, None, grad_weight.addr_(shift, grad.sum(0), alpha=-1), None


def _rows_times(columns: Tensor, starts: Tensor, values: Tensor, matrix: Tensor) -> Tensor:
    """A CSR matrix times a dense one."""
    return F.embedding_bag(columns, matrix, starts[:-1], mode="sum", per_sample_weights=values)


def _by_gene(counts: SparseCounts) -> tuple[Tensor, Tensor, Tensor]:
    """The transpose of the counts, CSR: cells, starts and values."""
    shape = (counts.n_cells, counts.n_genes)
    rows = sp.csr_matrix((counts.values.numpy(), counts.genes.numpy(), counts.starts.numpy()), shape=shape, copy=False)
    columns = rows.tocsc()
    cells, starts = (torch.from_numpy(array).long() for array in (columns.indices, columns.indptr))
    return cells, starts, torch.from_numpy(columns.data)
