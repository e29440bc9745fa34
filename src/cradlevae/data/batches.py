"""Batches of cells straight from the CSR matrix, with the reference profiles of their counterfactuals.

Nothing here is cells × genes but the batch at hand: the counts stay sparse, and reference profiles (what cells of the
same perturbation but of the other artifact class look like) are held per (condition, class).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cradlevae.data.contract import Experiment
from cradlevae.data.order import pooled
from cradlevae.data.prefetch import prefetch
from cradlevae.data.stored import StoredMatrix, group_sums

if TYPE_CHECKING:
    import torch

    from cradlevae.data.device import DeviceBatches, DeviceCells

ReferenceKind = Literal["mean", "median", "cell"]
"""How the cells of a (condition, class) become its reference: their mean, median, or one of them at random.

Of counts on disk, random cells are read one by one for each batch, which takes about as long as reading the batch.
"""

MEDIAN_CELLS = 50
"""At most so many random cells make a median profile (the published choice)."""


BATCHES_AHEAD = 1
"""How many batches are made while one is computed with."""

POOL_VALUES = 8_000_000
"""How many stored values are read from disk together: 64 MB, and twice that while the next pool is read."""


@dataclass(frozen=True)
class Shard:
    """Which part of every batch a process takes: the ``rank``-th of ``n``.

    Attributes
    ----------
    rank
        From 0.
    n
        Number of processes.
    """

    rank: int = 0
    n: int = 1

    def cells(self, n_cells: int) -> slice:
        """Its cells of a batch of ``n_cells``."""
        return slice(n_cells * self.rank // self.n, n_cells * (self.rank + 1) // self.n)

    def computed(self, n_cells: int) -> slice:
        """The cells that it computes on: its own, or the first where it has none, for it cannot sit a step out."""
        own = self.cells(n_cells)
        return own if own.start < own.stop else slice(0, 1)


@dataclass(frozen=True)
class Batch:
    """A batch of cells as tensors.

    Attributes
    ----------
    values, genes, starts
        Counts as CSR: positive counts, their genes, and where each cell's start (on the CPU).
    n_genes
        Number of genes.
    dosage
        Dosage of the conditions in the batch, (conditions, perturbations).
    condition
        Row of ``dosage`` per cell, (cells,).
    artifact
        Artifact indicator, (cells, classes).
    library_size
        Library sizes, (cells,).
    references
        Reference profiles, (references, genes).
    reference
        Row of ``references`` per cell, −1 where it has none, (cells,).
    flipped
        Artifact indicator of the counterfactual, (cells, classes).
    members, failed, twin, twin_cells
        What :func:`shared_places` finds.
    whole
        Cells of the batch that these are a process's part of; 0 where they are the batch.
    """

    values: torch.Tensor
    genes: torch.Tensor
    starts: torch.Tensor
    n_genes: int
    dosage: torch.Tensor
    condition: torch.Tensor
    artifact: torch.Tensor
    library_size: torch.Tensor
    references: torch.Tensor
    reference: torch.Tensor
    flipped: torch.Tensor
    members: torch.Tensor
    failed: torch.Tensor
    twin: torch.Tensor
    twin_cells: torch.Tensor
    whole: int = 0

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.condition)

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        """The same batch on another device (``starts`` stays on the CPU)."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in (
                "values", "genes", "dosage", "condition", "artifact", "library_size",
                "references", "reference", "flipped", "members", "failed", "twin", "twin_cells",
            )
        }  # fmt: skip
        return replace(self, **moved)


def shared_places(
    dosage: npt.NDArray[np.float32],
    artifact: npt.NDArray[np.float32],
    reference: npt.NDArray[np.int64],
    flipped: npt.NDArray[np.float32],
) -> dict[str, npt.NDArray[np.int64]]:
    """Where the cells of a batch share something, which is then computed once; arguments as in :class:`Batch`.

    Returns
    -------
    dict
        ``members``: perturbations that occur, ascending, (members,); ``failed``: cells with an artifact, ascending,
        (failed,); ``twin``: the counterfactual of each cell, (cells,), which cells of equal reference and flipped
        artifact share; ``twin_cells``: a cell of each counterfactual, (counterfactuals,).
    """
    _, one, twin = np.unique(reference * 2 + (flipped != 0).any(axis=1), return_index=True, return_inverse=True)
    return {
        "members": np.flatnonzero((dosage != 0).any(axis=0)),
        "failed": np.flatnonzero(artifact.any(axis=1)),
        "twin": twin.astype(np.int64),
        "twin_cells": one.astype(np.int64),
    }


