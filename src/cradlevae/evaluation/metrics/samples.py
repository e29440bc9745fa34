"""Samples of cells that metrics of kind ``"cells"`` compare, with the distances of all cells they are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from cradlevae.data.moments import expression_blocks
from cradlevae.evaluation.metrics.distances import gaussian_kernel, pairwise_distances
from cradlevae.evaluation.metrics.pca_space import CellSpace
from cradlevae.utils.types import FloatArray, IndexArray, IntArray


@dataclass(frozen=True)
class CellPool:
    """The cells that samples are drawn from: what several samples need is computed once, here.

    Attributes
    ----------
    counts
        Raw counts, (cells, genes).
    space
        Space in which cells are compared, made of training cells.
    groups
        Group of each cell, (cells,): cells of one group agree in batch and context; by default all are of one.
    """

    counts: sp.csr_matrix
    space: CellSpace
    groups: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if len(self.groups) != self.counts.shape[0]:
            object.__setattr__(self, "groups", np.zeros(self.counts.shape[0], dtype=np.int64))

    @cached_property
    def coordinates(self) -> FloatArray:
        """Principal components of the cells' log-normalised expression, (cells, components)."""
        return self.space.project(self.counts)

    @cached_property
    def expression(self) -> sp.csr_matrix:
        """log2(1 + 1e4·x/Σx), (cells, genes), sparse."""
        return sp.csr_matrix(sp.vstack([block for _, block in expression_blocks(self.counts)]))

    @cached_property
    def distances(self) -> FloatArray:
        """Euclidean distance of every two cells of a group, (cells, cells); 0 for cells of different groups."""
        return self._within(pairwise_distances(self.coordinates))

    @cached_property
    def kernel(self) -> FloatArray:
        """Mean of the Gaussian kernels of the space of every two cells of a group, (cells, cells); else 0."""
        return self._within(gaussian_kernel(self.distances, self.space.precisions))

    def _within(self, values: FloatArray) -> FloatArray:
        """Values of every two cells, without those of cells of different groups, in place."""
        if (self.groups != self.groups[:1]).any():
            values[self.groups[:, None] != self.groups] = 0.0
        return values


@dataclass(frozen=True)
class SampleSeries:
    """Samples of one size and kind, drawn from a pool again and again.

    Attributes
    ----------
    pool
        Cells that they are drawn from.
    membership
        1 for the cells of a sample, else 0, (samples, cells).
    """

    pool: CellPool
    membership: FloatArray

    @cached_property
    def mean_expression(self) -> FloatArray:
        """Mean log2 expression of each sample, (samples, genes)."""
        size = int(self.membership[0].sum())
        return np.asarray((self.pool.expression.T @ self.membership.T).T / size)

    @cached_property
    def summed_distances(self) -> FloatArray:
        """Sum of the distances of every cell of the pool to those of its group in each sample, (samples, cells)."""
        return self.membership @ self.pool.distances

    @cached_property
    def summed_kernel(self) -> FloatArray:
        """The same sums of the kernel, (samples, cells)."""
        return self.membership @ self.pool.kernel

    def __getitem__(self, number: int) -> CellSample:
        return CellSample(self, number)


@dataclass(frozen=True)
class CellSample:
    """A sample of cells: what a metric of kind ``"cells"`` is given.

    Attributes
    ----------
    series
        Samples among which it is one.
    number
        Its place among them.
    """

    series: SampleSeries
    number: int

    @property
    def membership(self) -> FloatArray:
        """1 for the cells of the sample, else 0, (cells of the pool,)."""
        return np.asarray(self.series.membership[self.number])

    @property
    def rows(self) -> IndexArray:
        """Places of its cells in the pool, ascending."""
        return np.flatnonzero(self.membership)

    @property
    def groups(self) -> IntArray:
        """Group of each of its cells, (cells,): cells of one group agree in batch and context."""
        return np.asarray(self.series.pool.groups[self.rows])

    @property
    def coordinates(self) -> FloatArray:
        """Principal components of its cells' log-normalised expression, (cells, components)."""
        return np.asarray(self.series.pool.coordinates[self.rows])

    @property
    def expression(self) -> sp.csr_matrix:
        """log2(1 + 1e4·x/Σx) of its cells, (cells, genes), sparse."""
        return self.series.pool.expression[self.rows]

    @property
    def counts(self) -> sp.csr_matrix:
        """Raw counts of its cells, (cells, genes)."""
        return self.series.pool.counts[self.rows]

    @property
    def mean_expression(self) -> FloatArray:
        """Mean log2 expression of its cells, (genes,)."""
        return np.asarray(self.series.mean_expression[self.number])

    @property
    def summed_distances(self) -> FloatArray:
        """Sum of the distances of every cell of the pool to those of its group here, (cells of the pool,)."""
        return np.asarray(self.series.summed_distances[self.number])

    @property
    def summed_kernel(self) -> FloatArray:
        """The same sums of the kernel, (cells of the pool,)."""
        return np.asarray(self.series.summed_kernel[self.number])
