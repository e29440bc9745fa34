"""Generated cells have the conditions, library sizes, batches and contexts of the real ones."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import cradlevae as cv
from cradlevae.data.experiment import Experiment
from cradlevae.evaluation.floors.fitted import FittedFloor
from cradlevae.evaluation.matched_cells import CellPair, generate_alike


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    adata = cv.simulate(
        n_cells=1500, n_genes=30, n_perturbations=3, n_combinations=0, n_latent=3, n_batches=3, batch_sd=0.3,
        confounding=0.6, n_contexts=2, context_sd=0.2, seed=0,
    )  # fmt: skip
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


def alike(adata: ad.AnnData, **fields: str) -> tuple[FittedFloor, Experiment, np.ndarray, CellPair]:
    floor = cv.FloorModel("training_mean", adata, split=cv.split(adata, "cells"), **fields)
    floor.train()
    data = floor.trained.read(adata)
    rows = np.flatnonzero(~data.failed)
    pair = generate_alike(floor.trained, data, rows, data.conditions[1:], seed=0)
    assert pair is not None
    return floor.trained, data, rows, pair


@pytest.mark.parametrize("fields", [{}, {"batch_key": "batch"}, {"context_key": "context"},
                                    {"batch_key": "batch", "context_key": "context"}])  # fmt: skip
def test_matched_cells_have_the_composition_of_real_ones(adata: ad.AnnData, fields: dict[str, str]) -> None:
    _, data, rows, pair = alike(adata, **fields)
    matched = pair.matched()
    assert len(np.unique(pair.real_groups)) == max(len(np.unique(data.strata)), 1)
    for code in range(len(pair.names)):
        real, generated = pair.real_codes == code, pair.generated_codes[matched] == code
        assert real.sum() == generated.sum()
        np.testing.assert_array_equal(
            np.sort(pair.real_groups[real]), np.sort(pair.generated_groups[matched][generated])
        )
    sizes = np.asarray(pair.generated.sum(axis=1)).ravel()[matched]
    assert sizes.mean() == pytest.approx(data.library_size[rows].mean(), rel=0.03)


def test_cells_without_controls_beside_them_do_not_count(adata: ad.AnnData) -> None:
    control = (adata.obs["perturbation"] == "control").to_numpy()
    kept = adata[~(control & (adata.obs["batch"] == "batch2").to_numpy())].copy()
    with_batches = alike(kept, batch_key="batch")[3]
    lanes = kept.obs["batch"].to_numpy()[~kept.obs["artifact"].to_numpy(dtype=bool)]
    assert set(lanes[with_batches.real_codes >= 0]) == {"batch1", "batch3"}


def test_a_pair_is_of_one_group_unless_it_says_so(adata: ad.AnnData) -> None:
    _, _, _, pair = alike(adata)
    plain = CellPair(pair.names, pair.real, pair.real_codes, pair.generated, pair.generated_codes)
    for name in ("real_groups", "generated_groups", "real_strata"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(pair, name))
