"""References, ceilings and their noise within strata."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.moments import condition_moments
from cradlevae.evaluation.ceiling import ceiling, random_halves, split_half_effects, split_half_scores
from cradlevae.evaluation.reference_effects import (
    measured_reference,
    simulated_reference,
    without_controls,
)

NAMES = ["control", "A", "B", "C"]
N_GENES = 30


def null_cells(seed: int, shift: float = 1.0) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Cells of three strata that differ, where perturbations do nothing but are mostly of one stratum each."""
    random = np.random.default_rng(seed)
    condition = np.repeat(np.arange(4), (240, 120, 120, 120))
    own = np.where(condition == 0, random.integers(3, size=len(condition)), condition - 1)
    strata = np.where(random.random(len(condition)) < 0.15, random.integers(3, size=len(condition)), own)
    rate = np.exp(shift * random.normal(size=(3, N_GENES)))
    return sp.csr_matrix(random.poisson(20 * rate[strata]).astype(np.float32)), condition, strata


@pytest.fixture(scope="module")
def cells() -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    return null_cells(0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 60))
def test_halves_are_halves_of_conditions_and_of_their_strata(seed: int, n_strata: int, n_cells: int) -> None:
    random = np.random.default_rng(seed)
    condition, strata = random.integers(-1, 3, n_cells), random.integers(n_strata, size=n_cells)
    half = random_halves(condition, random, strata)
    for code in set(condition):
        assert abs(np.sum(2 * half[condition == code] - 1)) <= 1
        for stratum in range(n_strata):
            assert abs(np.sum(2 * half[(condition == code) & (strata == stratum)] - 1)) <= 1


def test_one_stratum_gives_the_numbers_of_none(cells: tuple[sp.csr_matrix, np.ndarray, np.ndarray]) -> None:
    counts, condition, strata = cells
    one = np.zeros_like(strata)
    assert ceiling(counts, condition, NAMES, n_splits=3) == ceiling(counts, condition, NAMES, n_splits=3, strata=one)
    genes = [f"g{gene}" for gene in range(N_GENES)]
    np.testing.assert_array_equal(
        split_half_scores(counts, condition, NAMES, genes, "ate_rho", n_splits=2),
        split_half_scores(counts, condition, NAMES, genes, "ate_rho", n_splits=2, strata=one),
    )


def test_effects_of_a_half_are_those_of_its_moments(cells: tuple[sp.csr_matrix, np.ndarray, np.ndarray]) -> None:
    counts, condition, strata = cells
    half = random_halves(condition, np.random.default_rng([0, 0]), strata)
    for part, effects in enumerate(next(split_half_effects(counts, condition, NAMES, n_splits=1, strata=strata))):
        moments = condition_moments(counts, np.where(half == part, condition, -1), NAMES, strata=strata)
        np.testing.assert_allclose(effects, moments.mean[1:] - moments.mean[0], atol=1e-10)


def test_differences_between_strata_are_no_signal(cells: tuple[sp.csr_matrix, np.ndarray, np.ndarray]) -> None:
    counts, condition, strata = cells
    assert ceiling(counts, condition, NAMES, n_splits=5).split_half_rho > 0.8
    assert abs(ceiling(counts, condition, NAMES, n_splits=5, strata=strata).split_half_rho) < 0.35


def test_a_condition_whose_stratum_has_one_control_cannot_be_halved(
    cells: tuple[sp.csr_matrix, np.ndarray, np.ndarray],
) -> None:
    counts, condition, strata = cells
    strata = strata.copy()
    strata[condition == 3] = 7
    strata[np.flatnonzero(condition == 0)[0]] = 7
    first, second = next(split_half_effects(counts, condition, NAMES, n_splits=1, strata=strata))
    assert len(first) == len(second) == 2
    assert np.isfinite(first).all()
    assert np.isfinite(second).all()


def experiment(cells: tuple[sp.csr_matrix, np.ndarray, np.ndarray], order: np.ndarray, labels: list[str]) -> Experiment:
    counts, condition, strata = cells
    adata = ad.AnnData(counts[order])
    adata.obs["perturbation"] = np.array(NAMES)[condition[order]]
    adata.obs["lane"] = np.array(labels)[strata[order]]
    adata.obs["artifact"] = False
    return read_experiment(adata, DataFields(batch_key="lane"))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(["x", "y", "z"]))
def test_references_do_not_depend_on_the_order_of_cells_or_the_names_of_batches(seed: int, labels: list[str]) -> None:
    cells = null_cells(1)
    order = np.random.default_rng(seed).permutation(len(cells[1]))
    one = experiment(cells, np.arange(len(order)), ["x", "y", "z"])
    other = experiment(cells, order, labels)
    references = [
        measured_reference("r", data, sp.csr_matrix(data.counts[:]), np.arange(data.n_cells), ("A", "B", "C"), seed=0)
        for data in (one, other)
    ]
    first, second = references
    assert first is not None
    assert second is not None
    assert first.noise is not None
    assert second.noise is not None
    np.testing.assert_allclose(first.effects, second.effects, atol=1e-9)
    np.testing.assert_allclose(first.noise.standard_error, second.noise.standard_error, rtol=1e-7)
    np.testing.assert_allclose(first.noise.n_cells, second.noise.n_cells)


