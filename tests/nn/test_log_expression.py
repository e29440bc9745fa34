"""Expected log expression against sums over every count, and against draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nbinom

from cradlevae.nn.constants import MEAN_OFFSET
from cradlevae.nn.gamma_poisson import GammaPoisson, sample_gamma_poisson
from cradlevae.nn.log_expression import NearbyLogExpression, expected_log_expression

pytestmark = pytest.mark.numeric

TOLERANCE = 1e-4
"""What the module promises; the largest relative error found over the table below is 4e-5 (at θ = 0.001)."""


def summed(share: float, theta: float, library: float) -> float:
    """The sum over every count that has any probability to speak of."""
    mean = share * library + MEAN_OFFSET
    probability = theta / (theta + mean)
    counts = np.arange(nbinom.isf(1e-13, theta, probability) + 10)
    return float(nbinom.pmf(counts, theta, probability) @ np.log2(1 + 1e4 * counts / library))


def gamma_poisson(theta: torch.Tensor | list[float]) -> GammaPoisson:
    likelihood = GammaPoisson(len(theta))
    likelihood.log_concentration = torch.nn.Parameter(torch.as_tensor(theta).log(), requires_grad=False)
    return likelihood


def found(share: float, theta: float, library: float) -> float:
    result = expected_log_expression(torch.tensor([[share]]), gamma_poisson([theta]), torch.tensor([library]))
    return float(result)


CASES = [
    (share, theta, library)
    for share in (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.9)
    for theta in (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1e4, 1e6)
    for library in (20.0, 200.0, 1e4, 1e5)
    if share * library / theta < 3e4  # beyond, the sums are long
]


def test_a_wide_range_of_means_and_concentrations() -> None:
    errors = [abs(found(*case) / summed(*case) - 1) for case in CASES]
    worst = int(np.argmax(errors))
    assert len(CASES) > 200
    assert errors[worst] < TOLERANCE, f"relative error {errors[worst]:.1e} at (share, θ, library) {CASES[worst]}"
    assert np.median(errors) < 1e-5


@pytest.mark.parametrize(("share", "theta"), [(0.9, 0.5), (0.9, 3.0), (0.5, 100.0), (0.5, 1e4)])
def test_large_means(share: float, theta: float) -> None:
    assert abs(found(share, theta, 1e5) / summed(share, theta, 1e5) - 1) < TOLERANCE


@settings(max_examples=25, deadline=None)
@given(
    share=st.lists(st.floats(1e-7, 0.9), min_size=6, max_size=6),
    theta=st.lists(st.floats(0.05, 1e5), min_size=3, max_size=3),
    library=st.lists(st.floats(10, 2e4), min_size=2, max_size=2),
)
def test_cells_and_genes_do_not_touch_each_other(share: list[float], theta: list[float], library: list[float]) -> None:
    shares = torch.tensor(share).view(2, 3)
    result = expected_log_expression(shares, gamma_poisson(theta), torch.tensor(library))
    for cell in range(2):
        for gene in range(3):
            alone = found(float(shares[cell, gene]), theta[gene], library[cell])
            assert float(result[cell, gene]) == pytest.approx(alone, rel=TOLERANCE, abs=1e-6)


def test_draws_agree() -> None:
    torch.manual_seed(0)
    share = torch.tensor([[1e-4, 1e-3, 0.01, 0.1, 0.5]])
    theta = torch.tensor([0.2, 0.5, 1.0, 3.0, 50.0])
    library = torch.tensor([800.0])
    n = 200_000
    counts = sample_gamma_poisson((share * library).expand(n, 5), theta)
    drawn = torch.log2(1 + 1e4 * counts / library)
    expected = expected_log_expression(share, gamma_poisson(theta), library)[0]
    error = drawn.std(0) / n**0.5
    assert ((drawn.mean(0) - expected).abs() < 4.5 * error).all()


def test_it_rises_with_the_share() -> None:
    share = torch.logspace(-6, -0.01, 200).unsqueeze(0)
    expected = expected_log_expression(share, gamma_poisson(torch.ones(200)), torch.tensor([3000.0]))[0]
    assert (expected.diff() > 0).all()


def test_small_differences_are_kept() -> None:
    """Effects are differences: those of a hundredth of a log share, relative to the differences of exact sums."""
    share = torch.logspace(-6, -2, 40, dtype=torch.float64)
    theta = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64).repeat(14)[:40]
    library = torch.tensor([3000.0], dtype=torch.float64)
    low, high = (
        expected_log_expression(share.mul(factor).float()[None], gamma_poisson(theta.float()), library.float())[
            0
        ].double()
        for factor in (1.0, 1.01)
    )
    exact = [
        summed(one * 1.01, t, 3000.0) - summed(one, t, 3000.0)
        for one, t in zip(share.tolist(), theta.tolist(), strict=True)
    ]
    np.testing.assert_allclose((high - low).numpy(), exact, rtol=2e-3, atol=2e-6)


def test_the_floor_of_the_rate_is_the_ceiling_of_the_mean() -> None:
    theta = 1e-3  # the rate θ/μ falls below 1e-6 where the mean is above 1,000
    assert found(0.5, theta, 1e4) == pytest.approx(found(0.9, theta, 1e4), rel=1e-6)
    assert found(0.09, theta, 1e4) < found(0.5, theta, 1e4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), fold=st.floats(0.0, 3.0))
def test_polynomials_stand_for_the_integral_near_and_far(seed: int, fold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    likelihood = gamma_poisson(torch.randn(40, generator=generator).exp())
    share = torch.softmax(2 * torch.randn(5, 40, generator=generator), -1)
    library = torch.exp(9 + torch.randn(5, generator=generator))
    nearby = NearbyLogExpression(share, likelihood, library)
    others = share.unsqueeze(1) * torch.exp(fold * torch.randn(5, 3, 40, generator=generator))
    others = others / others.sum(-1, keepdim=True)
    others[0, 0, 0], others[1, 2, 3] = 0.0, 1e-30
    found = nearby.at(others)
    expected = expected_log_expression(others.flatten(0, 1), likelihood, library.repeat_interleave(3))
    np.testing.assert_allclose(nearby.value, expected_log_expression(share, likelihood, library), rtol=1e-6)
    np.testing.assert_allclose(found, expected.view_as(found), rtol=2e-3, atol=3e-3)
