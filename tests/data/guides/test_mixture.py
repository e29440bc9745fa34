"""The mixture tells ambient from real counts, in guide RNAs of many cells and of few."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cradlevae.data.guides.mixture import mixture_thresholds
from cradlevae.errors import DataError


def simulated(
    n_cells: int = 2000, n_guides: int = 20, ambient: float = 0.1, depth: float = 30.0, seed: int = 0
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Counts with ambient RNA that grows with the size of the cell, and which guide RNA each cell really holds."""
    rng = np.random.default_rng(seed)
    abundance = rng.dirichlet(np.full(n_guides, 2.0))
    held = np.zeros((n_cells, n_guides), dtype=bool)
    held[np.arange(n_cells), rng.choice(n_guides, n_cells, p=abundance)] = True
    size, strength = rng.lognormal(0, 0.4, (n_cells, 1)), rng.lognormal(0, 0.3, n_guides)
    real = rng.poisson(depth * strength * size * rng.lognormal(0, 0.5, held.shape)) * held
    return sp.csr_matrix(real + rng.poisson(ambient * n_guides * abundance * size)), held


def f1(counts: sp.csr_matrix, held: np.ndarray, thresholds: np.ndarray | int) -> float:
    present = counts.toarray() >= thresholds
    return float(2 * (present & held).sum() / (present.sum() + held.sum()))


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({}, 0.99),
        ({"ambient": 0.5}, 0.98),
        ({"ambient": 1.0, "depth": 200.0}, 0.98),
        ({"ambient": 0.0}, 0.99),
        ({"depth": 10.0}, 0.95),
        ({"n_cells": 200}, 0.97),
        ({"n_guides": 300, "ambient": 0.05}, 0.98),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_recovery_is_near_that_of_the_best_threshold_for_all(
    options: dict[str, float], least: float, seed: int
) -> None:
    counts, held = simulated(**options, seed=seed)  # type: ignore[arg-type]
    score = f1(counts, held, mixture_thresholds(counts, 2))
    assert score > least
    assert score > max(f1(counts, held, threshold) for threshold in range(1, 30)) - 0.01


def test_thresholds_follow_the_ambient_counts() -> None:
    rng = np.random.default_rng(0)
    held = rng.random((3000, 2)) < 0.2
    counts = sp.csr_matrix(rng.poisson([0.05, 3.0], held.shape) + rng.poisson(100, held.shape) * held)
    low, high = mixture_thresholds(counts, 2)
    assert 2 <= low < high < 60
    assert high > 10


def test_order_of_cells_and_guide_rnas_does_not_matter() -> None:
    counts, _ = simulated(n_cells=500)
    thresholds = mixture_thresholds(counts, 2)
    rng = np.random.default_rng(0)
    cells, guides = rng.permutation(counts.shape[0]), rng.permutation(counts.shape[1])
    np.testing.assert_array_equal(mixture_thresholds(counts[cells][:, guides], 2), thresholds[guides])


def test_a_guide_rna_of_few_cells_takes_the_parameters_of_the_others() -> None:
    counts, _ = simulated()
    rare = sp.csr_matrix(np.r_[[40, 25, 1], np.zeros(counts.shape[0] - 3)].astype(np.int64)[:, None])
    empty = sp.csr_matrix((counts.shape[0], 1), dtype=np.int64)
    thresholds = mixture_thresholds(sp.csr_matrix(sp.hstack([counts, rare, empty])), 2)
    assert 2 <= thresholds[-2] <= 10
    assert thresholds[-1] >= 2


def test_counts_that_cannot_be_told_apart() -> None:
    with pytest.raises(DataError, match=r"cannot be told apart .* use method='umi'"):
        mixture_thresholds(sp.csr_matrix(np.eye(50, 5, dtype=np.int64)), 2)
    with pytest.raises(DataError, match="no cell has a count of a guide RNA"):
        mixture_thresholds(sp.csr_matrix((50, 5), dtype=np.int64), 2)
