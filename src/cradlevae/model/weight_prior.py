"""The prior of the gene weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class WeightPrior(torch.autograd.Function):
    """The gene weights and minus their log prior, up to a constant: each column has a variance of its own.

    A column's variance is at its most probable value, its mean square above a floor of ``scale``²; so columns that the
    data need are free, and the others, and genes without evidence, shrink to nothing. The weights come out as they are;
    going through here, their gradient takes the prior's up in place, for it is too large to be made twice.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """The weights as they are, and minus their log prior."""
        mean_square = torch.linalg.vector_norm(weight, dim=0).square_() / len(weight)
        ctx.save_for_backward(weight, 1 / (mean_square + scale**2))
        return weight.view_as(weight), 0.5 * len(weight) * torch.log1p(mean_square / scale**2).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        """The gradient by the weights, the prior's taken up in place."""
        weight, pull = ctx.saved_tensors
        by_weight, by_cost = grad_outputs
        return by_weight.addcmul_(weight, by_cost * pull), None
