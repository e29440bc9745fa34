"""The report as one file: what it holds for models of several kinds, and when it is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.reporting import report
from cradlevae.reporting.webpage import all_effects
from cradlevae.reporting.webpage.packing import unpacked


@pytest.fixture(scope="module")
def scores(model: cv.CradleVAE, simulated: ad.AnnData) -> pd.DataFrame:
    return cv.evaluate(model, simulated, denoiser=False)


def data_of(path: Path) -> dict[str, Any]:
    """What the code of a page reads."""
    [block] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    data: dict[str, Any] = json.loads(block)
    return data


def headings(path: Path) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", path.read_text(encoding="utf-8"))


def test_it_holds_all_conditions_and_all_genes(
    model: cv.CradleVAE, simulated: ad.AnnData, scores: pd.DataFrame, tmp_path: Path
) -> None:
    path = cv.report(model, simulated, tmp_path / "report.html", scores)
    stored = data_of(path)["effects"]
    labels = set(simulated.obs["perturbation"]) - {"control"}
    assert set(stored["perturbations"]) == labels
    assert stored["genes"] == list(simulated.var_names)
    assert stored["complete"]
    seen = model.split.parts == "train"
    held_out = labels - set(simulated.obs.loc[seen.index[seen], "perturbation"])
    cells = dict(zip(stored["perturbations"], stored["cells"], strict=True))
    assert held_out
    assert {name for name, n in cells.items() if n == 0} == held_out
    known = next(name for name in labels - held_out)
    passing = seen & (simulated.obs["perturbation"] == known) & ~simulated.obs["artifact"].astype(bool)
    assert cells[known] == int(passing.sum())
    cells_shown = data_of(path)["cells"]
    assert int(unpacked(cells_shown["failed"]).sum()) == int(simulated.obs["artifact"].sum())


def test_effects_are_computed_once(
    model: cv.CradleVAE,
    simulated: ad.AnnData,
    scores: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []
    effects = all_effects.effects
    monkeypatch.setattr(
        all_effects, "effects", lambda model, names, **options: asked.append(names) or effects(model, names, **options)
    )
    cv.report(model, simulated, tmp_path / "report.html", scores)
    assert len(asked) == 1
    assert len(set(asked[0])) == len(asked[0])


@pytest.mark.filterwarnings("ignore:the Monte-Carlo error")
def test_failed_cells_of_perturbations_without_training_cells_are_shown(tmp_path: Path) -> None:
    adata = cv.simulate(n_cells=300, n_genes=40, n_perturbations=5, n_combinations=0, n_latent=4, seed=3)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    split = cv.split(adata, "perturbations", seed=0)
    unseen = set(adata.obs["perturbation"]) - set(adata.obs.loc[(split.parts == "train").to_numpy(), "perturbation"])
    assert adata.obs.loc[adata.obs["perturbation"].isin(unseen), "artifact"].any()
    with pytest.warns(UserWarning, match="no training cells for"):
        model = cv.CradleVAE(adata, split=split, n_latent=4, width=16)
    model.train(max_epochs=1, progress=False)
    cells = data_of(cv.report(model, adata, tmp_path / "report.html"))["cells"]
    assert unseen <= set(cells["perturbations"])
    assert cells["damages"]


def test_one_cell_in_so_many_is_drawn_whatever_the_index_types(
    model: cv.CradleVAE, simulated: ad.AnnData, scores: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MOST_CELLS", simulated.n_obs // 2)
    cells = simulated.copy()
    cells.X.indptr = cells.X.indptr.astype(np.int64)  # as in files that were concatenated on disk
    path = cv.report(model, cells, tmp_path / "report.html", scores)
    assert f"One cell in 2 of all {simulated.n_obs:,} is drawn" in path.read_text(encoding="utf-8")
    assert len(unpacked(data_of(path)["cells"]["failed"])) == -(-simulated.n_obs // 2)


def test_without_scores_it_scores_the_model(model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path) -> None:
    path = cv.report(model, simulated, tmp_path / "report.html")
    assert "Scores" in headings(path)
    assert '<ul class="findings">' in path.read_text(encoding="utf-8")


def test_where_nothing_can_be_scored_it_says_so(model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path) -> None:
    seen = model.split.parts == "train"
    path = cv.report(model, simulated[seen.index[seen]].copy(), tmp_path / "report.html")
    assert "The model could not be scored: " in path.read_text(encoding="utf-8")
    assert headings(path)[:2] == ["Verdict", "Effects"]
    assert "Scores" not in headings(path)


def test_a_model_without_an_artifact_has_no_cells_to_clean(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any], tmp_path: Path
) -> None:
    model = cv.SAMSVAE(simulated, split=cv.split(simulated, "cells", seed=0), **tiny_options)
    model.train(1, **quick)
    scores = cv.evaluate(model, simulated, generated=False, truth=False)
    path = cv.report(model, simulated, tmp_path / "report.html", scores)
    assert headings(path) == ["Verdict", "Effects", "Quality control", "Scores", "Training", "Technical record"]


def test_it_replaces_nothing_unasked(
    model: cv.CradleVAE, simulated: ad.AnnData, scores: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text("precious")
    with pytest.raises(cv.DataError, match="exists already"):
        cv.report(model, simulated, path, scores)
    assert path.read_text() == "precious"
    assert cv.report(model, simulated, path, scores, overwrite=True) == path
    assert path.stat().st_size > 1_000_000


def test_an_untrained_model_has_nothing_to_report(
    untrained: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
) -> None:
    with pytest.raises(cv.DataError, match="train"):
        cv.report(untrained, simulated, tmp_path / "report.html")


def test_the_same_report_is_written_again(
    model: cv.CradleVAE, simulated: ad.AnnData, scores: pd.DataFrame, tmp_path: Path
) -> None:
    first, second = (cv.report(model, simulated, tmp_path / f"{name}.html", scores) for name in "ab")
    one, other = data_of(first), data_of(second)
    assert one["effects"] == other["effects"]
    assert np.array_equal(unpacked(one["map"]["values"]), unpacked(other["map"]["values"]))
