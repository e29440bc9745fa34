"""What the decoder leaves of the measured effects: fitted from training cells, added with its uncertainty."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.data.moments import condition_moments, pooled_variance
from cradlevae.model.training import residual as module
from cradlevae.model.training.residual import _fitted, _Measured, _steadied_variance, with_residual
from cradlevae.model.training.residual_choices import widening as widening_of
from cradlevae.nn.hierarchy import Evidence
from cradlevae.query.effects import effects


@pytest.fixture(scope="module")
def untold(simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]) -> cv.CradleVAE:
    """A model whose decoder has hardly begun to learn."""
    model = cv.CradleVAE(simulated, split=cv.split(simulated, "cells", seed=0), **tiny_options)
    model.train(max_epochs=1, **quick)
    return model


def measured(model: cv.CradleVAE, part: str, names: list[str]) -> np.ndarray:
    from cradlevae.data.moments import measured_effects

    data = model.data
    rows = model.split.rows(data.cells, part)
    rows = rows[~data.failed[rows]]
    found = measured_effects(condition_moments(data.counts[rows], data.condition[rows], data.conditions))
    return found.value[[found.names.index(name) for name in names]]


def test_it_brings_effects_nearer_to_the_truth(tiny_options: dict[str, Any], quick: dict[str, Any]) -> None:
    names, errors = list("ABCDE"), []
    for seed in range(5):
        adata = cv.simulate(n_cells=2000, n_genes=60, n_perturbations=5, n_combinations=2, n_latent=6, seed=seed)
        adata.obs["artifact"] = adata.obs["true_artifact"]
        model = cv.CradleVAE(adata, split=cv.split(adata, "cells", seed=0), **tiny_options)
        model.train(max_epochs=1, **quick)
        with_it, without = model.effects(names), model.effects(names, residual=False)
        truth = adata.uns["truth"]
        true = truth["effects"][[list(truth["effect_conditions"]).index(name) for name in names]]
        errors.append(
            [((one.X - true) ** 2).mean() for one in (with_it, without)]
        )  # of other cells: mostly their noise
        rows = [model.trained.treatments.index(name) for name in names]
        np.testing.assert_allclose(with_it.X - without.X, model.trained.residual.mean[rows], atol=1e-5)
    found, before = np.mean(errors, axis=0)
    assert found < 0.9 * before


def test_intervals_widen_by_its_uncertainty_and_as_far_as_other_cells_ask_for(untold: cv.CradleVAE) -> None:
    with_it, without = untold.effects(["A"], credible=0.8), untold.effects(["A"], credible=0.8, residual=False)
    row = untold.trained.treatments.index("A")
    residual = untold.trained.residual
    sd, part, widening = residual.sd[row], residual.part[row], residual.widening
    found = (with_it.layers["sd"][0] / widening) ** 2
    np.testing.assert_allclose(found, (part * without.layers["sd"][0]) ** 2 + sd**2, rtol=1e-4)
    for layer in ("low", "high"):
        reach = (with_it.layers[layer] - with_it.X)[0] / widening
        alone = part * (without.layers[layer] - without.X)[0]
        np.testing.assert_allclose(reach**2, alone**2 + (1.2815516 * sd) ** 2, rtol=1e-3, atol=1e-6)
    assert (with_it.layers["low"] <= with_it.X).all()
    assert (with_it.layers["high"] >= with_it.X).all()


def added(model: cv.CradleVAE, name: str) -> np.ndarray:
    return np.asarray(model.effects([name]).X - model.effects([name], residual=False).X)


def test_that_of_an_unseen_combination_is_the_sum_of_its_members(untold: cv.CradleVAE) -> None:
    unseen = next(f"A+{other}" for other in "BCDE" if f"A+{other}" not in untold.data.conditions)
    np.testing.assert_allclose(added(untold, unseen), added(untold, "A") + added(untold, unseen[-1]), atol=1e-5)


def test_combinations_of_the_test_part_have_that_of_their_members_whether_in_the_data_or_not(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    split = cv.split(simulated, "combinations", seed=0)
    test = set(simulated.obs["perturbation"][split.parts.reindex(simulated.obs_names).to_numpy() == "test"])
    model = cv.CradleVAE(simulated, split=split, **tiny_options)
    model.train(max_epochs=1, **quick)
    assert test
    assert not test & set(model.trained.residual.combinations)
    for name in sorted(test):
        first, second = name.split("+")
        np.testing.assert_allclose(added(model, name), added(model, first) + added(model, second), atol=1e-5)
        assert (model.effects([name]).layers["sd"] > 0).mean() > 0.9


def test_a_treatment_that_no_cells_told_keeps_the_interval_of_the_decoder(untold: cv.CradleVAE) -> None:
    row = untold.trained.treatments.index("B")
    data = untold.data
    code = data.conditions.index("B")
    pair = next(position for position, name in enumerate(data.conditions) if "B" in name and "+" in name)
    condition = np.where(data.condition == code, pair, data.condition)
    residual = with_residual(untold.trained, replace(data, condition=condition)).residual
    assert residual.part[row] == 1
    assert not residual.mean[row].any()
    assert not residual.sd[row].any()


def test_a_combination_with_cells_has_its_own(untold: cv.CradleVAE) -> None:
    seen = [name for name in untold.data.conditions if "+" in name]
    assert untold.trained.residual.combinations == tuple(seen)
    held = measured(untold, "test", seen)
    members = [added(untold, name[0]) + added(untold, name[-1]) for name in seen]
    alone = untold.effects(seen, residual=False).X
    own = untold.effects(seen).X
    assert ((own - held) ** 2).mean() < ((alone + np.concatenate(members) - held) ** 2).mean()


def test_singles_alone_are_saved_and_loaded(tiny_options: dict[str, Any], quick: dict[str, Any], tmp_path: Any) -> None:
    adata = cv.simulate(
        n_cells=300, n_genes=40, n_perturbations=3, n_combinations=0, n_interacting=0, n_latent=4, seed=0
    )
    adata.obs["artifact"] = adata.obs["true_artifact"]
    model = cv.CradleVAE(adata, **tiny_options)
    model.train(max_epochs=1, **quick)
    model.save(tmp_path / "model")
    loaded = cv.load(tmp_path / "model")
    assert loaded.trained.residual.combinations == ()
    np.testing.assert_array_equal(loaded.effects(["A"]).X, model.effects(["A"]).X)


def test_raw_counts_and_controls_have_none(untold: cv.CradleVAE) -> None:
    raw = [untold.effects(["A"], scale="mean", residual=flag).X for flag in (True, False)]
    np.testing.assert_array_equal(*raw)
    assert not untold.effects(["control"]).X.any()


def test_it_is_saved_with_the_model(untold: cv.CradleVAE, tmp_path: Any) -> None:
    untold.save(tmp_path / "model")
    loaded = cv.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.trained.residual.mean, untold.trained.residual.mean)
    np.testing.assert_array_equal(loaded.trained.residual.sd, untold.trained.residual.sd)
    assert loaded.trained.residual.widening == untold.trained.residual.widening
    assert loaded.trained.residual.single_groups == untold.trained.residual.single_groups
    np.testing.assert_array_equal(loaded.effects(error=9).layers["lfsr"], untold.effects(error=9).layers["lfsr"])


def test_a_gene_that_few_cells_do_not_show_is_not_taken_for_known() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.poisson([0.01, 5.0], (6, 2)), rng.poisson([0.01, 5.0], (6000, 2))
    few[:, 0] = 0
    names = ["control", "A"]
    moments = [condition_moments(one, np.arange(len(one)) % 2, names, scale="mean") for one in (few, many)]
    within = pooled_variance(moments[1])
    assert pooled_variance(moments[0])[0] == 0
    np.testing.assert_allclose(_steadied_variance(moments[0], within)[0], within[0], rtol=0.2)
    np.testing.assert_allclose(_steadied_variance(moments[1], within * 9), within, rtol=0.05)


def test_test_cells_do_not_tell_it(untold: cv.CradleVAE) -> None:
    data = untold.data
    counts = data.counts.copy().tolil()
    rows = untold.split.rows(data.cells, "test")
    counts[rows] = data.counts[rows][::-1]
    again = with_residual(untold.trained, replace(data, counts=counts.tocsr()))
    np.testing.assert_array_equal(again.residual.mean, untold.trained.residual.mean)


@given(st.floats(1.0, 2.5), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_widening_is_what_spreads_other_cells_about_the_effects(widening: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (20, 400)
    variance = rng.uniform(0.01, 0.2, shape)
    variance[0] = 0
    predicted = rng.standard_normal(shape)
    predicted[0] = 0
    true = predicted + widening * np.sqrt(variance) * rng.standard_normal(shape)
    noise = np.full(shape[1], 0.05)
    base = rng.uniform(0, 4, shape[1])
    shown = base + true + np.sqrt(noise) * rng.standard_normal(shape)
    held = Evidence.of_cells(shown, np.ones(shape[0]), noise)
    no_error = np.zeros(shape)
    # the base of a gene comes of the 20 means themselves, which leaves 19 of 20 of their spread; the estimate's own
    # standard deviation is 0.01
    assert widening_of(held, predicted, variance, no_error) == pytest.approx(widening * np.sqrt(19 / 20), rel=0.06)
    assert widening_of(replace(held, n_cells=(np.arange(20) == 0).astype(float)), predicted, variance, no_error) == 1.0


def test_evidence_is_shrunk_towards_a_part_of_the_decoder_where_other_cells_are_nearer_to_that() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((21, 50))
    truth[0] = 0
    noise = np.full(truth.shape[1], 0.3)
    told, held = (
        Evidence.of_cells(truth + np.sqrt(noise) * rng.standard_normal(truth.shape), np.ones(21), noise)
        for _ in range(2)
    )
    rows = np.arange(21)
    good, bad = truth + 0.1 * rng.standard_normal(truth.shape), 3 * rng.standard_normal(truth.shape)
    good[0] = bad[0] = 0
    found = [_fitted(_Measured((), [told], held), one.astype(np.float32), rows) for one in (good, bad)]
    assert [one.part for one in found] == [1, 0]
    for expected, one in zip((good, bad), found, strict=True):
        assert ((expected + one.mean - truth)[1:] ** 2).mean() < 0.3
    unmeasured = replace(held, n_cells=np.zeros(21))
    assert _fitted(_Measured((), [told], unmeasured), bad.astype(np.float32), rows).part == 1


def test_it_stays_out_where_validation_cells_do_not_bear_it_out(untold: cv.CradleVAE) -> None:
    data, model = untold.data, copy.copy(untold.trained)
    held = np.flatnonzero(np.isin(np.arange(data.n_cells), untold.split.rows(data.cells, "val")))
    condition = data.condition.copy()
    singles = [data.conditions.index(name) for name in "ABCDE"]
    moved = held[np.isin(condition[held], singles)]
    counts = data.counts.copy().tolil()
    controls = held[condition[held] == 0]
    counts[moved] = data.counts[np.resize(controls, len(moved))]  # none does anything in them
    doubted = with_residual(model, replace(data, counts=counts.tocsr()))
    sizes = [np.abs(np.asarray(effects(one, list("ABCDE")).X)).mean() for one in (doubted, untold.trained)]
    assert sizes[0] < 0.7 * sizes[1]


def test_validation_cells_choose_and_are_no_evidence(untold: cv.CradleVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    data = untold.data
    rows = untold.split.rows(data.cells, "val")
    counts = data.counts.copy().tolil()
    counts[rows] = data.counts[rows][::-1]
    monkeypatch.setattr(module, "PARTS", (0.5,))
    monkeypatch.setattr(module, "weight_apart", lambda *_: 0.5)
    monkeypatch.setattr(module, "share_that_holds", lambda *_: 0.9)
    moved = replace(data, counts=counts.tocsr())
    before, after = (with_residual(untold.trained, one).residual for one in (data, moved))
    for name in ("mean", "sd", "part", "combined_mean", "combined_sd", "unmeasured_sd", "control_mean"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)
    assert before.widening != after.widening


def test_it_is_told_by_failed_cells_where_none_passed(untold: cv.CradleVAE) -> None:
    data = untold.data
    model = with_residual(untold.trained, replace(data, artifact=np.ones_like(data.artifact)))
    found = effects(model, list("ABCDE"))
    assert np.isfinite(np.asarray(found.X)).all()
    assert np.isfinite(found.layers["sd"]).all()
    assert model.residual.mean.any()
