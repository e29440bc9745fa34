"""Multi-layer perceptrons and Gaussian heads, as the models of this family use them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_VARIANCE = 1e-4
"""Added to the variance of a Gaussian head."""

MAX_LOG_VARIANCE = 6.0
"""Bound of a Gaussian head: a posterior is not wider than its standard normal prior, but one step of Adam can do so."""


class JointLinear(nn.Module):
    """A Linear on several inputs side by side, with a weight matrix for each.

    ``joint(a, b)`` is a Linear on ``[a, b]``. A part of the input that repeats (over particles, over cells) goes
    through :meth:`part` once and is added where it belongs.

    Parameters
    ----------
    n_inputs
        Width of each input.
    n_outputs
        Width of the output.
    """

    def __init__(self, n_inputs: Sequence[int], n_outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(sum(n_inputs))  # as torch's Linear begins
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(n, n_outputs).uniform_(-bound, bound)) for n in n_inputs
        )
        self.bias = nn.Parameter(torch.empty(n_outputs).uniform_(-bound, bound))

    def forward(self, *inputs: Tensor) -> Tensor:
        """``(..., n_inputs)`` each → ``(..., n_outputs)``."""
        total = F.linear(inputs[0], self.weights[0].T, self.bias)
        for index, value in enumerate(inputs[1:], start=1):
            total = total + self.part(index, value)
        return total

    def part(self, index: int, value: Tensor) -> Tensor:
        """What one input adds to the output, bias left out."""
        added: Tensor = value @ self.weights[index]
        return added


class MLP(nn.Module):
    """Linear + LeakyReLU(0.01) layers; the second and later ones are residual: ``out = act(W h) + h``.

    The first layer takes several inputs side by side (:class:`JointLinear`) and can be applied by the caller, in
    parts, where parts of the input repeat: ``mlp.rest(first)`` takes what the first Linear gave.
    """

    def __init__(self, n_inputs: Sequence[int], width: int, n_hidden: int) -> None:
        super().__init__()
        self.first = JointLinear(n_inputs, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(n_hidden - 1))

    def forward(self, *inputs: Tensor) -> Tensor:
        """``(..., n_inputs)`` each → ``(..., width)``."""
        return self.rest(self.first(*inputs))

    def rest(self, first: Tensor) -> Tensor:
        """What follows the first Linear: ``(..., width)`` → ``(..., width)``."""
        hidden = F.leaky_relu(first)
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden)) + hidden
        return hidden


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions."""

    loc: Tensor
    scale: Tensor

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """A reparametrised draw; ``noise`` stands in for the standard normal draw."""
        epsilon = torch.randn_like(self.loc) if noise is None else noise
        return self.loc + self.scale * epsilon

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, element by element."""
        return -0.5 * _square((value - self.loc) / self.scale) - self.scale.log() - HALF_LOG_TWO_PI

    def kl_to_standard(self) -> Tensor:
        """KL(self ‖ Normal(0, 1)), element by element."""
        return 0.5 * (_square(self.loc) + _square(self.scale) - 1) - self.scale.log()


HALF_LOG_TWO_PI = 0.9189385332046727


def standard_log_prob(value: Tensor) -> Tensor:
    """Log density of Normal(0, 1), element by element."""
    return -0.5 * _square(value) - HALF_LOG_TWO_PI


def gaussian_kl(first: Gaussian, second: Gaussian) -> Tensor:
    """KL(first ‖ second), element by element."""
    ratio = _square(first.scale / second.scale)
    return 0.5 * (ratio + _square((first.loc - second.loc) / second.scale) - 1 - ratio.log())


def _square(value: Tensor) -> Tensor:
    return value * value  # the gradient of a power takes a general power, which is slow


class GaussianHead(nn.Module):
    """Two Linears on a hidden layer, as one: loc, and variance = exp(·) + 1e-4.

    The exponent is bounded above. Deep networks of a constant (the artifact's) can move it by twenty in one step, and
    what it scales overflows; its gradient goes past the bound, so that the next steps bring it back.
    """

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * n_outputs)

    def forward(self, hidden: Tensor) -> Gaussian:
        """``(..., width)`` → distributions of shape ``(..., n_outputs)``."""
        loc, log_variance = self.linear(hidden).chunk(2, dim=-1)
        log_variance = log_variance - F.relu(log_variance.detach() - MAX_LOG_VARIANCE)
        return Gaussian(loc, (log_variance.exp() + MIN_VARIANCE).sqrt())


class GaussianMLP(nn.Module):
    """An MLP with a Gaussian head."""

    def __init__(self, n_inputs: Sequence[int], width: int, n_hidden: int, n_outputs: int) -> None:
        super().__init__()
        self.mlp = MLP(n_inputs, width, n_hidden)
        self.head = GaussianHead(width, n_outputs)

    def forward(self, *inputs: Tensor) -> Gaussian:
        """``(..., n_inputs)`` each → distributions of shape ``(..., n_outputs)``."""
        distributions: Gaussian = self.head(self.mlp(*inputs))
        return distributions
