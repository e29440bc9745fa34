"""Shares of responders from log odds of cells: closed forms, and truth that is simulated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from cradlevae.query.responders.shares import SHARES, fit_shares

ONE = np.ones(1)


def certain(n_responding: int, n_escaping: int) -> np.ndarray:
    return np.r_[np.full(n_responding, 50.0), np.full(n_escaping, -50.0)][:, None]


def test_of_cells_that_are_certain_the_share_is_their_share() -> None:
    fit = fit_shares({"A": certain(300, 100)}, ONE, credible=0.9)["A"]
    assert fit.share == pytest.approx(0.75, abs=0.01)
    low, high = beta.ppf([0.05, 0.95], 301, 101)
    assert (fit.low, fit.high) == pytest.approx((low, high), abs=0.01)
    np.testing.assert_allclose(fit.responding, [1] * 300 + [0] * 100, atol=1e-6)


def test_cells_that_say_nothing_leave_what_was_believed_before() -> None:
    fit = fit_shares({"A": np.zeros((50, 1))}, ONE, credible=0.9)["A"]
    assert fit.share == pytest.approx(0.5, abs=0.02)
    assert fit.high - fit.low > 0.6
    np.testing.assert_allclose(fit.responding, fit.share, atol=1e-9)


def test_perturbations_lend_each_other_what_they_know() -> None:
    silent = np.zeros((50, 1))
    alone = fit_shares({"S": silent}, ONE, credible=0.9)["S"]
    many = {f"P{number}": certain(90, 10) for number in range(10)}
    among = fit_shares(many | {"S": silent}, ONE, credible=0.9)["S"]
    assert among.share > alone.share + 0.2
    assert among.high - among.low < alone.high - alone.low


def test_the_factor_is_the_one_that_the_cells_are_probable_under() -> None:
    rng = np.random.default_rng(0)
    factors = np.array([1.0, 2.0, 3.0])
    shift = np.where(rng.random(400) < 0.5, 2.0, 0.0)
    x = rng.normal(shift, 0.5)
    odds = (x[:, None] * factors - factors**2 / 2) / 0.5**2  # Normal(factor, 0.5) against Normal(0, 0.5)
    fit = fit_shares({"A": odds}, factors, credible=0.9)["A"]
    assert fit.factor == pytest.approx(2, abs=0.01)
    assert fit.share == pytest.approx((shift > 0).mean(), abs=0.05)
    assert (fit.responding > 0.5)[shift > 0].mean() > 0.95


def test_intervals_hold_the_share_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(15):
        shares = rng.uniform(0.2, 0.9, 10)
        mean = {str(number): rng.random(80) < share for number, share in enumerate(shares)}
        odds = {name: (2 * rng.normal(2.0 * took, 1) - 2)[:, None] for name, took in mean.items()}
        fits = fit_shares(odds, ONE, credible=0.9)
        held += sum(fits[str(number)].low <= share <= fits[str(number)].high for number, share in enumerate(shares))
    assert 0.84 <= held / 150 <= 0.97


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=30), st.floats(0.05, 0.9))
def test_an_answer_is_a_probability_and_does_not_depend_on_the_order(values: list[float], credible: float) -> None:
    odds = np.array(values)[:, None] * [1, 2]
    factors = np.array([1.0, 2.0])
    fit = fit_shares({"A": odds}, factors, credible=credible)["A"]
    assert SHARES[0] <= fit.share <= SHARES[-1]
    assert 0 <= fit.low < fit.high <= 1
    assert 1 - 1e-9 <= fit.factor <= 2 + 1e-9
    assert ((fit.responding >= 0) & (fit.responding <= 1)).all()
    order = np.random.default_rng(0).permutation(len(values))
    again = fit_shares({"A": odds[order]}, factors, credible=credible)["A"]
    np.testing.assert_allclose(again.responding, fit.responding[order], rtol=1e-9, atol=1e-12)
    lower, higher = (fit_shares({"A": odds[:, :1] + more}, ONE, credible=credible)["A"].share for more in (0, 1))
    assert higher >= lower - 1e-9
