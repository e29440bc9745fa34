"""What happened to failed cells: a table of kinds with probabilities, severities and second parents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.data.damage.operators import DAMAGES
from cradlevae.errors import DataError


@pytest.fixture(scope="module")
def table(model: cv.CradleVAE, simulated: ad.AnnData) -> pd.DataFrame:
    return model.diagnose(simulated)


def test_every_failed_cell_has_a_row_and_probabilities(table: pd.DataFrame, simulated: ad.AnnData) -> None:
    failed = simulated.obs_names[simulated.obs["artifact"].to_numpy(dtype=bool)]
    assert list(table.index) == list(failed)
    kinds = table[[f"p_{key}" for key in DAMAGES]]
    assert ((kinds >= 0) & (kinds <= 1)).all(axis=None)
    np.testing.assert_allclose(kinds.sum(axis=1), 1, rtol=1e-5)
    assert list(table["damage"]) == [list(DAMAGES)[number] for number in kinds.to_numpy().argmax(axis=1)]
    assert (table["severity_low"] <= table["severity"]).all()
    assert (table["severity"] <= table["severity_high"]).all()
    assert set(table["second_parent"]) <= set(simulated.obs["perturbation"])


def test_a_wider_interval_holds_the_narrower(model: cv.CradleVAE, simulated: ad.AnnData, table: pd.DataFrame) -> None:
    wide = model.diagnose(simulated, credible=0.99)
    assert (wide["severity_low"] <= table["severity_low"]).all()
    assert (wide["severity_high"] >= table["severity_high"]).all()


def test_a_cell_is_diagnosed_alike_in_any_company(
    model: cv.CradleVAE, simulated: ad.AnnData, table: pd.DataFrame
) -> None:
    few = list(table.index[[5, 2, 9]])
    alone = model.diagnose(simulated[few].copy())
    numbers = [name for name in table if name.startswith(("p_", "severity"))]
    np.testing.assert_allclose(alone.loc[few, numbers], table.loc[few, numbers], rtol=1e-4, atol=1e-6)


def test_clean_tells_the_same(model: cv.CradleVAE, simulated: ad.AnnData, table: pd.DataFrame, tmp_path: Path) -> None:
    cleaned = model.clean(simulated, output=tmp_path / "clean.h5ad")
    assert cleaned.obs["severity"].notna().sum() == len(table)
    pd.testing.assert_series_equal(
        cleaned.obs.loc[table.index, "p_doublet"], table["p_doublet"], check_names=False, check_index_type=False
    )
    passing = cleaned.obs_names.difference(table.index)
    assert cleaned.obs.loc[passing, "damage"].isna().all()


def test_a_saved_model_says_the_same(
    model: cv.CradleVAE, simulated: ad.AnnData, table: pd.DataFrame, tmp_path: Path
) -> None:
    model.save(tmp_path / "run")
    pd.testing.assert_frame_equal(cv.CradleVAE.load(tmp_path / "run").diagnose(simulated), table)


def test_what_cannot_be_diagnosed_is_said(
    model: cv.CradleVAE, simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    passing = simulated[~simulated.obs["artifact"].to_numpy(dtype=bool)].copy()
    with pytest.raises(DataError, match="no cell failed QC"):
        model.diagnose(passing)
    assert len(model.diagnose(passing, cells="all")) == passing.n_obs
    other = cv.CradleVAE(simulated, split=model.split, reference="mean", **tiny_options)
    other.train(1, **quick)
    with pytest.raises(DataError, match="reference='damaged'"):
        other.diagnose(simulated)


def test_kinds_and_severity_of_planted_damage_are_found(tiny_options: dict[str, Any], quick: dict[str, Any]) -> None:
    adata = cv.simulate(n_cells=1500, n_genes=80, n_perturbations=3, n_combinations=0, artifact_rate=0, seed=1)
    del adata.layers["clean"]
    planted = cv.plant_artifacts(adata, share=0.3, seed=0)
    model = cv.CradleVAE(planted, split=cv.split(planted, "cells", seed=0), **tiny_options)
    model.train(40, **{**quick, "n_particles": 1})
    held_out = planted[model.split.cells("test")].copy()
    table = model.diagnose(held_out)
    true = held_out.obs.loc[table.index]
    names = {"low_umi": ("few_counts",), "doublet": ("doublet", "partial_doublet"), "ambient": ("ambient",)}
    right = np.mean([found in names[kind] for kind, found in zip(true["artifact_kind"], table["damage"], strict=True)])
    assert right > 0.7
    assert np.corrcoef(true["true_severity"], table["severity"])[0, 1] > 0.5
