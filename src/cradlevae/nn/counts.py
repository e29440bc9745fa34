"""Counts of a few cells as sparse tensors, and the linear softmax that expects them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class SparseCounts:
    """Counts of a minibatch of cells, CSR: values and genes of the positive counts, cell after cell.

    Attributes
    ----------
    values
        Positive counts, (positives,), float.
    genes
        Genes of the positive counts, (positives,), int64.
    starts
        Where each cell's positive counts start, (cells + 1,), int64, on the CPU.
    n_genes
        Number of genes.
    """

    values: Tensor
    genes: Tensor
    starts: Tensor
    n_genes: int

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.starts) - 1

    def cells(self) -> Tensor:
        """Cell of each positive count, (positives,)."""
        lengths = self.starts.diff().to(self.genes.device)
        return torch.repeat_interleave(
            torch.arange(self.n_cells, device=self.genes.device), lengths, output_size=len(self.genes)
        )

    def dense(self) -> Tensor:
        """The counts as (cells, genes)."""
        out = self.values.new_zeros(self.n_cells * self.n_genes)
        out[self.cells() * self.n_genes + self.genes] = self.values
        return out.view(self.n_cells, self.n_genes)

    def to(self, device: Any, non_blocking: bool = False) -> SparseCounts:
        """The same counts on another device."""
        return SparseCounts(
            self.values.to(device, non_blocking=non_blocking),
            self.genes.to(device, non_blocking=non_blocking),
            self.starts,
            self.n_genes,
        )


@dataclass(frozen=True)
class AddedRates:
    """Rows of a table that are added to the log rates of cells.

    Attributes
    ----------
    table
        (rows, genes).
    row
        Row of each cell, (cells,), int64.
    scale
        What the row is multiplied by, (particles or 1, cells).
    """

    table: Tensor
    row: Tensor
    scale: Tensor

    def of(self, cells: slice) -> Tensor:
        """What is added to the log rates of some cells, (particles or 1, cells, genes)."""
        return self.scale[:, cells].unsqueeze(2) * self.table.index_select(0, self.row[cells])


def decoded_share(hidden: Tensor, weight: Tensor, bias: Tensor, offset: Tensor | None = None) -> Tensor:
    """Each gene's expected share of the counts, ρ: (..., width) → (..., genes); ``offset`` adds to the log rates."""
    rates = F.linear(hidden, weight, bias)
    return torch.softmax(rates if offset is None else rates + offset, dim=-1)
