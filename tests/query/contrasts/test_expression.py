"""A gene in all conditions."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import cradlevae as cv
from cradlevae.data.moments import condition_moments


def control_mean(model: cv.CradleVAE) -> np.ndarray:
    data = model.data
    rows = model.split.rows(data.cells, "train")
    rows = rows[~data.failed[rows] & data.is_control[rows]]
    return condition_moments(data.counts[rows], np.zeros(len(rows), dtype=int), ["control"]).mean[0]


def test_it_is_the_controls_mean_plus_the_effect(model: cv.CradleVAE) -> None:
    effects = model.effects(error=9)
    gene = str(effects.var_names[3])
    found = model.expression(gene, error=9)
    assert list(found.index) == ["control", *effects.obs_names]
    base = control_mean(model)[3]
    assert found.loc["control", "expression"] == pytest.approx(base, rel=1e-4)
    np.testing.assert_allclose(found["expression"][1:], np.maximum(base + effects.X[:, 3], 0), rtol=1e-4, atol=1e-5)
    assert (found["low"] <= found["expression"]).all()
    assert (found["expression"] <= found["high"]).all()
    assert (found["low"] >= 0).all()
    assert found["n_cells"].tolist()[1:] == effects.obs["n_cells"].tolist()
    wider = model.expression(gene, "A", credible=0.99, error=9)
    assert (wider["high"] >= found.loc[wider.index, "high"]).all()


def test_genes_go_by_symbol(simulated: ad.AnnData, tiny_options: dict, quick: dict) -> None:
    adata = simulated.copy()
    adata.var["symbol"] = [f"S{place}" for place in range(adata.n_vars)]
    model = cv.CradleVAE(adata, gene_symbols="symbol", **tiny_options)
    model.train(1, **quick)
    by_symbol, by_name = (model.expression(name, "A", error=9) for name in ("S2", str(adata.var_names[2])))
    np.testing.assert_array_equal(by_symbol, by_name)
    with pytest.raises(cv.DataError, match="unknown gene 'S99999'; did you mean"):
        model.expression("S99999")


def test_that_of_a_floor(simulated: ad.AnnData) -> None:
    floor = cv.FloorModel("training_mean", simulated, split=cv.split(simulated, "cells", seed=0))
    floor.train()
    found = floor.expression(str(simulated.var_names[3]), ["control", "A"])
    assert list(found.index) == ["control", "A"]
    moments = floor.trained.train
    places = [moments.names.index(name) for name in found.index]
    np.testing.assert_allclose(found["expression"], moments.mean[places, 3], rtol=1e-6)
    assert found["n_cells"].tolist() == moments.n_cells[places].tolist()
    unsure = cv.FloorModel("zero", simulated, split=floor.split)
    unsure.train()
    assert unsure.expression(str(simulated.var_names[3]), "A").loc["A", ["low", "high"]].isna().all()