class References:
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
        rows: npt.NDArray[np.intp],
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

    def _median(self, cells: npt.NDArray[np.intp], generator: np.random.Generator) -> npt.NDArray[np.float32]:
        chosen = generator.permutation(cells)[:MEDIAN_CELLS]
        return np.asarray(np.median(self._data.counts[np.sort(chosen)].toarray(), axis=0), dtype=np.float32)

    @property
    def profiles(self) -> npt.NDArray[np.float32]:
        """Reference profiles, two rows per condition (of passing, of failed cells); none where cells are references."""
        return self._profiles

    @property
    def of_cells(self) -> bool:
        """Whether single cells are the references."""
        return self._kind == "cell"

    def of(
        self, rows: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """References of these cells: profiles, row of the profiles per cell (−1: none), flipped artifact indicator."""
        chosen, reference = self.choose(rows)
        profiles = self._data.counts[chosen].toarray() if self.of_cells else self._profiles[chosen]
        return profiles, reference, self.flipped(rows)

    def choose(self, rows: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
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
            chosen = chosen if present.any() else chosen[:0]
        return chosen, np.where(present, reference, -1).astype(np.int64)

    def flipped(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Artifact indicator of these cells' counterfactuals, (cells, classes)."""
        data = self._data
        flipped = 1 - data.artifact[rows]
        if len(data.criteria) > 1:  # no real cell fails the exact complement: take what its references fail
            flipped = np.where(data.failed[rows, None], 0.0, self._artifact[data.condition[rows] * 2 + 1])
        return flipped.astype(np.float32)


class CellBatches:
    """Batches over chosen cells, shuffled anew in each epoch or in their order.

    Iterating gives the rows of each batch; indexing with such rows gives the batch. :meth:`loader` puts both together
    and makes the next batches in a thread. Counts on disk are shuffled by :func:`~cradlevae.data.order.pooled` and read
    a pool of batches at a time.

    Parameters
    ----------
    data
        The experiment.
    rows
        The cells to go through, ascending.
    batch_size
        Cells a batch.
    references
        Where the cells' references come from; ``None`` leaves them out.
    shuffle
        Whether to shuffle; the order depends on the seed and the epoch only.
    seed
        See ``shuffle``.
    shard
        Which part of each batch to give; the batches' rows are always those of the whole.
    """

    def __init__(
        self,
        data: Experiment,
        rows: npt.NDArray[np.intp],
        batch_size: int,
        references: References | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        shard: Shard = Shard(),
    ) -> None:
        self.data = data
        self._rows = rows
        self._batch_size = batch_size
        self._references = references
        self._shuffle = shuffle
        self._seed = seed
        self._shard = shard
        self._on_device: DeviceBatches | None = None
        self._epoch = 0

    def of(self, shard: Shard) -> CellBatches:
        """The same batches for another process."""
        other = copy(self)
        other._shard = shard
        return other

    def take_from(self, cells: DeviceCells) -> None:
        """From now on take the cells from a device, where the batches will be."""
        from cradlevae.data.device import DeviceBatches

        self._on_device = DeviceBatches(cells, self.data, self._references)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle, and draw references, as for this epoch (called by Lightning before each)."""
        self._epoch = epoch
        if self._references is not None:
            self._references.set_epoch(epoch)

    def loader(self) -> Loader:
        """The batches, made ahead of their use."""
        return Loader(self)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[npt.NDArray[np.intp]]:
        order = self._order()
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def __getitem__(self, rows: npt.NDArray[np.intp]) -> Batch:
        return self._batch(rows)

    def made(self) -> Iterator[Batch]:
        """The batches themselves."""
        if not isinstance(self.data.counts, StoredMatrix):
            for rows in self:
                yield self[rows]
            return
        for pool in prefetch(self._pools(self.data.counts), 1):
            for rows in pool.parts:
                yield self._batch(rows, pool)

    def _batch(self, rows: npt.NDArray[np.intp], pool: _Pool | None = None) -> Batch:
        own = rows[self._shard.computed(len(rows))]
        if self._on_device is not None:
            batch = self._on_device.batch(own)
        else:
            batch = make_batch(self.data, own, self._references, None if pool is None else pool.of(own))
        return replace(batch, whole=len(rows))

    def _order(self) -> npt.NDArray[np.intp]:
        """The cells in the order of this epoch."""
        if not self._shuffle:
            return self._rows
        generator = np.random.default_rng([self._seed, self._epoch])
        if isinstance(self.data.counts, StoredMatrix):
            return pooled(self._rows, self._pool_batches(self.data.counts) * self._batch_size, generator)
        return generator.permutation(self._rows)

    def _pool_batches(self, counts: StoredMatrix) -> int:
        """How many batches are read together."""
        return max(1, int(POOL_VALUES / max(1.0, counts.per_cell)) // self._batch_size)

    def _pools(self, counts: StoredMatrix) -> Iterator[_Pool]:
        batches = iter(self)
        while parts := list(islice(batches, self._pool_batches(counts))):
            rows = np.unique(np.concatenate([part[self._shard.computed(len(part))] for part in parts]))
            yield _Pool(parts, rows, counts[rows])


@dataclass(frozen=True)
class _Pool:
    """Batches that are read together: the cells of each, those that are read, ascending, and their counts."""

    parts: list[npt.NDArray[np.intp]]
    rows: npt.NDArray[np.intp]
    counts: sp.csr_matrix

    def of(self, rows: npt.NDArray[np.intp]) -> sp.csr_matrix:
        """Counts of some of the cells that are read, in this order."""
        return sp.csr_matrix(self.counts[np.searchsorted(self.rows, rows)])


class Loader:
    """What goes through the batches of :class:`CellBatches` once an epoch.

    Lightning takes it for a torch DataLoader: it tells ``sampler`` the epoch and asks for ``batch_sampler``.
    """

    batch_sampler = None

    def __init__(self, batches: CellBatches) -> None:
        self.sampler = batches

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        return prefetch(self.sampler.made(), BATCHES_AHEAD)


def make_batch(
    data: Experiment,
    rows: npt.NDArray[np.intp],
    references: References | None = None,
    counts: sp.csr_matrix | None = None,
) -> Batch:
    """The batch of these cells, in this order; ``counts`` are theirs, where they have been read."""
    import torch

    csr = sp.csr_matrix(data.counts[rows]) if counts is None else counts
    used, condition = np.unique(data.condition[rows], return_inverse=True)
    if references is None:
        profiles = np.zeros((0, data.n_genes), dtype=np.float32)
        reference, flipped = np.full(len(rows), -1, dtype=np.int64), 1 - data.artifact[rows]
    else:
        profiles, reference, flipped = references.of(rows)
    places = shared_places(data.dosage[used], data.artifact[rows], reference, flipped)
    return Batch(
        values=torch.from_numpy(csr.data),
        genes=torch.from_numpy(csr.indices.astype(np.int64)),
        starts=torch.from_numpy(csr.indptr.astype(np.int64)),
        n_genes=data.n_genes,
        dosage=torch.from_numpy(data.dosage[used]),
        condition=torch.from_numpy(condition.astype(np.int64)),
        artifact=torch.from_numpy(np.ascontiguousarray(data.artifact[rows])),
        library_size=torch.from_numpy(data.library_size[rows]),
        references=torch.from_numpy(profiles),
        reference=torch.from_numpy(reference),
        flipped=torch.from_numpy(flipped),
        members=torch.from_numpy(places["members"]),
        failed=torch.from_numpy(places["failed"]),
        twin=torch.from_numpy(places["twin"]),
        twin_cells=torch.from_numpy(places["twin_cells"]),
    )
