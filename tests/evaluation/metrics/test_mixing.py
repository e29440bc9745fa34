"""Metrics of cleaned cells among passing ones: perfect mixing, islands, and an oracle of the neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cradlevae.evaluation.metrics.mixing import (
    NEIGHBOURS,
    Mixture,
    failed_neighbours,
    own_neighbours,
    two_sample_auc,
)


def mixture(apart: float, n: int = 300) -> Mixture:
    rng = np.random.default_rng(0)
    condition = np.tile(np.arange(3), 2 * n // 3)
    failed = np.repeat([False, True], n)
    coordinates = rng.normal(size=(2 * n, 6)) + 4 * np.eye(6)[condition] + apart * failed[:, None]
    return Mixture(coordinates, failed, condition)


def test_cells_that_are_alike_mix() -> None:
    cells = mixture(0.0)
    assert failed_neighbours(cells) == pytest.approx(0.5, abs=0.04)
    assert two_sample_auc(cells) == pytest.approx(0.5, abs=0.06)
    assert own_neighbours(cells) > 0.9


def test_an_island_does_not() -> None:
    cells = mixture(20.0)
    assert failed_neighbours(cells) == 1.0
    assert two_sample_auc(cells) > 0.99
    assert own_neighbours(cells) > 0.9


def test_neighbours_are_the_nearest_other_cells() -> None:
    cells = mixture(1.0, n=60)
    distance = cdist(cells.coordinates, cells.coordinates)
    np.fill_diagonal(distance, np.inf)
    expected = np.argsort(distance[cells.failed], axis=1)[:, :NEIGHBOURS]
    np.testing.assert_array_equal(np.sort(cells.neighbours), np.sort(expected))
    assert failed_neighbours(cells) == pytest.approx(cells.failed[expected].mean())
    same = cells.condition[expected] == cells.condition[cells.failed][:, None]
    assert own_neighbours(cells) == pytest.approx(same.mean())


def test_copies_of_one_cell_are_neighbours_of_each_other() -> None:
    cells = Mixture(np.zeros((40, 2)), np.repeat([False, True], 20), np.zeros(40, dtype=int))
    assert cells.neighbours.shape == (20, NEIGHBOURS)
    assert own_neighbours(cells) == 1.0


def test_too_few_cells_have_no_auc() -> None:
    cells = mixture(0.0, n=3)
    assert np.isnan(two_sample_auc(cells))
    assert 0 <= failed_neighbours(cells) <= 1
