"""Twins of cells whose labels are not used: they follow what the cells show, and nothing of the labels."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.errors import DataError
from cradlevae.model.estimation.latent_draws import draw_globals
from cradlevae.model.estimation.streams import seeded
from cradlevae.query import unlabelled
from cradlevae.query.unlabelled import Effects, OwnConditions

KEYS: dict[str, Any] = {"batch_key": "batch", "context_key": "context"}


def assert_same(one: ad.AnnData, other: ad.AnnData, given_columns: set[str]) -> None:
    """Everything that was added to the cells is the same."""
    np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())
    for name in ("expected", "uncertainty"):
        np.testing.assert_array_equal(one.layers[name], other.layers[name])
    added = [name for name in one.obs if name not in given_columns]
    pd.testing.assert_frame_equal(one.obs[added], other.obs[added])
    assert one.uns["cradlevae_made"] == other.uns["cradlevae_made"]


def relabelled(adata: ad.AnnData) -> list[ad.AnnData]:
    """The same cells with shuffled labels, with one that no model knows, without a guide RNA, and without labels."""
    shuffled, unknown, unassigned, bare = (adata.copy() for _ in range(4))
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    shuffled.obs["perturbation"] = np.random.default_rng(0).permutation(labels)
    unknown.obs["perturbation"] = "nobody"
    unassigned.obs["perturbation"] = "unassigned"
    del bare.obs["perturbation"]
    return [shuffled, unknown, unassigned, bare]


@pytest.mark.parametrize("cells", ["all", "failed"])
def test_labels_change_nothing_at_all(strong: cv.CradleVAE, simulated: ad.AnnData, cells: Any) -> None:
    some = simulated[::3].copy()
    twins = strong.clean(some, cells, use_label=False)
    for other in relabelled(some):
        assert_same(strong.clean(other, cells, use_label=False), twins, set(some.obs))
    used = strong.clean(relabelled(some)[0], cells)
    assert not np.allclose(used.layers["expected"], strong.clean(some, cells).layers["expected"], rtol=0.05)
    assert not np.allclose(used.layers["expected"], twins.layers["expected"], rtol=0.05)


def test_nor_among_batches_and_contexts(screen_model: cv.CradleVAE, screen: ad.AnnData) -> None:
    some = screen[::9].copy()
    twins = screen_model.clean(some, use_label=False, batch="batch2")
    for other in relabelled(some):
        assert_same(screen_model.clean(other, use_label=False, batch="batch2"), twins, set(some.obs))


@pytest.mark.parametrize("settings_of", [{"reference": "mean"}, {"gene_effects": False}, {"artifact_model": "shared"}])
def test_nor_in_ablations(simulated: ad.AnnData, tiny_options: Any, quick: Any, settings_of: dict[str, Any]) -> None:
    if "reference" not in settings_of and settings_of.get("artifact_model"):
        settings_of = settings_of | {"reference": "mean"}
    model = cv.CradleVAE(simulated, **tiny_options, **settings_of)
    model.train(1, **quick)
    some = simulated[:60].copy()
    twins = model.clean(some, use_label=False)
    assert np.isfinite(twins.layers["expected"]).all()
    for other in relabelled(some):
        assert_same(model.clean(other, use_label=False), twins, set(some.obs))


@pytest.mark.parametrize("kind", ["SAMSVAE", "CPAVAE", "SVAEPlus", "ConditionalVAE"])
def test_nor_in_the_other_models_of_the_family(simulated: ad.AnnData, tiny_options: Any, quick: Any, kind: str) -> None:
    model = getattr(cv, kind)(simulated, **tiny_options)
    model.train(1, **quick)
    some = simulated[:60].copy()
    twins = model.counterfactual(some, perturbation="A", use_label=False)
    assert np.isfinite(twins.layers["expected"]).all()
    for other in relabelled(some):
        assert_same(model.counterfactual(other, perturbation="A", use_label=False), twins, set(some.obs))


def test_what_a_label_says_is_left_out(strong: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path) -> None:
    some = simulated[:50].copy()
    used, unused = strong.clean(some), strong.clean(some, use_label=False, output=tmp_path / "clean.h5ad")
    assert set(used.obs) - set(unused.obs) == {"confounded"}
    marks = [found.uns["cradlevae_made"]["label"] for found in (used, ad.read_h5ad(tmp_path / "clean.h5ad"))]
    assert marks == ["used", "unused"]
    assert_same(unused.to_memory(), strong.clean(some, use_label=False), set(some.obs))
    with pytest.raises(DataError, match="use_label is 3"):
        strong.clean(some, use_label=3)  # type: ignore[arg-type]


@settings(max_examples=5, deadline=None)
@given(st.sets(st.integers(0, 399), min_size=1, max_size=30))
def test_a_cell_gets_its_twin_in_any_company(strong: cv.CradleVAE, simulated: ad.AnnData, rows: set[int]) -> None:
    chosen = simulated[sorted(rows)].copy()
    chosen.X = chosen.X.toarray()
    alone = strong.clean(chosen, use_label=False)
    whole = strong.clean(simulated, use_label=False)[chosen.obs_names]
    np.testing.assert_allclose(alone.layers["expected"], whole.layers["expected"], rtol=1e-5)
    np.testing.assert_array_equal(alone.X.toarray(), whole.X.toarray())


# -- evidence --------------------------------------------------------------------------------------------------


@pytest.fixture
def conditions(model: cv.CradleVAE) -> OwnConditions:
    with seeded(0):
        return OwnConditions(model.trained, model.data, draw_globals(model.trained, 4))


@pytest.mark.parametrize("shown", [0.0, 0.5, 1.0])
def test_evidence_is_the_ratio_of_poisson_likelihoods(conditions: OwnConditions, shown: float) -> None:
    rng = np.random.default_rng(0)
    counts, expected, rates = rng.poisson(3.0, (5, 8)), rng.gamma(2.0, 2.0, (5, 8)), rng.normal(size=(3, 8))
    effects = Effects((), torch.tensor(rates), torch.zeros(3))
    share = torch.full((5, 1), shown)
    found = conditions._evidence(effects, torch.tensor(counts, dtype=torch.float64), torch.tensor(expected), share)
    moved = expected[:, None] * np.exp(shown * rates)
    poisson = (counts[:, None] * np.log(moved) - moved).sum(-1)
    none = (counts * np.log(expected) - expected).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, poisson - none, atol=1e-6)


def drawn(conditions: OwnConditions, model: cv.CradleVAE, rows: np.ndarray, n_draws: int) -> np.ndarray:
    """z^p of cells in draws of conditions at equal distances, (draws, cells, K)."""
    with seeded(0):
        minibatch = make_minibatch(model.data.unlabelled(), rows)
        chance = ((torch.arange(n_draws) + 0.5) / n_draws).unsqueeze(1).expand(-1, len(rows))
        states, offset = conditions.states(minibatch, rows, chance)
    assert offset is not None
    assert offset.shape == (n_draws, len(rows), 60)
    return states.numpy()


def test_twins_follow_what_cells_show(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    """Cells whose genes a perturbation moves are taken for cells of it, whatever they are called."""
    model = copy.deepcopy(model)
    place = model.trained.treatments.index("A")
    with torch.no_grad():
        value = model.trained.module.gene_effects.value
        value.zero_()
        value[place, :6] = 3.0
    with seeded(0):
        own = OwnConditions(model.trained, model.data, draw_globals(model.trained, 4))
        labels = own._effects[0].conditions
        with_a = np.array(["A" in label.singles for label in labels])
        minibatch = make_minibatch(model.data.unlabelled(), np.arange(100))
        expected, shown = own._expected(minibatch)
        counts = expected.clone()
        counts[:, :6] *= np.exp(3.0)
        chance = [torch.softmax(own._evidence(own._effects[0], x, expected, shown), -1) for x in (counts, expected)]
    of_a, of_control = (one[:, torch.from_numpy(with_a)].sum(1) for one in chance)
    assert (of_a > of_control).all()
    assert of_a.median() > 0.95
    assert of_control.median() < 0.2


def test_conditions_are_drawn_as_often_as_they_are_probable(conditions: OwnConditions, model: cv.CradleVAE) -> None:
    rows = np.arange(20)
    effects = conditions._effects[0]
    with seeded(0):
        minibatch = make_minibatch(model.data.unlabelled(), rows)
        expected, shown = conditions._expected(minibatch)
        counts = torch.from_numpy(model.data.counts[rows].toarray())
        probability = torch.softmax(conditions._evidence(effects, counts, expected, shown), -1).numpy()
    states = drawn(conditions, model, rows, 400)
    untouched = (states == 0).all(-1).mean(0)  # the control moves nothing
    np.testing.assert_allclose(untouched, probability[:, 0], atol=1 / 400)


def test_of_more_conditions_than_fit_the_weakest_stand_as_controls(
    model: cv.CradleVAE, simulated: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seeded(0):
        draw = draw_globals(model.trained, 4)
        everything = OwnConditions(model.trained, model.data, draw)._effects[0]
        monkeypatch.setattr(unlabelled, "MOST_VALUES", 3 * 60)
        monkeypatch.setattr(unlabelled, "BLOCK_VALUES", 2 * 60)
        few = OwnConditions(model.trained, model.data, draw)._effects[0]
    assert len(everything.conditions) == 12
    assert len(few.conditions) == 3
    assert few.conditions[0] == everything.conditions[0] == "control"
    np.testing.assert_allclose(few.log_prior.exp(), [10, 1, 1])
    strength = (everything.value**2).sum(1)
    assert set(few.conditions) <= {everything.conditions[at] for at in [0, *strength.argsort(descending=True)[:5]]}
    assert np.isfinite(model.clean(simulated[:20], use_label=False).layers["expected"]).all()


def test_counts_stand_beside_real_cells(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    """Counts of failed cells have the library sizes of real controls, those of passing cells their own."""
    twins = strong.clean(simulated, use_label=False)
    assert isinstance(twins.X, sp.csr_matrix)
    failed = twins.obs["failed_qc"].to_numpy()
    totals = np.asarray(twins.X.sum(axis=1)).ravel()
    known = strong.trained.bank().library_size
    assert np.log(totals[failed]).std() == pytest.approx(np.log(known).std(), rel=0.5)
    own = np.asarray(simulated.X.sum(axis=1)).ravel()
    assert np.corrcoef(totals[~failed], own[~failed])[0, 1] > 0.9
    kept = strong.clean(simulated, use_label=False, library_size="own")
    assert np.corrcoef(np.asarray(kept.X.sum(axis=1)).ravel(), own)[0, 1] > 0.9
