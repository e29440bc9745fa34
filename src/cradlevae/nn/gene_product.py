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


def gene_product(
    counts: SparseCounts,
    profiles: Tensor,
    weight: Tensor,
    shift: Tensor,
    taken_out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
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
    taken_out
        Rows of a table, (rows, genes), that are subtracted from those of cells, and the row of each cell; ``None`` is
        nothing.

    Returns
    -------
    tuple
        (cells, width) and (profiles, width).
    """
    n_cells = counts.n_cells
    table, row = (None, None) if taken_out is None else taken_out
    product = _GeneProduct.apply(counts, profiles, weight, shift, table, row)  # type: ignore[no-untyped-call]
    return product[:n_cells], product[n_cells:]


class _GeneProduct(torch.autograd.Function):
    """One product forward, one gradient backward, whatever is sparse and whatever is dense."""

    @staticmethod
    def forward(
        ctx: Any,
        counts: SparseCounts,
        profiles: Tensor,
        weight: Tensor,
        shift: Tensor,
        table: Tensor | None,
        row: Tensor | None,
    ) -> Tensor:
        sparse = weight.device.type == "cpu" and len(counts.values) < SPARSE_BELOW * counts.n_cells * counts.n_genes
        ctx.counts, ctx.row = (counts, row) if sparse else (None, None)
        if sparse:
            dense = profiles if table is None else torch.cat([profiles, table])
        else:
            cells = counts.dense()
            if table is not None and row is not None:
                cells -= table.index_select(0, row)
            dense = torch.cat([cells, profiles]) if len(profiles) else cells
        ctx.save_for_backward(dense, shift)
        product = dense @ weight
        if sparse:
            of_cells = _rows_times(counts.genes, counts.starts, counts.values, weight)
            if row is not None:
                of_cells -= product[len(profiles) :].index_select(0, row)
            product = torch.cat([of_cells, product[: len(profiles)]])
        return product.sub_(shift @ weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        dense, shift = ctx.saved_tensors
        grad, counts, row = grad_outputs[0], ctx.counts, ctx.row
        if counts is None:
            grad_weight = dense.T @ grad
        else:
            n = counts.n_cells
            of_dense = grad[n:]
            if row is not None:
                of_table = grad.new_zeros(len(dense) - len(of_dense), grad.shape[1]).index_add_(0, row, grad[:n])
                of_dense = torch.cat([of_dense, of_table.neg_()])
            grad_weight = _rows_times(*_by_gene(counts), grad[:n].contiguous())
            grad_weight.addmm_(dense.T, of_dense)
        return None, None, grad_weight.addr_(shift, grad.sum(0), alpha=-1), None, None, None


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
