"""The space in which cells are compared: principal components of log-normalised training cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cradlevae.data.moments import log_expression
from cradlevae.data.storage.stored_matrix import CountMatrix
from cradlevae.utils.types import FloatArray, IndexArray

COMPONENTS = 50
FITTED_CELLS = 5000
"""At most so many training cells, drawn at random, make the components."""

SCALE_CELLS = 1000
"""From at most so many of them the typical distance of two cells is taken."""

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Squared bandwidths of the kernels, in units of the squared median distance."""


@dataclass(frozen=True)
class CellSpace:
    """Principal components of ln(1 + 1e4·x/Σx), fitted on training cells alone, whichever cells are compared later.

    Attributes
    ----------
    mean
        Mean expression, (genes,).
    components
        Orthonormal axes, (components, genes).
    distance
        Median Euclidean distance between two of the fitted cells: the scale of the kernels (median heuristic).
    """

    mean: FloatArray
    components: FloatArray
    distance: float

    @property
    def precisions(self) -> FloatArray:
        """1 / (2·bandwidth²) of each kernel, ascending, (kernels,)."""
        return np.sort(0.5 / (np.array(BANDWIDTHS) * self.distance**2))

    def project(self, counts: sp.csr_matrix) -> FloatArray:
        """Coordinates of cells, (cells, genes) → (cells, components)."""
        return np.asarray(log_normalised(counts) @ self.components.T) - self.components @ self.mean


def log_normalised(counts: CountMatrix) -> sp.csr_matrix:
    """ln(1 + 1e4·x/Σx) of every count, (cells, genes), sparse, float64; a cell without counts is all zero."""
    expression = log_expression(counts)
    expression.data *= np.log(2.0)
    return expression


def fit_space(counts: CountMatrix, rows: IndexArray, *, seed: int) -> CellSpace:
    """Principal components of passing training cells; the centring is implicit, so that nothing becomes dense.

    Parameters
    ----------
    counts
        Raw counts of the experiment, (cells, genes), in memory or on disk.
    rows
        Passing training cells, at least two.
    seed
        Seed of the random choice among them.

    Notes
    -----
    There are up to 50 components, of up to 5,000 cells drawn at random, and fewer components where there are fewer
    cells or genes.
    """
    from scipy.spatial.distance import pdist
    from sklearn.decomposition import PCA

    random = np.random.default_rng([seed, 2])
    chosen = np.sort(random.permutation(rows)[:FITTED_CELLS])
    expression = log_normalised(sp.csr_matrix(counts[chosen]))
    n_components = max(1, min(COMPONENTS, min(expression.shape) - 1))
    pca = PCA(n_components, svd_solver="arpack", random_state=seed).fit(expression)
    space = CellSpace(np.asarray(pca.mean_), np.asarray(pca.components_), 1.0)
    some = np.sort(random.permutation(len(chosen))[:SCALE_CELLS])
    distance = float(np.median(pdist(expression[some] @ space.components.T)))
    return CellSpace(space.mean, space.components, distance if distance > 0 else 1.0)


def nearest_others(coordinates: FloatArray, cells: IndexArray, among: IndexArray, n: int) -> IndexArray:
    """The ``n`` nearest of some cells, ``among``, to each of other cells, itself left out, (cells, n).

    Of a cell among copies of itself, the furthest one that is found is left out.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=n + 1).fit(coordinates[among])  # one more: a cell is its own nearest
    found = among[search.kneighbors(coordinates[cells], return_distance=False)]
    itself = found == cells[:, None]
    itself[~itself.any(axis=1), -1] = True
    return np.asarray(found[~itself].reshape(len(cells), n))
