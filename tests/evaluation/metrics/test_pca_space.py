"""The space of cells: principal components of training cells, sparse or not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cradlevae.evaluation.metrics import pca_space as cell_space
from cradlevae.evaluation.metrics.pca_space import fit_space, log_normalised


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    random = np.random.default_rng(0)
    rate = np.exp(random.normal(size=(200, 3)) @ random.normal(size=(3, 30)) - 0.5)
    return random.poisson(rate)


def test_expression_is_log1p_of_ten_thousand_times_the_share(counts: np.ndarray) -> None:
    empty = np.vstack([counts, np.zeros((1, 30), dtype=int)])
    share = empty / np.maximum(empty.sum(axis=1, keepdims=True), 1)
    found = log_normalised(sp.csr_matrix(empty))
    np.testing.assert_allclose(found.toarray(), np.log1p(1e4 * share))
    assert found.nnz == (empty > 0).sum()


def test_components_are_those_of_the_dense_centred_matrix(counts: np.ndarray) -> None:
    rows = np.arange(150)
    space = fit_space(sp.csr_matrix(counts), rows, seed=0)
    assert space.components.shape == (29, 30)  # fewer than 50, for there are few genes
    expression = log_normalised(sp.csr_matrix(counts)).toarray()
    centre = expression[rows].mean(axis=0)
    axes = np.linalg.svd(expression[rows] - centre, full_matrices=False)[2][:29]
    np.testing.assert_allclose(np.abs(np.diag(space.components @ axes.T)), 1, atol=1e-6)
    found = space.project(sp.csr_matrix(counts))
    np.testing.assert_allclose(np.abs(found), np.abs((expression - centre) @ axes.T), atol=1e-6)
    np.testing.assert_allclose(space.components @ space.components.T, np.eye(29), atol=1e-10)


def test_cells_that_are_not_trained_on_do_not_shape_the_space(counts: np.ndarray) -> None:
    changed = counts.copy()
    changed[150:] = 7
    one, other = (fit_space(sp.csr_matrix(x), np.arange(150), seed=0) for x in (counts, changed))
    np.testing.assert_array_equal(one.components, other.components)
    assert one.distance == other.distance


def test_kernels_lie_around_the_median_distance(counts: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.spatial.distance import pdist

    space = fit_space(sp.csr_matrix(counts), np.arange(200), seed=0)
    assert space.distance == pytest.approx(np.median(pdist(space.project(sp.csr_matrix(counts)))))
    bandwidth = np.sqrt(0.5 / space.precisions)
    np.testing.assert_allclose(bandwidth / space.distance, [2, 2**0.5, 1, 0.5**0.5, 0.5])
    monkeypatch.setattr(cell_space, "FITTED_CELLS", 100)
    monkeypatch.setattr(cell_space, "COMPONENTS", 4)
    few = fit_space(sp.csr_matrix(counts), np.arange(200), seed=0)
    assert few.components.shape == (4, 30)
    again = fit_space(sp.csr_matrix(counts), np.arange(200), seed=0)
    np.testing.assert_array_equal(few.components, again.components)
