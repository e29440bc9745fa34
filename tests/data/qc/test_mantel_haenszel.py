"""Comparison within strata: equal to textbook formulas, to one table where there is one, and right in sparse strata."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, fisher_exact

from cradlevae.data.qc.confounding import confounding_test
from cradlevae.data.qc.mantel_haenszel import common_log_odds, exact_p_value
from cradlevae.errors import DataError

NAMES = ["A", "B", "control", "nobody"]


def enumerated_p(first: np.ndarray, second: np.ndarray) -> float:
    """The p of all tables with the same margins, one by one."""
    chances: dict[int, float] = {}
    ranges, total = [], 1
    for (a, b), (c, d) in zip(first.T, second.T, strict=True):
        ranges.append(
            [
                (x, comb(int(a + c), x) * comb(int(b + d), int(a + b) - x))
                for x in range(int(a + b) + 1)
                if x <= a + c and a + b - x <= b + d
            ]
        )
        total *= comb(int(a + b + c + d), int(a + b))
    for outcome in product(*ranges):
        failing = sum(x for x, _ in outcome)
        chances[failing] = chances.get(failing, 0) + int(np.prod([ways for _, ways in outcome], dtype=object))
    observed = chances[int(first[0].sum())]
    return sum(ways for ways in chances.values() if ways <= observed) / total


def tables(seed: int, n_strata: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, size, (2, n_strata)), random.integers(0, 2 * size, (2, n_strata))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_p_is_that_of_all_tables_with_the_same_margins(seed: int, n_strata: int) -> None:
    first, second = tables(seed, n_strata, 4)
    usable = (first.sum(axis=0) > 0) & (second.sum(axis=0) > 0)
    if not usable.any():
        assert np.isnan(exact_p_value(first, second))
        assert np.isnan(common_log_odds(first, second)).all()
        return
    assert exact_p_value(first, second) == pytest.approx(enumerated_p(first[:, usable], second[:, usable]))
    # Strata that tell nothing change nothing.
    more = np.c_[first, [[3, 0], [4, 0]]], np.c_[second, [[0, 2], [0, 5]]]
    assert exact_p_value(*more) == pytest.approx(exact_p_value(first, second))
    np.testing.assert_allclose(common_log_odds(*more), common_log_odds(first, second))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_one_stratum_is_fishers_table(seed: int) -> None:
    first, second = tables(seed, 1, 30)
    first[0] += 1
    second[1] += 1
    assert exact_p_value(first, second) == pytest.approx(fisher_exact(np.c_[first, second].T)[1])
    a, b, c, d = np.r_[first, second].ravel() + 0.5
    expected = np.log(a * d / (b * c)), np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    np.testing.assert_allclose(common_log_odds(first, second), expected)


def test_large_strata_agree_with_the_chi_squared_test() -> None:
    random = np.random.default_rng(1)
    first, second = random.integers(100, 300, (2, 5)), random.integers(100, 300, (2, 5))
    (a, b), (c, d) = first, second
    n = a + b + c + d
    variance = (a + b) * (c + d) * (a + c) * (b + d) / (n**2 * (n - 1.0))
    statistic = (abs((a - (a + b) * (a + c) / n).sum()) - 0.5) ** 2 / variance.sum()
    assert exact_p_value(first, second) == pytest.approx(chi2.sf(statistic, 1), rel=0.1)


def test_odds_ratio_by_hand() -> None:
    # Two strata of the same odds ratio, 6, and very different rates: the common one is 6 (but for ½ in 4,000 cells).
    first = np.array([[600, 60], [400, 940]])
    second = np.array([[200, 10], [800, 940]])
    log_odds, error = common_log_odds(first, second)
    assert np.exp(log_odds) == pytest.approx(6.0, rel=0.01)
    # Close to the inverse-variance mean of the two strata's standard errors.
    each = (1 / first + 1 / second).sum(axis=0)
    assert error == pytest.approx(np.sqrt(1 / (1 / each).sum()), rel=0.05)


def cells(seed: int = 0, n_cells: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, failures and strata of cells whose failures depend on the stratum alone."""
    random = np.random.default_rng(seed)
    codes, strata = random.integers(-1, 3, n_cells), random.integers(0, 4, n_cells)
    codes[:3] = 0, 1, 2
    return codes, random.random(n_cells) < np.array([0.1, 0.2, 0.5, 0.8])[strata], strata


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_order_of_cells_and_names_of_strata_do_not_matter(seed: int) -> None:
    codes, failed, strata = cells(seed)
    table = confounding_test(codes, NAMES, failed, strata=strata)
    random = np.random.default_rng(seed)
    order, labels = random.permutation(len(codes)), random.permutation(np.array([-7, 0, 12, 900]))
    other = confounding_test(codes[order], NAMES, failed[order], strata=labels[strata][order])
    pd.testing.assert_frame_equal(table, other, rtol=1e-9)


