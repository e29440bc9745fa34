"""Reference profiles of counterfactuals: the counts of cells with the same condition but the other artifact class."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.padding import rounded_up
from cradlevae.data.storage.stored_matrix import group_sums
from cradlevae.utils.types import Float32Array, IndexArray, IntArray

ReferenceKind = Literal["mean", "median", "cell"]
"""How the cells of one condition and class give its reference: by their mean, their median, or one random cell.

Where the counts are on disk, the random cells are read one by one for each minibatch. This takes about as long as
reading the minibatch itself.
"""

MEDIAN_CELLS = 50
"""Largest number of random cells that a median profile is computed from (the published choice)."""


class CounterfactualReferences:
    """Reference profiles of each condition and class, computed from the cells of one part of the split.

    Parameters
    ----------
    data
        The experiment.
    rows
        Positions of the cells that the references are computed from, ascending.
    kind
        How a reference is computed; see :data:`ReferenceKind`.
    opposite
        Whether a cell's reference is of the opposite artifact class; if not, it is always of failed cells (as
        published).
    seed
        Seed of the random choice of cells.
    """

    def __init__(
        self,
        data: Experiment,
        rows: IndexArray,
        *,
        kind: ReferenceKind = "mean",
        opposite: bool = True,
        seed: int = 0,
    ) -> None:
        self._data = data
        self._kind = kind
        self._opposite = opposite
        self._seed = seed
        generator = np.random.default_rng(seed)
        code = data.condition[rows] * 2 + data.failed[rows]
        order = np.argsort(code, kind="stable")
        n_groups = 2 * len(data.conditions)
        bounds = np.searchsorted(code[order], np.arange(n_groups + 1))
        self._cells_of_group = [rows[order[bounds[g] : bounds[g + 1]]] for g in range(n_groups)]
        self._artifact = np.zeros((n_groups, len(data.criteria)), dtype=np.float32)
        self._profiles = np.zeros((n_groups if kind == "median" else 0, data.n_genes), dtype=np.float32)
        for group, cells in enumerate(self._cells_of_group):
            if len(cells) == 0:
                continue
            self._artifact[group] = data.artifact[cells].mean(axis=0)
            if kind == "median":
                self._profiles[group] = self._median(cells, generator)
        if kind == "mean":
            self._profiles = group_sums(data.counts, rows, code, n_groups, "averaging reference profiles")
            self._profiles /= np.maximum(np.diff(bounds), 1)[:, None].astype(np.float32)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the random reference of every cell anew; the draw depends on the seed and the epoch only."""
        if self._kind == "cell":
            generator = np.random.default_rng([self._seed, epoch])
            self._uniform = generator.random(self._data.n_cells, dtype=np.float32)

    def _median(self, cells: IndexArray, generator: np.random.Generator) -> Float32Array:
        """Compute the median profile of a random sample of these cells, (genes,)."""
        chosen = generator.permutation(cells)[:MEDIAN_CELLS]
        return np.asarray(np.median(self._data.counts[np.sort(chosen)].toarray(), axis=0), dtype=np.float32)

    @property
    def profiles(self) -> Float32Array:
        """Reference profiles, two rows per condition (passing, failed cells); none where cells are the references."""
        return self._profiles

    @property
    def of_cells(self) -> bool:
        """Whether single cells are the references."""
        return self._kind == "cell"

    def of_rows(self, rows: IndexArray) -> tuple[Float32Array, IntArray, Float32Array]:
        """Return the references of these cells.

        Returns
        -------
        profiles
            Reference profiles, (references, genes).
        reference
            Row of ``profiles`` for each cell, −1 where it has none, (cells,).
        flipped
            Artifact indicator of each cell's counterfactual, (cells, classes).
        """
        chosen, reference = self.choose(rows)
        profiles = self._data.counts[chosen].toarray() if self.of_cells else self._profiles[chosen]
        return profiles, reference, self.flipped(rows)

    def choose(self, rows: IndexArray) -> tuple[IntArray, IntArray]:
        """Return which rows of :attr:`profiles` (or of the counts) these cells need, and which of these each cell has.

        The second array is (cells,); −1 stands for a cell without a reference.
        """
        failed = self._data.failed[rows]
        other = ~failed if self._opposite else np.ones_like(failed)
        group = self._data.condition[rows] * 2 + other
        sizes = np.array([len(cells) for cells in self._cells_of_group])
        present = sizes[group] > 0
        if self.of_cells:
            drawn = (self._uniform[rows].astype(np.float64) * sizes[group]).astype(np.int64)
            cells = [self._cells_of_group[g][d] for g, d, p in zip(group, drawn, present, strict=True) if p]
            chosen, reference = np.array(cells, dtype=np.int64), np.cumsum(present) - 1
        else:
            chosen, reference = np.unique(group, return_inverse=True)
            chosen = rounded_up(chosen if present.any() else chosen[:0])
        return chosen, np.where(present, reference, -1).astype(np.int64)

    def flipped(self, rows: IndexArray) -> Float32Array:
        """Return the artifact indicator of these cells' counterfactuals, (cells, classes)."""
        data = self._data
        flipped = 1 - data.artifact[rows]
        if len(data.criteria) > 1:  # no real cell fails the exact complement: take what its references fail
            flipped = np.where(data.failed[rows, None], 0.0, self._artifact[data.condition[rows] * 2 + 1])
        return flipped.astype(np.float32)
