"""What the batch, the covariates and the context of a cell add to the log rates of the genes.

Each level (category) of each of these columns has an effect on every gene, shrunk as the effects of treatments are
(:mod:`cradlevae.model.gene_effects`), on scales of its own column. The encoder of the basal state sees the counts with
these effects taken out, and knows the levels of the cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cradlevae.model.gene_effects import ShrunkEffects


class LevelEffects(ShrunkEffects):
    """Effects of levels, (L, G), with what each level adds to the first layer of the encoder.

    Parameters
    ----------
    n_levels
        Number of levels of each column; L is their sum.
    n_genes
        G.
    encoder_width
        Width of the encoder's first layer.
    """

    stratum_levels: Tensor

    def __init__(self, n_levels: Sequence[int], n_genes: int, encoder_width: int, n_strata: int) -> None:
        family = torch.repeat_interleave(torch.arange(len(n_levels)), torch.tensor(list(n_levels)))
        super().__init__(len(family), n_genes, family)
        self.n_levels = tuple(n_levels)
        self.encoded = nn.Parameter(torch.zeros(len(family), encoder_width))
        self.register_buffer("stratum_levels", torch.zeros(n_strata, len(n_levels), dtype=torch.int64))

    def cost_of_all(self, n_cells: Tensor, information: Tensor) -> Tensor:
        """:meth:`cost` of all levels, (L,), without a copy for each: their scales of genes are those of few columns."""
        strength, spread = (2 * self.log_strength).exp(), (2 * self.log_spread).exp()
        costs = []
        first = 0
        for n_levels, of_genes in zip(self.n_levels, spread, strict=True):
            own = slice(first, first + n_levels)
            first += n_levels
            squares = (self.value[own].square() @ (0.5 / of_genes)) / strength[own]
            told = (strength[own] * n_cells[own]).unsqueeze(1) * (of_genes * information)
            costs.append(squares + 0.5 * torch.log1p(told).sum(1))
        return torch.cat(costs) + 0.5 * self.log_strength.square()

    def of_cells(self, levels: Tensor) -> Tensor:
        """What cells of these levels have added to their log rates, (..., columns) → (..., G)."""
        added: Tensor = nn.functional.embedding(levels, self.value).sum(-2)
        return added

    def stratum_variance(self) -> Tensor:
        """Prior variance of what each stratum adds to the log rates, (strata, G)."""
        n_strata, n_columns = self.stratum_levels.shape
        return self.prior_variance(self.stratum_levels.flatten()).view(n_strata, n_columns, -1).sum(1)


def membership(levels: Tensor, n_levels: int) -> Tensor:
    """1 for the levels of each cell, (N, columns) → (N, L)."""
    return torch.zeros(len(levels), n_levels, device=levels.device).scatter_(1, levels, 1.0)
