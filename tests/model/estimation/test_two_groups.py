"""The two groups of effects: found, and false signs as many as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from cradlevae.model.estimation.two_groups import ALIKE, TwoGroups


def test_groups_are_found() -> None:
    rng = np.random.default_rng(0)
    none = rng.random(20_000) < 0.7
    z = np.where(none, 0.6, 4.0) * rng.standard_normal(20_000)
    found = TwoGroups.of(z)
    assert found.share == pytest.approx(0.7, abs=0.03)
    assert found.narrow == pytest.approx(0.6, abs=0.05)
    assert found.wide == pytest.approx(4.0, abs=0.2)
    probability = found.probability(z)
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (probability >= low) & (probability < low + 0.25)
        assert none[chosen].mean() == pytest.approx(probability[chosen].mean(), abs=0.06)


def test_false_signs_are_as_many_as_said_where_most_effects_are_none() -> None:
    """A posterior that shrinks all alike is too sure of what is none; with the groups it is not."""
    rng = np.random.default_rng(1)
    effect = np.where(rng.random(50_000) < 0.8, 0.0, rng.normal(0, 3, 50_000))
    kept = (effect**2).mean() / ((effect**2).mean() + 1)
    mean, sd = kept * (effect + rng.standard_normal(50_000)), kept**0.5
    rate = norm.sf(np.abs(mean) / sd)
    none = TwoGroups.of(mean / sd).probability(mean / sd)
    grouped = none / 2 + (1 - none) * rate
    wrong = np.where(effect == 0, rng.random(50_000) < 0.5, np.sign(effect) != np.sign(mean))
    for level in (0.05, 0.1):
        assert wrong[rate <= level].mean() > 1.5 * rate[rate <= level].mean()
        called = grouped <= level
        assert called.sum() > 1000
        assert wrong[called].mean() <= level


def test_few_effects_and_none_leave_all_alike() -> None:
    assert TwoGroups.of([]) == ALIKE
    assert TwoGroups.of(np.zeros(5)) == ALIKE
    assert TwoGroups.of([0.1, -0.2, 3.0]).probability(0.0) < 0.6
    assert (ALIKE.probability([0.0, 3.0]) == 0).all()
