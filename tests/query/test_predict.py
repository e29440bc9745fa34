"""Predicted cells: counts, labels, library sizes, and what cannot be predicted."""

from __future__ import annotations

import copy
from dataclasses import replace
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
from cradlevae.query import predict as predict_module


def dense(adata: ad.AnnData) -> np.ndarray:
    return np.asarray(adata.X.toarray())


def profile(adata: ad.AnnData) -> np.ndarray:
    total = dense(adata).sum(axis=0)
    return np.asarray(total / total.sum())


def passing_control_sizes(model: cv.CradleVAE) -> np.ndarray:
    data = model.data
    train = model.split.rows(data.cells, "train")
    return data.library_size[train[data.is_control[train] & ~data.failed[train]]]


def test_shapes_and_labels(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    predicted = model.predict(["C", "A+B", "control"], n_cells=7)
    assert predicted.shape == (21, 60)
    assert predicted.obs["perturbation"].tolist() == ["C"] * 7 + ["A+B"] * 7 + ["control"] * 7
    assert not predicted.obs["artifact"].any()
    assert predicted.obs_names.is_unique
    pd.testing.assert_frame_equal(predicted.var, simulated.var)
    assert isinstance(predicted.X, sp.csr_matrix)
    counts = dense(predicted)
    assert (counts >= 0).all()
    np.testing.assert_array_equal(counts, counts.round())
    assert model.predict("A", n_cells=2).shape == (2, 60)


def test_predictions_can_be_trained_on(model: cv.CradleVAE) -> None:
    # what comes out keeps the contract of what goes in
    predicted = model.predict(["A", "B", "control"], n_cells=5)
    with (
        pytest.warns(UserWarning, match="made by predict of a model, and are no raw data; CradleVAE takes them"),
        pytest.warns(UserWarning, match="made by predict of a model, and are no raw data; split takes them"),
        pytest.warns(UserWarning, match="all training cells passed"),
    ):
        again = cv.CradleVAE(predicted, n_latent=4, width=8)
    assert again.trained.perturbations == ("A", "B")


def test_the_seed_decides_and_the_callers_random_numbers_stay(model: cv.CradleVAE) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = dense(model.predict(["A", "B"], 10, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    np.testing.assert_array_equal(dense(model.predict(["A", "B"], 10, seed=1)), first)
    assert not np.array_equal(dense(model.predict(["A", "B"], 10, seed=2)), first)


def test_many_cells_come_in_parts(model: cv.CradleVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module, "CELLS_AT_A_TIME", 4)
    predicted = model.predict(["A", "B"], n_cells=9, library_size=300)
    assert predicted.obs["perturbation"].tolist() == ["A"] * 9 + ["B"] * 9
    assert (dense(predicted).sum(axis=1) > 0).all()
    assert len(np.unique(dense(predicted), axis=0)) > 15


@pytest.mark.parametrize("one", ["A+B", "B+A", " B + A ", "A+B+ctrl"])
def test_a_combination_may_be_written_in_any_way(model: cv.CradleVAE, one: str) -> None:
    predicted = model.predict(one, n_cells=6)
    assert set(predicted.obs["perturbation"]) == {one}  # the label that was asked for comes back
    np.testing.assert_array_equal(dense(predicted), dense(model.predict("A+B", n_cells=6)))


def test_unseen_combinations_are_predicted(model: cv.CradleVAE) -> None:
    seen = set(model.data.conditions)
    unseen = [f"{a}+{b}" for a in "ABCDE" for b in "ABCDE" if a < b and f"{a}+{b}" not in seen]
    assert unseen
    assert model.predict([*unseen, "A+B+C"], n_cells=2).n_obs == 2 * len(unseen) + 2


# -- library sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library_size", [150, 3000.0, "2000"])
def test_a_library_size_is_kept_on_average(model: cv.CradleVAE, library_size: Any) -> None:
    predicted = model.predict("A", n_cells=2000, library_size=library_size)
    assert (predicted.obs["library_size"] == float(library_size)).all()
    totals = dense(predicted).sum(axis=1)
    assert totals.mean() == pytest.approx(float(library_size), abs=5 * float(totals.std()) / 2000**0.5)


def test_library_sizes_are_those_of_passing_training_controls(model: cv.CradleVAE) -> None:
    predicted = model.predict(["A", "B+C"], n_cells=1000)
    sizes = predicted.obs["library_size"].to_numpy()
    real = passing_control_sizes(model)
    assert set(sizes) == set(real)
    assert sizes.mean() == pytest.approx(real.mean(), abs=5 * float(real.std()) / 2000**0.5)
    totals = dense(predicted).sum(axis=1)
    assert totals.mean() == pytest.approx(sizes.mean(), abs=5 * float(totals.std()) / 2000**0.5)


def test_library_sizes_can_be_those_of_given_cells_by_condition(model: cv.CradleVAE) -> None:
    sizes = {"B + A": [100, 200, 300], "C": [5000.0]}
    predicted = model.predict(["A+B", "C"], n_cells=900, library_size=sizes)
    found = predicted.obs.groupby("perturbation", observed=True)["library_size"].value_counts()
    assert found.to_dict() == {("A+B", 100): 300, ("A+B", 200): 300, ("A+B", 300): 300, ("C", 5000): 900}
    totals = dense(predicted).sum(axis=1)
    assert np.corrcoef(totals, predicted.obs["library_size"])[0, 1] > 0.9
    with pytest.raises(DataError, match="library_size has no sizes for 'A'; give some for every condition"):
        model.predict(["A", "C"], library_size={"C": [100], "A": []})
    with pytest.raises(DataError, match=r"library_size is .*0.*; give a positive number"):
        model.predict("A", library_size={"A": [100, 0]})


@pytest.mark.parametrize("library_size", ["control", -3, 0, float("nan"), float("inf"), None])
def test_a_library_size_that_is_none_is_refused(model: cv.CradleVAE, library_size: Any) -> None:
    with pytest.raises(DataError, match=rf"library_size is {library_size!r}; give a positive number or 'controls'"):
        model.predict("A", library_size=library_size)


# -- artifact and perturbation ---------------------------------------------------------------------------------


def test_the_artifact_changes_the_profile(strong: cv.CradleVAE) -> None:
    clean, again = (strong.predict("control", 800, library_size=500, seed=seed) for seed in (0, 1))
    damaged = strong.predict("control", 800, library_size=500, artifact=True, seed=2)
    assert damaged.obs["artifact"].all()
    noise = np.abs(profile(clean) - profile(again)).sum()
    assert np.abs(profile(damaged) - profile(clean)).sum() > 3 * noise
    named = strong.predict("control", 800, library_size=500, artifact="artifact", seed=2)
    np.testing.assert_array_equal(dense(named), dense(damaged))


def test_perturbations_change_the_profile(strong: cv.CradleVAE) -> None:
    control, again, treated = (
        profile(strong.predict(name, 800, library_size=500, seed=seed))
        for seed, name in enumerate(["control", "ctrl", "A+B"])
    )
    assert np.abs(treated - control).sum() > 3 * np.abs(again - control).sum()


def test_basal_states_of_controls_or_of_the_prior(strong: cv.CradleVAE) -> None:
    bank = strong.trained.controls
    moved = copy.copy(strong)
    moved.trained = replace(strong.trained, controls=replace(bank, loc=bank.loc + 4))
    for basal, same in (("controls", False), ("prior", True)):
        one, two = (dense(model.predict("control", 50, basal=basal)) for model in (strong, moved))
        assert np.array_equal(one, two) == same, basal


def test_classes_of_artifact_by_name(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    model = cv.CradleVAE(simulated, artifact_key=("low_umi", "other_damage"), **tiny_options)
    model.train(1, **quick)
    both, listed = (model.predict("A", 5, artifact=given) for given in (True, ["low_umi", "other_damage"]))
    np.testing.assert_array_equal(dense(both), dense(listed))
    assert model.predict("A", 5, artifact="low_umi").obs["artifact"].all()
    with pytest.raises(DataError, match=r"unknown artifact class 'umi'; known: 'low_umi', 'other_damage'"):
        model.predict("A", 5, artifact=["umi"])


def test_a_class_that_no_training_cell_had_is_unknown(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any], tmp_path: Path
) -> None:
    adata = simulated.copy()
    adata.obs["nobody"] = False
    one = cv.CradleVAE(adata, artifact_key=("low_umi", "nobody"), **tiny_options)
    one.train(1, **quick)
    one.save(tmp_path / "run")
    for model in (one, cv.load(tmp_path / "run")):
        with pytest.raises(DataError, match=r"no training cell had the artifact class 'nobody'.*known: 'low_umi'"):
            model.predict("A", 5, artifact="nobody")
        with pytest.raises(DataError, match="no training cell had the artifact class 'nobody'"):
            model.counterfactual(adata[:5].copy(), artifact=["low_umi", "nobody"])
        every, had = (model.predict("A", 5, artifact=given) for given in (True, "low_umi"))
        np.testing.assert_array_equal(dense(every), dense(had))
        with pytest.warns(UserWarning, match="left out, because no training cell had it: 'nobody'"):
            signature = model.artifact_signature(n_draws=2, n_states=4)
        assert set(signature["criterion"]) == {"low_umi"}


def test_a_model_without_damaged_cells_knows_no_artifact(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    adata = simulated.copy()
    adata.obs["artifact"] = False
    with pytest.warns(UserWarning, match="all training cells passed QC"):
        model = cv.CradleVAE(adata, **tiny_options)
    model.train(1, **quick)
    for ask in (lambda: model.predict("A", 5, artifact=True), model.artifact_signature):
        with pytest.raises(DataError, match="no training cell failed quality control"):
            ask()
    assert "ate_rho" in set(cv.evaluate(model, adata, n_cells=10)["metric"])


# -- what cannot be predicted ----------------------------------------------------------------------------------


def test_unknown_perturbations_are_refused_with_the_closest(model: cv.CradleVAE) -> None:
    with pytest.raises(DataError, match=r"unknown perturbation 'a'; did you mean 'A'\?"):
        model.predict(["B", "A+a"])
    with pytest.raises(DataError, match=r"unknown perturbation 'STAT1'; known: 'A', 'B', 'C', 'D', 'E'"):
        model.predict("STAT1")


def test_nothing_asked_is_refused(model: cv.CradleVAE) -> None:
    with pytest.raises(DataError, match="no perturbations were given"):
        model.predict([])
    with pytest.raises(DataError, match="n_cells is 0; it must be at least 1"):
        model.predict("A", n_cells=0)


def test_an_untrained_model_is_refused(untrained: cv.CradleVAE) -> None:
    with pytest.raises(DataError, match=r"has not been trained; call train\(\) first"):
        untrained.predict("A")


def test_perturbations_without_training_cells_are_refused(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    split = cv.split(simulated, "perturbations", seed=0)
    with pytest.warns(UserWarning, match="no training cells for .*the model cannot predict them"):
        model = cv.CradleVAE(simulated, split=split, **tiny_options)
    model.train(1, **quick)
    hidden = sorted(set("ABCDE") - set(model.perturbations))
    assert hidden
    with pytest.raises(DataError, match=rf"perturbation '{hidden[0]}' .*had no training cells"):
        model.predict([model.perturbations[0], hidden[0]])
    assert model.predict(model.perturbations[0], 2).n_obs == 2


def test_misspelt_choices_are_refused_everywhere(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    for ask, message in (
        (lambda: strong.predict("A", 2, basal="Prior"), "basal is 'Prior'; choose one of controls, prior"),
        (lambda: strong.effects("A", scale="Mean"), "scale is 'Mean'"),
        (lambda: strong.effects("A", error=0), "error is 0; it must be positive"),
        (lambda: strong.effects("A", basal="Prior"), "basal is 'Prior'"),
        (lambda: strong.clean(simulated, cells="fail"), "cells is 'fail'; choose one of all, failed"),
        (lambda: strong.clean(simulated, library_size="pass"), "library_size is 'pass'"),
        (lambda: strong.latents(simulated, n_draws=0), "n_draws is 0"),
        (lambda: strong.predict("A", 2, seed=-1), "seed is -1"),
    ):
        with pytest.raises(DataError, match=message):
            ask()
