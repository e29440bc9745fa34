"""Rows of a table of parameters, of which a step of training touches few."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

SMALL = 1024
"""Dosages of which a product of matrices is as fast."""

_sparse = False


@contextmanager
def sparse_row_gradients() -> Iterator[None]:
    """Give gradients by rows of tables as sparse tensors, which hold the rows that were taken and no others."""
    global _sparse
    before, _sparse = _sparse, True
    try:
        yield
    finally:
        _sparse = before


def rows_of(table: Tensor, rows: Tensor | None) -> Tensor:
    """Some rows of a table, int64, or all of them (``None``)."""
    if rows is None:
        return table
    if _sparse and table.dim() == 2 and table.requires_grad:
        return F.embedding(rows, table, sparse=True)
    return table.index_select(0, rows)


def dosed_rows(dosage: Tensor, table: Tensor) -> Tensor:
    """Sums of rows of a table by dosages without gradient, (conditions, rows) @ (rows, ·).

    On a processor the cost is that of the dosages that are not 0, of which a condition has one or two.
    """
    if table.device.type != "cpu" or dosage.numel() < SMALL:
        return dosage @ table
    condition, row = dosage.nonzero(as_tuple=True)
    starts = torch.searchsorted(condition, torch.arange(len(dosage)))
    return F.embedding_bag(row, table, starts, mode="sum", per_sample_weights=dosage[condition, row].to(table.dtype))
