"""The minibatches of an epoch: cells in a random order, made ahead by a thread, in part by each of several processes.

Nothing here is cells × genes but the minibatch at hand: the counts stay sparse, in memory or on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.minibatch import Minibatch, make_minibatch
from cradlevae.data.loading.prefetch import prefetch
from cradlevae.data.loading.shuffle import pooled
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.utils.types import IndexArray

if TYPE_CHECKING:
    from cradlevae.data.loading.device_cells import DeviceCells, DeviceMinibatches

MINIBATCHES_AHEAD = 1
"""How many minibatches are made while one is computed with."""

POOL_VALUES = 3_000_000
"""How many stored values are read from disk together: 24 MB, and twice that while the next pool is read."""


@dataclass(frozen=True)
class Shard:
    """Which part of every minibatch a process takes: the ``rank``-th of ``n``.

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
        """Its cells of a minibatch of ``n_cells``."""
        return slice(n_cells * self.rank // self.n, n_cells * (self.rank + 1) // self.n)

    def computed(self, n_cells: int) -> slice:
        """The cells that it computes on: its own, or the first where it has none, for it cannot sit a step out."""
        own = self.cells(n_cells)
        return own if own.start < own.stop else slice(0, 1)


class Minibatches:
    """Minibatches over chosen cells, shuffled anew in each epoch or in their order.

    Iterating gives the rows of each minibatch; indexing with such rows gives the minibatch. :meth:`loader` puts both
    together and makes the next minibatches in a thread. Counts on disk are shuffled by
    :func:`~cradlevae.data.loading.shuffle.pooled` and read a pool of minibatches at a time.

    Parameters
    ----------
    data
        The experiment.
    rows
        The cells to go through, ascending.
    batch_size
        Cells a minibatch.
    references
        Where the cells' references come from; ``None`` leaves them out.
    shuffle
        Whether to shuffle; the order depends on the seed and the epoch only.
    seed
        See ``shuffle``.
    shard
        Which part of each minibatch to give; the minibatches' rows are always those of the whole.
    """

    def __init__(
        self,
        data: Experiment,
        rows: IndexArray,
        batch_size: int,
        references: CounterfactualReferences | None = None,
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
        self._on_device: DeviceMinibatches | None = None
        self._epoch = 0

    def of(self, shard: Shard) -> Minibatches:
        """The same minibatches for another process."""
        other = copy(self)
        other._shard = shard
        return other

    def take_from(self, cells: DeviceCells) -> None:
        """From now on take the cells from a device, where the minibatches will be."""
        from cradlevae.data.loading.device_cells import DeviceMinibatches

        self._on_device = DeviceMinibatches(cells, self.data, self._references)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle, and draw references, as for this epoch (called by Lightning before each)."""
        self._epoch = epoch
        if self._references is not None:
            self._references.set_epoch(epoch)

    def loader(self) -> Loader:
        """The minibatches, made ahead of their use."""
        return Loader(self)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[IndexArray]:
        order = self._order()
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def __getitem__(self, rows: IndexArray) -> Minibatch:
        return self._batch(rows)

    def made(self) -> Iterator[Minibatch]:
        """The minibatches themselves."""
        if not isinstance(self.data.counts, StoredMatrix):
            for rows in self:
                yield self[rows]
            return
        for pool in prefetch(self._pools(self.data.counts), 1):
            for rows in pool.parts:
                yield self._batch(rows, pool)

    def _batch(self, rows: IndexArray, pool: _Pool | None = None) -> Minibatch:
        own = rows[self._shard.computed(len(rows))]
        if self._on_device is not None:
            minibatch = self._on_device.minibatch(own)
        else:
            minibatch = make_minibatch(self.data, own, self._references, None if pool is None else pool.of(own))
        return replace(minibatch, whole=len(rows))

    def _order(self) -> IndexArray:
        """The cells in the order of this epoch."""
        if not self._shuffle:
            return self._rows
        generator = np.random.default_rng([self._seed, self._epoch])
        if isinstance(self.data.counts, StoredMatrix):
            return pooled(self._rows, self._pool_batches(self.data.counts) * self._batch_size, generator)
        return generator.permutation(self._rows)

    def _pool_batches(self, counts: StoredMatrix) -> int:
        """How many minibatches are read together."""
        return max(1, int(POOL_VALUES / max(1.0, counts.per_cell)) // self._batch_size)

    def _pools(self, counts: StoredMatrix) -> Iterator[_Pool]:
        minibatches = iter(self)
        while parts := list(islice(minibatches, self._pool_batches(counts))):
            rows = np.unique(np.concatenate([part[self._shard.computed(len(part))] for part in parts]))
            yield _Pool(parts, rows, counts[rows])


@dataclass(frozen=True)
class _Pool:
    """Minibatches that are read together: the cells of each, those that are read, ascending, and their counts."""

    parts: list[IndexArray]
    rows: IndexArray
    counts: sp.csr_matrix

    def of(self, rows: IndexArray) -> sp.csr_matrix:
        """Counts of some of the cells that are read, in this order."""
        return sp.csr_matrix(self.counts[np.searchsorted(self.rows, rows)])


class Loader:
    """What goes through the minibatches of :class:`Minibatches` once an epoch.

    Lightning takes it for a torch DataLoader: it tells ``sampler`` the epoch and asks for ``batch_sampler``.
    """

    batch_sampler = None

    def __init__(self, minibatches: Minibatches) -> None:
        self.sampler = minibatches

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Minibatch]:
        return prefetch(self.sampler.made(), MINIBATCHES_AHEAD)
