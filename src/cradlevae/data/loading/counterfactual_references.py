"""References of counterfactuals: what cells of the same perturbation but of the other artifact class look like."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.padding import rounded_up
from cradlevae.data.storage.stored_matrix import group_sums
from cradlevae.utils.types import Float32Array, IndexArray, IntArray

ReferenceKind = Literal["mean", "median", "cell"]
"""How the cells of a (condition, class) become its reference: their mean, median, or one of them at random.

Of counts on disk, random cells are read one by one for each minibatch, which takes about as long as reading the
minibatch.
"""

MEDIAN_CELLS = 50
"""At most so many random cells make a median profile (the published choice)."""


class CounterfactualReferences:
    """Reference profiles per (condition, class) of the cells of one split part.

    Parameters
    ----------
    data
        The experiment.
    rows
        The cells that references may be made of, ascending.
    kind
        How; see :data:`ReferenceKind`.
    opposite
        Whether a cell's reference is of the opposite artifact class; otherwise always of failed cells (as published).
    seed
        Seed of the random cells.
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
        self._members = [rows[order[bounds[g] : bounds[g + 1]]] for g in range(n_groups)]
        self._artifact = np.zeros((n_groups, len(data.criteria)), dtype=np.float32)
        self._profiles = np.zeros((n_groups if kind == "median" else 0, data.n_genes), dtype=np.float32)
        for group, cells in enumerate(self._members):
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
        """Draw every cell's random reference by the seed and the epoch, whatever is asked for in which order."""
        if self._kind == "cell":
            generator = np.random.default_rng([self._seed, epoch])
            self._uniform = generator.random(self._data.n_cells, dtype=np.float32)

    def _median(self, cells: IndexArray, generator: np.random.Generator) -> Float32Array:
        chosen = generator.permutation(cells)[:MEDIAN_CELLS]
        return np.asarray(np.median(self._data.counts[np.sort(chosen)].toarray(), axis=0), dtype=np.float32)

    @property
    def profiles(self) -> Float32Array:
        """Reference profiles, two rows per condition (of passing, of failed cells); none where cells are references."""
        return self._profiles

    @property
    def of_cells(self) -> bool:
        """Whether single cells are the references."""
        return self._kind == "cell"

    def of(self, rows: IndexArray) -> tuple[Float32Array, IntArray, Float32Array]:
        """References of these cells: profiles, row of the profiles per cell (−1: none), flipped artifact indicator."""
        chosen, reference = self.choose(rows)
        profiles = self._data.counts[chosen].toarray() if self.of_cells else self._profiles[chosen]
        return profiles, reference, self.flipped(rows)

    def choose(self, rows: IndexArray) -> tuple[IntArray, IntArray]:
        """Rows of :attr:`profiles`, or of the counts, that these cells need; and which of them each has (−1: none)."""
        failed = self._data.failed[rows]
        other = ~failed if self._opposite else np.ones_like(failed)
        group = self._data.condition[rows] * 2 + other
        sizes = np.array([len(cells) for cells in self._members])
        present = sizes[group] > 0
        if self.of_cells:
            drawn = (self._uniform[rows].astype(np.float64) * sizes[group]).astype(np.int64)
            cells = [self._members[g][d] for g, d, p in zip(group, drawn, present, strict=True) if p]
            chosen, reference = np.array(cells, dtype=np.int64), np.cumsum(present) - 1
        else:
            chosen, reference = np.unique(group, return_inverse=True)
            chosen = rounded_up(chosen if present.any() else chosen[:0])
        return chosen, np.where(present, reference, -1).astype(np.int64)

    def flipped(self, rows: IndexArray) -> Float32Array:
        """Artifact indicator of these cells' counterfactuals, (cells, classes)."""
        data = self._data
        flipped = 1 - data.artifact[rows]
        if len(data.criteria) > 1:  # no real cell fails the exact complement: take what its references fail
            flipped = np.where(data.failed[rows, None], 0.0, self._artifact[data.condition[rows] * 2 + 1])
        return flipped.astype(np.float32)
