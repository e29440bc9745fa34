"""Reference profiles of counterfactuals: the counts of cells with the same condition but the other artifact class.

Where cells are of several batches, a reference comes from the same batch if that has such cells, else from all batches.
"""

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


MAX_VALUES = 32_000_000
"""Most values that the profiles of single batches may have; beyond, references are those of all batches."""


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
        Whether a cell's reference is of the opposite artifact class, and of its own batch where there are such cells;
        if not, it is always of failed cells (as published).
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
        n_pooled = 2 * len(data.conditions)
        self._batches = _Batches(data, code, rows, n_pooled) if opposite and data.varied else None
        if self._batches is not None and kind != "cell" and len(self._batches.keys) * data.n_genes > MAX_VALUES:
            self._batches = None  # so many profiles would take too much memory
        cells, sums_to = rows, code
        if self._batches is not None:  # the groups of single batches follow those of all
            cells, sums_to = np.tile(rows, 2), np.concatenate([code, self._batches.group])
        order = np.argsort(sums_to, kind="stable")
        n_groups = n_pooled + (0 if self._batches is None else len(self._batches.keys))
        bounds = np.searchsorted(sums_to[order], np.arange(n_groups + 1))
        self._cells_of_group = [cells[order[bounds[g] : bounds[g + 1]]] for g in range(n_groups)]
        self._artifact = np.zeros((n_pooled, len(data.criteria)), dtype=np.float32)
        self._profiles = np.zeros((n_groups if kind == "median" else 0, data.n_genes), dtype=np.float32)
        self._levels = np.zeros((n_groups, data.n_levels), dtype=np.float32)
        for group, members in enumerate(self._cells_of_group):
            if len(members) == 0:
                continue
            if group < n_pooled:
                self._artifact[group] = data.artifact[members].mean(axis=0)
            self._levels[group] = self._share_of_levels(members)
            if kind == "median":
                self._profiles[group] = self._median(members, generator)
        if kind == "mean":
            of_own = code if self._batches is None else self._batches.group
            self._profiles = group_sums(data.counts, rows, of_own, n_groups, "averaging reference profiles")
            if self._batches is not None:
                np.add.at(self._profiles, self._batches.pooled, self._profiles[n_pooled:])
            self._profiles /= np.maximum(np.diff(bounds), 1)[:, None].astype(np.float32)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the random reference of every cell anew; the draw depends on the seed and the epoch only."""
        if self._kind == "cell":
            generator = np.random.default_rng([self._seed, epoch])
            self._uniform = generator.random(self._data.n_cells, dtype=np.float32)

    def _share_of_levels(self, cells: IndexArray) -> Float32Array:
        """Share of each level among some cells, (levels,); those of a column sum to 1."""
        n_cells = np.bincount(self._data.levels[cells].ravel(), minlength=self._levels.shape[1])
        return (n_cells / len(cells)).astype(np.float32)

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

    def of_rows(self, rows: IndexArray) -> tuple[Float32Array, IntArray, Float32Array, Float32Array]:
        """Return the references of these cells.

        Returns
        -------
        profiles
            Reference profiles, (references, genes).
        reference
            Row of ``profiles`` for each cell, −1 where it has none, (cells,).
        flipped
            Artifact indicator of each cell's counterfactual, (cells, classes).
        levels
            Share of each level among the cells of each reference, (references, levels).
        """
        chosen, reference = self.choose(rows)
        profiles = self._data.counts[chosen].toarray() if self.of_cells else self._profiles[chosen]
        return profiles, reference, self.flipped(rows), self.levels_of(chosen)

    def levels_of(self, chosen: IntArray) -> Float32Array:
        """Return the share of each level among the cells of what :meth:`choose` has chosen, (references, levels)."""
        if not self.of_cells:
            return self._levels[chosen]
        shares = np.zeros((len(chosen), self._levels.shape[1]), dtype=np.float32)
        np.put_along_axis(shares, self._data.levels[chosen], 1.0, axis=1)
        return shares

    def choose(self, rows: IndexArray) -> tuple[IntArray, IntArray]:
        """Return which rows of :attr:`profiles` (or of the counts) these cells need, and which of these each cell has.

        The second array is (cells,); −1 stands for a cell without a reference.
        """
        failed = self._data.failed[rows]
        other = ~failed if self._opposite else np.ones_like(failed)
        group = self._data.condition[rows] * 2 + other
        if self._batches is not None:
            group = self._batches.own(group, rows)
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


class _Batches:
    """Groups of cells of one condition, class and batch, numbered on behind those of all batches.

    Parameters
    ----------
    data
        The experiment.
    code
        Group of each of ``rows`` among those of all batches, (rows,).
    rows
        The cells, ascending.
    n_pooled
        Number of groups of all batches.
    """

    def __init__(self, data: Experiment, code: IntArray, rows: IndexArray, n_pooled: int) -> None:
        self._strata, self._n_strata = data.strata, int(data.strata.max(initial=0)) + 1
        key = code * self._n_strata + self._strata[rows]
        self.keys, place = np.unique(key, return_inverse=True)
        self._n_pooled = n_pooled
        self.group = (n_pooled + place).astype(np.int64)
        self.pooled = (self.keys // self._n_strata).astype(np.int64)

    def own(self, group: IntArray, rows: IndexArray) -> IntArray:
        """The group of each cell's own batch where that has cells, else the one of all batches, (rows,)."""
        key = group * self._n_strata + self._strata[rows]
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return np.where(self.keys[place] == key, self._n_pooled + place, group)
