"""A model's files: what comes back, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import cradlevae as cv
from cradlevae.errors import DataError
from cradlevae.model import store

FILES = ["controls.h5ad", "history.csv", "model.json", "model.safetensors", "split.json"]


@pytest.fixture(scope="module")
def saved(model: cv.CradleVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "run"
    model.save(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved model that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# -- there and back --------------------------------------------------------------------------------------------


def test_a_loaded_model_answers_alike(model: cv.CradleVAE, saved: Path, simulated: ad.AnnData) -> None:
    loaded = cv.CradleVAE.load(saved)
    for question in (
        lambda m: m.predict(["A+B", "C"], 20, seed=3).X.toarray(),
        lambda m: m.predict(["D"], 5, artifact=True).X.toarray(),
        lambda m: m.effects(["A+B", "E"]).X,
        lambda m: m.effects(["A+B", "E"]).layers["high"],
        lambda m: m.clean(simulated).X.toarray(),
        lambda m: m.clean(simulated).layers["expected"],
        lambda m: m.latents(simulated).obsm["z_basal"],
        lambda m: m.artifact_signature(n_draws=5)["log2_fold_change"].to_numpy(),
        lambda m: m.mask_probabilities().to_numpy(),
        lambda m: m.log_likelihood(simulated[:50], n_particles=5).to_numpy(),
    ):
        np.testing.assert_array_equal(question(loaded), question(model))


def test_a_loaded_model_remembers(model: cv.CradleVAE, saved: Path) -> None:
    loaded = cv.CradleVAE.load(saved)
    one, two = loaded.trained, model.trained
    assert one.config == two.config
    assert one.fields == two.fields
    assert one.perturbations == two.perturbations
    assert one.trained == two.trained
    assert one.criteria == two.criteria
    assert one.split.hash == two.split.hash
    assert one.passing_library_size == two.passing_library_size
    np.testing.assert_array_equal(one.fingerprints, two.fingerprints)
    pd.testing.assert_frame_equal(one.var, two.var)
    pd.testing.assert_frame_equal(loaded.history, model.history, rtol=1e-12)
    assert repr(loaded) == repr(model)


def test_fields_and_several_criteria_come_back(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any], tmp_path: Path
) -> None:
    adata = simulated.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.obs["target"] = [name.replace("+", "_").replace("control", "safe") for name in adata.obs["perturbation"]]
    adata.uns["cradlevae_qc"] = {"n_mads": 3.0, "thresholds": np.array([1.0, np.nan])}
    adata.var["symbol"] = [name.lower() for name in adata.var_names]
    model = cv.CradleVAE(
        adata, "target", ("low_umi", "other_damage"), layer="counts", control_labels=("safe",), separator="_",
        guide="mean-field", decode="sum", **tiny_options,
    )  # fmt: skip
    model.train(1, **quick)
    model.save(tmp_path)
    loaded = cv.CradleVAE.load(tmp_path)
    assert loaded.trained.fields == model.trained.fields
    assert loaded.trained.criteria == ("low_umi", "other_damage")
    assert asdict(loaded.config) == asdict(model.config)
    assert loaded.trained.var["symbol"].tolist() == adata.var["symbol"].tolist()
    assert loaded.trained.qc["n_mads"] == 3.0
    np.testing.assert_array_equal(loaded.trained.qc["thresholds"], [1.0, np.nan])
    np.testing.assert_array_equal(loaded.predict("B_A", 4, artifact="low_umi").X.toarray(),
                                  model.predict("A+B", 4, artifact="low_umi").X.toarray())  # fmt: skip


def test_the_folder_holds_these_files_and_nothing_half_written(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == FILES
    described = json.loads((saved / "model.json").read_text())
    assert described["model"] == "CradleVAE"
    assert described["version"] == cv.__version__
    assert described["split_hash"] == json.loads((saved / "split.json").read_text())["hash"]


def test_nothing_in_a_file_is_executed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was opened")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)
    assert cv.CradleVAE.load(saved).predict(["A"], 2).n_obs == 2


# -- saving ----------------------------------------------------------------------------------------------------


def test_a_folder_with_a_model_is_refused_unless_told_so(model: cv.CradleVAE, copy: Path) -> None:
    (copy / "history.csv").write_text("mine")
    with pytest.raises(DataError, match=rf"{copy} already holds a model; choose another folder or set overwrite"):
        model.save(copy)
    assert (copy / "history.csv").read_text() == "mine"
    model.save(copy, overwrite=True)
    assert len(cv.CradleVAE.load(copy).history) == 3


def test_an_untrained_model_is_not_saved(untrained: cv.CradleVAE, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has not been trained"):
        untrained.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_refused(model: cv.CradleVAE, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="which is a file; name a folder"):
        model.save(tmp_path / "file")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_save_that_breaks_off_leaves_what_was_there(
    model: cv.CradleVAE, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    folder = tmp_path / "run"
    if overwrite:
        shutil.copytree(saved, folder)

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(ad.AnnData, "write_h5ad", full)
    with pytest.raises(OSError, match="no space"):
        model.save(folder, overwrite=overwrite)
    if overwrite:  # the model that was there is still there
        assert not any(path.name.startswith(".") for path in folder.iterdir())
        np.testing.assert_array_equal(cv.CradleVAE.load(folder).effects("A").X, model.effects("A").X)
        return
    with pytest.raises(DataError, match=f"no model in {folder}"):
        cv.CradleVAE.load(folder)


# -- loading what is damaged or foreign ------------------------------------------------------------------------


def test_no_model_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=rf"no model in {folder} \(no model\.json\); train one with"):
            cv.CradleVAE.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "controls.h5ad"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_weights_are_refused(copy: Path, name: str, damage: str) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(DataError, match=rf"{name} is missing or damaged \(its checksum does not fit\)"):
        cv.CradleVAE.load(copy)


def test_a_truncated_description_is_refused(copy: Path) -> None:
    path = copy / "model.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(DataError, match=r"model\.json is damaged or not a cradlevae model"):
        cv.CradleVAE.load(copy)


@pytest.mark.parametrize("content", [b"[]", b"null", b"{}", b'{"model": "CradleVAE"}', b"\x80\x04\xff", b""])
def test_a_foreign_description_is_refused(copy: Path, content: bytes) -> None:
    (copy / "model.json").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.json is damaged or not a cradlevae model"):
        cv.CradleVAE.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda described: described.pop("sha256"),
        lambda described: described.update(sha256={}),
        lambda described: described.pop("config"),
        lambda described: described["config"].update(no_such_option=1),
        lambda described: described["config"].update(decode="no such way"),
        lambda described: described["config"].update(n_latent=9),
        lambda described: described["fields"].update(no_such_field=1),
        lambda described: described.pop("perturbations"),
        lambda described: described["perturbations"].append("new"),
        lambda described: described.update(criteria=None),
        lambda described: described.pop("split_hash"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(copy: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit(copy / "model.json", change)
    with pytest.raises(DataError, match=str(copy)):
        cv.CradleVAE.load(copy)


def test_another_programs_or_a_newer_model_is_refused_by_name(copy: Path) -> None:
    edit(copy / "model.json", lambda described: described.update(model="OtherVAE"))
    with pytest.raises(DataError, match=r"describes a 'OtherVAE', which is no model of this package"):
        cv.CradleVAE.load(copy)
    newer = {"model": "CradleVAE", "format": store.FORMAT + 1, "version": "9.9"}
    edit(copy / "model.json", lambda described: described.update(newer))
    with pytest.raises(DataError, match=r"written by version 9\.9; update cradlevae"):
        cv.CradleVAE.load(copy)


def test_a_tampered_or_foreign_split_is_refused(copy: Path, simulated: ad.AnnData) -> None:
    def move(manifest: dict[str, Any]) -> None:
        manifest["cells"]["train"].append(manifest["cells"]["test"].pop())

    edit(copy / "split.json", move)
    with pytest.raises(DataError, match=r"split\.json was changed after it was written"):
        cv.CradleVAE.load(copy)
    cv.split(simulated, "cells", seed=7).save(copy / "split.json", overwrite=True)
    with pytest.raises(DataError, match=r"split\.json is not the split that the model was trained on"):
        cv.CradleVAE.load(copy)
    (copy / "split.json").unlink()
    with pytest.raises(DataError, match="no split manifest at"):
        cv.CradleVAE.load(copy)


def test_a_loaded_model_is_not_trained_on(saved: Path) -> None:
    with pytest.raises(DataError, match="loaded without data"):
        cv.CradleVAE.load(saved).train(1)
