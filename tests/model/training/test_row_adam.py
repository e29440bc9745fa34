"""Adam by rows gives what Adam on whole tables gives: weights, averages, losses; and costs what occurs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.model.training import trainer
from cradlevae.model.training.row_adam import RowAdam, clip_gradients
from cradlevae.nn.rows import rows_of, sparse_row_gradients

pytestmark = pytest.mark.numeric

N_ROWS, WIDTH = 7, 5


def run(
    touched: list[list[int]], *, by_rows: bool, decay: float = 0.9, looks: set[int] = frozenset()
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Table, its average and another parameter after steps that touch these rows; someone looks after some of them."""
    generator = torch.Generator().manual_seed(0)
    table = torch.nn.Parameter(torch.randn(N_ROWS, WIDTH, generator=generator))
    other = torch.nn.Parameter(torch.randn(WIDTH, generator=generator))
    average, wanted = table.detach().clone(), torch.randn(len(touched), N_ROWS, WIDTH, generator=generator)
    adam: Any = torch.optim.Adam([table, other], lr=0.05)
    if by_rows:
        adam = RowAdam([table, other], [table], lr=0.05, weight_decay=0.0)
    for step, rows in enumerate(touched):
        adam.zero_grad()
        chosen = torch.tensor(rows)
        if by_rows:
            adam.catch_up(torch.unique(chosen))
            with sparse_row_gradients():
                values = rows_of(table, chosen)
        else:
            values = table[chosen]
        ((values * other - wanted[step, chosen]) ** 2).sum().backward()
        norm = clip_gradients([table, other], 2.0)
        assert float(norm) > 0
        adam.step()
        with torch.no_grad():
            if step == 0:
                average.copy_(table)
                if by_rows:
                    adam.average({table: average}, decay)
            elif not by_rows:
                average.lerp_(table, 1 - decay)
        if by_rows and step in looks:
            adam.catch_up_all()
    if by_rows:
        adam.catch_up_all()
    return table.detach(), average, other.detach()


@settings(max_examples=30, deadline=None)
@given(
    touched=st.lists(st.lists(st.integers(0, N_ROWS - 1), min_size=1, max_size=4), min_size=1, max_size=40),
    looks=st.sets(st.integers(0, 39)),
)
def test_it_is_adam_on_the_whole_table(touched: list[list[int]], looks: set[int]) -> None:
    for found, expected in zip(run(touched, by_rows=True, looks=looks), run(touched, by_rows=False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def test_a_row_that_never_occurs_stays() -> None:
    touched = [[0, 1], [2, 2], [1]] * 5
    table, average, _ = run(touched, by_rows=True)
    start = torch.randn(N_ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(table[5:], start[5:])
    np.testing.assert_allclose(average[5:], start[5:], rtol=1e-6)


@pytest.fixture(scope="module")
def many() -> ad.AnnData:
    adata = cv.simulate(n_cells=400, n_genes=40, n_perturbations=30, n_combinations=4, n_latent=6, seed=0)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


def trained(adata: ad.AnnData, threshold: float, folder: Path | None = None, **options: Any) -> cv.PerturbationVAE:
    kind, epochs, resume = options.pop("kind", cv.CradleVAE), options.pop("epochs", 3), options.pop("resume", False)
    model = kind(adata, split=cv.split(adata, "cells", seed=0), n_latent=8, width=16, basal_width=16, **options)
    with patch.object(trainer, "MANY_TREATMENTS", threshold):
        model.train(
            epochs, batch_size=16, progress=False, accelerator="cpu", weight_decay=0.0, output=folder, resume=resume
        )
    return model


@pytest.mark.parametrize(
    "options",
    [{}, {"reference": "mean"}, {"guide": "mean-field"}, {"kind": cv.SVAEPlus}, {"kind": cv.CPAVAE}],
    ids=["default", "mean references", "mean field", "SVAE+", "CPA-VAE"],
)
def test_training_by_rows_is_training(many: ad.AnnData, options: dict[str, Any]) -> None:
    by_rows, whole = (trained(many, threshold, **options) for threshold in (0, 1e9))
    losses = ["train_loss", "val_loss"]
    np.testing.assert_allclose(by_rows.history[losses], whole.history[losses], rtol=2e-4)
    found, expected = (model.trained.module.state_dict() for model in (by_rows, whole))
    for name in found:
        if found[name].is_floating_point():
            # a weight whose gradient is rounding may go either way: a learning rate a step
            np.testing.assert_allclose(found[name], expected[name], rtol=0.02, atol=0.02, err_msg=name)


def test_a_resumed_run_goes_on(many: ad.AnnData, tmp_path: Path) -> None:
    whole = trained(many, 0)
    trained(many, 0, tmp_path / "run", epochs=2)
    resumed = trained(many, 0, tmp_path / "run", resume=True)
    np.testing.assert_allclose(resumed.history["val_loss"], whole.history["val_loss"], rtol=1e-6)
