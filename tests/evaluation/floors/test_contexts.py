"""Floors within batches and contexts."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.experiment import DataFields
from cradlevae.data.labels import Condition, condition_name, in_context
from cradlevae.data.moments import ConditionMoments
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.contexts import averaged_over_contexts, contexts_of
from cradlevae.evaluation.floors.levels import Levels
from cradlevae.evaluation.floors.registry import FLOORS, floor_effects, floor_errors
from cradlevae.query.library_sizes import chosen_sizes

GENES = tuple(f"g{gene}" for gene in range(5))
OF_CONTEXTS = [name for name, entry in FLOORS.items() if entry.needs_contexts]


def named(label: str, context: str | None = None) -> Condition:
    return in_context(condition_name(label.split("+")), context)


def moments(effects: dict[Condition, float], cells: dict[Condition, int] | None = None) -> ConditionMoments:
    """Moments of conditions whose effect is one number on every gene, without noise to speak of."""
    names = (condition_name(()), *effects)
    value = np.array([0.0, *effects.values()])[:, None] + 1 + np.arange(5) / 10
    n_cells = np.array([1000, *((cells or {}).get(name, 100) for name in effects)])
    return ConditionMoments(names, n_cells, value, np.full(value.shape, 1e-6), GENES)


EFFECTS = {
    named("A", "x"): 1.0, named("A", "y"): 2.0, named("A", "z"): 6.0,
    named("B", "x"): 3.0, named("B", "y"): 5.0, named("C", "z"): 7.0,
}  # fmt: skip


def answer(name: str, *conditions: Condition, **options: Any) -> list[float]:
    """Answers on the first gene, to three digits."""
    return [round(float(row[0]), 3) for row in floor_effects(name, moments(EFFECTS, **options), None, conditions)]


def test_the_mean_over_other_contexts_leaves_the_own_one_out() -> None:
    asked = [named("A", "x"), named("A", "z"), named("B", "z"), named("C", "x")]
    assert answer("other_contexts_mean", *asked) == [4.0, 1.5, 4.0, 7.0]
    weighted = {named("A", "y"): 300}
    assert answer("other_contexts_mean", named("A", "x"), cells=weighted) == [3.0]
    assert np.isnan(answer("other_contexts_mean", named("C", "z"))[0])
    assert np.isnan(answer("other_contexts_mean", named("D", "z"))[0])


def test_a_combination_unseen_elsewhere_is_the_sum_of_its_singles() -> None:
    assert answer("other_contexts_mean", named("A+B", "z")) == [1.5 + 4.0]
    seen = EFFECTS | {named("A+B", "x"): 2.0}
    assert floor_effects("other_contexts_mean", moments(seen), None, [named("A+B", "z")])[0, 0] == pytest.approx(2.0)


def test_a_context_shifts_what_the_others_do() -> None:
    """In x, B does 3 where it does 5 elsewhere: the shift of A, whose own effect in x is not looked at."""
    assert answer("other_contexts_shifted", named("A", "x")) == pytest.approx([4.0 - 2.0], abs=0.5)
    shrunk, shifted = (answer(name, named("A", "x"))[0] for name in OF_CONTEXTS[1:])
    assert shifted == pytest.approx(shrunk - 2.0)
    assert shrunk < 4.0
    alone = moments({named("A", "x"): 1.0, named("A", "y"): 2.0})
    one, other = (floor_effects(name, alone, None, [named("A", "x")]) for name in OF_CONTEXTS[1:])
    np.testing.assert_array_equal(one, other)


def test_floors_look_conditions_up_in_their_context() -> None:
    assert answer("training_mean", named("A", "y"), named("B", "x")) == [2.0, 3.0]
    assert answer("additive", named("A+B", "y")) == [7.0]
    assert answer("matching_mean", named("A+B", "x")) == [2.0]
    assert np.isnan(answer("additive", named("A+B", "z"))[0])
    assert answer("perturbed_mean", named("A", "x"), named("A", "z")) == [2.0, 6.5]
    assert answer("perturbed_mean", named("A", "w")) == [4.0]  # no effect measured there: of all contexts


def test_without_a_context_it_is_the_average_over_contexts() -> None:
    plain = named("A")
    assert contexts_of(moments(EFFECTS)) == ("x", "y", "z")
    assert answer("training_mean", plain, named("B"), named("A", "z")) == [3.0, 4.0, 6.0]
    assert answer("training_mean", plain, cells={named("A", "x"): 300}) == [pytest.approx((3 + 2 + 6) / 5)]
    assert answer("additive", named("A+B")) == [pytest.approx((4 + 7) / 2)]
    assert np.isnan(answer("training_mean", named("D"))[0])
    errors = floor_errors("training_mean", moments(EFFECTS), None, [plain, named("A", "x")])
    assert errors is not None
    assert errors[0, 0] == pytest.approx(errors[1, 0] / np.sqrt(3), rel=0.01)


def test_averages_keep_the_answers_of_one_context() -> None:
    train = moments({named("A"): 1.0})
    expected = np.arange(5.0)[None]
    np.testing.assert_array_equal(averaged_over_contexts(lambda *_: expected, train, None, ["A"]), expected)


def test_floors_of_other_contexts_are_usable_with_two_of_them() -> None:
    two, one = moments(EFFECTS), moments({named("A"): 1.0, named("B"): 2.0})
    empty = moments(EFFECTS, cells={name: 0 for name in EFFECTS if name.context != "z"})
    assert OF_CONTEXTS == ["other_contexts_mean", "other_contexts_shrunk", "other_contexts_shifted"]
    for name in OF_CONTEXTS:
        assert FLOORS[name].usable(two, two)
        assert not FLOORS[name].usable(one, one)
        assert not FLOORS[name].usable(empty, two)
        assert name in cv.models()


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    adata = cv.simulate(
        n_cells=4000, n_genes=40, n_perturbations=5, n_combinations=4, n_interacting=0, n_latent=4, n_batches=3,
        batch_sd=0.5, confounding=0.6, n_contexts=3, context_sd=0.2, seed=0,
    )  # fmt: skip
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


def trained(name: str, adata: ad.AnnData, **fields: Any) -> cv.FloorModel:
    model = cv.FloorModel(name, adata, split=cv.split(adata, "cells"), **fields)
    model.train()
    return model


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_every_floor_answers_in_batches_and_contexts(name: str, adata: ad.AnnData) -> None:
    model = trained(name, adata, batch_key="batch", context_key="context")
    if name == "bilinear_ridge":  # perturbations are no genes here
        assert model.perturbations == ()
        return
    assert "A in context2" in model.perturbations
    here = model.effects(["A", "B"], context="context2")
    assert list(here.obs_names) == ["A", "B"]
    same = model.effects([condition for condition in model.perturbations if condition == "A in context2"])
    np.testing.assert_array_equal(here.X[0], same.X[0])
    assert np.isfinite(model.effects("A", batch="batch1").X).all()
    cells = model.predict(["A", "control"], 40, batch="batch2", context="context1")
    assert set(cells.obs["batch"]) == {"batch2"}
    assert (cells.X.sum(axis=1) > 0).all()


def test_generated_cells_look_like_those_of_their_batch_and_context(adata: ad.AnnData) -> None:
    model = trained("training_mean", adata, batch_key="batch", context_key="context")
    passing = adata[(adata.obs["perturbation"] == "control") & ~adata.obs["artifact"]]

    def profile(counts: Any) -> np.ndarray:
        total = np.asarray(counts.sum(axis=0)).ravel()
        return np.log2(1e4 * total / total.sum() + 1)

    real = {
        key: profile(cells.X)
        for key in [("batch1", "context1"), ("batch3", "context2")]
        for cells in [passing[(passing.obs["batch"] == key[0]) & (passing.obs["context"] == key[1])]]
    }
    for batch, context in real:
        drawn = profile(model.predict("control", 1000, batch=batch, context=context).X)
        distances = {key: float(((drawn - other) ** 2).mean()) for key, other in real.items()}
        assert min(distances, key=lambda key: distances[key]) == (batch, context)


def test_what_is_not_known_is_refused(adata: ad.AnnData) -> None:
    model = trained("zero", adata, batch_key="batch", context_key="context")
    with pytest.raises(
        DataError, match=r"unknown batch 'batch9' of obs\['batch'\]; known: 'batch1', 'batch2', 'batch3'"
    ):
        model.effects("A", batch="batch9")
    with pytest.raises(DataError, match=r"unknown context 'liver' of obs\['context'\]; known: 'context1'"):
        model.predict("A", 5, context="liver")
    with pytest.raises(DataError, match="unknown context 'liver'"):
        model.effects([named("A", "liver")])
    with pytest.raises(DataError, match="batch has no batches for 'A'"):
        model.predict("A", 5, batch={"B": ["batch1"]})
    with pytest.raises(DataError, match="trained without batch_key"):
        trained("zero", adata).effects("A", batch="batch1")
    with pytest.raises(DataError, match="looks at other contexts, but the data have none; name their column"):
        cv.FloorModel("other_contexts_mean", adata)
    one = adata[adata.obs["context"] == "context1"].copy()
    with pytest.raises(DataError, match=r"looks at other contexts, but the data have one, obs\['context'\]"):
        cv.FloorModel("other_contexts_mean", one, context_key="context")
    other = adata.copy()
    other.obs["batch"] = "unseen"
    with pytest.raises(DataError, match="holds the batch 'unseen'"):
        model.trained.read(other)


def test_batches_come_in_the_order_of_library_sizes() -> None:
    levels = Levels(DataFields(batch_key="lane"), {"lane": tuple("abcdefg")})
    lanes = list("gfedcba")
    sizes = {"A": [ord(lane) for lane in lanes]}
    drawn = chosen_sizes(sizes, ["A"], levels.fields, 20, seed=3)
    batches = levels.of_cells({"A": lanes}, ["A"], 20, seed=3)
    assert drawn is not None
    assert batches is not None
    assert [chr(int(size)) for size in drawn[0]] == batches[0]


def confounded(seed: int) -> ad.AnnData:
    """Cells of three batches that differ, where perturbations do nothing: A and B in batch 0, C in 1, D in all."""
    random = np.random.default_rng(seed)
    labels = np.repeat(["control", "A", "B", "C", "D"], (120, 80, 80, 80, 80))
    batch = random.integers(3, size=len(labels))
    batch[np.isin(labels, ["A", "B"])], batch[labels == "C"] = 0, 1
    rate = 20 * np.exp(0.7 * random.normal(size=(3, 60)))
    cells = ad.AnnData(sp.csr_matrix(random.poisson(rate[batch]).astype(np.float32)))
    cells.obs["perturbation"], cells.obs["batch"], cells.obs["artifact"] = labels, batch.astype(str), False
    return cells


def test_errors_are_right_where_batches_are_confounded() -> None:
    """Effects of nothing, over their errors, have a standard deviation of 1: alone, and added up, whose batches agree
    (A+B, with the same controls), do not (A+C, which share none), or in part (A+D)."""
    asked = ["A", "C", "D", "A+B", "A+C", "A+D"]
    z = []
    for seed in range(25):
        cells = confounded(seed)
        split = cv.Split(
            cv.split(cells, "cells").parts.where(lambda part: part == "train", "train"), "own", 0
        )  # all cells train
        floor = cv.FloorModel("additive", cells, split=split, batch_key="batch")
        floor.train()
        effects = floor.effects(asked)
        z.append(np.asarray(effects.X) / effects.layers["sd"])
    spread = dict(zip(asked, np.std(z, axis=(0, 2)), strict=True))
    assert spread == {name: pytest.approx(1, abs=0.12) for name in asked}


def test_errors_of_other_contexts_say_how_far_contexts_differ() -> None:
    names = [named("A", context) for context in "xyzw"]
    random = np.random.default_rng(0)
    true = random.normal(size=(4, 2000))
    value = np.concatenate([np.zeros((1, 2000)), true])
    train = ConditionMoments(
        (condition_name(()), *names), np.full(5, 400), value, np.full(value.shape, 1e-4), tuple(map(str, range(2000)))
    )
    predicted = floor_effects("other_contexts_mean", train, None, names)
    error = floor_errors("other_contexts_mean", train, None, names)
    assert error is not None
    assert np.sqrt(np.mean((predicted - true) ** 2)) == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.05)
