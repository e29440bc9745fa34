"""The difference of two conditions: that of their effects, but surer."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy.stats import spearmanr

import cradlevae as cv

pytestmark = pytest.mark.numeric


def test_it_is_the_difference_of_effects_with_less_error(model: cv.CradleVAE) -> None:
    found = model.contrast("A", "B+A", error=9)
    assert list(found.obs_names) == ["A − B+A"]
    effects = model.effects(["A", "A+B"], error=9)
    np.testing.assert_allclose(found.X[0], effects.X[0] - effects.X[1], atol=1e-5)
    independent = np.hypot(*effects.layers["sd"])
    assert found.layers["sd"].mean() < 0.9 * independent.mean()
    assert found.obs["n_cells"].tolist() == [effects.obs["n_cells"].min()]
    assert set(found.layers) == set(effects.layers)
    assert spearmanr(found.layers["lfsr"][0], np.abs(found.X[0]) / found.layers["sd"][0]).statistic < -0.9


def test_the_other_way_round_it_has_the_other_sign(model: cv.CradleVAE) -> None:
    one, other = model.contrast("A", "B", error=9), model.contrast("B", "A", error=9)
    np.testing.assert_allclose(one.X, -other.X, atol=1e-5)
    for low, high in (("low", "high"), ("high", "low"), ("sd", "sd"), ("lfsr", "lfsr")):
        sign = -1 if low != high else 1
        np.testing.assert_allclose(one.layers[low], sign * other.layers[high], atol=2e-3)


def test_beside_the_control_it_is_the_effect(model: cv.CradleVAE) -> None:
    found, effects = model.contrast("C", "control", error=9), model.effects("C", error=9)
    for layer in effects.layers:
        np.testing.assert_allclose(found.layers[layer], effects.layers[layer], atol=1e-5)


def test_in_a_context_and_a_batch(screen_model: cv.CradleVAE) -> None:
    found = screen_model.contrast("B", "C", context="context1", batch="batch2", error=9)
    effects = screen_model.effects(["B", "C"], context="context1", batch="batch2", error=9)
    np.testing.assert_allclose(found.X[0], effects.X[0] - effects.X[1], atol=1e-5)
    assert found.uns["effects"]["context"] == "context1"


def test_one_condition_twice_is_refused(model: cv.CradleVAE) -> None:
    with pytest.raises(cv.DataError, match="first and second are the same condition, 'A\\+B'"):
        model.contrast("A+B", "B+A")
    with pytest.raises(cv.DataError, match="unknown perturbation 'X'"):
        model.contrast("A", "X")


def test_it_is_written_and_tabulated(model: cv.CradleVAE, tmp_path: object) -> None:
    found = model.contrast("A", "B", error=9)
    found.write_h5ad(f"{tmp_path}/contrast.h5ad")
    read = ad.read_h5ad(f"{tmp_path}/contrast.h5ad")
    assert cv.effects_table(read)["perturbation"].unique().tolist() == ["A − B"]
