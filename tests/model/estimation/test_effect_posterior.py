"""What is known of an effect: false sign rates of draws, whatever their shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from cradlevae.model.estimation.effect_posterior import EffectPosterior
from cradlevae.model.estimation.two_groups import TwoGroups


def posterior(mean: np.ndarray, draws: np.ndarray, error: float = 0.0) -> EffectPosterior:
    """That of draws about their mean, (draws, genes)."""
    deviations = torch.from_numpy(draws - draws.mean(axis=0)).float()
    sd = deviations.square().mean(0).sqrt()
    return EffectPosterior(torch.from_numpy(mean).float(), torch.full((len(mean),), error), sd, deviations, 8)


@pytest.mark.parametrize(("variance", "error"), [(0.0, 0.0), (2.0, 0.0), (0.5, 0.7)])
def test_normal_draws_have_the_normal_rate(variance: float, error: float) -> None:
    rng = np.random.default_rng(0)
    mean = np.linspace(-3, 3, 13)
    known = posterior(mean, rng.standard_normal((4000, 13)), error)
    found = known.layers(wanted=("lfsr",), variance=variance, moved=np.float32(0))["lfsr"]
    expected = norm.sf(np.abs(mean) / np.sqrt(1 + variance + error**2))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_draws_of_another_shape_have_the_rate_that_they_show() -> None:
    """A perturbation that either does nothing or much: a normal distribution would say .16 of the sign."""
    rng = np.random.default_rng(1)
    on = rng.random((4000, 1)) < 0.5
    draws = np.where(on, 2.0, 0.0) + 0.05 * rng.standard_normal((4000, 1))
    rate = posterior(np.array([1.0]), draws).layers(wanted=("lfsr",))["lfsr"]
    assert rate[0] == pytest.approx(0.25, abs=0.06)  # half of the draws have either sign


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(1, 2))
def test_units_and_signs_mean_nothing_and_widening_makes_less_sure(seed: int, unit: float, widening: float) -> None:
    rng = np.random.default_rng(seed)
    mean, draws = rng.standard_normal(6), rng.standard_normal((56, 6)) ** 3
    rate = posterior(mean, draws, 0.1).layers(wanted=("lfsr",))["lfsr"]
    scaled = posterior(-unit * mean, -unit * draws, unit * 0.1).layers(wanted=("lfsr",))["lfsr"]
    np.testing.assert_allclose(scaled, rate, atol=1e-4)
    assert ((rate >= 0) & (rate <= 0.5)).all()
    wide = posterior(mean, draws, 0.1).layers(wanted=("lfsr",), variance=9.0, widening=widening)["lfsr"]
    assert (wide >= rate - 0.05).all()


def test_no_effect_has_either_sign() -> None:
    none = posterior(np.zeros(3), np.zeros((56, 3)))
    assert (none.layers(wanted=("lfsr",))["lfsr"] == 0.5).all()


def test_effects_that_may_be_hardly_any_are_less_sure() -> None:
    rng = np.random.default_rng(2)
    mean = np.array([0.1, 1.5, 6.0])
    known = posterior(mean, rng.standard_normal((500, 3)))
    alike = known.layers(wanted=("lfsr",))["lfsr"]
    groups = TwoGroups(0.8, 0.7, 4.0)
    found = known.layers(wanted=("lfsr",), groups=groups)["lfsr"]
    none = groups.probability(mean / known.sd.numpy())
    np.testing.assert_allclose(found, none / 2 + (1 - none) * alike, rtol=1e-4)
    assert (found >= alike).all()
    assert found[2] < 1e-4
