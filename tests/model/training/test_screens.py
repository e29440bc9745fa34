"""Training with batches and contexts: from disk, in several processes, and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

import cradlevae as cv

pytestmark = pytest.mark.numeric

KEYS = {"batch_key": "batch", "context_key": "context"}


def made(adata: Any, split: cv.Split, options: dict[str, Any]) -> cv.CradleVAE:
    return cv.CradleVAE(adata, split=split, **KEYS, **options)


def assert_alike(one: cv.CradleVAE, other: cv.CradleVAE) -> None:
    for column in one.history.columns.drop("seconds"):
        np.testing.assert_allclose(one.history[column], other.history[column], rtol=2e-5, atol=1e-6, err_msg=column)


def test_counts_on_disk_give_what_counts_in_memory_give(
    screen: ad.AnnData, tiny_options: Any, quick: Any, tmp_path: Path
) -> None:
    path = tmp_path / "screen.h5ad"
    screen.write_h5ad(path)
    split = cv.split(screen, **KEYS)
    models = [made(cells, split, tiny_options) for cells in (screen, cv.open_cells(path))]
    for name, value in models[0].trained.module.state_dict().items():
        np.testing.assert_allclose(value, models[1].trained.module.state_dict()[name], rtol=1e-5, atol=1e-6)
    models[1].train(1, **quick)
    assert np.isfinite(models[1].effects("B", context="context2").X).all()
    assert models[1].clean(cv.open_cells(path), cells="failed", batch="batch2").n_obs > 0


def test_two_processes_give_what_one_gives(screen: ad.AnnData, tiny_options: Any, quick: Any) -> None:
    split = cv.split(screen, **KEYS)
    one, two = (made(screen, split, tiny_options) for _ in range(2))
    one.train(2, **quick)
    two.train(2, devices=2, **quick)
    assert_alike(one, two)


def test_a_resumed_run_is_the_uninterrupted_one(
    screen: ad.AnnData, tiny_options: Any, quick: Any, tmp_path: Path
) -> None:
    split = cv.split(screen, **KEYS)
    whole, parts = (made(screen, split, tiny_options) for _ in range(2))
    whole.train(3, **quick)
    parts.train(2, output=tmp_path, **quick)
    again = made(screen, split, tiny_options)
    again.train(3, output=tmp_path, resume=True, **quick)
    assert again.history.drop(columns="seconds").equals(whole.history.drop(columns="seconds"))
    moved = screen.copy()
    moved.obs["batch"] = moved.obs["batch"].to_numpy()[::-1].copy()
    with pytest.raises(cv.DataError, match="batches, covariates or contexts"):
        made(moved, split, tiny_options).train(4, output=tmp_path, resume=True, **quick)
