"""Training and validation cells as one piece of evidence, and which floors take it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.moments import ConditionMoments, condition_moments
from cradlevae.evaluation.floors import registry
from cradlevae.evaluation.floors.registry import FLOORS, floor_effects, floor_errors
from cradlevae.evaluation.floors.training_moments import part_moments, with_validation

NAMES = ("control", "A", "B", "C", "D", "E")
TAKE_VALIDATION = {
    "shrunk_mean", "hierarchical_mean", "multivariate_shrunk_mean", "additive_shrunk", "additive_hierarchical",
    "additive_multivariate",
}  # fmt: skip


def cells(n: int = 200) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Counts, conditions and whether a cell validates; B has one training cell, C none, D one of each, E no cell."""
    rng = np.random.default_rng(0)
    condition = rng.integers(0, 2, n)
    validates = rng.random(n) < 0.3
    condition[:10] = [2, 2, 2, 3, 3, 4, 4, 0, 0, 0]
    validates[:10] = [False, True, True, True, True, False, True, False, True, True]
    return sp.csr_matrix(rng.poisson(1.0, (n, 12))), condition, validates


def of(rows: np.ndarray) -> ConditionMoments:
    counts, condition, _ = cells()
    return condition_moments(counts[rows], condition[rows], NAMES)


def test_joined_moments_are_those_of_the_joined_cells() -> None:
    _, condition, validates = cells()
    joined, expected = with_validation(of(~validates), of(validates)), of(np.ones(len(condition), dtype=bool))
    for name in ("n_cells", "mean", "variance", "n_effective"):
        np.testing.assert_allclose(getattr(joined, name), getattr(expected, name), rtol=1e-10, err_msg=name)
    nobody = of(np.zeros(len(condition), dtype=bool))
    np.testing.assert_array_equal(with_validation(expected, nobody).mean, expected.mean)
    np.testing.assert_allclose(with_validation(expected, nobody).variance, expected.variance, rtol=1e-12)
    with pytest.raises(cv.DataError, match="other conditions or genes"):
        with_validation(expected, expected.of([0, 1]))


def test_strata_are_joined_by_measuring_the_joined_cells(simulated: ad.AnnData) -> None:
    adata = simulated.copy()
    adata.obs["lane"] = np.where(np.arange(adata.n_obs) % 3 == 0, "one", "two")
    split = cv.split(adata, "cells", seed=0, fields=cv.DataFields(batch_key="lane"))
    floor = cv.FloorModel("shrunk_mean", adata, split=split, batch_key="lane")
    data = floor._data
    train, validation = part_moments(split, data, "train"), part_moments(split, data, "val")
    with pytest.raises(cv.DataError, match="measure the joined cells"):
        with_validation(train, validation)
    rows = np.union1d(split.rows(data, "train"), split.rows(data, "val"))
    rows = rows[~data.failed[rows]]
    joined = part_moments(split, data, "train", "val")
    expected = condition_moments(data.counts[rows], data.condition[rows], data.conditions, strata=data.strata[rows])
    np.testing.assert_allclose(joined.mean, expected.mean)
    np.testing.assert_array_equal(part_moments(split, data, "train", "val", without=rows).n_cells, 0)


def test_floors_take_validation_cells_in_where_they_are_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, validates = cells()
    train, validation, asked = of(~validates), of(validates), ["A", "B"]
    assert {name for name, entry in FLOORS.items() if entry.takes_validation} == TAKE_VALIDATION
    before = {name: floor_effects(name, train, validation, asked) for name in TAKE_VALIDATION}
    for name in TAKE_VALIDATION:
        np.testing.assert_array_equal(before[name], floor_effects(name, train, None, asked))
    own = floor_effects("training_mean", train, validation, asked)
    monkeypatch.setattr(registry, "VALIDATION_IS_EVIDENCE", True)
    joined = with_validation(train, validation)
    for name in TAKE_VALIDATION:
        after = floor_effects(name, train, validation, asked)
        np.testing.assert_array_equal(after, floor_effects(name, joined, None, asked))
        np.testing.assert_array_equal(after, floor_effects(name, train, validation, asked, joined=joined))
        np.testing.assert_array_equal(before[name], floor_effects(name, train, validation, asked, joined=train))
    np.testing.assert_array_equal(floor_effects("training_mean", train, validation, asked), own)
    errors = floor_errors("shrunk_mean", train, validation, asked)
    np.testing.assert_array_equal(errors, floor_errors("shrunk_mean", joined, None, asked))


def test_reference_cells_are_never_evidence(simulated: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    split = cv.split(simulated, "cells", seed=0)
    floor = cv.FloorModel("zero", simulated, split=split)
    floor.train()
    before = cv.evaluate(floor, simulated, generated=False, reference="validation")["value"]
    monkeypatch.setattr(registry, "VALIDATION_IS_EVIDENCE", True)
    after = cv.evaluate(floor, simulated, generated=False, reference="validation")["value"]
    np.testing.assert_allclose(before, after)
    held_out = cv.FloorModel("shrunk_mean", simulated, split=split)
    held_out.train()
    scores = cv.evaluate(held_out, simulated, generated=False).query("metric == 'ate_rho'")
    scores = scores[scores["reference"] == "held-out passing cells"].set_index("predictor")["value"]
    assert scores["model"] == pytest.approx(scores["shrunk_mean"], abs=1e-6)
