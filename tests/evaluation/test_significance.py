from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from cradlevae.errors import DataError
from cradlevae.evaluation.significance import paired_permutation_test


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_exact_test_equals_scipy(seed, n):
    a, b = np.random.default_rng(seed).normal(size=(2, n))
    found = paired_permutation_test(a, b)
    expected = permutation_test(
        (a - b,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert found.exact
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))


def test_smallest_p_and_ties():
    assert paired_permutation_test([0.5, 0.6, 0.7], [0.1, 0.2, 0.3]).p_value == 1 / 8
    assert paired_permutation_test([0.3, 0.3], [0.3, 0.3]).p_value == 1.0
    # Equal in exact arithmetic, whatever the rounding: 0.1 + 0.2 against 0.3.
    assert paired_permutation_test([0.1, 0.2, 0.3], [0.0, 0.0, 0.0]).p_value == 1 / 8
    assert paired_permutation_test([0.1, 0.2, -0.3], [0.0, 0.0, 0.0]).p_value == 5 / 8


def test_many_pairs_are_sampled():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 40))
    found = paired_permutation_test(a + 2, b, seed=1)
    assert not found.exact
    assert found.p_value == 1 / 10_001
    assert found == paired_permutation_test(a + 2, b, seed=1)
    assert paired_permutation_test(a, a + b).p_value + paired_permutation_test(a + b, a).p_value == pytest.approx(
        1, abs=0.02
    )


def test_level_is_held_without_a_difference():
    random = np.random.default_rng(2)
    p = [paired_permutation_test(*random.normal(size=(2, 8))).p_value for _ in range(1000)]
    assert np.mean(np.array(p) <= 0.05) < 0.07


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0], [1.0, 2.0], "one length"),
        ([], [], "one length"),
        ([1.0, np.nan], [1.0, 2.0], "NaN or infinite"),
    ],
)
def test_bad_input_is_named(a, b, message):
    with pytest.raises(DataError, match=message):
        paired_permutation_test(a, b)
