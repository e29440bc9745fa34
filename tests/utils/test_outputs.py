"""One rule for all outputs: nothing is replaced unasked, and what is read never."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.model import store

Write = Callable[[cv.CradleVAE, Any, Path, bool], object]

WRITERS: dict[str, Write] = {
    "predict": lambda model, cells, path, overwrite: model.predict("A", 2, output=path, overwrite=overwrite),
    "clean": lambda model, cells, path, overwrite: model.clean(cells, output=path, overwrite=overwrite),
    "counterfactual": lambda model, cells, path, overwrite: model.counterfactual(
        cells, perturbation="A", output=path, overwrite=overwrite
    ),
    "split": lambda model, cells, path, overwrite: model.split.save(path, overwrite=overwrite),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_existing_outputs_are_refused_unless_they_may_be_replaced(
    writer: str, model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
) -> None:
    path = tmp_path / "out.h5ad"
    path.write_text("precious")
    write, few = WRITERS[writer], simulated[:5].copy()
    with pytest.raises(cv.DataError, match=r"out\.h5ad exists already; choose another name, or replace it with over"):
        write(model, few, path, False)
    assert path.read_text() == "precious"
    write(model, few, path, True)
    assert path.read_bytes() != b"precious"
    folder = tmp_path / "folder.h5ad"
    folder.mkdir()
    with pytest.raises(cv.DataError, match="is a folder; name a file in it"):
        write(model, few, folder, True)


@pytest.mark.parametrize("way", ["same", "relative", "link", "hard link"])
@pytest.mark.parametrize("form", ["stored", "backed"])
def test_the_input_is_never_replaced(
    way: str, form: str, model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "raw.h5ad"
    simulated[:5].copy().write_h5ad(path)
    before = path.read_bytes()
    output = tmp_path / "other.h5ad"
    if way == "same":
        output = path
    elif way == "relative":
        monkeypatch.chdir(tmp_path)
        output = Path("raw.h5ad")
    else:
        (os.symlink if way == "link" else os.link)(path, output)
    cells = cv.open_cells(path) if form == "stored" else ad.read_h5ad(path, backed="r")
    with pytest.raises(cv.DataError, match=r"is what is read .*never replaced"):
        model.clean(cells, output=output, overwrite=True)
    assert path.read_bytes() == before


def test_files_of_a_folder_and_stores_are_never_replaced(
    model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
) -> None:
    folder = tmp_path / "screen"
    folder.mkdir()
    simulated[:5].copy().write_h5ad(folder / "a.h5ad")
    simulated[5:9].copy().write_h5ad(folder / "b.h5ad")
    for output in (folder / "b.h5ad", folder / "." / "a.h5ad"):
        with pytest.raises(cv.DataError, match="is what is read"):
            model.clean(cv.open_cells(folder), output=output, overwrite=True)
    own = model.predict("A", 2, output=tmp_path / "own.h5ad")  # whose matrices stay in the file
    own.obs["artifact"] = False
    with pytest.raises(cv.DataError, match="is what is read"):
        model.clean(own, output=tmp_path / "own.h5ad", overwrite=True)


def test_a_save_that_fails_leaves_the_earlier_model(
    model: cv.CradleVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    model.save(run)
    (run / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for broken in ("_unstructured", "_checksum", "_sha256", "asdict"):
        with monkeypatch.context() as patch:

            def fail(*arguments: Any, **options: Any) -> Any:
                raise RuntimeError("disk on fire")

            patch.setattr(store, broken, fail)
            with pytest.raises(RuntimeError, match="disk on fire"):
                model.save(run, overwrite=True)
            with pytest.raises(RuntimeError, match="disk on fire"):
                model.save(tmp_path / "new")
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before
        assert not (tmp_path / "new").exists()
    original, calls = Path.replace, 0

    def third_fails(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError("no more")
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", third_fails)
        with pytest.raises(OSError, match="no more"):
            model.save(run, overwrite=True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    cv.load(run)
    model.save(run, overwrite=True)
    assert (run / "notes.txt").read_text() == "mine"


def test_files_of_another_origin_are_not_replaced(model: cv.CradleVAE, tmp_path: Path) -> None:
    pd.DataFrame({"year": [1999]}).to_csv(tmp_path / "history.csv", index=False)
    with pytest.raises(cv.DataError, match=r"history\.csv exists already"):
        model.save(tmp_path)
    assert (tmp_path / "history.csv").read_text() == "year\n1999\n"
    with pytest.raises(cv.DataError, match=r"history\.csv exists already"):
        model.train(1, output=tmp_path)
    with pytest.raises(cv.DataError, match=r"history\.csv exists already"):
        model.train(1, output=tmp_path, resume=True)
    model.save(tmp_path, overwrite=True)
    assert len(cv.load(tmp_path).history) == len(model.history)


def test_training_and_saving_into_one_folder_go_together(
    simulated: ad.AnnData, quick: dict[str, Any], tmp_path: Path
) -> None:
    model = cv.CradleVAE(simulated, n_latent=4, width=8, basal_width=8)
    model.train(2, **quick, output=tmp_path)
    model.save(tmp_path)
    assert (tmp_path / "checkpoints").is_dir()
    with pytest.raises(cv.DataError, match="already holds a run"):
        model.train(1, **quick, output=tmp_path)
    described = json.loads((tmp_path / "model.json").read_text())
    model.train(1, **quick, output=tmp_path, overwrite=True)
    assert json.loads((tmp_path / "model.json").read_text()) == described
    model.save(tmp_path, overwrite=True)
    assert len(cv.load(tmp_path).history) == len(model.history)


@pytest.mark.parametrize("part", ["slice", "all", "copy", "of a part"])
def test_cells_read_from_a_file_remember_it(
    part: str, model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
) -> None:
    path = tmp_path / "raw.h5ad"
    simulated[:9].copy().write_h5ad(path)
    before, cells = path.read_bytes(), cv.open_cells(path)
    read = {"slice": cells[:5], "all": cells.to_memory(), "copy": cells[:5].copy(), "of a part": cells[:5][:3]}[part]
    with pytest.raises(cv.DataError, match=r"is what is read .*never replaced"):
        model.clean(read, output=path, overwrite=True)
    assert path.read_bytes() == before
    read.copy().write_h5ad(tmp_path / "copy.h5ad")
    model.clean(cv.open_cells(tmp_path / "copy.h5ad"), output=path, overwrite=True)  # it says nothing


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_model_does_not_replace_the_file_that_it_is_trained_on(
    in_memory: bool, simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "controls.h5ad"  # the name of a file of a model, too
    simulated.write_h5ad(path)
    cells = cv.open_cells(path)
    if in_memory:
        cells.load()
    own = cv.CradleVAE(cells, split=cv.split(simulated, "cells", seed=0), **tiny_options)
    own.train(1, **quick)
    before = path.read_bytes()
    for write in (
        lambda: own.predict("A", 2, output=path, overwrite=True),
        lambda: own.clean(simulated[:5].copy(), output=path, overwrite=True),
        lambda: own.counterfactual(simulated[:5].copy(), perturbation="A", output=path, overwrite=True),
        lambda: own.save(tmp_path, overwrite=True),
    ):
        with pytest.raises(cv.DataError, match=r"is what is read .*never replaced"):
            write()
    assert path.read_bytes() == before


def test_nothing_is_written_into_a_folder_whose_files_are_read(
    model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
) -> None:
    folder = tmp_path / "screen"
    folder.mkdir()
    simulated[:5].copy().write_h5ad(folder / "a.h5ad")
    simulated[5:9].copy().write_h5ad(folder / "b.h5ad")
    cells = cv.open_cells(folder)
    for read in (cells, cells[:3]):
        with pytest.raises(cv.DataError, match=r"new\.h5ad lies in .*, all files of which are read"):
            model.clean(read, output=folder / "new.h5ad")
    with pytest.raises(cv.DataError, match="all files of which are read"):
        cv.to_cell_eval(model, cells, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.h5ad", "b.h5ad"]


@pytest.mark.parametrize("inside", ["", "run"])
def test_nothing_is_written_into_a_zarr_store(
    inside: str, model: cv.CradleVAE, simulated: ad.AnnData, quick: dict[str, Any], tmp_path: Path
) -> None:
    store_path = tmp_path / "cells.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which version of zarr it writes
        simulated[:5].copy().write_zarr(store_path)
    before, output = sorted(store_path.rglob("*")), store_path / inside
    for write in (
        lambda: model.train(1, output=output, overwrite=True, **quick),
        lambda: model.save(output, overwrite=True),
        lambda: model.predict("A", 2, output=output / "predicted.h5ad"),
        lambda: cv.to_cell_eval(model, simulated, output),
    ):
        with pytest.raises(cv.DataError, match="is a zarr store, into which nothing else is written"):
            write()
    assert sorted(store_path.rglob("*")) == before
