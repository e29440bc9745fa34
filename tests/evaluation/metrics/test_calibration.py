"""Coverage of intervals: nominal where the posterior is right, with noise of measurement and without."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.data.moments import ConditionMoments, moderated_variance
from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.calibration import coverage, covered, largest_genes, mean_width, predictive_interval
from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.evaluation.reference_effects import MIN_CELLS, Noise, Reference
from cradlevae.evaluation.score_table import Scores
from cradlevae.evaluation.scorers.calibration import score_calibration

SHAPE = (40, 500)


def test_coverage_counts_both_ends() -> None:
    assert coverage([[0.0, 1.0, 2.0, 3.0]], [[0.0, 0.0, 0.0, 4.0]], [[1.0, 1.0, 1.0, 5.0]]) == 0.5
    np.testing.assert_array_equal(covered([1.0], [1.0], [1.0]), [True])
    assert mean_width([0.0, 1.0], [1.0, 4.0]) == 2.0
    with pytest.raises(DataError, match="do not fit"):
        coverage([1.0], [0.0, 0.0], [1.0, 1.0])


def test_a_predictive_interval_adds_both_variances() -> None:
    low, high = predictive_interval([1.0], [3.0], [4.0], 90)
    np.testing.assert_allclose(high - low, 2 * 1.6448536 * 5)
    np.testing.assert_allclose((low + high) / 2, 1)


def test_the_largest_genes_of_each_condition() -> None:
    effects = np.zeros((2, 30))
    effects[0, :20], effects[1, 10:] = -3.0, 2.0
    np.testing.assert_array_equal(largest_genes(effects), effects != 0)
    assert largest_genes(effects[:, :5]).all()


def test_variances_of_few_cells_lean_on_those_of_all_conditions() -> None:
    variance = np.array([[1.0, 2.0], [0.0, 4.0], [np.nan, np.nan]])
    moments = ConditionMoments(("control", "A", "B"), np.array([101, 21, 1]), np.zeros((3, 2)), variance)
    pooled = (100 * variance[0] + 20 * variance[1]) / 120
    expected = [(100 * variance[0] + 20 * pooled) / 120, (20 * variance[1] + 20 * pooled) / 40, pooled]
    np.testing.assert_allclose(moderated_variance(moments), expected)


def posterior(random: np.random.Generator, scale: float = 1.0) -> tuple[ad.AnnData, np.ndarray]:
    """Effects with intervals of a posterior from which the truth is drawn; its deviation is said ``scale`` times."""
    effect = random.normal(size=SHAPE)
    deviation = random.uniform(0.1, 0.5, size=SHAPE)
    truth = effect + deviation * random.normal(size=SHAPE)
    reach = 1.6448536 * scale * deviation
    layers = {
        "low": effect - reach, "high": effect + reach, "sd": scale * deviation, "mc_error": np.zeros(SHAPE)
    }  # fmt: skip
    names = [f"t{row}" for row in range(SHAPE[0])]
    settings = {"effects": {"credible": 0.9}}
    return ad.AnnData(effect, obs=pd.DataFrame(index=names), layers=layers, uns=settings), truth


def measured(truth: np.ndarray, random: np.random.Generator, n_cells: Any = 100) -> Reference:
    """The truth with noise, of which halves have more."""
    error = random.uniform(0.2, 2.0, size=SHAPE)
    halves = [(truth + 2**0.5 * error * random.normal(size=SHAPE), 2**0.5 * error) for _ in range(2)]
    value = (halves[0][0] + halves[1][0]) / 2
    noise = Noise(np.broadcast_to(n_cells, SHAPE[:1]), error, (halves[0], halves[1]))
    return Reference("cells", tuple(f"t{row}" for row in range(SHAPE[0])), value, 1.0, 1.0, 1.0, 1.0, noise)


def rows(reference: Reference, predicted: ad.AnnData) -> pd.DataFrame:
    scores = Scores("held-out")
    score_calibration(scores, SimpleNamespace(seed=0), [reference], predicted)
    return scores.table().set_index("metric")


def test_coverage_of_a_right_posterior_is_nominal_on_all_genes_and_on_the_largest() -> None:
    random = np.random.default_rng(0)
    predicted, truth = posterior(random)
    reference = measured(truth, random)
    found = rows(reference, predicted)
    assert set(found.index) <= set(REGISTRY)
    for level in (50, 90):
        for suffix, tolerance in (("", 0.01), ("_top20", 0.03)):
            row = found.loc[f"predictive_coverage_{level}{suffix}"]
            assert row["value"] == pytest.approx(level / 100, abs=tolerance), row.name
            assert row["low"] < row["value"] < row["high"]
    # Chosen by the noise that they are scored with, genes would be covered too rarely.
    low, high = predictive_interval(predicted.X, predicted.layers["sd"], reference.noise.standard_error, 90)
    assert covered(reference.effects, low, high)[largest_genes(reference.effects)].mean() < 0.8
    assert found.loc["predictive_width_90", "value"] == pytest.approx(mean_width(low, high))
    assert found.loc["credible_width_90", "value"] == pytest.approx(
        mean_width(predicted.layers["low"], predicted.layers["high"])
    )


@pytest.mark.parametrize(("scale", "below"), [(0.2, True), (4.0, False)])
def test_a_posterior_too_sure_or_not_sure_enough_is_seen(scale: float, below: bool) -> None:
    random = np.random.default_rng(1)
    predicted, truth = posterior(random, scale)
    found = rows(measured(truth, random), predicted)
    assert (found.loc["predictive_coverage_50", "value"] < 0.49) == below
    assert (found.loc["predictive_coverage_50", "value"] > 0.51) == (not below)


def test_perturbations_of_few_cells_are_left_out_by_name() -> None:
    random = np.random.default_rng(2)
    predicted, truth = posterior(random)
    n_cells = np.full(SHAPE[0], 100)
    n_cells[3] = MIN_CELLS - 1
    found = rows(measured(truth, random, n_cells), predicted)
    assert found.loc["predictive_coverage_90", "note"].endswith("fewer than 20 cells: t3")
    none = rows(measured(truth, random, 5), predicted)
    assert none["value"].isna().all()
    assert none["note"].str.contains("t0, t1, t2").all()


def test_the_exact_truth_is_met_by_the_credible_interval_itself(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    scores = cv.evaluate(model, simulated, generated=False)
    exact = scores[scores["reference"] == "simulated truth"].set_index("metric")
    truth = simulated.uns["truth"]
    names = [str(name) for name in truth["effect_conditions"]]
    held = sorted(set(simulated[model.split.cells("test")].obs["perturbation"]) - {"control"})
    real = np.asarray(truth["effects"])[[names.index(name) for name in held]]
    for level in (50, 90):
        found = model.effects(held, credible=level / 100)
        low, high = found.layers["low"], found.layers["high"]
        assert exact.loc[f"credible_coverage_{level}", "value"] == pytest.approx(coverage(real, low, high))
        assert exact.loc[f"credible_width_{level}", "value"] == pytest.approx(mean_width(low, high))
        inside = covered(real, low, high)[largest_genes(real)].mean()
        assert exact.loc[f"credible_coverage_{level}_top20", "value"] == pytest.approx(inside)
    assert not exact.index.str.startswith("predictive").any()
    assert not scores.loc[scores["reference"] != "simulated truth", "metric"].str.contains("credible_coverage").any()
