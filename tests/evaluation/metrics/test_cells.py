"""Metrics of samples of cells are those of the arrays that the samples stand for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cradlevae.evaluation.metrics.cells import e_distance, mae_mean, mmd2, mse_mean
from cradlevae.evaluation.metrics.distances import energy_distance, squared_mmd
from cradlevae.evaluation.metrics.pca_space import fit_space
from cradlevae.evaluation.metrics.samples import CellPool, CellSample, SampleSeries


@pytest.fixture
def samples() -> tuple[CellSample, CellSample]:
    """Two samples of 12 cells, the second of other cells."""
    random = np.random.default_rng(0)
    rate = np.repeat([[2.0, 5.0], [4.0, 3.0]], [30, 30], axis=0).repeat(10, axis=1)
    counts = sp.csr_matrix(random.poisson(rate).astype(np.float32))
    pool = CellPool(counts, fit_space(counts, np.arange(60), seed=0))
    membership = np.zeros((2, 2, 60))  # two series of two samples
    membership[0, 1, random.permutation(30)[:12]] = 1
    membership[1, 1, 30 + random.permutation(30)[:12]] = 1
    membership[:, 0] = membership[:, 1, ::-1]
    first, second = (SampleSeries(pool, series)[1] for series in membership)
    return first, second


def test_distances_are_those_of_the_coordinates(samples: tuple[CellSample, CellSample]) -> None:
    first, second = samples
    precisions = first.series.pool.space.precisions
    assert first.coordinates.shape[0] == 12
    distance = energy_distance(first.coordinates, second.coordinates)
    assert e_distance(first, second) == pytest.approx(distance)
    assert mmd2(first, second) == pytest.approx(squared_mmd(first.coordinates, second.coordinates, precisions))
    assert distance > 0


def test_errors_are_those_of_mean_log_expression(samples: tuple[CellSample, CellSample]) -> None:
    means = []
    for sample in samples:
        counts = sample.counts.toarray()
        expression = np.log2(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(sample.expression.toarray(), expression)
        means.append(expression.mean(axis=0))
    assert mse_mean(*samples) == pytest.approx(((means[0] - means[1]) ** 2).mean())
    assert mae_mean(*samples) == pytest.approx(np.abs(means[0] - means[1]).mean())
