"""Multi-layer perceptrons and Gaussian heads, as the models of this family use them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_VARIANCE = 1e-4
"""Added to the variance of a Gaussian head."""


class MLP(nn.Module):
    """Linear + LeakyReLU(0.01) layers; the second and later ones are residual: ``out = act(W h) + h``.

    The first Linear can be applied by the caller, in parts, where parts of the input repeat:
    ``mlp.rest(first)`` takes what the first Linear gave.
    """

    def __init__(self, n_inputs: int, width: int, n_hidden: int) -> None:
        super().__init__()
        sizes = [n_inputs] + [width] * n_hidden
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    @property
    def first(self) -> nn.Linear:
        """The first Linear."""
        layer = self.layers[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, inputs: Tensor) -> Tensor:
        """``(..., n_inputs)`` → ``(..., width)``."""
        return self.rest(self.first(inputs))

    def rest(self, first: Tensor) -> Tensor:
        """What follows the first Linear: ``(..., width)`` → ``(..., width)``."""
        hidden = F.leaky_relu(first)
        for layer in self.layers[1:]:
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
        return -0.5 * ((value - self.loc) / self.scale) ** 2 - self.scale.log() - HALF_LOG_TWO_PI

    def kl_to_standard(self) -> Tensor:
        """KL(self ‖ Normal(0, 1)), element by element."""
        return 0.5 * (self.loc**2 + self.scale**2 - 1) - self.scale.log()


HALF_LOG_TWO_PI = 0.9189385332046727


def standard_log_prob(value: Tensor) -> Tensor:
    """Log density of Normal(0, 1), element by element."""
    return -0.5 * value**2 - HALF_LOG_TWO_PI


def gaussian_kl(first: Gaussian, second: Gaussian) -> Tensor:
    """KL(first ‖ second), element by element."""
    ratio = (first.scale / second.scale) ** 2
    return 0.5 * (ratio + ((first.loc - second.loc) / second.scale) ** 2 - 1 - ratio.log())


class GaussianHead(nn.Module):
    """Two Linears on a hidden layer: loc, and variance = exp(·) + 1e-4."""

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.loc = nn.Linear(width, n_outputs)
        self.log_variance = nn.Linear(width, n_outputs)

    def forward(self, hidden: Tensor) -> Gaussian:
        """``(..., width)`` → distributions of shape ``(..., n_outputs)``."""
        variance = self.log_variance(hidden).exp() + MIN_VARIANCE
        return Gaussian(self.loc(hidden), variance.sqrt())


class GaussianMLP(nn.Module):
    """An MLP with a Gaussian head."""

    def __init__(self, n_inputs: int, width: int, n_hidden: int, n_outputs: int) -> None:
        super().__init__()
        self.mlp = MLP(n_inputs, width, n_hidden)
        self.head = GaussianHead(width, n_outputs)

    def forward(self, inputs: Tensor) -> Gaussian:
        """``(..., n_inputs)`` → distributions of shape ``(..., n_outputs)``."""
        distributions: Gaussian = self.head(self.mlp(inputs))
        return distributions
