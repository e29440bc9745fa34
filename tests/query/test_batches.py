"""Questions in a batch and in a context, by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import cradlevae as cv

SCREEN_KEYS = {"batch_key": "batch", "context_key": "context"}


def test_effects_are_contrasts_within_a_batch(screen_model: cv.CradleVAE) -> None:
    with np.errstate(all="ignore"):
        asked = {name: screen_model.effects(["B", "C"], batch=name).X for name in ("batch1", "batch2", "batch3")}
        everywhere = screen_model.effects(["B", "C"]).X
    spread = max(np.abs(one - everywhere).max() for one in asked.values())
    assert 0 < spread < 1  # expression saturates differently; the contrast is the same
    control = screen_model.effects("control", batch="batch2")
    np.testing.assert_array_equal(control.X, 0)


def test_a_pair_that_was_not_seen_in_a_context_is_predicted_with_less_certainty(screen_model: cv.CradleVAE) -> None:
    assert ("A", "context2") not in screen_model.trained.measured
    assert ("B", "context2") in screen_model.trained.pairs
    seen, unseen = (screen_model.effects("A", context=name) for name in ("context1", "context2"))
    assert np.isfinite(unseen.X).all()
    assert screen_model.trained.n_unseen(screen_model.data.conditions[0]) == 0  # type: ignore[union-attr]
    assert unseen.layers["sd"].mean() > 0.5 * seen.layers["sd"].mean()


def test_predicted_cells_say_where_they_are(screen_model: cv.CradleVAE) -> None:
    free = screen_model.predict("A+B", 60).obs
    assert set(free["batch"]) == {"batch1", "batch2", "batch3"}
    assert set(free["context"]) == {"context1", "context2"}
    put = screen_model.predict(["A", "control"], 30, batch="batch2", context="context1").obs
    assert set(put["batch"]) == {"batch2"}
    assert set(put["context"]) == {"context1"}
    assert set(put["perturbation"]) == {"A", "control"}


def test_predicted_batches_follow_those_of_real_cells(screen_model: cv.CradleVAE) -> None:
    sizes, batches = [100.0, 200, 300], ["batch1", "batch3", "batch3"]
    obs = screen_model.predict("B", 30, library_size={"B": sizes}, batch={"B": batches}).obs
    pairs = set(zip(obs["library_size"], obs["batch"], strict=True))
    assert pairs == set(zip(sizes, batches, strict=True))
    with pytest.raises(cv.DataError, match="batch has no batches for 'C'"):
        screen_model.predict(["B", "C"], 3, batch={"B": batches})


def test_a_cell_can_be_cleaned_as_of_another_batch(screen_model: cv.CradleVAE, screen: ad.AnnData) -> None:
    cells = screen[:40].copy()
    own = screen_model.clean(cells)
    there = screen_model.clean(cells, batch="batch3")
    moved = np.abs(own.X - there.X).max(axis=1) > 0
    np.testing.assert_array_equal(moved, (cells.obs["batch"] != "batch3").to_numpy())
    again = screen_model.counterfactual(cells, artifact=False, library_size="passing", batch="batch3")
    np.testing.assert_array_equal(there.X, again.X)


def test_a_cell_gets_its_own_context_s_effect(screen_model: cv.CradleVAE, screen: ad.AnnData) -> None:
    cells = screen[:60].copy()
    together = screen_model.counterfactual(cells, perturbation="B")
    for context in ("context1", "context2"):
        some = cells[cells.obs["context"] == context].copy()
        alone = screen_model.counterfactual(some, perturbation="B")
        np.testing.assert_allclose(together[some.obs_names].X, alone.X, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda model: model.effects("A", batch="b9"),
            r"unknown batch 'b9' of obs\['batch'\]; known: 'batch1', 'batch2'",
        ),
        (lambda model: model.predict("A", 3, context="K562"), "unknown context 'K562'.*known: 'context1', 'context2'"),
        (lambda model: model.effects("A", batch=1.5), "batch is 1.5; it must be the name of a batch"),
        (lambda model: model.effects("A", context=True), "context is True"),
        (lambda model: model.predict("A", 3, batch={"A": ["x"]}), "unknown batch 'x'"),
    ],
)
def test_unknown_batches_and_contexts_are_refused_with_the_known_ones(
    screen_model: cv.CradleVAE, ask: Any, message: str
) -> None:
    with pytest.raises(cv.DataError, match=message):
        ask(screen_model)


def test_cells_of_another_batch_are_refused(screen_model: cv.CradleVAE, screen: ad.AnnData) -> None:
    cells = screen[:10].copy()
    cells.obs["batch"] = "batch7"
    for ask in (screen_model.clean, screen_model.latents, screen_model.log_likelihood):
        with pytest.raises(cv.DataError, match="holds the batch 'batch7'"):
            ask(cells)


def test_a_model_without_batches_has_none_to_ask_for(model: cv.CradleVAE) -> None:
    with pytest.raises(cv.DataError, match="trained without batch_key; leave batch out"):
        model.effects("A", batch="b")
    with pytest.raises(cv.DataError, match="trained without context_key"):
        model.predict("A", 2, context="c")
    with pytest.raises(cv.DataError, match="trained without batch_key"):
        model.clean(model.data, batch="b")  # type: ignore[arg-type]


def test_a_control_gets_the_effect_of_its_own_context(screen_model: cv.CradleVAE, screen: ad.AnnData) -> None:
    model = copy.deepcopy(screen_model)
    effects = model.trained.module.gene_effects
    assert effects is not None
    pair = len(model.trained.treatments) - len(model.trained.pairs) + model.trained.pairs.index(("B", "context2"))
    with torch.no_grad():
        effects.value[pair, 7] += 3  # in the second context, B moves a gene up
    cells = screen[screen.obs["perturbation"] == "control"][:80].copy()
    ratio = model.counterfactual(cells, perturbation="B").X[:, 7] / screen_model.counterfactual(
        cells, perturbation="B"
    ).X[:, 7]  # fmt: skip
    there = (cells.obs["context"] == "context2").to_numpy()
    np.testing.assert_allclose(ratio[~there], 1, rtol=1e-4)
    assert ratio[there].min() > 5


@pytest.fixture(scope="module")
def gaps(screen: ad.AnnData, tiny_options: Any, quick: Any) -> tuple[cv.CradleVAE, ad.AnnData]:
    """A model of a screen whose second context has no controls, and whose third batch is all in the test part."""
    cells = screen[(screen.obs["perturbation"] != "control") | (screen.obs["context"] == "context1")].copy()
    parts = np.where(np.arange(cells.n_obs) % 5 == 0, "val", "train")
    cells.obs["part"] = np.where(cells.obs["batch"] == "batch3", "test", parts)
    split = cv.split(cells, "column", column="part")
    with pytest.warns(UserWarning, match=r"no training controls in 'batch1, context2'"):
        model = cv.CradleVAE(cells, split=split, **SCREEN_KEYS, **tiny_options)
    model.train(1, **quick)
    return model, cells


def test_cells_are_of_the_contexts_that_have_controls(gaps: tuple[cv.CradleVAE, ad.AnnData]) -> None:
    model, cells = gaps
    assert set(model.predict(["A", "control"], 20).obs["context"]) == {"context1"}
    with pytest.raises(cv.DataError, match="'context2' has no training controls"):
        model.predict("control", 5, context="context2")
    with pytest.warns(UserWarning, match=r"or their context no training controls: 'A in context2'"):
        twins = model.counterfactual(cells, perturbation="B")
    assert set(twins.obs["context"]) == {"context1"}


def test_a_batch_without_training_cells_is_not_to_be_asked_for(gaps: tuple[cv.CradleVAE, ad.AnnData]) -> None:
    model, cells = gaps
    for ask in (
        lambda: model.effects("A", batch="batch3"),
        lambda: model.predict("A", 3, batch="batch3"),
        lambda: model.clean(cells[:5].copy(), batch="batch3"),
    ):
        with pytest.raises(
            cv.DataError, match=r"the batch 'batch3', so the model knows nothing of it; known: 'batch1', 'batch2'"
        ):
            ask()
    some = cells[(cells.obs["batch"] == "batch3") & (cells.obs["context"] == "context1")].copy()
    assert np.isfinite(model.clean(some).X).all()  # a cell of it has what is common to all batches
    assert set(model.predict("A", 3, batch={"A": ["batch3"]}).obs["batch"]) == {"batch3"}


def test_cells_are_predicted_into_a_file(screen_model: cv.CradleVAE, tmp_path: Path) -> None:
    # what an array holds before it is filled is chance: it must not be read
    garbage = [np.full(200, 10**6) for _ in range(50)]
    del garbage
    path = tmp_path / "cells.h5ad"
    screen_model.predict(["A", "control"], 40, context="context1", output=path)
    written = ad.read_h5ad(path)
    direct = screen_model.predict(["A", "control"], 40, context="context1")
    np.testing.assert_array_equal(written.X.toarray(), direct.X.toarray())
    for column in ("batch", "context", "library_size"):
        assert list(written.obs[column]) == list(direct.obs[column])


def test_answers_say_where_they_are_of(screen_model: cv.CradleVAE, screen: ad.AnnData) -> None:
    effects = screen_model.effects(["A", "B"], context="context2")
    assert list(effects.obs["context"]) == ["context2"] * 2
    assert list(effects.obs["measured_in_context"]) == [False, True]
    table = cv.effects_table(effects)
    assert {"context", "measured_in_context"} <= set(table.columns)
    assert "context" not in screen_model.effects("A").obs
    twins = screen_model.clean(screen[:5].copy(), batch="batch2").obs
    assert list(twins["clean_batch"]) == ["batch2"] * 5
    assert list(twins["batch"]) == list(screen.obs["batch"][:5])
    assert "clean_batch" not in screen_model.clean(screen[:5].copy()).obs


@pytest.mark.parametrize("make", [cv.CradleVAE, lambda adata, **keys: cv.FloorModel("shrunk_mean", adata, **keys)])
def test_a_split_of_contexts_asks_for_them(screen: ad.AnnData, make: Any) -> None:
    split = cv.split(screen, "contexts", held_out=["A:context2"], context_key="context")
    assert split.options["context_key"] == "context"
    with pytest.raises(
        cv.DataError, match=r"holds out perturbations in contexts of obs\['context'\].*context_key='cont"
    ):
        make(screen, split=split)