def test_one_stratum_gives_the_table_without_strata_to_the_last_digit() -> None:
    codes, failed, _ = cells()
    plain = confounding_test(codes, NAMES, failed)
    assert plain.equals(confounding_test(codes, NAMES, failed, strata=np.full(len(codes), 3)))
    # A stratum of cells without a condition is none.
    assert plain.equals(confounding_test(codes, NAMES, failed, strata=np.where(codes < 0, 9, 3)))


def test_perturbations_in_a_bad_batch_are_not_taken_for_harmful() -> None:
    random = np.random.default_rng(0)
    rate = np.array([0.05, 0.3])
    strata = np.r_[np.repeat([0, 1], 1000), np.repeat(np.arange(100) % 2, 60)]
    codes = np.r_[np.full(2000, 100), np.repeat(np.arange(100), 60)]
    names = [*(f"p{row}" for row in range(100)), "control"]
    failed = random.random(len(codes)) < rate[strata]
    assert confounding_test(codes, names, failed)["flagged"].mean() > 0.5
    within = confounding_test(codes, names, failed, strata=strata)
    assert not within["flagged"].any()
    assert 0.88 < ((within["low"] < 0) & (within["high"] > 0)).mean() <= 1.0
    # One that does harm is found.
    harmful = failed | ((codes == 4) & (random.random(len(codes)) < 0.5))
    assert list(confounding_test(codes, names, harmful, strata=strata).query("flagged")["perturbation"]) == ["p4"]


def test_sparse_strata_give_few_false_alarms_and_intervals_that_cover() -> None:
    random = np.random.default_rng(2)
    n_strata, n_perturbations = 50, 300
    rate = random.beta(1, 9, n_strata)
    codes = np.r_[np.repeat(np.arange(n_perturbations), 40), np.full(1000, n_perturbations)]
    strata = random.integers(0, n_strata, len(codes))
    names = [*(f"p{row}" for row in range(n_perturbations)), "control"]
    odds = 2.0  # of all perturbations, against the controls
    treated = rate * odds / (1 - rate + rate * odds)
    null = confounding_test(codes, names, random.random(len(codes)) < rate[strata], strata=strata)
    assert (null["p_value"] < 0.05).mean() < 0.06
    assert not null["flagged"].any()
    failed = random.random(len(codes)) < np.where(codes < n_perturbations, treated[strata], rate[strata])
    table = confounding_test(codes, names, failed, strata=strata)
    assert table["log_odds"].median() == pytest.approx(np.log(odds), abs=0.15)
    # All are compared with the same controls, whose chance they share.
    assert 0.88 < ((table["low"] < np.log(odds)) & (np.log(odds) < table["high"])).mean() <= 1.0


def test_a_perturbation_in_no_stratum_with_controls_is_not_compared() -> None:
    codes = np.repeat([0, 1, 2], [20, 20, 40])
    strata = np.r_[np.full(20, 5), np.repeat([0, 1], 10), np.repeat([0, 1], 20)]
    failed = np.r_[np.ones(20, bool), np.arange(20) % 10 < 9, np.arange(40) % 20 < 1]
    table = confounding_test(codes, NAMES, failed, strata=strata).set_index("perturbation")
    assert table.loc["A", ["log_odds", "low", "high", "p_value", "q_value"]].isna().all()
    assert not table.loc["A", "flagged"]
    assert table.loc["A", "n_failed"] == 20
    assert table.loc["B", "flagged"]
    # It does not count as a test of the others.
    assert table.loc["B", "q_value"] == table.loc["B", "p_value"]
    nobody = confounding_test(codes[codes != 1], NAMES, failed[codes != 1], strata=strata[codes != 1])
    assert nobody["p_value"].isna().all()
    assert not nobody["flagged"].any()


def test_strata_of_another_length_are_refused() -> None:
    codes, failed, strata = cells()
    with pytest.raises(DataError, match=r"\(399,\) strata; give one of each per cell"):
        confounding_test(codes, NAMES, failed, strata=strata[1:])
