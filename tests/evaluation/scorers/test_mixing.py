"""Cells that are mixed: matched, disjoint, the same for all predictors; their rows in the table of scores."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.evaluation.scorers import mixing
from cradlevae.evaluation.scorers.mixing import matched_cells


@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 1000))
def test_cells_are_matched_by_condition(model: cv.CradleVAE, n_conditions: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    condition, failed = rng.integers(0, n_conditions, 400), rng.random(400) < share
    data = replace(model.data, condition=condition, artifact=failed[:, None].astype(np.float32))
    rows = np.arange(50, 400)
    cells = matched_cells(data, rows, seed)
    assert data.failed[cells.failed].all()
    assert not data.failed[[*cells.passing, *cells.instead]].any()
    everyone = np.concatenate([cells.failed, cells.passing, cells.instead])
    assert len(set(everyone)) == len(everyone)
    assert set(everyone) <= set(rows)
    for others in (cells.passing, cells.instead):
        np.testing.assert_array_equal(condition[others], condition[cells.failed])
    for code in range(n_conditions):  # as many as there are two passing ones for
        n_failed, n_passing = (int(((condition == code) & (failed == one))[rows].sum()) for one in (True, False))
        assert (condition[cells.failed] == code).sum() == min(n_failed, n_passing // 2)


def test_rows_of_cleaned_cells(model: cv.CradleVAE, simulated: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "FEWEST_CELLS", 3)
    table = cv.evaluate(model, simulated, reference="all", n_cells=5)
    rows = table[table["metric"].str.startswith("mixing_")]
    predictors = {"model", "model (label unused)", "model (expected counts)", "as measured", "perturbation_mean",
                  "true counts", "real cells"}  # fmt: skip
    assert set(rows["predictor"]) == predictors
    assert set(rows["metric"]) == {"mixing_failed_neighbours", "mixing_own_neighbours", "mixing_auc"}
    assert rows["value"].between(0, 1).all()
    wide = rows.pivot_table(index="metric", columns="predictor", values="value")
    share = wide.loc["mixing_failed_neighbours"]
    assert share["model (expected counts)"] > share["true counts"]
    real = rows[rows["predictor"] == "real cells"]
    np.testing.assert_allclose(real["ceiling"], real["value"])
    assert set(rows["best_floor"]) <= {"as measured", "perturbation_mean"}
    without = cv.evaluate(model, simulated, reference="all", generated=False)
    assert not without["metric"].str.startswith("mixing_").any()


def test_too_few_cells_have_no_score(
    model: cv.CradleVAE, simulated: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "FEWEST_CELLS", 1000)
    table = cv.evaluate(model, simulated, n_cells=5, truth=False)
    rows = table[table["metric"].str.startswith("mixing_")]
    assert len(rows) == 3
    assert rows["value"].isna().all()
    assert rows["note"].str.contains("fewer than 1000").all()
