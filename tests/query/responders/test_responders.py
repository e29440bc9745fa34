"""Which cells respond, by a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

import cradlevae as cv
from cradlevae.errors import DataError
from cradlevae.query.responders.evidence import FACTORS, log_odds, own_influence
from cradlevae.query.responders.result import Responders


@pytest.fixture(scope="module")
def found(model: cv.CradleVAE, simulated: ad.AnnData) -> Responders:
    return model.responders(simulated)


def auroc(positive: Any, score: Any) -> float:
    positive = np.asarray(positive, dtype=bool)
    n, m = positive.sum(), (~positive).sum()
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))


def test_every_perturbed_cell_has_a_row_failed_ones_too(
    found: Responders, simulated: ad.AnnData, model: cv.CradleVAE
) -> None:
    perturbed = simulated.obs["perturbation"] != "control"
    assert list(found.cells.index) == list(simulated.obs_names[perturbed])
    assert list(found.cells["perturbation"]) == list(simulated.obs["perturbation"][perturbed])
    assert list(found.cells["failed_qc"]) == list(simulated.obs["artifact"][perturbed])
    assert found.cells["p_responding"].between(0, 1).all()
    train = set(model.split.cells("train"))
    assert list(found.cells["held_out"]) == [name not in train for name in found.cells.index]


def test_every_perturbation_has_a_share_within_its_interval(found: Responders, simulated: ad.AnnData) -> None:
    sizes = simulated.obs["perturbation"].value_counts().drop("control")
    assert set(found.shares.index) == set(sizes.index)
    assert (found.shares["n_cells"] == sizes[found.shares.index]).all()
    held_out = found.cells.groupby("perturbation", observed=True)["held_out"].sum()
    assert (found.shares["n_held_out"] == held_out[found.shares.index]).all()
    assert found.shares["share"].between(found.shares["low"], found.shares["high"]).all()
    assert found.shares["factor"].between(FACTORS[0], FACTORS[-1]).all()


def test_a_wider_interval_holds_the_narrower(found: Responders, simulated: ad.AnnData, model: cv.CradleVAE) -> None:
    wide = model.responders(simulated, credible=0.99)
    assert (wide.shares["low"] < found.shares["low"]).all()
    assert (wide.shares["high"] > found.shares["high"]).all()
    pd.testing.assert_frame_equal(wide.cells, found.cells)


def test_order_form_and_controls_change_nothing(found: Responders, simulated: ad.AnnData, model: cv.CradleVAE) -> None:
    perturbed = np.flatnonzero(simulated.obs["perturbation"] != "control")
    order = np.random.default_rng(0).permutation(perturbed)
    other = ad.AnnData(
        simulated.X[order].toarray()[:, ::-1].copy(), obs=simulated.obs.iloc[order], var=simulated.var.iloc[::-1]
    )
    again = model.responders(other)
    pd.testing.assert_frame_equal(again.shares, found.shares, rtol=1e-3)
    pd.testing.assert_series_equal(
        again.cells.loc[found.cells.index, "p_responding"], found.cells["p_responding"], rtol=1e-2, atol=1e-4
    )


@pytest.mark.numeric
def test_a_cell_has_the_same_log_odds_in_any_company(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    data = strong.trained.read(simulated)
    rows = np.flatnonzero(~data.is_control)
    whole = log_odds(strong.trained, data, rows, n_draws=4, seed=0)
    some = log_odds(strong.trained, data, rows[[7, 3, 30]], n_draws=4, seed=0)
    np.testing.assert_allclose(some, whole[[7, 3, 30]], rtol=1e-4, atol=1e-4)


def test_a_saved_model_says_the_same(
    found: Responders, simulated: ad.AnnData, model: cv.CradleVAE, tmp_path: Path
) -> None:
    model.save(tmp_path / "run")
    again = cv.CradleVAE.load(tmp_path / "run").responders(simulated)
    pd.testing.assert_frame_equal(again.cells, found.cells)
    pd.testing.assert_frame_equal(again.shares, found.shares)


def test_evidence_at_factor_one_is_the_log_likelihood_of_the_label(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    """Both bounds on log p(x) approach it with many particles; the label is compared with the control."""
    cells = simulated[(simulated.obs["perturbation"] == "A").to_numpy() & ~simulated.obs["artifact"].to_numpy()].copy()
    as_control = cells.copy()
    as_control.obs["perturbation"] = "control"
    labelled, control = (model.log_likelihood(one, n_particles=400) for one in (cells, as_control))
    data = model.trained.read(cells)
    odds = log_odds(model.trained, data, np.arange(data.n_cells), n_draws=200, seed=0)[:, 0]
    difference = odds - (labelled - control).to_numpy()
    assert np.abs(difference).max() < 1.5
    assert abs(difference.mean()) < 0.2
    assert np.corrcoef(odds, labelled - control)[0, 1] > 0.9


def test_what_a_training_cell_owes_to_itself_is_less_the_more_cells_there_are(
    model: cv.CradleVAE, simulated: ad.AnnData
) -> None:
    data = model.trained.read(simulated)
    influence = own_influence(model.trained, data)
    assert influence[0] == 0
    effects = model.trained.module.gene_effects
    assert effects is not None
    most = data.n_genes / float(effects.n_cells.min())
    assert ((influence[1:] > 0) & (influence[1:] < 2 * most)).all()


def test_effects_among_responders_are_those_of_all_over_the_share(found: Responders, model: cv.CradleVAE) -> None:
    effects = model.effects(["A", "B"], error=0.2)
    among = found.effects(effects)
    share = found.shares.loc[["A", "B"], ["share"]].to_numpy()
    np.testing.assert_allclose(among.X, effects.X / share, rtol=1e-5)
    assert (among.layers["sd"] >= effects.layers["sd"] / share * 0.999).all()
    assert (among.layers["low"] <= among.X).all()
    assert (among.layers["high"] >= among.X).all()
    assert ((among.layers["high"] - among.layers["low"]) > (effects.layers["high"] - effects.layers["low"])).all()
    assert list(among.obs["share"]) == list(share[:, 0])
    other = Responders(found.cells, found.shares.drop("A"), found.credible)
    with pytest.raises(DataError, match="'A'"):
        other.effects(effects)


def test_cells_that_the_model_cannot_judge_are_left_out_with_a_warning(
    screen: ad.AnnData, screen_model: cv.CradleVAE
) -> None:
    """A was not seen in the second context, and is judged there by what it does in the first."""
    found = screen_model.responders(screen)
    assert set(found.shares.index) == set(screen.obs["perturbation"].astype(str)) - {"control"}
    assert found.shares.loc["A", "n_held_out"] > 0


def test_controls_alone_are_refused(simulated: ad.AnnData, model: cv.CradleVAE) -> None:
    controls = simulated[(simulated.obs["perturbation"] == "control").to_numpy()].copy()
    with pytest.raises(DataError, match="none of the cells has a perturbation"):
        model.responders(controls)


def test_an_untrained_model_says_so(simulated: ad.AnnData, untrained: cv.CradleVAE) -> None:
    with pytest.raises(DataError, match="has not been trained"):
        untrained.responders(simulated)


@pytest.mark.parametrize("name", ["SAMSVAE", "CPAVAE", "SVAEPlus", "ConditionalVAE"])
def test_every_model_of_the_family_answers(
    name: str, simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    model = getattr(cv, name)(simulated, split=cv.split(simulated, "cells", seed=0), **tiny_options)
    model.train(1, **quick)
    found = model.responders(simulated, n_draws=2)
    assert found.cells["p_responding"].between(0, 1).all()


def test_simulated_escaping_cells_are_found(quick: dict[str, Any]) -> None:
    adata = cv.simulate(
        n_cells=900, n_genes=100, n_perturbations=3, n_combinations=0, effect_size=5, library_size=(1500, 0.2),
        escaping={"A": 0.5, "B": 0.3}, seed=2,
    )  # fmt: skip
    adata.obs["artifact"] = adata.obs["true_artifact"]
    model = cv.CradleVAE(adata, split=cv.split(adata, "cells", seed=0), n_latent=12, width=32, basal_width=64)
    model.train(20, **quick | {"n_particles": 1})
    found = model.responders(adata)
    cells = found.cells.join(adata.obs["true_escaped"])
    for name in ("A", "B"):
        own = cells[cells["perturbation"] == name]
        assert auroc(~own["true_escaped"], own["p_responding"]) > 0.85
    assert found.shares.loc["A", "share"] < found.shares.loc["B", "share"] < found.shares.loc["C", "share"]
