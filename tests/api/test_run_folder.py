"""The folder of a training: an earlier run in it stays whole until there is something in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import pytest
import torch

import cradlevae as cv


@pytest.fixture
def fresh(simulated: ad.AnnData, tiny_options: dict[str, Any]) -> cv.CradleVAE:
    """A model of its own copy of the data, to train."""
    return cv.CradleVAE(simulated.copy(), split=cv.split(simulated, "cells", seed=0), **tiny_options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed_counts(model: cv.CradleVAE, options: dict[str, Any]) -> None:
    assert model.data is not None
    model.data.counts.data[0] += 1


def no_such_accelerator(model: cv.CradleVAE, options: dict[str, Any]) -> None:
    options["accelerator"] = "abacus"


def loss_not_finite(model: cv.CradleVAE, options: dict[str, Any]) -> None:
    with torch.no_grad():
        model.trained.module.decoder.gene_linear.bias.fill_(torch.nan)


@pytest.mark.parametrize("fault", [changed_counts, no_such_accelerator, loss_not_finite])
def test_a_training_that_fails_leaves_the_run_that_it_was_to_replace(
    fault: Any, fresh: cv.CradleVAE, quick: dict[str, Any], tmp_path: Path
) -> None:
    fresh.train(1, output=tmp_path, **quick)
    before = contents(tmp_path)
    assert {"run.json", "history.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"} <= set(before)
    options = dict(quick)
    fault(fresh, options)
    with pytest.raises(cv.CradleError):
        fresh.train(1, output=tmp_path, overwrite=True, **options)
    assert contents(tmp_path) == before


def test_a_run_that_is_replaced_leaves_nothing(fresh: cv.CradleVAE, quick: dict[str, Any], tmp_path: Path) -> None:
    fresh.train(2, output=tmp_path, **quick)
    (tmp_path / "checkpoints" / "old.ckpt").write_text("of the earlier run")
    before = contents(tmp_path)
    fresh.train(1, output=tmp_path, overwrite=True, **(quick | {"seed": 3}))
    after = contents(tmp_path)
    assert set(before) - set(after) == {"checkpoints/old.ckpt"}
    assert all(after[name] != before[name] for name in after)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("name", ["history.csv", "run.json"])
def test_folders_under_the_names_of_files_are_refused_before_training(
    name: str, fresh: cv.CradleVAE, quick: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(cv.DataError, match=f"{name} is a folder; a file of this name is to be written"):
            fresh.train(1, output=tmp_path, **options, **quick)
    (tmp_path / name).rmdir()
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(cv.DataError, match=r"checkpoints.* which is a file; name a folder"):
        fresh.train(1, output=tmp_path, overwrite=True, **quick)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "split.json", "controls.h5ad", "history.csv"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_model_is_not_saved_over_a_folder(name: str, overwrite: bool, model: cv.CradleVAE, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(cv.DataError, match=f"{name} is a folder"):
        model.save(tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [name]
