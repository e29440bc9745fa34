"""The models of the family in a user's hands: one interface, refusals by name, the three ways with failed cells."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

import cradlevae as cv
from cradlevae.api import CLASSES, PerturbationVAE
from cradlevae.data.identity.fingerprint import cell_fingerprints
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.registry import FLOORS
from cradlevae.model.family import CRADLE_VAE

SIBLINGS = ("sams_vae", "svae_plus", "cpa_vae", "conditional_vae")


@pytest.fixture(scope="module")
def trained(simulated: ad.AnnData, tiny_options: Any, quick: Any) -> dict[str, Any]:
    """Every sibling after two epochs, combinations held out."""
    split = cv.split(simulated, "combinations", seed=0)
    models = {}
    for key in SIBLINGS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SVAE+ tells what it cannot predict
            models[key] = cv.models()[key].make(simulated, split=split, **tiny_options)
        models[key].train(2, **quick)
    return models


@pytest.fixture(scope="module")
def pairs(simulated: ad.AnnData) -> dict[str, str]:
    """A combination of the training and one of the test cells."""
    split = cv.split(simulated, "combinations", seed=0)
    labels = {part: simulated[split.cells(part)].obs["perturbation"].unique() for part in ("train", "test")}
    return {part: next(name for name in names if "+" in name) for part, names in labels.items()}


def test_every_model_is_known_by_name() -> None:
    found = cv.models()
    assert list(found)[:5] == ["cradle_vae", *SIBLINGS]
    assert set(FLOORS) < set(found)
    for name, entry in found.items():
        assert entry.name == name
        assert entry.description
        assert entry.kind == ("floor" if name in FLOORS else "model")


@pytest.mark.parametrize("key", SIBLINGS)
def test_siblings_answer_what_cradle_vae_does(
    key: str, trained: dict[str, Any], pairs: dict[str, str], simulated: ad.AnnData, tmp_path: Path
) -> None:
    model = trained[key]
    asked = ["A", pairs["train"]]
    found = model.effects(asked, error=1.0)
    assert found.shape == (2, 60)
    assert (found.layers["low"] <= found.layers["high"]).all()
    assert np.abs(found.X).max() > 0
    counts = model.predict([*asked, "control"], 7)
    assert counts.shape == (21, 60)
    assert model.published_effects("A", n_particles=40).shape == (1, 60)
    known = simulated[simulated.obs["perturbation"].isin([*asked, "control"]).to_numpy()]
    states = model.latents(known)
    assert set(states.obsm) == {"z_basal", "z_perturbation"}
    drawn = model.latents(known, sample=True).obsm["z_basal"]
    assert drawn.shape == states.obsm["z_basal"].shape == (known.n_obs, 8)
    assert np.isfinite(model.log_likelihood(known, n_particles=5)).all()
    other = model.counterfactual(known, perturbation="B", n_draws=4)
    own = model.counterfactual(known, n_draws=4)
    assert np.isfinite(other.layers["expected"]).all()
    assert np.abs(other.layers["expected"] - own.layers["expected"]).max() > 0
    model.save(tmp_path / "run")
    loaded = cv.load(tmp_path / "run")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.effects(asked, error=1.0).X, found.X)
    with pytest.raises(
        DataError, match=rf"holds a {model.declaration.name}, not a CradleVAE; load it with {model.declaration.name}"
    ):
        cv.CradleVAE.load(tmp_path / "run")


@pytest.mark.parametrize("key", SIBLINGS)
def test_what_a_sibling_cannot_do_it_refuses_by_name(key: str, trained: dict[str, Any], simulated: ad.AnnData) -> None:
    model = trained[key]
    refusal = rf"{model.declaration.name} has no artifact latent"
    for ask in (
        lambda: model.clean(simulated),
        lambda: model.counterfactual(simulated, artifact=False),
        model.artifact_signature,
        lambda: model.predict("A", artifact=True),
        lambda: model.predict("A", artifact="artifact"),
    ):
        with pytest.raises(DataError, match=refusal):
            ask()
    if key in ("sams_vae", "svae_plus"):
        assert model.mask_probabilities().shape == (len(model.trained.treatments), 8)
    else:
        with pytest.raises(DataError, match=rf"{model.declaration.name} has no mask"):
            model.mask_probabilities()


def test_unseen_combinations_add_up_or_are_refused(
    trained: dict[str, Any], pairs: dict[str, str], simulated: ad.AnnData
) -> None:
    unseen = pairs["test"]
    for key in ("sams_vae", "cpa_vae", "conditional_vae"):
        assert trained[key].effects([unseen], error=1.0).shape == (1, 60)
    model = trained["svae_plus"]
    assert pairs["train"] in model.perturbations
    assert unseen not in model.perturbations
    refusal = r"had no training cells, and SVAEPlus takes every condition for a treatment of its own"
    for ask in (model.effects, model.predict):
        with pytest.raises(DataError, match=refusal):
            ask([unseen])
    with pytest.warns(UserWarning, match="cells are left out"):
        assert model.counterfactual(simulated, perturbation="A").n_obs < simulated.n_obs
    new = simulated[simulated.obs["perturbation"].isin(["A", "B"]).to_numpy()].copy()
    new.obs["perturbation"] = "A+B"
    if "A+B" not in model.trained.treatments:
        with pytest.raises(DataError, match="'A\\+B' had no training cells"):
            model.log_likelihood(new)


@pytest.mark.parametrize("key", SIBLINGS)
def test_siblings_are_scored_without_what_they_lack(key: str, trained: dict[str, Any], simulated: ad.AnnData) -> None:
    options: dict[str, Any] = {"n_cells": 5}
    if key == "svae_plus":  # held-out combinations are none of its treatments
        with pytest.raises(DataError, match="none of the held-out conditions can be predicted"):
            cv.evaluate(trained[key], simulated, **options)
        options["reference"] = "validation"
    scores = cv.evaluate(trained[key], simulated, **options)
    metrics = set(scores["metric"])
    assert {"ate_rho", "iwelbo", "leakage_z_basal", "de_overlap"} <= metrics
    assert not {"signature_correlation", "clean_deviance"} & metrics
    assert ("mask_f1" in metrics) == (key in ("sams_vae", "svae_plus"))


def test_failed_cells_are_modelled_dropped_or_pooled(simulated: ad.AnnData, tiny_options: Any, quick: Any) -> None:
    split = cv.split(simulated, "cells", seed=0)
    train = simulated[split.cells("train")]
    prints = np.sort(cell_fingerprints(train.X, list(train.var_names), np.arange(train.n_obs)))
    passing = np.sort(
        cell_fingerprints(train.X, list(train.var_names), np.flatnonzero(~train.obs["artifact"].to_numpy()))
    )
    for kind, options, expected in (
        (cv.CradleVAE, {}, prints), (cv.CradleVAE, {"train_on": "passing"}, passing),
        (cv.SAMSVAE, {}, passing), (cv.SAMSVAE, {"train_on": "all"}, prints),
    ):  # fmt: skip
        model = kind(simulated, split=split, **options, **tiny_options)
        np.testing.assert_array_equal(model.trained.fingerprints, expected)
        model.train(1, **quick)
        assert np.isfinite(model.history["val_loss"]).all()
        assert (model.trained.damage is not None) == (kind is cv.CradleVAE and not options)


def test_each_criterion_alone_is_a_setting(simulated: ad.AnnData, tiny_options: Any) -> None:
    model = cv.CradleVAE(simulated, artifact_key="low_umi", **tiny_options)
    assert model.trained.criteria == ("low_umi",)


def test_a_class_makes_its_own_model(simulated: ad.AnnData) -> None:
    with pytest.raises(DataError, match="model='cpa_vae' is not a SAMSVAE; use CPAVAE"):
        cv.SAMSVAE(simulated, model="cpa_vae")
    with pytest.raises(DataError, match="SAMSVAE has no artifact latent, so counterfactual_weight means nothing"):
        cv.SAMSVAE(simulated, counterfactual_weight=0.5)


def test_perturbations_of_failed_cells_only_are_told(simulated: ad.AnnData, tiny_options: Any) -> None:
    adata = simulated.copy()
    has = adata.obs["perturbation"].astype(str).str.contains("C")
    adata.obs["artifact"] = adata.obs["artifact"] | has
    with pytest.warns(UserWarning, match=r"no training cells for 'C' \(1 perturbations\)"):
        cv.CPAVAE(adata, **tiny_options)


def test_a_subclass_without_a_declaration_is_the_same_model_with_other_methods(
    trained: dict[str, Any], tmp_path: Path
) -> None:
    class Mine(cv.SAMSVAE):
        def strongest(self) -> str:
            return str(self.mask_probabilities().max(axis=1).idxmax())

    assert CLASSES["sams_vae"] is cv.SAMSVAE
    assert cv.models()["sams_vae"].make is cv.SAMSVAE
    trained["sams_vae"].save(tmp_path)
    assert type(cv.load(tmp_path)) is cv.SAMSVAE
    mine = Mine.load(tmp_path)
    assert type(mine) is Mine
    assert mine.strongest() in mine.perturbations
    np.testing.assert_array_equal(mine.predict("A", 3).X.toarray(), trained["sams_vae"].predict("A", 3).X.toarray())
    with pytest.raises(DataError, match="holds a SAMSVAE, not a CradleVAE"):
        cv.CradleVAE.load(tmp_path)


def test_a_class_cannot_declare_the_model_of_another() -> None:
    for base in (PerturbationVAE, cv.CradleVAE):
        with pytest.raises(DataError, match="Other declares the model 'cradle_vae', which is CradleVAE's"):
            type("Other", (base,), {"declaration": CRADLE_VAE})
    assert CLASSES["cradle_vae"] is cv.CradleVAE
