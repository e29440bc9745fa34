"""QC pass rates of generated cells: which counts and thresholds they rest on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.evaluation.inputs import ScoringInputs
from cradlevae.evaluation.metrics.cells import pass_rate
from cradlevae.evaluation.metrics.kinds import MADS
from cradlevae.evaluation.predictor import as_predictor
from cradlevae.evaluation.score_table import MODEL, PUBLISHED, REAL, Scores
from cradlevae.evaluation.scorers.qc import score_qc


@pytest.fixture(scope="module")
def annotated(simulated: ad.AnnData) -> ad.AnnData:
    adata = simulated.copy()
    cv.annotate_qc(adata, criteria=("umi", "genes", "mito"), key_added="failed")
    return adata


def rates(model: cv.CradleVAE, adata: ad.AnnData, layer: str | None = None) -> pd.DataFrame:
    trained = replace(model.trained, fields=replace(model.trained.fields, layer=layer))
    predictor = as_predictor(trained)
    data = predictor.read(adata)
    inputs = ScoringInputs(predictor, adata, data, np.arange(data.n_cells), ("A", "B"), seed=0)
    scores = Scores("held-out")
    score_qc(scores, inputs, n_cells=30)
    table = scores.table()
    table = table[table["metric"].str.startswith("qc_pass_rate_mad")]
    table = table.assign(n_mads=table["metric"].str.removeprefix("qc_pass_rate_mad").astype(float))
    columns = {MODEL: "model", PUBLISHED: "published_library", REAL: "real_cells"}
    rates = table.pivot(index="n_mads", columns="predictor", values="value")[list(columns)].rename(columns=columns)
    return rates.assign(note=table.groupby("n_mads")["note"].first()).reset_index()


def test_real_cells_pass_at_the_rate_of_their_annotation(model: cv.CradleVAE, annotated: ad.AnnData) -> None:
    found = rates(model, annotated).set_index("n_mads")
    assert found.loc[3.0, "real_cells"] == pytest.approx(1 - annotated.obs["failed"].mean())
    assert found["real_cells"].is_monotonic_increasing
    assert found[["model", "published_library"]].stack().between(0, 1).all()
    assert (found["note"] == "").all()


def test_counts_are_read_from_the_layer_of_the_model(model: cv.CradleVAE, annotated: ad.AnnData) -> None:
    layered = annotated.copy()
    layered.layers["counts"] = annotated.X.copy()
    layered.X = sp.csr_matrix(np.log1p(annotated.X.toarray()))
    layered.uns[QC_KEY]["layer"] = "counts"
    pd.testing.assert_frame_equal(rates(model, layered, "counts"), rates(model, annotated))


def test_thresholds_of_other_genes_judge_no_generated_cell(model: cv.CradleVAE, annotated: ad.AnnData) -> None:
    full = annotated.copy()
    full.uns[QC_KEY]["n_genes"] = 20_000
    found = rates(model, full).set_index("n_mads")
    assert list(found.index) == list(MADS)
    assert found[["model", "published_library"]].isna().all(axis=None)
    assert found.loc[3.0, "real_cells"] == pytest.approx(1 - annotated.obs["failed"].mean())
    assert found.loc[[4.0, 5.0], "real_cells"].isna().all()
    assert found["note"].str.contains("learned on 20000 genes").all()
    table = cv.evaluate(model, full, truth=False, n_cells=5)
    rows = table[table["metric"] == "qc_pass_rate_mad3"].set_index("predictor")
    assert np.isnan(rows.loc["model", "value"])
    assert "learned on 20000 genes" in rows.loc["model", "note"]


def test_doublets_among_real_cells_are_those_of_the_annotation(quick: dict[str, Any]) -> None:
    import torch

    before = torch.get_num_threads()
    adata = cv.simulate(n_cells=300, n_genes=250, n_perturbations=2, n_combinations=0, n_latent=3)
    dense = adata.X.toarray()
    dense[::2] = dense[::2][:, np.random.default_rng(0).permutation(250)]  # two types of cells: doublets can be told
    adata.X = sp.csr_matrix(dense)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    model = cv.CradleVAE(adata, n_latent=4, width=8, basal_width=8)
    model.train(1, **quick)
    for criteria in (("doublet",), ("umi", "doublet")):
        cv.annotate_qc(adata, criteria=criteria, key_added="failed", max_fail_share=1.0)
        found = rates(model, adata[::-1].copy()).set_index("n_mads")
        assert found.loc[3.0, "real_cells"] == pytest.approx(1 - adata.obs["failed"].mean())
        assert found["model"].between(0, 1).all()
    assert torch.get_num_threads() == before  # scanpy's numba would leave as many as there are cores


def test_a_pass_rate_needs_a_criterion() -> None:
    assert np.isnan(pass_rate(pd.DataFrame(index=["a", "b"])))
    assert pass_rate(pd.DataFrame({"umi": [True, False], "mito": [True, False]})) == 0.5
