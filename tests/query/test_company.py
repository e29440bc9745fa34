"""A cell's answer, and a condition's, are the same in whatever company it is asked for; nobody's random state moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cradlevae as cv

pytestmark = pytest.mark.numeric

ALIKE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-5}


def tables(found: ad.AnnData, names: list[str]) -> dict[str, np.ndarray]:
    """Every matrix of these rows."""
    chosen = found[names]
    matrices = {**chosen.layers, **chosen.obsm} | ({} if chosen.X is None else {"X": chosen.X})
    return {name: part.toarray() if hasattr(part, "toarray") else np.asarray(part) for name, part in matrices.items()}


def assert_alike(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        np.testing.assert_allclose(table, other[name], err_msg=name, **ALIKE)


@settings(max_examples=5, deadline=None)
@given(st.sets(st.integers(0, 399), min_size=1, max_size=30), st.randoms())
def test_a_cell_is_cleaned_alike_in_any_company(
    strong: cv.CradleVAE, simulated: ad.AnnData, rows: set[int], random: Any
) -> None:
    chosen = list(simulated.obs_names[sorted(rows)])
    whole = tables(strong.clean(simulated), chosen)
    random.shuffle(chosen)
    some = strong.clean(simulated[chosen].copy())
    assert_alike(tables(some, [simulated.obs_names[row] for row in sorted(rows)]), whole)


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, cells: model.clean(cells, cells="failed"),
        lambda model, cells: model.counterfactual(cells, artifact=True, perturbation="control"),
        lambda model, cells: model.latents(cells, sample=True),
        lambda model, cells: model.latents(cells),
    ],
)
def test_a_cell_is_answered_alike_in_any_company(
    strong: cv.CradleVAE, simulated: ad.AnnData, ask: Callable[..., ad.AnnData]
) -> None:
    some = ask(strong, simulated[::7].copy())
    assert_alike(tables(some, list(some.obs_names)), tables(ask(strong, simulated), list(some.obs_names)))


def test_a_cell_is_scored_alike_in_any_company(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    whole, some = (strong.log_likelihood(cells, n_particles=10) for cells in (simulated, simulated[::9].copy()))
    np.testing.assert_allclose(some, whole[some.index], rtol=1e-5)


def test_cells_of_equal_counts_and_other_names_have_streams_of_their_own(
    strong: cv.CradleVAE, simulated: ad.AnnData
) -> None:
    twins = simulated[[0, 1]].copy()
    twins.X = twins.X[[0, 0]]
    twins.obs[["perturbation", "artifact"]] = twins.obs[["perturbation", "artifact"]].iloc[[0, 0]].to_numpy()
    twins.obs["artifact"] = twins.obs["artifact"].astype(bool)
    cleaned = strong.clean(twins)
    assert not np.array_equal(*cleaned.layers["expected"])


def test_threads_change_no_answer(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    before = torch.get_num_threads()
    answers = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            answers.append((strong.clean(simulated[:50]), strong.predict(["control", "A"], n_cells=20)))
    finally:
        torch.set_num_threads(before)
    (one, first), (two, second) = answers
    assert_alike(tables(one, list(one.obs_names)), tables(two, list(one.obs_names)))
    np.testing.assert_array_equal(first.X.toarray(), second.X.toarray())


def of_condition(found: ad.AnnData, name: str) -> np.ndarray:
    part = found[(found.obs["perturbation"] == name).to_numpy()].X
    return np.asarray(part.toarray() if hasattr(part, "toarray") else part)


@pytest.mark.parametrize("library_size", ["controls", 500.0, {"control": [300, 400], "A": [200, 900], "B": [100]}])
def test_a_condition_is_predicted_alike_in_any_company(strong: cv.CradleVAE, library_size: Any) -> None:
    names = ["control", "A", "B"]
    together = strong.predict(names, n_cells=30, library_size=library_size, artifact=True)
    for name in reversed(names):
        alone = strong.predict(name, n_cells=30, library_size=library_size, artifact=True)
        np.testing.assert_array_equal(of_condition(alone, name), of_condition(together, name))
    assert not np.array_equal(of_condition(together, "A"), of_condition(together, "B"))


def test_a_condition_has_its_effects_in_any_company(strong: cv.CradleVAE) -> None:
    together, published = strong.effects(["A", "B"]), strong.published_effects(["A", "B"], n_particles=100)
    np.testing.assert_allclose(strong.effects("B").X, together["B"].X, **ALIKE)
    np.testing.assert_allclose(strong.published_effects("B", n_particles=100).X, published["B"].X, **ALIKE)


def test_the_callers_random_numbers_go_on(strong: cv.CradleVAE, simulated: ad.AnnData) -> None:
    few = simulated[:20]
    questions: list[Callable[[], Any]] = [
        lambda: strong.clean(few),
        lambda: strong.predict("A", n_cells=5),
        lambda: strong.effects("A"),
        lambda: strong.latents(few, sample=True),
        lambda: strong.log_likelihood(few, n_particles=2),
        lambda: strong.artifact_signature(n_draws=2),
    ]
    for ask in questions:
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        ask()
        after = torch.rand(1), np.random.rand()  # noqa: NPY002
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        assert after == (torch.rand(1), np.random.rand())  # noqa: NPY002


def test_a_floor_predicts_a_condition_alike_in_any_company(simulated: ad.AnnData) -> None:
    floor = cv.FloorModel("training_mean", simulated, split=cv.split(simulated, "cells"))
    floor.train()
    together = floor.predict(["control", "A", "B"], n_cells=20)
    for name in ("B", "A", "control"):
        np.testing.assert_array_equal(of_condition(floor.predict(name, n_cells=20), name), of_condition(together, name))
