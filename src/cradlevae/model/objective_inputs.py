"""What the objective is given beside a minibatch: the sizes of the split, and random numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cradlevae.model.globals import GlobalNoise


@dataclass(frozen=True)
class SplitSizes:
    """Cells of the split being scored that each global variable is shared by.

    Attributes
    ----------
    per_perturbation
        n_t, of every treatment, (T,).
    per_class
        n_c, (C,).
    class_weight
        Weight of a passing and of a failed cell, (2,), of mean 1 over the split's cells.
    n_cells
        Cells of the split.
    per_level
        n_l, of every level of batch, covariates and context, (L,).
    """

    per_perturbation: Tensor
    per_class: Tensor
    class_weight: Tensor
    n_cells: int = 1
    per_level: Tensor = field(default_factory=lambda: torch.zeros(0))

    def to(self, device: torch.device) -> SplitSizes:
        """The same sizes on another device."""
        return SplitSizes(
            self.per_perturbation.to(device),
            self.per_class.to(device),
            self.class_weight.to(device),
            self.n_cells,
            self.per_level.to(device),
        )


@dataclass(frozen=True)
class Noise:
    """The random numbers of one evaluation of the objective.

    Attributes
    ----------
    first
        Behind the draw of the globals.
    basal
        Standard normal, (P, N, K).
    second
        Behind the second draw that ``released`` gives the reference's posterior.
    cell
        Standard normal, behind the cells' own artifact states, (P, N, K).
    """

    first: GlobalNoise
    basal: Tensor
    second: GlobalNoise | None = None
    cell: Tensor | None = None

    def of(self, cells: slice) -> Noise:
        """The random numbers of some of the cells, with those of the globals."""
        return replace(self, basal=self.basal[:, cells], cell=None if self.cell is None else self.cell[:, cells])
