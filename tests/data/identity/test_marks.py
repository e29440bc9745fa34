"""Marks: only the truth of simulate and plant_artifacts is taken for the truth unasked, and only of their cells."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.identity.marks import MADE_MARK, TRUTH_MARK

TRUTH = "held-out clean counts (truth)"


def references(model: cv.CradleVAE, adata: ad.AnnData, **options: object) -> set[str]:
    return set(cv.evaluate(model, adata, generated=False, **options)["reference"])


def test_the_models_own_output_is_not_the_truth(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    mine = simulated.copy()
    del mine.uns["truth"], mine.uns[TRUTH_MARK]
    mine.layers["clean"] = model.clean(simulated).X
    with pytest.warns(UserWarning, match=r"layers\['clean'\] not taken for the truth: .*truth='clean'"):
        assert TRUTH not in references(model, mine)
    assert TRUTH in references(model, mine, truth="clean")  # whoever names it means it
    mine.layers["mine"] = mine.layers.pop("clean")
    assert TRUTH in references(model, mine, truth="mine")


def test_a_mark_does_not_cover_what_was_put_in_the_place_of_the_truth(
    model: cv.CradleVAE, simulated: ad.AnnData
) -> None:
    replaced = simulated.copy()
    replaced.layers["clean"] = model.clean(simulated).X
    with pytest.warns(UserWarning, match=r"^layers\['clean'\] not taken for the truth"):
        found = references(model, replaced)
    assert TRUTH not in found
    assert "simulated truth" in found


def test_a_truth_of_other_cells_is_not_theirs(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    test = np.flatnonzero((model.split.parts == "test").to_numpy())
    renamed = simulated.copy()
    renamed.obs_names = [f"new{i}" if i in test else name for i, name in enumerate(renamed.obs_names)]
    assert {TRUTH, "simulated truth"} <= references(model, renamed)
    others = cv.simulate(n_cells=len(test), n_genes=60, n_perturbations=5, n_combinations=6, n_latent=6, seed=1)
    train = np.flatnonzero((model.split.parts != "test").to_numpy())
    renamed = renamed[[*train, *test]].copy()
    renamed.X = sp.vstack([renamed.X[: len(train)], others.X], format="csr")
    renamed.layers["clean"] = sp.vstack([renamed.layers["clean"][: len(train)], others.layers["clean"]], format="csr")
    with pytest.warns(UserWarning, match=r"layers\['clean'\] and uns\['truth'\] not taken for the truth"):
        assert references(model, renamed) & {TRUTH, "simulated truth"} == set()


def test_marks_survive_files_and_fewer_cells_and_genes(
    model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
) -> None:
    simulated[::-1][:, ::-1].copy().write_h5ad(tmp_path / "x.h5ad")
    for cells in (ad.read_h5ad(tmp_path / "x.h5ad"), cv.open_cells(tmp_path / "x.h5ad"), simulated[20:].copy()):
        assert {TRUTH, "simulated truth"} <= references(model, cells)


def test_true_is_auto_false_is_nothing_and_other_types_are_refused(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    pd.testing.assert_frame_equal(
        cv.evaluate(model, simulated, generated=False, truth=True), cv.evaluate(model, simulated, generated=False)
    )
    assert references(model, simulated, truth=False) == {"held-out passing cells", "all cells"}
    with pytest.raises(cv.DataError, match="truth is 3"):
        cv.evaluate(model, simulated, truth=3)  # type: ignore[arg-type]
    with pytest.raises(cv.DataError, match=r"layer 'klean' is not in the AnnData"):
        cv.evaluate(model, simulated, truth="klean")
    fractional = simulated.copy()
    fractional.layers["mean"] = model.clean(simulated).layers["expected"]
    with pytest.raises(cv.DataError, match=r"layers\['mean'\] holds fractional values"):
        cv.evaluate(model, fractional, truth="mean")


def test_planted_artifacts_are_marked_in_whichever_layer(simulated: ad.AnnData) -> None:
    raw = simulated.copy()
    raw.layers["counts"] = raw.layers.pop("clean")
    del raw.uns["truth"], raw.uns[TRUTH_MARK]
    planted = cv.plant_artifacts(raw, layer="counts", kinds=("low_umi",))
    assert planted.uns[TRUTH_MARK]["made_by"] == "plant_artifacts"
    floor = cv.FloorModel("training_mean", planted, layer="counts")
    floor.train()
    assert TRUTH in set(cv.evaluate(floor, planted, generated=False)["reference"])


def test_what_a_model_made_is_marked_and_not_silently_taken_for_raw_data(
    model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
) -> None:
    few = simulated[:20].copy()
    answers = {
        "clean": model.clean(few),
        "counterfactual": model.counterfactual(few, perturbation="control"),
        "predict": model.predict("A", 20, output=tmp_path / "predicted.h5ad"),
    }
    assert ad.read_h5ad(tmp_path / "predicted.h5ad").uns[MADE_MARK]["made_by"] == "predict"
    for query, answer in answers.items():
        assert answer.uns[MADE_MARK]["made_by"] == query
        with pytest.warns(UserWarning, match=f"made by {query} of a model, and are no raw data; split"):
            cv.split(answer, "cells")
    answer = answers["predict"].to_memory()
    with pytest.warns(UserWarning, match="made by predict of a model, and are no raw data; annotate_qc"):
        cv.annotate_qc(answer, criteria=("umi",), max_fail_share=1, key_added="failed")


TAKERS: dict[str, Callable[[cv.CradleVAE, ad.AnnData, Path], object]] = {
    "CradleVAE": lambda model, cells, _: cv.CradleVAE(cells, split=model.split),
    "FloorModel": lambda model, cells, _: cv.FloorModel("training_mean", cells, split=model.split),
    "evaluate": lambda model, cells, _: cv.evaluate(model, cells, generated=False, truth=False),
    "to_cell_eval": lambda model, cells, folder: cv.to_cell_eval(model, cells, folder),
    "annotate_qc": lambda model, cells, _: cv.annotate_qc(cells, criteria=("umi",), key_added="failed"),
    "split": lambda model, cells, _: cv.split(cells, "cells"),
    "guide_effects": lambda model, cells, _: cv.guide_effects(cells, min_cells=2),
    "plant_artifacts": lambda model, cells, _: cv.plant_artifacts(cells),
    "clean": lambda model, cells, _: model.clean(cells, cells="failed"),
    "counterfactual": lambda model, cells, _: model.counterfactual(cells, perturbation="A", cells="failed"),
    "diagnose": lambda model, cells, _: model.diagnose(cells),
    "latents": lambda model, cells, _: model.latents(cells),
    "log_likelihood": lambda model, cells, _: model.log_likelihood(cells, n_particles=1),
}
"""What takes cells for raw data, by its name in the warning."""


@pytest.mark.parametrize("use_label", [True, False])
def test_whatever_takes_raw_data_warns_of_twins_and_says_what_is_circular(
    model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path, use_label: bool
) -> None:
    raw = simulated.copy()
    raw.obs["guide"] = raw.obs["perturbation"].astype(str) + "_1"
    twins = model.clean(raw, use_label=use_label)
    reason = "effects of perturbations in them" if use_label else "decoded without their labels"
    for name, give in TAKERS.items():
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            with contextlib.suppress(cv.DataError):  # cells may be refused for another reason, after the warning
                give(model, twins.copy(), tmp_path)
        told = [str(one.message) for one in heard if "made by clean of a model" in str(one.message)]
        assert len(told) == 1, name
        assert f"; {name} takes them for raw data all the same, which is circular: " in told[0]
        assert reason in told[0]


def test_a_file_of_twins_among_others_marks_all(model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path) -> None:
    model.clean(simulated[:50].copy(), output=tmp_path / "twins.h5ad")
    raw = simulated[50:].copy()
    raw.obs["perturbation"] = raw.obs["perturbation"].astype(str)
    raw.write_h5ad(tmp_path / "raw.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns that one file lacks
        cells = cv.open_cells(tmp_path)
    assert cells.uns[MADE_MARK]["made_by"] == "clean"


@pytest.mark.parametrize("n_left", [0, 5])
def test_a_mark_says_nothing_once_its_genes_are_gone(
    n_left: int,
) -> None:
    large = cv.simulate(n_cells=300, n_genes=200, n_perturbations=4, n_combinations=3, n_latent=4, seed=0)
    large.obs["artifact"] = large.obs["true_artifact"]
    probes = large.var_names.isin(large.uns[TRUTH_MARK]["genes"])
    keep = np.sort([*np.flatnonzero(~probes), *np.flatnonzero(probes)[:n_left]])
    rest = large[:, keep].copy()
    rest = rest[np.asarray(rest.X.sum(axis=1)).ravel() > 0].copy()
    rest.layers["clean"] = rest.X.copy()
    floor = cv.FloorModel("training_mean", rest)
    floor.train()
    with pytest.warns(UserWarning, match=r"layers\['clean'\] and uns\['truth'\] not taken for the truth"):
        assert not {TRUTH, "simulated truth"} & set(cv.evaluate(floor, rest, generated=False)["reference"])
