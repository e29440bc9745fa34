"""What batches, covariates and contexts add: where training starts, what it costs, and what a model makes of it."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import cradlevae as cv
from cradlevae.data.experiment import read_experiment
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.model.level_effects import LevelEffects, membership
from cradlevae.model.objective import draw_noise, loss_terms
from cradlevae.model.training.fit import make_counterfactual_references, split_sizes

FAMILY = [cv.CradleVAE, cv.SAMSVAE, cv.SVAEPlus, cv.CPAVAE, cv.ConditionalVAE]


@pytest.fixture(scope="module")
def two_batches() -> ad.AnnData:
    """Many cells without effects in two batches that differ, each perturbation in one of them more often."""
    adata = cv.simulate(
        n_cells=3000, n_genes=50, n_perturbations=4, n_combinations=0, n_latent=3, effect_size=0.0, artifact_rate=0.0,
        control_share=0.3, n_batches=2, batch_sd=0.8, confounding=0.9, seed=0,
    )  # fmt: skip
    adata.obs["artifact"] = False
    return adata


@pytest.mark.filterwarnings("ignore:all training cells passed")
def test_training_starts_at_contrasts_within_batch(two_batches: ad.AnnData) -> None:
    within, pooled = (cv.CradleVAE(two_batches, batch_key=key).trained.module for key in ("batch", None))
    effects = [module.gene_effects.value.detach().numpy() for module in (within, pooled)]
    assert np.abs(effects[0]).mean() < 0.25 * np.abs(effects[1]).mean()
    truth = two_batches.uns["truth"]["batch_effects"] * np.log(2)
    started = within.level_effects.value.detach().numpy()
    known = np.asarray(two_batches.X.mean(axis=0)).ravel() > 1  # the others are shrunk
    known &= two_batches.var_names.str.startswith("G")  # those of marker genes are relative to their own sum
    difference = (started[1] - started[0])[known], (truth[1] - truth[0])[known]
    assert np.corrcoef(*difference)[0, 1] > 0.98
    assert np.polyfit(*difference[::-1], 1)[0] == pytest.approx(1, abs=0.12)


@pytest.mark.filterwarnings("ignore:all training cells passed")
def test_one_batch_is_today_s_model_to_the_last_digit(simulated: ad.AnnData, tiny_options: Any, quick: Any) -> None:
    adata = simulated.copy()
    adata.obs["batch"], adata.obs["line"] = "only", "K562"
    split = cv.split(simulated, "combinations", seed=0)
    models = []
    for keys in ({}, {"batch_key": "batch", "context_key": "line"}):
        model = cv.CradleVAE(adata, split=split, **keys, **tiny_options)
        model.train(2, **quick)
        models.append(model)
    one, other = models
    assert one.history.drop(columns="seconds").equals(other.history.drop(columns="seconds"))
    np.testing.assert_array_equal(one.effects("A+B").X, other.effects("A+B", batch="only", context="K562").X)
    twins = one.clean(adata), other.clean(adata, batch="only")
    np.testing.assert_array_equal(twins[0].layers["expected"], twins[1].layers["expected"])
    np.testing.assert_array_equal(one.predict("A", 20).X.toarray(), other.predict("A", 20).X.toarray())


@pytest.mark.parametrize("kind", FAMILY)
def test_every_model_learns_batches_and_contexts(
    kind: type[cv.CradleVAE], screen: ad.AnnData, tiny_options: Any, quick: Any, tmp_path: Any
) -> None:
    model = kind(screen, batch_key="batch", context_key="context", **tiny_options)
    model.train(2, **quick)
    module = model.trained.module
    assert isinstance(module.level_effects, LevelEffects)
    assert module.level_effects.value.abs().max() > 0
    assert "train_level_effects" in model.history
    everywhere = model.effects(["A", "B"])
    inside = [model.effects(["A", "B"], context=name) for name in ("context1", "context2")]
    assert np.isfinite(everywhere.X).all()
    assert not np.allclose(inside[0].X, inside[1].X)
    model.save(tmp_path)
    again = cv.load(tmp_path)
    np.testing.assert_array_equal(again.effects(["A", "B"], context="context2").X, inside[1].X)
    np.testing.assert_array_equal(
        again.predict("C", 5, batch="batch1").X.toarray(), model.predict("C", 5, batch="batch1").X.toarray()
    )
    assert set(model.perturbations) == set(again.perturbations)
    latents = again.latents(screen[:30].copy())
    np.testing.assert_allclose(latents.obsm["z_basal"], model.latents(screen[:30].copy()).obsm["z_basal"])


def test_the_published_model_ignores_batches(screen: ad.AnnData, tiny_options: Any) -> None:
    adata = screen[screen.obs["context"] == "context1"].copy()
    options = {**tiny_options, "objective": "released"}
    split = cv.split(adata, batch_key="batch")
    with_batch = cv.CradleVAE(adata, batch_key="batch", split=split, **options)
    assert with_batch.trained.module.level_effects is None
    torch.testing.assert_close(
        with_batch.trained.module.state_dict(), cv.CradleVAE(adata, split=split, **options).trained.module.state_dict()
    )


def test_gradients_reach_every_part(screen_model: cv.CradleVAE) -> None:
    data, trained = screen_model.data, screen_model.trained
    assert data is not None
    rows = trained.split.rows(data, "train")
    references = make_counterfactual_references(data, rows, trained.config, seed=0)
    module = trained.module
    minibatch = make_minibatch(data, rows[:128], references)
    with torch.enable_grad():
        terms = loss_terms(module, minibatch, split_sizes(data, rows, trained.config), draw_noise(module, 128, 2))
        gradients = torch.autograd.grad(sum(terms.values()), list(module.level_effects.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_the_cost_of_all_levels_is_that_of_each() -> None:
    levels = LevelEffects((3, 2), 7, 4, 1)
    with torch.no_grad():
        for parameter in levels.parameters():
            parameter.normal_()
    n_cells, information = torch.tensor([10.0, 20, 30, 25, 35]), torch.rand(7)
    torch.testing.assert_close(
        levels.cost_of_all(n_cells, information), levels.cost(torch.arange(5), n_cells, information)
    )


def test_membership_marks_each_column() -> None:
    levels = torch.tensor([[0, 3], [2, 4]])
    torch.testing.assert_close(membership(levels, 5), torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 1, 0, 1]]))


@pytest.mark.parametrize("kind", ["mean", "median", "cell"])
def test_references_come_from_the_same_batch(screen: ad.AnnData, kind: Any) -> None:
    data = read_experiment(screen, cv.DataFields(batch_key="batch"))
    rows = np.arange(data.n_cells)
    references = CounterfactualReferences(data, rows, kind=kind)
    profiles, reference, _, levels = references.of_rows(rows)
    assert data.batch is not None
    for cell in range(0, data.n_cells, 7):
        alike = (data.condition == data.condition[cell]) & (data.failed != data.failed[cell])
        same = alike & (data.batch.codes == data.batch.codes[cell])
        if not alike.any():
            assert reference[cell] == -1
            continue
        chosen = same if same.any() else alike
        profile = profiles[reference[cell]]
        if kind == "mean":
            np.testing.assert_allclose(
                profile, np.asarray(data.counts[np.flatnonzero(chosen)].mean(axis=0)).ravel(), rtol=1e-5
            )
        if kind == "cell":
            assert (data.counts[np.flatnonzero(chosen)].toarray() == profile).all(axis=1).any()
        shares = np.bincount(data.levels[chosen].ravel(), minlength=levels.shape[1]) / chosen.sum()
        if kind != "cell":
            np.testing.assert_allclose(levels[reference[cell]], shares, atol=1e-6)


def test_what_lives_in_batches_without_controls_is_named(screen: ad.AnnData, tiny_options: Any, quick: Any) -> None:
    control = screen.obs["perturbation"] == "control"
    adata = screen[~(control & (screen.obs["batch"] == "batch3"))].copy()
    lone = (adata.obs["perturbation"].isin(["A", "A+B", "A+C", "A+D"])) & (adata.obs["batch"] != "batch3")
    adata = adata[~lone].copy()
    with pytest.warns(
        UserWarning, match=r"no training controls in 'batch3' of obs\['batch'\].*'A'.*effects are missing"
    ):
        model = cv.CradleVAE(adata, batch_key="batch", **tiny_options)
    assert "A" not in model.perturbations
    model.train(1, **quick)
    with pytest.raises(cv.DataError, match="all training cells of 'A' are in batches without controls"):
        model.effects("A")
    assert np.isfinite(model.effects("B").X).all()


def test_a_context_without_controls_has_no_effects(screen: ad.AnnData, tiny_options: Any, quick: Any) -> None:
    control = screen.obs["perturbation"] == "control"
    adata = screen[~(control & (screen.obs["context"] == "context2"))].copy()
    with pytest.warns(UserWarning, match="no training controls in 'context2'"):
        model = cv.CradleVAE(adata, context_key="context", **tiny_options)
    model.train(1, **quick)
    with pytest.raises(cv.DataError, match="'context2' has no training controls"):
        model.effects("B", context="context2")
    assert np.isfinite(model.effects("B", context="context1").X).all()


def test_a_batch_of_one_cell_trains(screen: ad.AnnData, tiny_options: Any, quick: Any) -> None:
    adata = screen.copy()
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    adata.obs.iloc[5, adata.obs.columns.get_loc("batch")] = "solo"
    with pytest.warns(UserWarning, match="no training controls in 'solo'") if True else None:
        split = cv.split(adata, batch_key="batch")
        split.parts.iloc[5] = "train"
        model = cv.CradleVAE(adata, batch_key="batch", split=split, **tiny_options)
    model.train(1, **quick)
    assert np.isfinite(model.effects("B", batch="solo").X).all()


@pytest.mark.parametrize("member", FAMILY)
def test_all_training_cells_may_be_of_one_batch(member: Any, screen: ad.AnnData, tiny_options: Any, quick: Any) -> None:
    adata = screen.copy()
    parts = np.where(np.arange(adata.n_obs) % 5 == 0, "val", "train")
    adata.obs["part"] = np.where(adata.obs["batch"] == "batch1", parts, "test")
    split = cv.split(adata, "column", column="part")
    model = member(adata, split=split, batch_key="batch", **tiny_options)
    model.train(1, **quick)
    assert np.isfinite(model.effects("A").X).all()
    assert set(cv.evaluate(model, adata, n_cells=20)["metric"]) > {"ate_rho"}


@pytest.mark.filterwarnings("ignore:all training cells passed")
def test_a_column_that_tells_nothing_leaves_the_first_estimate_as_it_is() -> None:
    """What all levels share is the base's, whatever the perturbations do to a gene."""
    adata = cv.simulate(n_cells=1200, n_genes=40, n_perturbations=5, n_combinations=0, n_latent=4, artifact_rate=0.0)
    adata.obs["artifact"], adata.obs["half"] = False, np.arange(adata.n_obs) % 2
    split = cv.split(adata)
    plain, halves = (
        cv.CradleVAE(adata, split=split, batch_key=key, n_latent=8, width=32).trained.module for key in (None, "half")
    )
    assert plain.gene_effects.value.abs().max() > 1
    np.testing.assert_allclose(
        halves.gene_effects.value.detach(), plain.gene_effects.value.detach(), rtol=0.01, atol=0.01
    )
    assert halves.level_effects.value.abs().max() < 0.05
