"""Hierarchical shrinkage: against a plain Gaussian posterior, its invariances, and what it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.nn import hierarchy
from cradlevae.nn.hierarchy import Evidence, hierarchical_shrink, most_probable_square

pytestmark = pytest.mark.numeric


def table(seed: int = 0, n_rows: int = 13, n_genes: int = 80, noise: float = 0.3) -> tuple[Evidence, np.ndarray]:
    """Effects of which a third of the conditions have none; the first row is the control."""
    rng = np.random.default_rng(seed)
    strength = np.where(np.arange(n_rows) % 3 == 0, 0.0, rng.uniform(0.5, 2, n_rows))
    truth = strength[:, None] * rng.uniform(0.1, 1, n_genes) * rng.standard_normal((n_rows, n_genes))
    truth[0] = 0
    cells = rng.integers(20, 200, n_rows)
    variance = noise**2 * 50 / cells[:, None] * np.ones(n_genes)
    mean = 3 + truth + np.sqrt(variance) * rng.standard_normal(truth.shape)
    return Evidence.of_cells(mean, cells, np.full(n_genes, noise**2 * 50)), truth


def variance(one: Evidence) -> np.ndarray:
    return one.variance_of(slice(None))


def control(one: Evidence) -> np.ndarray:
    return np.arange(len(one.mean)) == 0


def zero(one: Evidence) -> np.ndarray:
    return np.zeros_like(one.mean)


def test_it_is_nearer_to_the_truth_than_what_was_measured_and_than_one_scale_for_all() -> None:
    one, truth = table()
    found, _ = hierarchical_shrink([one], zero(one), control(one))
    raw = one.mean - one.mean[0]
    spread = np.maximum((raw[1:] ** 2 - variance(one)[1:] - variance(one)[0]).mean(axis=0), 0)
    plain = raw * spread / (spread + variance(one) + variance(one)[0])
    errors = [((value[1:] - truth[1:]) ** 2).mean() for value in (raw, plain, found)]
    assert errors[2] < 0.8 * errors[1] < 0.8 * errors[0]


def test_conditions_without_effect_are_silenced() -> None:
    one, truth = table(noise=0.2)
    found, _ = hierarchical_shrink([one], zero(one), control(one))
    idle = ~truth.any(axis=1)
    assert np.abs(found[idle]).mean() < 0.1 * np.abs(found[~idle]).mean()


@given(st.integers(0, 200))
@settings(max_examples=10, deadline=None)
def test_genes_without_counts_have_no_say(n_silent: int) -> None:
    one, _ = table()
    alone, _ = hierarchical_shrink([one], zero(one), control(one))
    silent = np.zeros((len(one.mean), n_silent))
    both = Evidence.of_cells(np.hstack([one.mean, silent]), one.n_cells, np.r_[one.within, np.zeros(n_silent)])
    found, _ = hierarchical_shrink([both], zero(both), control(both))
    np.testing.assert_allclose(found[:, : alone.shape[1]], alone, atol=1e-5)
    assert np.abs(found[:, alone.shape[1] :]).max(initial=0) < 1e-3


def test_its_variance_says_how_far_off_it_is() -> None:
    inside = []
    for seed in range(10):
        one, truth = table(seed, n_rows=30)
        found, spread = hierarchical_shrink([one], zero(one), control(one))
        moved = truth.any(axis=1)
        inside.append(np.abs(found - truth)[moved] < 1.645 * np.sqrt(spread[moved]))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.05)


def test_a_diluted_class_is_evidence_as_far_as_its_slope_goes() -> None:
    rng = np.random.default_rng(1)
    one, truth = table(noise=0.5)
    mean = 7 + 0.5 * truth + np.sqrt(variance(one)) * rng.standard_normal(truth.shape)
    failed = replace(Evidence.of_cells(mean, one.n_cells, one.within), slope=0.5)
    alone, wide = hierarchical_shrink([one], zero(one), control(one))
    both, narrow = hierarchical_shrink([one, failed], zero(one), control(one))
    assert ((both - truth) ** 2).mean() < ((alone - truth) ** 2).mean()
    assert narrow.mean() < wide.mean()
    none, _ = hierarchical_shrink([one, replace(failed, slope=0.0)], zero(one), control(one))
    np.testing.assert_allclose(none, alone, atol=1e-6)


def test_expected_effects_are_taken_out_and_put_back() -> None:
    one, truth = table()
    rest, _ = hierarchical_shrink([one], truth, control(one))
    whole, _ = hierarchical_shrink([one], zero(one), control(one))
    assert (rest**2).mean() < 0.2 * (whole**2).mean()


def test_conditions_without_cells_and_tables_without_effects_stay_at_zero() -> None:
    one, _ = table()
    cells = one.n_cells.copy()
    cells[4] = 0
    mean = one.mean.copy()
    mean[4] = np.nan
    unmeasured = Evidence.of_cells(mean, cells, one.within)
    found, spread = hierarchical_shrink([unmeasured], zero(one), control(one))
    assert not found[4].any()
    assert np.isfinite(found).all()
    nobody = np.ones(len(mean), dtype=bool)
    found, spread = hierarchical_shrink([one], zero(one), nobody)
    assert not found.any()
    assert not spread.any()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_order_and_base_do_not_matter(seed: int, scale: float, shift: float) -> None:
    one, _ = table(seed, n_rows=6, n_genes=10)
    found, before = hierarchical_shrink([one], zero(one), control(one))
    rng = np.random.default_rng(seed)
    rows, genes = rng.permutation(6), rng.permutation(10)
    moved = Evidence.of_cells((one.mean + shift)[rows][:, genes], one.n_cells[rows], one.within[genes])
    again, spread = hierarchical_shrink([moved], zero(one), control(one)[rows])
    np.testing.assert_allclose(again, found[rows][:, genes], atol=1e-5)
    np.testing.assert_allclose(spread, before[rows][:, genes], atol=1e-5)


@pytest.mark.parametrize(("n_rows", "square"), [(1, 0.0), (1, 64.0), (3, 0.2), (50, 0.2)])
def test_the_prior_of_a_genes_scale_decides_where_few_conditions_do_not(n_rows: int, square: float) -> None:
    median, sd = 0.1, 1.0
    variance = most_probable_square(np.array([square]), n_rows, median, sd)
    log_spread = np.linspace(-6, 4, 100_001)
    log_posterior = (
        -n_rows * log_spread
        - n_rows * square * np.exp(-2 * log_spread) / 2
        - ((log_spread - np.log(median)) / sd) ** 2 / 2
    )
    assert np.log(variance[0]) / 2 == pytest.approx(log_spread[log_posterior.argmax()], abs=1e-3)


def test_scales_that_some_genes_tell_serve_all_genes(monkeypatch: pytest.MonkeyPatch) -> None:
    one, truth = table(n_rows=40, n_genes=600)
    found, spread = hierarchical_shrink([one], zero(one), control(one))
    monkeypatch.setattr(hierarchy, "SOME_VALUES", 40 * 150)
    other, other_spread = hierarchical_shrink([one], zero(one), control(one))
    errors = [((value - truth) ** 2).mean() for value in (found, other)]
    assert errors[1] < 1.05 * errors[0]
    assert np.corrcoef(found.ravel(), other.ravel())[0, 1] > 0.995
    assert other_spread.mean() == pytest.approx(spread.mean(), rel=0.1)
