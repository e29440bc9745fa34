"""E-distance and MMD: closed forms, plain oracles, and that neither is biased."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.distances import energy_distance, squared_mmd, unbiased_gap, unbiased_gap_within

PRECISIONS = np.array([0.1, 0.5, 2.0])


def oracle(first: np.ndarray, second: np.ndarray, function) -> float:
    """2·between − within − within by loops."""
    n, m = len(first), len(second)
    between = sum(function(x, y) for x in first for y in second) / (n * m)
    one = sum(function(first[i], first[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(function(second[i], second[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return 2 * between - one - other


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(np.exp(-PRECISIONS * ((x - y) ** 2).sum())))


def true_energy(shift: float) -> float:
    """E-distance of N(0, 1) and N(shift, 1)."""
    s = np.sqrt(2.0)  # sd of a difference
    between = s * np.sqrt(2 / np.pi) * np.exp(-(shift**2) / 4) + shift * (1 - 2 * norm.cdf(-shift / s))
    return float(2 * between - 2 * 2 / np.sqrt(np.pi))


def true_mmd(shift: float) -> float:
    """Squared MMD of N(0, 1) and N(shift, 1)."""
    spread = 1 + 4 * PRECISIONS
    return float(np.mean(2 * spread**-0.5 * (1 - np.exp(-PRECISIONS * shift**2 / spread))))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(2, 7), st.integers(1, 4))
def test_both_equal_sums_over_pairs(seed: int, n: int, m: int, dimensions: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(n, dimensions)), random.normal(1, 2, size=(m, dimensions))
    distance = oracle(first, second, lambda x, y: float(np.linalg.norm(x - y)))
    assert energy_distance(first, second) == pytest.approx(distance)
    assert squared_mmd(first, second, PRECISIONS) == pytest.approx(-oracle(first, second, kernel))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_the_order_of_cells_and_of_samples_does_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(9, 3)), random.normal(1, 2, size=(7, 3))
    for score in (energy_distance, lambda a, b: squared_mmd(a, b, PRECISIONS)):
        found = score(first, second)
        assert score(random.permutation(first), random.permutation(second)) == pytest.approx(found)
        assert score(second, first) == pytest.approx(found)
    assert energy_distance(3 * first, 3 * second) == pytest.approx(3 * energy_distance(first, second))


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_the_mean_over_small_samples_is_the_distance_of_the_distributions(shift: float) -> None:
    random = np.random.default_rng(3)
    draws = [(random.normal(size=(5, 1)), random.normal(shift, 1, size=(8, 1))) for _ in range(1000)]
    for found, truth in (
        ([energy_distance(*pair) for pair in draws], true_energy(shift)),
        ([squared_mmd(*pair, PRECISIONS) for pair in draws], true_mmd(shift)),
    ):
        assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(len(found)))


def test_a_wrong_spread_is_seen_though_the_mean_is_right() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(300, 5)), 0.5 * random.normal(size=(300, 5))
    assert energy_distance(first, second) > 0.1
    assert squared_mmd(first, second, [0.1]) > 0.02


def test_several_comparisons_at_once_equal_single_ones() -> None:
    random = np.random.default_rng(1)
    cells = random.normal(size=(12, 2))
    values = np.linalg.norm(cells[:, None] - cells, axis=2)
    first, second = np.zeros((2, 2, 12))
    first[0, :4] = first[1, 2:8] = second[0, 4:] = second[1, 8:] = 1
    expected = [energy_distance(cells[:4], cells[4:]), energy_distance(cells[2:8], cells[8:])]
    np.testing.assert_allclose(unbiased_gap(values, first, second), expected)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_within_strata_it_is_the_mean_over_strata_weighted_by_real_cells(seed: int) -> None:
    random = np.random.default_rng(seed)
    real, other = random.normal(size=(14, 2)), random.normal(1, 2, size=(11, 2))
    strata = random.integers(0, 4, 14), random.integers(0, 4, 11)
    for score in (energy_distance, lambda *pair, **codes: squared_mmd(*pair, PRECISIONS, **codes)):
        found = score(real, other, strata=strata)
        parts = []
        for stratum in range(4):
            one, two = real[strata[0] == stratum], other[strata[1] == stratum]
            if min(len(one), len(two)) >= 2:
                parts.append((len(one), score(one, two)))
        if not parts:
            assert np.isnan(found)
            continue
        weights, scores = zip(*parts, strict=True)
        assert found == pytest.approx(np.average(scores, weights=weights))
        labels, orders = random.permutation([-3, 0, 5, 70]), (random.permutation(14), random.permutation(11))
        renamed = tuple(labels[codes][order] for codes, order in zip(strata, orders, strict=True))
        assert score(real[orders[0]], other[orders[1]], strata=renamed) == pytest.approx(found)
        assert score(real, other, strata=(np.full(14, 2), np.full(11, 2))) == score(real, other)


def test_strata_without_enough_cells_are_left_out_comparison_by_comparison() -> None:
    random = np.random.default_rng(2)
    values = random.random((12, 12))
    values += values.T
    strata = np.repeat([4, 9], 6)
    first, second = np.zeros((2, 3, 12))
    first[0, [0, 1, 6]] = second[0, [2, 3, 7, 8]] = 1  # one real cell in the second stratum
    first[1, [0, 1, 6, 7, 8]] = second[1, [2, 3, 9, 10]] = 1
    first[2, :6] = second[2, 6:] = 1  # nothing to compare
    found = unbiased_gap_within(values, first, second, strata)
    low, high = np.ix_(range(6), range(6)), np.ix_(range(6, 12), range(6, 12))
    in_first = unbiased_gap(values[low], first[:2, :6], second[:2, :6])
    in_second = unbiased_gap(values[high], first[1:2, 6:], second[1:2, 6:])[0]
    assert found[0] == in_first[0]
    assert found[1] == pytest.approx((2 * in_first[1] + 3 * in_second) / 5)
    assert np.isnan(found[2])
    np.testing.assert_array_equal(unbiased_gap_within(values, first, second, None), unbiased_gap(values, first, second))


def test_shifts_of_strata_are_no_distance() -> None:
    random = np.random.default_rng(4)
    strata = np.repeat([0, 1], [80, 20]), np.repeat([0, 1], [30, 70])
    one, other = (random.normal(size=(100, 3)) + 4.0 * codes[:, None] for codes in strata)
    assert energy_distance(one, other) > 1.0
    assert abs(energy_distance(one, other, strata=strata)) < 0.1
    assert energy_distance(one, other + 1.0, strata=strata) > 0.3


def test_samples_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(1, 3\) and \(4, 3\) cannot be compared"):
        energy_distance(np.zeros((1, 3)), np.zeros((4, 3)))
    with pytest.raises(DataError, match="same dimensions"):
        squared_mmd(np.zeros((5, 3)), np.zeros((4, 2)), [1.0])
    with pytest.raises(DataError, match=r"strata of shapes \(5,\) and \(5,\); give one code per cell"):
        energy_distance(np.zeros((5, 3)), np.zeros((4, 3)), strata=(np.zeros(5, int), np.zeros(5, int)))
