"""Latent states, mask probabilities, signatures and scores of cells."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import cradlevae as cv
from cradlevae.errors import DataError


def test_latent_states_have_one_row_per_cell(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    states = model.latents(simulated)
    assert states.obs_names.equals(simulated.obs_names)
    assert set(states.obsm) == {"z_basal", "z_perturbation", "z_artifact"}
    assert all(states.obsm[name].shape == (400, 8) for name in states.obsm)
    assert states.obs["perturbation"].tolist() == simulated.obs["perturbation"].tolist()


def test_states_are_what_the_labels_say(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    states = strong.latents(simulated, n_draws=20)
    z_p, z_a = states.obsm["z_perturbation"], states.obsm["z_artifact"]
    label = simulated.obs["perturbation"].astype(str).to_numpy()
    failed = simulated.obs["artifact"].to_numpy()

    def of(name: str) -> np.ndarray:
        rows = z_p[label == name]
        assert (rows == rows[0]).all()
        return rows[0]

    assert (of("control") == 0).all()
    assert np.abs(of("A")).max() > 0.1
    np.testing.assert_allclose(of("A+B"), of("A") + of("B"), rtol=1e-4, atol=1e-5)
    assert (z_a[~failed] == 0).all()
    assert len(np.unique(z_a[failed], axis=0)) == failed.sum()  # the shared artifact, and each cell's own part of it
    assert np.abs(z_a[failed]).max() > 0.1


def test_blocks_of_cells_do_not_matter(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    whole = model.latents(simulated).obsm["z_basal"]
    many = ad.concat([simulated] * 3, index_unique="-")
    many.obs["artifact"] = np.tile(simulated.obs["artifact"], 3)
    np.testing.assert_allclose(model.latents(many).obsm["z_basal"], np.tile(whole, (3, 1)), rtol=1e-4, atol=1e-5)


def test_mask_probabilities(strong: cv.CradleVAE) -> None:
    table = strong.mask_probabilities()
    assert table.shape == (5, 8)
    assert list(table.index) == list("ABCDE")
    assert table.index.name == "perturbation"
    logits = strong.trained.module.mask.logits.detach()
    np.testing.assert_allclose(table, torch.sigmoid(logits), rtol=1e-6)


def test_scores_are_finite_and_settle_with_particles(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    few = model.log_likelihood(simulated, n_particles=1)
    many = model.log_likelihood(simulated, n_particles=50)
    assert many.name == "iwelbo"
    assert many.index.equals(simulated.obs_names)
    assert np.isfinite(many).all()
    assert (many < 0).all()
    assert few.mean() < many.mean()
    assert model.log_likelihood(simulated, n_particles=50).equals(many)


def test_training_raises_the_score_of_unseen_cells(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    scores = []
    for rate in (1e-9, 5e-3):
        model = cv.CradleVAE(simulated, split=cv.split(simulated, "cells"), **tiny_options)
        model.train(20, **quick, learning_rate=rate)
        scores.append(model.log_likelihood(simulated[model.split.cells("test")], n_particles=20).mean())
    assert scores[1] > scores[0] + 0.2


def test_the_signature_has_a_row_per_gene_and_class(strong: cv.CradleVAE) -> None:
    table = strong.artifact_signature(n_draws=30, n_states=40)
    assert list(table.columns) == ["criterion", "log2_fold_change", "low", "high", "share"]
    assert list(table.index) == list(strong.trained.genes)
    assert table.index.name == "gene"
    assert (table["criterion"] == "artifact").all()
    assert (table["low"] <= table["log2_fold_change"]).all()
    assert (table["log2_fold_change"] <= table["high"]).all()
    assert table["share"].sum() == pytest.approx(1, rel=1e-4)
    assert table["log2_fold_change"].abs().max() > 0.2
    assert strong.artifact_signature(n_draws=30, n_states=40).equals(table)


def test_the_signature_is_what_predictions_show(strong: cv.CradleVAE) -> None:
    table = strong.artifact_signature()
    shares = []
    for artifact in (False, True):
        counts = strong.predict("control", 4000, artifact=artifact, library_size=2000).X.sum(axis=0)
        shares.append(np.asarray(counts).ravel() / counts.sum())
    seen = table["share"].to_numpy() > 1e-3
    measured = np.log2(shares[1] / shares[0])[seen]
    assert np.corrcoef(measured, table["log2_fold_change"].to_numpy()[seen])[0, 1] > 0.95


def test_a_signature_for_each_class(simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]) -> None:
    model = cv.CradleVAE(simulated, artifact_key=["low_umi", "other_damage"], **tiny_options)
    model.train(1, **quick)
    table = model.artifact_signature(n_draws=5, n_states=10)
    assert table["criterion"].tolist() == ["low_umi"] * 60 + ["other_damage"] * 60
    assert model.latents(simulated).obsm["z_artifact"].shape == (400, 8)


def test_an_untrained_model_is_refused(untrained: cv.CradleVAE, simulated: ad.AnnData) -> None:
    for question in (
        lambda: untrained.latents(simulated),
        lambda: untrained.log_likelihood(simulated),
        lambda: untrained.artifact_signature(),
        lambda: untrained.mask_probabilities(),
    ):
        with pytest.raises(DataError, match="has not been trained"):
            question()
