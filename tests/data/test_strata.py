"""Effects within strata: against a loop over strata, in sums over cells, and as one stratum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.moments import ConditionMoments, condition_moments, measured_effects
from cradlevae.data.strata import stratum_weights
from cradlevae.utils.constants import TARGET_SUM

NAMES = ("control", "A", "B", "C")


def cells(seed: int, n: int = 120, n_strata: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    counts = random.poisson(2.0, (n, 6)) + np.eye(6, dtype=int)[random.integers(0, 6, n)]
    return counts, random.integers(0, len(NAMES), n), random.integers(0, n_strata, n)


def moments(counts: np.ndarray, condition: np.ndarray, strata: np.ndarray | None, **options: Any) -> ConditionMoments:
    return condition_moments(sp.csr_matrix(counts), condition, NAMES, strata=strata, **options)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_effects_are_weighted_contrasts_within_strata(seed: int, n_strata: int) -> None:
    counts, condition, strata = cells(seed, n_strata=n_strata)
    expression = np.log2(1 + TARGET_SUM * counts / counts.sum(axis=1, keepdims=True))
    found = moments(counts, condition, strata)
    effects = measured_effects(found)
    for row in range(1, len(NAMES)):
        total, weight, variance = np.zeros(6), 0.0, 0.0
        for stratum in range(n_strata):
            treated = expression[(condition == row) & (strata == stratum)]
            controls = expression[(condition == 0) & (strata == stratum)]
            if len(treated) and len(controls):
                own = len(treated) * len(controls) / (len(treated) + len(controls))
                total += own * (treated.mean(axis=0) - controls.mean(axis=0))
                weight += own
                variance += own**2 * (1 / len(treated) + 1 / len(controls))
        np.testing.assert_allclose(effects.value[row - 1], total / weight, atol=1e-9)
        expected = variance / weight**2
        assert 1 / found.n_effective[row] + 1 / found.n_effective[0] == pytest.approx(expected)


def test_one_stratum_is_none_to_the_last_digit() -> None:
    counts, condition, _ = cells(0)
    one, none = moments(counts, condition, np.full(len(condition), 7)), moments(counts, condition, None)
    for name in ("n_cells", "mean", "variance", "n_effective"):
        np.testing.assert_array_equal(getattr(one, name), getattr(none, name))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_names_of_strata_and_the_order_of_cells_mean_nothing(seed: int, names: list[int]) -> None:
    counts, condition, strata = cells(seed)
    order = np.random.default_rng(seed).permutation(len(condition))
    one = moments(counts, condition, strata)
    other = moments(counts[order], condition[order], 10 * np.array(names)[strata[order]])
    for name in ("n_cells", "mean", "variance", "n_effective"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-9)


def test_a_shift_of_a_stratum_moves_no_effect() -> None:
    counts, condition, strata = cells(1)
    shifted = counts.copy()
    shifted[strata == 2] *= 3  # every count: the shares, so the expression, of that stratum stay in themselves
    shifted[strata == 1, 0] += 20
    plain, within = (measured_effects(moments(shifted, condition, use)).value for use in (None, strata))
    same = measured_effects(moments(counts, condition, strata)).value
    assert (
        np.abs(within[:, 1:] - same[:, 1:]).max()
        < np.abs(plain - measured_effects(moments(counts, condition, None)).value).max()
    )


def test_a_condition_without_controls_in_its_strata_is_missing() -> None:
    counts, condition, strata = cells(2)
    strata[condition == 3] = 9  # C lives alone
    strata[(condition == 1) & (strata == 0)] = 9  # a part of A as well
    found = moments(counts, condition, strata)
    assert found.n_cells[3] == 0
    assert np.isnan(found.mean[3]).all()
    assert found.n_cells[1] == ((condition == 1) & (strata != 9)).sum()
    assert np.isnan(measured_effects(found).value[2]).all()
    assert np.isfinite(measured_effects(found).value[:2]).all()


def test_confounded_conditions_are_worth_fewer_cells() -> None:
    condition = np.repeat([0, 1, 2], [60, 30, 30])
    strata = np.concatenate([np.arange(60) % 3, np.arange(30) % 3, np.zeros(30, dtype=int)])
    weights = stratum_weights(condition, strata, 3, 0)
    np.testing.assert_allclose(weights.n_effective[:2], [60, 30])  # spread as the controls are: nothing is lost
    assert weights.n_effective[2] == pytest.approx(1 / (1 / 30 + 1 / 20 - 1 / 60))
    np.testing.assert_allclose(weights.share.sum(axis=1), 1)


def test_the_standard_error_is_the_spread_of_repeated_experiments() -> None:
    random = np.random.default_rng(0)
    condition = np.repeat([0, 1], [90, 40])
    strata = np.concatenate([np.arange(90) % 3, np.repeat([0, 1], [35, 5])])
    z = []
    for _ in range(300):
        base = np.array([3.0, 9.0, 1.0])[strata]
        counts = np.stack([random.poisson(base), random.poisson(20.0, len(base))], axis=1)
        found = condition_moments(sp.csr_matrix(counts), condition, ["control", "A"], scale="mean", strata=strata)
        effects = measured_effects(found)
        z.append(effects.value[0] / effects.standard_error[0])
    assert np.std(z, axis=0) == pytest.approx([1, 1], abs=0.15)
