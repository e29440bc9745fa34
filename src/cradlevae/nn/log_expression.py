"""E[log2(1 + 1e4 · x / ℓ)] of a count, integrated over its distribution instead of sampled.

With s = 1e4 / ℓ and G the probability generating function of the count (for the Gamma-Poisson of mean m and
concentration θ, G(z) = (1 + m (1 − z) / θ)⁻ᶿ),

    E[log(1 + s x)] = ∫ (1 − G(e⁻ˢᵗ)) e⁻ᵗ / t dt over t > 0

(from log(1 + y) = ∫ (1 − e⁻ʸᵗ) e⁻ᵗ / t dt). In v = log t the integrand is analytic for |Im v| < π/2 and falls off on
both sides, so equal steps h leave an error of the order of exp(−π²/h) whatever the distribution and ℓ are.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cradlevae.nn.likelihood import Likelihood
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.types import FloatArray

STEP = 0.75
"""Step in log t: exp(−π²/0.75) is 2e-6."""

LAST_NODE = 3
"""Steps above log t = 0: beyond, e⁻ᵗ leaves 1e-9."""

SMOOTH = 0.03
"""Value of s·t × mean below which the integrand is taken to be quadratic in t, so that the rest
is two geometric sums."""

CACHED_VALUES = 1 << 16
"""Values worked on at a time, so that they stay in the cache."""


def expected_log_expression(share: Tensor, likelihood: Likelihood, library_size: Tensor) -> Tensor:
    """Expected log2(1 + 1e4 · x / ℓ) of counts x of mean ℓ·share; its relative error is below 1e-4.

    The cell's total is taken to be its library size ℓ, as it is in data.

    Parameters
    ----------
    share
        Expected share of each gene in the counts, (cells, genes).
    likelihood
        Distribution of a count given its mean.
    library_size
        ℓ, (cells,).

    Returns
    -------
    Tensor
        (cells, genes).
    """
    library = library_size.unsqueeze(1)
    step = max(1, CACHED_VALUES // share.shape[1])
    result = torch.empty_like(share)
    for start in range(0, len(share), step):
        part = slice(start, start + step)
        result[part] = _integral(share[part] * library[part], likelihood, TARGET_SUM / library[part])
    return result


def _integral(mean: Tensor, likelihood: Likelihood, scale: Tensor) -> Tensor:
    """E[log2(1 + s·x)] for every mean; s broadcasts against it."""
    generating = likelihood.generating(mean)
    reach = max(1.0, float(scale.max()) * max(1.0, generating.reach))
    first = math.floor(math.log(SMOOTH / reach) / STEP)  # the nodes are the same ones for all, but for where they start
    nodes = np.exp(STEP * np.arange(first, LAST_NODE + 1))
    weights = _weights(len(nodes)) * np.exp(-nodes)
    total = torch.zeros_like(mean)
    work = torch.empty_like(mean)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        generating.log(-torch.expm1(scale * -node), work).expm1_()
        total.sub_(work, alpha=weight)
    return total.div_(math.log(2))


def _weights(n: int) -> FloatArray:
    """Weights of equal steps h in log t. The first two also stand for all before them, where it is a·t + b·t².

    With t = 1 at the first node, b = (I₂ e⁻ʰ − I₁) / (eʰ − 1) and a = I₁ − b; the nodes before it add a / (eʰ − 1) and
    b / (e²ʰ − 1).
    """
    weights = np.full(n, STEP)
    linear, square = 1 / math.expm1(STEP), 1 / math.expm1(2 * STEP)
    bend = (square - linear) * linear
    weights[0] += STEP * (linear - bend)
    weights[1] += STEP * bend * math.exp(-STEP)
    return weights
