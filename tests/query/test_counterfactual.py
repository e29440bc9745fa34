"""The artifact-free twin of a cell, and other counterfactuals of real cells."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import cradlevae as cv
from cradlevae.errors import DataError
from cradlevae.query import counterfactual as counterfactual_module
from cradlevae.query.counterfactual import BITS


@pytest.fixture(scope="module")
def cleaned(strong: cv.CradleVAE, simulated: ad.AnnData) -> ad.AnnData:
    return strong.clean(simulated)


def test_shapes_and_columns(cleaned: ad.AnnData, strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    assert cleaned.shape == simulated.shape
    assert cleaned.obs_names.equals(simulated.obs_names)
    assert cleaned.var_names.equals(simulated.var_names)
    assert cleaned.layers["expected"].dtype == np.float32
    assert set(cleaned.layers) == {"expected", "uncertainty"}
    added = {"failed_qc", "clean_library_size", "information", "confounded"}
    added |= set(strong.diagnose(simulated))
    assert set(cleaned.obs.columns) == set(simulated.obs.columns) | added
    np.testing.assert_array_equal(cleaned.obs["failed_qc"], simulated.obs["artifact"])
    assert (cleaned.obs["information"] > 0).all()
    assert (cleaned.layers["expected"] > 0).all()
    assert (cleaned.layers["uncertainty"] > 0).all()
    assert np.isfinite(cleaned.layers["uncertainty"]).all()


def test_counts_are_integers_around_the_expected(cleaned: ad.AnnData) -> None:
    assert isinstance(cleaned.X, sp.csr_matrix)
    counts = cleaned.X.toarray()
    assert (counts >= 0).all()
    np.testing.assert_array_equal(counts, counts.round())
    totals, expected = counts.sum(axis=1), cleaned.obs["clean_library_size"].to_numpy()
    error = float((totals - expected).std()) / len(totals) ** 0.5
    assert totals.mean() == pytest.approx(expected.mean(), abs=5 * error)


def test_passing_cells_keep_their_library_size(
    cleaned: ad.AnnData, strong: cv.CradleVAE, simulated: ad.AnnData
) -> None:
    own = np.asarray(simulated.X.sum(axis=1)).ravel()
    failed = simulated.obs["artifact"].to_numpy()
    np.testing.assert_allclose(cleaned.layers["expected"].sum(axis=1), cleaned.obs["clean_library_size"], rtol=1e-4)
    np.testing.assert_allclose(cleaned.obs["clean_library_size"][~failed], own[~failed])
    train = simulated[strong.split.cells("train")]
    passing = np.asarray(train.X.sum(axis=1)).ravel()[~train.obs["artifact"].to_numpy()]
    np.testing.assert_allclose(cleaned.obs["clean_library_size"][failed], np.median(passing))
    kept = strong.clean(simulated, library_size="own")
    np.testing.assert_allclose(kept.layers["expected"].sum(axis=1), own, rtol=1e-4)


def test_failed_cells_alone(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    only = strong.clean(simulated, cells="failed")
    assert list(only.obs_names) == list(simulated.obs_names[simulated.obs["artifact"]])
    assert only.obs["failed_qc"].all()
    with pytest.raises(DataError, match="no cell failed QC, so there is none to clean"):
        strong.clean(simulated[~simulated.obs["artifact"].to_numpy()], cells="failed")


def test_the_seed_decides_and_blocks_do_not_change_the_shape(
    strong: cv.CradleVAE, simulated: ad.AnnData, cleaned: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.testing.assert_array_equal(strong.clean(simulated).layers["expected"], cleaned.layers["expected"])
    assert not np.array_equal(strong.clean(simulated, seed=1).layers["expected"], cleaned.layers["expected"])
    monkeypatch.setattr(counterfactual_module, "BLOCK_VALUES", 16 * 60 * 7)
    in_blocks = strong.clean(simulated)
    assert in_blocks.shape == cleaned.shape
    rounding = 2.0 ** -(BITS + 1)  # of each value, in both
    np.testing.assert_allclose(
        in_blocks.layers["expected"].sum(axis=1), cleaned.layers["expected"].sum(axis=1), rtol=2 * rounding
    )
    logs = [np.log(table).ravel() for table in (in_blocks.layers["expected"], cleaned.layers["expected"])]
    assert np.corrcoef(*logs)[0, 1] > 0.95


def test_more_draws_settle_the_mean(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    few = simulated[:40]
    one, two = (strong.clean(few, n_draws=300, seed=seed) for seed in (0, 1))
    spread = one.layers["uncertainty"] * np.sqrt(2 / 300)
    assert np.median(np.abs(np.log(one.layers["expected"]) - np.log(two.layers["expected"])) / spread) < 1.5


@pytest.mark.parametrize(("log_concentration", "own"), [(-20.0, True), (20.0, False)])
def test_a_cell_keeps_its_gamma_factors_as_far_as_counts_vary(
    strong: cv.CradleVAE, simulated: ad.AnnData, log_concentration: float, own: bool
) -> None:
    """Where genes vary without bound a passing cell's expectation is its counts, where they do not, the decoder's."""
    model = copy.deepcopy(strong)
    with torch.no_grad():
        model.trained.module.likelihood.log_concentration.fill_(log_concentration)
    passing = simulated[~simulated.obs["artifact"].to_numpy(dtype=bool)][:20]
    cleaned = model.clean(passing, n_draws=4)
    counts = passing.X.toarray()
    assert np.allclose(cleaned.layers["expected"], counts, rtol=1e-3, atol=1e-3) == own
    np.testing.assert_allclose(cleaned.layers["expected"].sum(axis=1), counts.sum(axis=1), rtol=1e-3)
    assert ((cleaned.layers["expected"] > 1e-4).mean() > 0.99) != own


def test_a_single_draw_has_no_uncertainty(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    drawn = strong.clean(simulated[:5], n_draws=1)
    assert (drawn.layers["uncertainty"] == 0).all()
    with pytest.raises(DataError, match="n_draws is 0; it must be at least 1"):
        strong.clean(simulated[:5], n_draws=0)


@pytest.mark.parametrize("form", [sp.csc_matrix, np.asarray])
def test_genes_may_stand_in_any_order_and_form(
    strong: cv.CradleVAE, simulated: ad.AnnData, cleaned: ad.AnnData, form: Any
) -> None:
    order = np.random.default_rng(0).permutation(60)
    shuffled = simulated[:, order].copy()
    shuffled.X = form(shuffled.X.toarray())
    more = ad.AnnData(np.ones((400, 2)), obs=shuffled.obs, var=pd.DataFrame(index=["x", "y"]))
    shuffled = ad.concat([shuffled, more], axis=1, merge="first")
    found = strong.clean(shuffled)
    assert list(found.var_names) == list(cleaned.var_names)
    np.testing.assert_array_equal(found.layers["expected"], cleaned.layers["expected"])


def test_a_backed_file_is_cleaned_alike(
    strong: cv.CradleVAE, simulated: ad.AnnData, cleaned: ad.AnnData, tmp_path: Path
) -> None:
    simulated.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    found = strong.clean(backed)
    np.testing.assert_array_equal(found.layers["expected"], cleaned.layers["expected"])
    backed.file.close()
    found.write_h5ad(tmp_path / "clean.h5ad")
    again = ad.read_h5ad(tmp_path / "clean.h5ad")
    np.testing.assert_array_equal(again.X.toarray(), cleaned.X.toarray())


def test_cells_that_cannot_be_read_are_left_out(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    adata = simulated[:20].copy()
    adata.X = adata.X.toarray()
    adata.X[3] = 0
    with pytest.warns(UserWarning, match="1 cells without a count are left out"):
        found = strong.clean(adata)
    assert list(found.obs_names) == [name for i, name in enumerate(adata.obs_names) if i != 3]


def test_what_does_not_fit_the_model_is_refused(
    strong: cv.CradleVAE, untrained: cv.CradleVAE, simulated: ad.AnnData
) -> None:
    names = list(simulated.var_names)
    with pytest.raises(
        DataError, match=rf"2 of the model's 60 genes are not in the data, first: '{names[0]}', '{names[2]}'"
    ):
        strong.clean(simulated[:, [1, *range(3, 60)]])
    stranger = simulated.copy()
    stranger.obs["perturbation"] = stranger.obs["perturbation"].astype(str).replace("C", "GATA1")
    with pytest.raises(DataError, match=r"perturbation 'GATA1' .*is unknown to the model"):
        strong.clean(stranger)
    unlabelled = simulated.copy()
    del unlabelled.obs["artifact"]
    with pytest.raises(DataError, match="no column 'artifact' in obs"):
        strong.clean(unlabelled)
    with pytest.raises(DataError, match="has not been trained"):
        untrained.clean(simulated)
    logged = simulated.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(DataError, match="looks log-normalised"):
        strong.clean(logged)


# -- confounding -----------------------------------------------------------------------------------------------


def test_perturbations_that_kill_are_flagged(simulated: ad.AnnData, tiny_options, quick) -> None:
    adata = simulated.copy()
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    adata.obs["artifact"] = (labels == "C") | ((labels == "control") & (np.arange(400) % 20 == 0))
    model = cv.CradleVAE(adata, **tiny_options)
    model.train(1, **quick)
    # all others fail less often than the controls, if anything
    np.testing.assert_array_equal(model.clean(adata).obs["confounded"].astype(bool), labels == "C")
    # the alarm is that of the model's experiment, whichever cells are cleaned
    failed = adata[adata.obs["artifact"].to_numpy()]
    found = model.clean(failed)
    assert found.obs["confounded"].astype(bool).sum() == (labels == "C").sum()
    assert not model.clean(adata[labels == "control"]).obs["confounded"].astype(bool).any()


# -- other counterfactuals -------------------------------------------------------------------------------------


def test_clean_is_the_counterfactual_without_artifact(
    strong: cv.CradleVAE, simulated: ad.AnnData, cleaned: ad.AnnData
) -> None:
    found = strong.counterfactual(simulated, artifact=False, library_size="passing")
    np.testing.assert_array_equal(found.layers["expected"], cleaned.layers["expected"])


def test_a_passing_cell_is_its_own_twin(strong: cv.CradleVAE, simulated: ad.AnnData, cleaned: ad.AnnData) -> None:
    kept = strong.counterfactual(simulated)  # nothing changed: the reconstruction
    failed = simulated.obs["artifact"].to_numpy()
    np.testing.assert_array_equal(kept.layers["expected"][~failed], cleaned.layers["expected"][~failed])
    share = [
        table.layers["expected"] / table.layers["expected"].sum(axis=1, keepdims=True) for table in (kept, cleaned)
    ]
    assert np.abs(share[0][failed] - share[1][failed]).sum(axis=1).min() > 0.01


def test_the_artifact_switched_on(strong: cv.CradleVAE, simulated: ad.AnnData, cleaned: ad.AnnData) -> None:
    damaged = strong.counterfactual(simulated, artifact=True)
    kept = strong.counterfactual(simulated)
    failed = simulated.obs["artifact"].to_numpy()
    np.testing.assert_array_equal(damaged.layers["expected"][failed], kept.layers["expected"][failed])
    assert not np.allclose(damaged.layers["expected"][~failed], cleaned.layers["expected"][~failed], rtol=0.05)
    named = strong.counterfactual(simulated, artifact="artifact")
    np.testing.assert_array_equal(named.layers["expected"], damaged.layers["expected"])


def test_another_perturbation(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    kept = strong.counterfactual(simulated)
    as_pair, other_way = (strong.counterfactual(simulated, perturbation=name) for name in ("A+B", "B+A"))
    np.testing.assert_array_equal(as_pair.layers["expected"], other_way.layers["expected"])
    own = (simulated.obs["perturbation"] == "A+B").to_numpy()
    np.testing.assert_allclose(as_pair.layers["expected"][own], kept.layers["expected"][own], rtol=1e-4)
    assert not np.allclose(as_pair.layers["expected"][~own], kept.layers["expected"][~own], rtol=0.05)
    control = strong.counterfactual(simulated, perturbation="control")
    untouched = (simulated.obs["perturbation"] == "control").to_numpy()
    np.testing.assert_allclose(control.layers["expected"][untouched], kept.layers["expected"][untouched], rtol=1e-4)
    with pytest.raises(DataError, match="unknown perturbation 'Z'"):
        strong.counterfactual(simulated, perturbation="Z")
