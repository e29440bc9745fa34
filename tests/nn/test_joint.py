"""Effects from several classes of cells, with covariance between conditions and genes: against dense posteriors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from cradlevae.nn import joint
from cradlevae.nn.hierarchy import Evidence, hierarchical_shrink
from cradlevae.nn.joint import TO_DIAGONAL, joint_shrink, pooled_evidence
from cradlevae.nn.multivariate import _GenePosterior, multivariate_shrink

Table = np.ndarray

LAST_SWEEP = 2e-3
"""What one sweep of the scales more or less moves effects by: rounding decides which is the last one."""


def drawn(
    seed: int, n_conditions: int = 8, n_genes: int = 60, slopes: tuple[float, ...] = (1.0, 0.4)
) -> tuple[Table, list[Evidence], Table]:
    """True effects, controls first; means of them in classes of cells; and which are controls."""
    random = np.random.default_rng(seed)
    truth = 0.3 * random.standard_normal((n_conditions, 2)) @ random.standard_normal((2, n_genes))
    truth[0] = 0
    classes = []
    for slope in slopes:
        n_cells = random.integers(30, 200, n_conditions).astype(float)
        within = np.exp(random.normal(0, 0.3, n_genes))
        noise = np.sqrt(within / n_cells[:, None]) * random.standard_normal(truth.shape)
        base = random.uniform(0, 4, n_genes)
        classes.append(replace(Evidence.of_cells(base + slope * truth + noise, n_cells, within), slope=slope))
    return truth, classes, np.arange(n_conditions) == 0


def only(one: Evidence, measured: Table) -> Evidence:
    """The evidence of some conditions; the others have no cells."""
    return replace(one, n_cells=np.where(measured, one.n_cells, 0.0))


def test_the_posterior_along_a_direction_is_the_dense_one() -> None:
    random = np.random.default_rng(0)
    scale, loadings = np.exp(random.normal(0, 1, 7)), 0.4 * random.standard_normal((7, 2)) / np.sqrt(2)
    gene = np.diag(1 - (loadings**2).sum(axis=1)) + loadings @ loadings.T
    prior = 1.7 * np.sqrt(scale)[:, None] * gene * np.sqrt(scale)
    gain = prior @ np.linalg.inv(prior + np.eye(7))
    found, measured = _GenePosterior.of(1.7, scale, loadings), random.standard_normal((3, 7))
    np.testing.assert_allclose(found.mean(measured), measured @ gain.T, atol=1e-10)
    np.testing.assert_allclose(found.variance, np.diag(prior - gain @ prior), atol=1e-10)


def test_the_pool_is_the_mean_by_precision() -> None:
    """Where classes vary alike, it is that of all cells, each difference divided by its slope."""
    _, classes, control = drawn(0)
    n_cells = np.full(8, 100.0)
    within = np.linspace(0.5, 2, 60)
    alike = [Evidence.of_cells(one.mean, n_cells, within) for one in classes]
    alike[1] = replace(alike[1], slope=0.5)
    pool = pooled_evidence(alike, control, ~control)
    of_class = [one.mean[1:] - one.mean[0] for one in alike]
    np.testing.assert_allclose(pool.value, (of_class[0] + 0.25 * of_class[1] / 0.5) / 1.25, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pool.within / pool.n_cells[:, None], np.tile(within / 125, (7, 1)), rtol=1e-6)
    np.testing.assert_allclose(pool.within / pool.n_controls, within / 125, rtol=1e-6)


def test_one_class_without_expectation_is_the_multivariate_mean() -> None:
    _, (one, _), control = drawn(1)
    n_cells, within = one.n_cells / one.n_cells[0], one.within / one.n_cells[0]
    mean, variance = multivariate_shrink(one.mean[1:] - one.mean[0], n_cells[1:], 1.0, within, to_diagonal=TO_DIAGONAL)
    found = joint_shrink([one], np.zeros_like(one.mean), control)
    np.testing.assert_allclose(found.together[1:], mean, atol=1e-5)
    np.testing.assert_allclose(found.together_variance[1:], variance, atol=1e-5)
    np.testing.assert_array_equal(found.apart, hierarchical_shrink([one], np.zeros_like(one.mean), control)[0])
    assert not found.together[0].any()


def test_diluted_cells_add_what_they_tell_and_a_slope_of_nothing_adds_nothing() -> None:
    errors = []
    for seed in range(5):
        truth, classes, control = drawn(seed, n_conditions=15, n_genes=200, slopes=(1.0, 0.9))
        zero = np.zeros_like(truth)
        both, alone = joint_shrink(classes, zero, control), joint_shrink(classes[:1], zero, control)
        errors.append([((one.together - truth) ** 2).mean() for one in (both, alone)])
        none = joint_shrink([classes[0], replace(classes[1], slope=0.0)], zero, control)
        np.testing.assert_allclose(none.together, alone.together, atol=1e-6)
    with_them, without = np.mean(errors, axis=0)
    assert with_them < 0.8 * without


def test_a_class_without_controls_is_no_evidence_of_what_varies_together() -> None:
    truth, classes, control = drawn(2)
    unknown = only(classes[1], ~control)
    zero = np.zeros_like(truth)
    found = joint_shrink([classes[0], unknown], zero, control)
    np.testing.assert_array_equal(found.together, joint_shrink(classes[:1], zero, control).together)
    alone = joint_shrink([unknown], zero, control)
    np.testing.assert_array_equal(alone.together, alone.apart)


def test_effects_are_shrunk_towards_what_is_expected() -> None:
    truth, classes, control = drawn(3)
    found = joint_shrink(classes, truth, control)
    blind = joint_shrink(classes, np.zeros_like(truth), control)
    assert ((found.together) ** 2).mean() < 0.3 * ((blind.together - truth) ** 2).mean()


def test_genes_that_vary_together_tell_of_each_other() -> None:
    random = np.random.default_rng(4)
    n_conditions, n_genes = 15, 200
    loadings = np.sqrt(0.9) * np.eye(10)[np.arange(n_genes) % 10]
    truth = 0.15 * random.standard_normal((n_conditions, 10)) @ loadings.T
    truth[0] = 0
    n_cells = np.full(n_conditions, 60.0)
    noise = random.standard_normal(truth.shape) / np.sqrt(n_cells)[:, None]
    one, control = Evidence.of_cells(truth + noise, n_cells, np.ones(n_genes)), np.arange(n_conditions) == 0
    zero = np.zeros_like(truth)
    known, alone = joint_shrink([one], zero, control, loadings), joint_shrink([one], zero, control)
    assert ((known.together - truth) ** 2).mean() < 0.6 * ((alone.together - truth) ** 2).mean()
    z = (known.together - truth)[1:] / np.sqrt(known.together_variance[1:])
    assert (np.abs(z) < 1.645).mean() == pytest.approx(0.9, abs=0.06)


def test_the_mixture_has_the_mean_and_variance_of_one() -> None:
    truth, classes, control = drawn(5)
    found = joint_shrink(classes, np.zeros_like(truth), control)
    mean, variance = found.mixed(0.3)
    np.testing.assert_allclose(mean, 0.7 * found.together + 0.3 * found.apart, atol=1e-6)
    second = 0.7 * (found.together_variance + found.together**2) + 0.3 * (found.apart_variance + found.apart**2)
    np.testing.assert_allclose(variance, second - mean**2, atol=1e-6)
    np.testing.assert_array_equal(found.mixed(0.0)[0], found.together)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_order_means_nothing(seed: int) -> None:
    truth, classes, control = drawn(seed, 6, 40)
    random = np.random.default_rng(seed)
    rows, genes = random.permutation(6), random.permutation(40)
    loadings = random.uniform(-0.5, 0.5, (40, 3))
    moved = [Evidence(one.mean[rows][:, genes], one.n_cells[rows], one.within[genes], one.slope) for one in classes]
    found = joint_shrink(classes, 0.5 * truth, control, loadings)
    other = joint_shrink(moved, 0.5 * truth[rows][:, genes], control[rows], loadings[genes])
    np.testing.assert_allclose(other.together, found.together[rows][:, genes], atol=LAST_SWEEP)
    np.testing.assert_allclose(other.apart, found.apart[rows][:, genes], atol=LAST_SWEEP)


def test_conditions_without_cells_have_nothing() -> None:
    truth, classes, control = drawn(6)
    told = np.arange(8) != 3
    found = joint_shrink([only(one, told) for one in classes], np.zeros_like(truth), control)
    assert not found.together[3].any()
    assert not found.together_variance[3].any()
    assert found.together[2].any()


def alike(seed: int, *classes: tuple[float, float, float]) -> tuple[Table, list[Evidence], Table]:
    """Effects of 14 conditions after a control; classes by number of controls, of cells of a condition, and slope."""
    random = np.random.default_rng(seed)
    truth = 0.3 * random.standard_normal((15, 2)) @ random.standard_normal((2, 300))
    truth[0] = 0
    evidence = []
    for n_controls, n_treated, slope in classes:
        n_cells = np.where(np.arange(15) == 0, n_controls, n_treated)
        noise = random.standard_normal(truth.shape) / np.sqrt(n_cells)[:, None]
        evidence.append(replace(Evidence.of_cells(slope * truth + noise, n_cells, np.ones(300)), slope=slope))
    return truth, evidence, np.arange(15) == 0


@pytest.mark.parametrize("failed", [(3, 10, 1.0), (3, 100, 1.0), (2, 40, 0.5), (250, 10, 1.0)])
def test_a_class_of_few_controls_spoils_nothing(failed: tuple[float, float, float]) -> None:
    """Its many treated cells all stand on the noise of these controls."""
    both, alone, within = [], [], []
    for seed in range(3):
        truth, classes, control = alike(seed, (1000, 40, 1.0), failed)
        zero = np.zeros_like(truth)
        found, without = joint_shrink(classes, zero, control), joint_shrink(classes[:1], zero, control)
        both.append(((found.together - truth) ** 2).mean())
        alone.append(((without.together - truth) ** 2).mean())
        within.append(np.abs(found.together - truth)[1:] < 1.645 * np.sqrt(found.together_variance[1:]))
    assert np.mean(both) < 1.02 * np.mean(alone)
    assert np.mean(within) > 0.87


def test_a_class_of_failed_cells_alone_does() -> None:
    truth, (failed,), control = alike(0, (200, 50, 1.0))
    found = joint_shrink([failed], np.zeros_like(truth), control)
    assert ((found.together - truth) ** 2).mean() < 0.3 * (truth**2).mean()


@pytest.mark.parametrize("slope", [1e-200, 1e-9, 1e-3, 0.05])
def test_a_condition_that_hardly_anything_is_told_of_has_no_wild_effect(slope: float) -> None:
    truth, (passing, failed), control = alike(1, (1000, 100, 1.0), (1000, 8, slope))
    passing = only(passing, np.arange(15) != 3)
    found = joint_shrink([passing, failed], np.zeros_like(truth), control)
    np.testing.assert_array_equal(found.together[3], found.apart[3])
    assert found.together_variance[3].mean() < 2 * (truth**2).mean()
    others = np.arange(15) != 3
    assert ((found.together - truth)[others] ** 2).mean() < 0.1 * (truth**2).mean()


def test_genes_that_no_cell_shows_do_not_say_what_cells_are_worth() -> None:
    random = np.random.default_rng(2)
    n_cells, within = np.geomspace(10, 3000, 8), np.where(np.arange(60) < 20, 1e-12, 1.0)
    mean = random.standard_normal((8, 60)) * np.sqrt(within / n_cells[:, None])
    one, control = Evidence.of_cells(mean, n_cells, within), np.arange(8) == 0
    pool = pooled_evidence([one], control, ~control)
    np.testing.assert_allclose(pool.n_cells / pool.n_cells[0], n_cells[1:] / n_cells[1], rtol=1e-4)
    assert pool.n_controls / pool.n_cells[0] == pytest.approx(n_cells[0] / n_cells[1], rel=1e-4)
    found = joint_shrink([one], np.zeros((8, 60)), control)
    assert np.abs(found.together[:, :20]).max() < 1e-4
    nothing = joint_shrink([Evidence.of_cells(0 * mean, n_cells, 0 * within)], np.zeros((8, 60)), control)
    assert not nothing.together.any()


def test_one_condition_is_shrunk_by_its_own_evidence() -> None:
    truth, (one, _), control = drawn(7, n_conditions=2, n_genes=300)
    found = joint_shrink([one], np.zeros_like(truth), control)
    measured = one.mean[1] - one.mean[0]
    assert ((found.together[1] - truth[1]) ** 2).mean() < ((measured - truth[1]) ** 2).mean()
    nobody = joint_shrink([one.of(np.array([0]))], np.zeros((1, 300)), control[:1])
    assert not nobody.together.any()


def test_means_without_cells_may_be_anything() -> None:
    truth, classes, control = drawn(8)
    told = np.arange(8) != 3
    unknown = only(classes[1], told)
    spoilt = replace(unknown, mean=np.where(told[:, None], unknown.mean, np.nan))
    found, other = (joint_shrink([classes[0], one], np.zeros_like(truth), control) for one in (spoilt, unknown))
    np.testing.assert_array_equal(found.together, other.together)
    np.testing.assert_array_equal(found.apart, other.apart)


def test_without_covariances_it_shrinks_as_the_hierarchy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "TO_DIAGONAL", 1.0)
    random = np.random.default_rng(9)
    strength, spread = np.exp(random.normal(0, 0.7, 40)), np.exp(random.normal(0, 0.7, 400))
    truth = 0.1 * strength[:, None] * spread * random.standard_normal((40, 400))
    truth[0] = 0
    n_cells = np.where(np.arange(40) == 0, 20_000.0, random.integers(50, 200, 40))
    noise = random.standard_normal(truth.shape) / np.sqrt(n_cells)[:, None]
    one, control = Evidence.of_cells(truth + noise, n_cells, np.ones(400)), np.arange(40) == 0
    found = joint_shrink([one], np.zeros_like(truth), control)
    kept = [table[1:] / one.variance_of(slice(None))[1:] for table in (found.together_variance, found.apart_variance)]
    assert spearmanr(*(table.ravel() for table in kept)).statistic > 0.96
    assert spearmanr(*(table.mean(axis=1) for table in kept)).statistic > 0.96
    assert spearmanr(*(table.mean(axis=0) for table in kept)).statistic > 0.96
    errors = [((table - truth) ** 2).mean() for table in (found.together, found.apart)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_more_conditions_than_are_learned_as_a_whole_have_their_loadings(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, classes, control = drawn(10, n_conditions=40, n_genes=150)
    loadings = np.random.default_rng(0).uniform(-0.3, 0.3, (150, 3))
    whole = joint_shrink(classes, np.zeros_like(truth), control, loadings)
    monkeypatch.setattr("cradlevae.nn.multivariate.FULL", 20)
    monkeypatch.setattr("cradlevae.nn.multivariate.RANK", 10)
    found = joint_shrink(classes, np.zeros_like(truth), control, loadings)
    errors = [((one.together - truth) ** 2).mean() for one in (found, whole)]
    assert errors[0] < 1.3 * errors[1]
    assert (found.together_variance[1:] > 0).all()