def test_standard_errors_of_references_are_right() -> None:
    """Where nothing happens, effects over their standard errors have a standard deviation of 1, halves too."""
    z: list[np.ndarray] = []
    of_halves: list[np.ndarray] = []
    for seed in range(12):
        cells = null_cells(seed)
        data = experiment(cells, np.arange(len(cells[1])), ["x", "y", "z"])
        reference = measured_reference("r", data, cells[0], np.arange(data.n_cells), ("A", "B", "C"), seed=seed)
        assert reference is not None
        assert reference.noise is not None
        z.append(reference.effects / reference.noise.standard_error)
        of_halves += [value / error for value, error in reference.noise.halves]
    assert np.std(z) == pytest.approx(1, abs=0.08)
    assert np.std(of_halves) == pytest.approx(1, abs=0.08)


def test_conditions_without_controls_in_their_batches_are_named_and_left_out() -> None:
    counts, condition, strata = null_cells(2)
    strata = np.where(condition == 2, 1, np.where(strata == 1, 0, strata))
    data = experiment((counts, condition, strata), np.arange(len(condition)), ["x", "y", "z"])
    rows = np.arange(data.n_cells)
    assert without_controls(data, rows, ("A", "B", "C")) == ["B"]
    reference = measured_reference("r", data, counts, rows, ("A", "B", "C"), seed=0)
    assert reference is not None
    assert reference.conditions == ("A", "C")
    alone = without_controls(data, rows[condition != 0], ("A", "B"))
    assert alone == ["A", "B"]
    assert measured_reference("r", data, counts, rows, ("B",), seed=0) is None


@pytest.fixture(scope="module")
def strata_data() -> ad.AnnData:
    """Simulated cells of confounded batches and two contexts."""
    adata = cv.simulate(
        n_cells=3000, n_genes=40, n_perturbations=4, n_combinations=0, n_latent=4, n_batches=3, batch_sd=0.5,
        confounding=0.7, n_contexts=2, context_sd=0.4, seed=0,
    )  # fmt: skip
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


def test_the_truth_of_a_context_is_that_of_the_context(strata_data: ad.AnnData) -> None:
    data = read_experiment(strata_data, DataFields(batch_key="batch", context_key="context"))
    truth = strata_data.uns["truth"]
    reference = simulated_reference(truth, list(data.genes), data.conditions[1:])
    assert reference is not None
    assert len(reference.conditions) == 8
    row = reference.conditions.index("B in context2")
    names = [str(name) for name in truth["effect_conditions"]]
    np.testing.assert_allclose(reference.effects[row], truth["effects_by_context"][1][names.index("B")], rtol=1e-6)
    plain = simulated_reference(truth, list(data.genes), ["B"])
    assert plain is not None
    np.testing.assert_allclose(plain.effects[0], truth["effects"][names.index("B")], rtol=1e-6)


def test_evaluate_measures_within_batch(strata_data: ad.AnnData) -> None:
    """Floors within batch are nearer to the truth, and generated cells have the batches of the real ones."""
    split = cv.split(strata_data, "cells", seed=0)
    rho = {}
    for batch_key in (None, "batch"):
        floor = cv.FloorModel("hierarchical_mean", strata_data, split=split, batch_key=batch_key)
        floor.train()
        scores = cv.evaluate(floor, strata_data)
        rows = scores[(scores["metric"] == "ate_rho") & (scores["reference"] == "simulated truth")]
        rho[batch_key] = rows.set_index("predictor")["value"]["model"]
        distances = scores[scores["metric"] == "e_distance"].set_index("predictor")["value"]
        assert abs(distances["real cells"]) < 0.1 * distances["controls"]
    assert rho["batch"] > rho[None] + 0.03


def test_evaluate_says_what_cannot_be_measured(strata_data: ad.AnnData) -> None:
    alone = (strata_data.obs["perturbation"] == "A").to_numpy()
    adata = strata_data[~(alone & (strata_data.obs["batch"] != "batch1").to_numpy())].copy()
    split = cv.split(adata, "cells", seed=0)
    held_out = adata.obs_names.isin(split.cells("test"))
    lonely = (
        held_out & (adata.obs["batch"] == "batch1").to_numpy() & (adata.obs["perturbation"] == "control").to_numpy()
    )
    kept = adata[~lonely].copy()
    floor = cv.FloorModel("hierarchical_mean", adata, split=split, batch_key="batch")
    floor.train()
    with pytest.warns(UserWarning, match=r"1 held-out conditions cannot be measured, .* no held-out controls .*'A'"):
        scores = cv.evaluate(floor, kept, truth=False)
    assert scores.attrs["unmeasured"] == ["A"]
