"""Perturbations whose names hold a plus, from the labels to effects and scores: as with plain names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv

NAMES = {"A": "Na+", "B": "(+)-JQ1", "C": "A+D", "D": "x+"}


def renamed(adata: ad.AnnData, rename: Callable[[str], str]) -> ad.AnnData:
    """A copy of the experiment with other labels."""
    other = adata.copy()
    labels = adata.obs["perturbation"].astype(str)
    other.obs["perturbation"] = ["control" if label == "control" else rename(label) for label in labels]
    return other


@pytest.fixture(scope="module")
def pair(simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]) -> list[cv.CradleVAE]:
    """The same experiment with plain names and with such that hold a plus, a model of each after an epoch."""
    plain = simulated[~simulated.obs["perturbation"].astype(str).str.contains("E")].copy()

    def join(label: str) -> str:
        return "_".join(NAMES[name] for name in label.split("+"))

    models = []
    for adata, separator in ((plain, "+"), (renamed(plain, join), "_")):
        split = cv.split(adata, "cells", seed=0, separator=separator)
        models.append(cv.CradleVAE(adata, split=split, separator=separator, **tiny_options))
    models[0].train(1, **quick)
    models[1].train(1, **quick)
    return models


def test_combinations_consist_of_their_singles(pair: list[cv.CradleVAE]) -> None:
    plain, other = (model.data for model in pair)
    assert set(other.perturbations) == set(NAMES.values())
    singles = [{NAMES[name] for name in condition.singles} for condition in plain.conditions]
    assert sorted(map(sorted, singles)) == sorted(sorted(condition.singles) for condition in other.conditions)
    assert other.dosage.sum() == plain.dosage.sum()


def test_effects_predictions_and_saved_models(pair: list[cv.CradleVAE], tmp_path: Path) -> None:
    other = pair[1]
    combination = next(condition for condition in other.data.conditions if len(condition.singles) > 1)
    effects = other.effects([combination, "Na+"], error=1.0)
    assert list(effects.obs_names) == [combination, "Na+"]
    effects.write_h5ad(tmp_path / "effects.h5ad")
    other.save(tmp_path / "model")
    again = cv.load(tmp_path / "model").effects([str(combination), "Na+"], error=1.0)
    np.testing.assert_array_equal(again.X, effects.X)
    with pytest.raises(cv.DataError, match="unknown perturbation 'Nb'"):
        other.effects("Nb_x+")


def test_scores_of_floors_do_not_depend_on_names(pair: list[cv.CradleVAE]) -> None:
    from cradlevae.data.moments import condition_moments
    from cradlevae.evaluation.floors.registry import floor_effects

    tables = []
    for model in pair:
        data = model.data
        moments = condition_moments(data.counts, data.condition, data.conditions, genes=list(data.genes))
        combinations = [condition for condition in data.conditions if len(condition.singles) > 1]
        answers = floor_effects("additive", moments, None, combinations)
        spelled = {name: key for key, name in NAMES.items()} | {key: key for key in NAMES}
        if model is pair[1]:
            keys = ["+".join(sorted(spelled[single] for single in name.singles)) for name in combinations]
        else:
            keys = list(map(str, combinations))
        tables.append(pd.DataFrame(answers, index=keys).sort_index())
    pd.testing.assert_frame_equal(tables[0], tables[1])


@pytest.fixture(scope="module")
def guided(simulated: ad.AnnData) -> ad.AnnData:
    """The simulated experiment with guide counts in place of labels."""
    adata = simulated.copy()
    labels = adata.obs.pop("perturbation").astype(str)
    columns = [*sorted({part for label in labels for part in label.split("+")} - {"control"}), "control"]
    counts = [[5 * (column in label.split("+")) for column in columns] for label in labels]
    adata.obsm["guides"] = pd.DataFrame(counts, columns=columns, index=adata.obs_names)
    return adata


def test_combinations_of_guides_without_a_separator(
    guided: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any], tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"guides_key": "guides", "separator": None}
    split = cv.split(guided, "cells", seed=0, **fields)
    model = cv.CradleVAE(guided, split=split, **fields, **tiny_options)
    model.train(1, **quick)
    floor = cv.FloorModel("additive", guided, split=split, **fields)
    floor.train()
    pair = next(name for name in floor.perturbations if "+" in name)
    assert model.predict(pair, n_cells=3).obs["perturbation"].unique().tolist() == [pair]
    backwards = "+".join(reversed(pair.split("+")))
    np.testing.assert_array_equal(floor.effects(pair).X, floor.effects(backwards).X)
    everything = list(model.data.conditions)
    effects = model.effects(everything, error=1.0)
    assert list(effects.obs_names) == everything
    np.testing.assert_array_equal(model.effects(list(map(str, everything)), error=1.0).X, effects.X)
    assert floor.predict(list(floor.perturbations), 3, library_size={n: [99] for n in floor.perturbations}).n_obs > 0
    for predictor in (model, floor):
        assert "ate_rho" in set(cv.evaluate(predictor, guided, n_cells=10)["metric"])
    cv.to_cell_eval(model, guided, tmp_path / "files")
    written = ad.read_h5ad(tmp_path / "files" / "real.h5ad").obs["perturbation"]
    assert any("+" in name for name in written.unique())
    model.save(tmp_path / "model")
    assert cv.load(tmp_path / "model").predict(pair, n_cells=3).n_obs == 3
