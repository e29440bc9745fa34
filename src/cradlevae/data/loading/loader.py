"""The minibatches of an epoch: cells in a random order, prepared by a thread, and shared by several processes.

The counts stay sparse, in memory or on disk; only the current minibatch becomes dense.
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
from cradlevae.data.loading.counterfactual_pairs import CounterfactualPairs
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.minibatch import Minibatch, make_minibatch
from cradlevae.data.loading.prefetch import prefetch
from cradlevae.data.loading.shard import Shard
from cradlevae.data.loading.shuffle import pooled
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.utils.accelerator import copies_overlap, usable_by_threads
from cradlevae.utils.types import IndexArray

if TYPE_CHECKING:
    from cradlevae.data.loading.device_cells import DeviceCells, DeviceMinibatches

MINIBATCHES_AHEAD = 1
"""How many minibatches are prepared while one is in use."""

POOL_VALUES = 3_000_000
"""How many counts are read from disk together: 24 MB, and twice that while the next pool is read."""


class Minibatches:
    """Minibatches over chosen cells, shuffled anew in each epoch or in their order.

    Iteration yields the rows of each minibatch; indexing with such rows returns the minibatch. :meth:`loader` combines
    both and prepares the next minibatches in a thread. Cells whose counts are on disk are shuffled by
    :func:`~cradlevae.data.loading.shuffle.pooled`, and a pool of minibatches is read at a time.

    Parameters
    ----------
    data
        The experiment.
    rows
        Positions of the cells to go through, ascending.
    batch_size
        Number of cells in a minibatch.
    references
        Reference profiles of the counterfactuals; ``None`` leaves them out.
    shuffle
        Whether to shuffle the cells; the order depends on the seed and the epoch only.
    seed
        Seed of the order.
    shard
        Which part of each minibatch to return; iteration always yields the rows of the whole minibatch.
    pairs
        Makes the counterfactual pairs of each minibatch; ``None`` leaves them out.
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
        shard: Shard = Shard(),  # noqa: B008 (frozen)
        pairs: CounterfactualPairs | None = None,
    ) -> None:
        self.data = data
        self._rows = rows
        self._batch_size = batch_size
        self._references = references
        self._pairs = pairs
        self._shuffle = shuffle
        self._seed = seed
        self._shard = shard
        self._on_device: DeviceMinibatches | None = None
        self._epoch = 0

    def for_shard(self, shard: Shard) -> Minibatches:
        """Return the same minibatches for another process."""
        other = copy(self)
        other._shard = shard
        return other

    def take_from(self, cells: DeviceCells) -> None:
        """From now on gather the minibatches on the device that holds these cells."""
        from cradlevae.data.loading.device_cells import DeviceMinibatches

        self._on_device = DeviceMinibatches(cells, self.data, self._references)

    @property
    def ahead(self) -> bool:
        """Whether a thread may prepare the minibatches: not where it would share the device that gathers them."""
        return self._on_device is None or usable_by_threads(self._on_device.device)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle the cells and draw the references of this epoch; Lightning calls it before each epoch."""
        self._epoch = epoch
        if self._references is not None:
            self._references.set_epoch(epoch)
        if self._pairs is not None and self._shuffle:
            self._pairs.set_epoch(epoch)

    def loader(self) -> Loader:
        """Return a loader that prepares the minibatches ahead of their use."""
        return Loader(self)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[IndexArray]:
        order = self._order()
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def __getitem__(self, rows: IndexArray) -> Minibatch:
        return self._minibatch(rows)

    def minibatches(self) -> Iterator[Minibatch]:
        """Yield the minibatches of an epoch."""
        if not isinstance(self.data.counts, StoredMatrix):
            for rows in self:
                yield self[rows]
            return
        for pool in prefetch(self._pools(self.data.counts), 1):
            for rows in pool.parts:
                yield self._minibatch(rows, pool)

    def _minibatch(self, rows: IndexArray, pool: _Pool | None = None) -> Minibatch:
        own = rows[self._shard.computed(len(rows))]
        if self._on_device is not None:
            minibatch = self._on_device.minibatch(own)
        else:
            minibatch = make_minibatch(self.data, own, self._references, None if pool is None else pool.counts_of(own))
        pairs = None if self._pairs is None else self._pairs.of_minibatch(rows, self._shard)
        if pairs is not None and self._on_device is not None:
            device = minibatch.values.device
            pairs = pairs.to(device, non_blocking=copies_overlap(device))
        return replace(minibatch, whole=len(rows), pairs=pairs)

    def _order(self) -> IndexArray:
        """Return the positions of the cells in the order of this epoch."""
        if not self._shuffle:
            return self._rows
        generator = np.random.default_rng([self._seed, self._epoch])
        if isinstance(self.data.counts, StoredMatrix):
            return pooled(self._rows, self._pool_size(self.data.counts) * self._batch_size, generator)
        return generator.permutation(self._rows)

    def _pool_size(self, counts: StoredMatrix) -> int:
        """Return how many minibatches are read from disk together."""
        return max(1, int(POOL_VALUES / max(1.0, counts.per_cell)) // self._batch_size)

    def _pools(self, counts: StoredMatrix) -> Iterator[_Pool]:
        minibatches = iter(self)
        while parts := list(islice(minibatches, self._pool_size(counts))):
            rows = np.unique(np.concatenate([part[self._shard.computed(len(part))] for part in parts]))
            yield _Pool(parts, rows, counts[rows])


@dataclass(frozen=True)
class _Pool:
    """Minibatches that are read together: the cells of each, all cells that are read (ascending), and their counts."""

    parts: list[IndexArray]
    rows: IndexArray
    counts: sp.csr_matrix

    def counts_of(self, rows: IndexArray) -> sp.csr_matrix:
        """Return the counts of some of these cells, in this order."""
        return sp.csr_matrix(self.counts[np.searchsorted(self.rows, rows)])


class Loader:
    """An iterable over the minibatches of :class:`Minibatches`, once per epoch.

    Lightning treats it as a torch DataLoader: it passes the epoch to ``sampler`` and looks for ``batch_sampler``.
    """

    batch_sampler = None

    def __init__(self, minibatches: Minibatches) -> None:
        self.sampler = minibatches

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Minibatch]:
        minibatches = self.sampler.minibatches()
        return prefetch(minibatches, MINIBATCHES_AHEAD) if self.sampler.ahead else minibatches
