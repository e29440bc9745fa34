"""Effects in the page: all of few, the most telling of many, and each gene in any case."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cradlevae.reporting.webpage import effects as page_effects
from cradlevae.reporting.webpage.effects import effect_map, packed_effects, ranked
from cradlevae.reporting.webpage.packing import unpacked


def effects_of(n_conditions: int, n_genes: int, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_conditions, n_genes)).astype(np.float32)
    obs = pd.DataFrame({"n_cells": range(n_conditions)}, index=[f"g{number}" for number in range(n_conditions)])
    layers = {"low": x - 0.5, "high": x + 0.25, "lfsr": rng.uniform(0, 0.5, x.shape).astype(np.float32)}
    var = pd.DataFrame(index=[f"g{number}" for number in range(n_genes)])
    return ad.AnnData(x, obs=obs, var=var, layers=layers, uns={"effects": {"credible": 0.9}})


def table_of(effects: ad.AnnData) -> pd.DataFrame:
    stored = packed_effects(effects, list(effects.var_names), list(effects.obs_names))
    names = ("gene", "rank", "effect", "low", "high", "lfsr", "q", "target")
    table = pd.DataFrame({name: unpacked(stored[name]) for name in names})
    table["row"] = np.repeat(np.arange(effects.n_obs), np.diff(unpacked(stored["start"])).astype(int))
    table.attrs["complete"] = stored["complete"]
    return table.astype({"gene": int, "rank": int})


def test_all_of_few_effects_are_there_in_order_of_rank():
    effects = effects_of(3, 20)
    table = table_of(effects)
    assert table.attrs["complete"]
    assert len(table) == effects.X.size
    assert np.allclose(table["effect"], effects.X[table["row"], table["gene"]], atol=0.001)
    assert np.allclose(table["low"], 0.5, atol=0.001)
    assert np.allclose(table["high"], 0.25, atol=0.001)
    lfsr = effects.layers["lfsr"][table["row"], table["gene"]]
    assert np.allclose(10.0 ** -table["lfsr"], lfsr, rtol=0.002)
    for _, part in table.groupby("row"):
        assert list(part["rank"]) == list(range(1, 21))
        assert (np.diff(part["lfsr"]) <= 1e-9).all()
    surest = table.sort_values("lfsr", ascending=False, kind="stable")
    mean = np.cumsum(10.0 ** -surest["lfsr"]) / np.arange(1, len(surest) + 1)
    assert np.allclose(10.0 ** -surest["q"], mean, rtol=0.005)
    assert (table["target"] == (table["row"] == table["gene"])).all()


def test_of_many_effects_the_best_of_each_condition_and_each_gene_are_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page_effects, "MOST_VALUES", 2000)
    effects = effects_of(40, 100)
    table = table_of(effects)
    assert not table.attrs["complete"]
    assert set(table["gene"]) == set(range(100))
    assert table.groupby("gene").size().min() >= 10
    for _, part in table.groupby("row"):
        assert set(range(1, 26)) <= set(part["rank"])
    _, rank = ranked(effects.X, effects.layers["lfsr"])
    assert (rank[table["row"], table["gene"]] == table["rank"]).all()


def test_ranks_go_by_certainty_and_then_by_size():
    order, rank = ranked(np.array([[1.0, -3.0, 2.0]]), np.array([[0.0, 0.0, 0.2]]))
    assert order.tolist() == [[1, 0, 2]]
    assert rank.tolist() == [[2, 1, 3]]


def test_the_map_holds_the_strongest_conditions_and_puts_like_ones_together():
    effects = effects_of(6, 30)
    effects.layers["lfsr"] = np.zeros_like(effects.X)
    effects.X[3] = effects.X[0]
    chosen = effect_map(effects, list(effects.var_names))
    assert chosen is not None
    assert abs(chosen["rows"].index("g0") - chosen["rows"].index("g3")) == 1
    values = unpacked(chosen["values"]).reshape(6, 30)
    row, column = chosen["rows"].index("g2"), chosen["columns"].index("g7")
    assert values[row, column] == pytest.approx(effects["g2", "g7"].X.item(), abs=0.001)
    assert effect_map(effects[:1], list(effects.var_names)) is None
