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
from cradlevae.utils.constants import CACHED_VALUES, TARGET_SUM
from cradlevae.utils.types import FloatArray

STEP = 0.75
"""Step in log t: exp(−π²/0.75) is 2e-6."""

LAST_NODE = 3
"""Steps above log t = 0: beyond, e⁻ᵗ leaves 1e-9."""

SMOOTH = 0.03
"""Value of s·t × mean below which the integrand is taken to be quadratic in t, so that the rest
is two geometric sums."""

NEARBY, FURTHER = (2.0, 7), (4.5, 20)
"""How far from a share a polynomial stands for the expectation, in log units, and its degree."""


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


class NearbyLogExpression:
    """:func:`expected_log_expression` as a function of the log share, for many shares about those of some cells.

    For each cell and gene it is a smooth function of log share, for which a polynomial through Chebyshev nodes stands:
    one of low degree near the cell's share (within 1e-3, in log2 units), one of higher degree further away (5e-3). What
    is even further away is integrated anew.

    Parameters
    ----------
    share, likelihood, library_size
        As of :func:`expected_log_expression`; shares of 0 have nothing nearby.

    Attributes
    ----------
    value
        The expectation at these shares, (cells, genes).
    """

    def __init__(self, share: Tensor, likelihood: Likelihood, library_size: Tensor) -> None:
        self.value = expected_log_expression(share, likelihood, library_size)
        self._share, self._likelihood, self._library = share, likelihood, library_size
        chebyshev = self._chebyshev(*NEARBY)
        powers = [np.polynomial.chebyshev.cheb2poly(row) for row in np.eye(len(chebyshev))]
        to_powers = np.stack([np.pad(row, (0, len(chebyshev) - len(row))) for row in powers])
        self._coefficients = torch.einsum("kp,kcg->pcg", torch.from_numpy(to_powers).to(share.dtype), chebyshev)
        self._wide: Tensor | None = None

    def at(self, share: Tensor) -> Tensor:
        """The expectation at other shares, (cells, n, genes), n for each cell."""
        result, away = torch.empty_like(share), torch.empty_like(share)
        step = max(1, CACHED_VALUES // share[0].numel())
        for start in range(0, len(share), step):
            part = slice(start, start + step)
            self._near(share[part], part, away[part], result[part])
        away.mul_(NEARBY[0] / FURTHER[0])
        far = ~(away.abs() <= NEARBY[0] / FURTHER[0])  # not a number is far, too
        cell, draw, gene = far.nonzero(as_tuple=True)
        if len(cell):
            distance = away[cell, draw, gene]
            result[cell, draw, gene] = self._far(distance, cell, gene)
            furthest = ~(distance.abs() <= 1)
            if furthest.any():
                self._anew(share, result, cell[furthest], draw[furthest], gene[furthest])
        return result

    def _near(self, share: Tensor, part: slice, away: Tensor, out: Tensor) -> None:
        """Fill in how far shares are from those of their cells, and what stands for the expectation nearby."""
        coefficients = self._coefficients[:, part].unsqueeze(2)  # (degree + 1, cells, 1, genes)
        torch.div(share, self._share[part].unsqueeze(1), out=away).log_().div_(NEARBY[0])
        torch.addcmul(coefficients[-2], coefficients[-1], away, out=out)
        for power in range(NEARBY[1] - 2, -1, -1):
            out.mul_(away).add_(coefficients[power])

    def _anew(self, share: Tensor, result: Tensor, cell: Tensor, draw: Tensor, gene: Tensor) -> None:
        """Integrate the expectation of single shares of these cells, draws and genes."""
        genes = torch.unique(gene)
        cell, draw = torch.unique(torch.stack([cell, draw]), dim=1)
        some, likelihood = share[cell, draw][:, genes], self._likelihood.of_genes(genes)
        result[cell.unsqueeze(1), draw.unsqueeze(1), genes] = expected_log_expression(
            some, likelihood, self._library[cell]
        )

    def _far(self, away: Tensor, cell: Tensor, gene: Tensor) -> Tensor:
        """The expectation at single shares of these cells and genes, (n,)."""
        if self._wide is None:
            self._wide = self._chebyshev(*FURTHER)
        last, before = torch.zeros_like(away), torch.zeros_like(away)
        for power in range(FURTHER[1], 0, -1):  # Clenshaw's recurrence
            last, before = self._wide[power, cell, gene] + 2 * away * last - before, last
        return self._wide[0, cell, gene] + away * last - before

    def _chebyshev(self, reach: float, degree: int) -> Tensor:
        """Coefficients of Chebyshev polynomials up to ``reach`` on both sides, (degree + 1, cells, genes)."""
        angle = np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1)
        coefficients = self._share.new_zeros(degree + 1, *self._share.shape)
        for one in angle.tolist():
            there = self._share * math.exp(reach * math.cos(one))
            value = expected_log_expression(there, self._likelihood, self._library)
            for power in range(degree + 1):
                weight = (2 if power else 1) / (degree + 1) * math.cos(power * one)
                coefficients[power].add_(value, alpha=weight)
        return coefficients


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
