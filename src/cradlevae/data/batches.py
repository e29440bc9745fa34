"""Batches of cells straight from the CSR matrix, with the reference profiles of their counterfactuals.

Nothing here is cells × genes but the batch at hand: the counts stay sparse, and reference profiles (what cells of the
same perturbation but of the other artifact class look like) are held per (condition, class).
"""

from __future__ import annotations

from collections.abc import Iterator
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
                "references", "reference", "flipped",
            )
        }  # fmt: skip
        return replace(self, **moved)


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
        self._generator = np.random.default_rng(seed)
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
                self._profiles[group] = self._median(cells)
        if kind == "mean":
            self._profiles = group_sums(data.counts, rows, code, n_groups, "averaging reference profiles")
            self._profiles /= np.maximum(np.diff(bounds), 1)[:, None].astype(np.float32)

    def set_epoch(self, epoch: int) -> None:
        """Draw random cells by the seed and the epoch, whatever came before."""
        self._generator = np.random.default_rng([self._seed, epoch])

    def _median(self, cells: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        chosen = self._generator.permutation(cells)[:MEDIAN_CELLS]
        return np.asarray(np.median(self._data.counts[np.sort(chosen)].toarray(), axis=0), dtype=np.float32)

    def of(
        self, rows: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """References of these cells: profiles, row of the profiles per cell (−1: none), flipped artifact indicator."""
        data = self._data
        failed = data.failed[rows]
        other = ~failed if self._opposite else np.ones_like(failed)
        group = data.condition[rows] * 2 + other
        sizes = np.array([len(cells) for cells in self._members])
        present = sizes[group] > 0
        flipped = 1 - data.artifact[rows]
        if len(data.criteria) > 1:  # no real cell fails the exact complement: take what its references fail
            flipped = np.where(failed[:, None], 0.0, self._artifact[data.condition[rows] * 2 + 1])
        if self._kind == "cell":
            drawn = (self._generator.random(len(rows)) * sizes[group]).astype(np.int64)
            cells = [self._members[g][d] for g, d, p in zip(group, drawn, present, strict=True) if p]
            profiles = data.counts[np.array(cells, dtype=np.int64)].toarray()
            reference = np.where(present, np.cumsum(present) - 1, -1)
        else:
            used, reference = np.unique(group, return_inverse=True)
            profiles = self._profiles[used]
            reference = np.where(present, reference, -1)
        return profiles, reference.astype(np.int64), flipped.astype(np.float32)


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
    ) -> None:
        self._data = data
        self._rows = rows
        self._batch_size = batch_size
        self._references = references
        self._shuffle = shuffle
        self._seed = seed
        self._epoch = 0

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
        return make_batch(self._data, rows, self._references)

    def made(self) -> Iterator[Batch]:
        """The batches themselves."""
        if not isinstance(self._data.counts, StoredMatrix):
            for rows in self:
                yield self[rows]
            return
        for pool in prefetch(self._pools(self._data.counts), 1):
            yield from pool.batches(self._data, self._references)

    def _order(self) -> npt.NDArray[np.intp]:
        """The cells in the order of this epoch."""
        if not self._shuffle:
            return self._rows
        generator = np.random.default_rng([self._seed, self._epoch])
        if isinstance(self._data.counts, StoredMatrix):
            return pooled(self._rows, self._pool_batches(self._data.counts) * self._batch_size, generator)
        return generator.permutation(self._rows)

    def _pool_batches(self, counts: StoredMatrix) -> int:
        """How many batches are read together."""
        return max(1, int(POOL_VALUES / max(1.0, counts.per_cell)) // self._batch_size)

    def _pools(self, counts: StoredMatrix) -> Iterator[_Pool]:
        batches = iter(self)
        while parts := list(islice(batches, self._pool_batches(counts))):
            rows = np.sort(np.concatenate(parts))
            yield _Pool(parts, rows, counts[rows])


@dataclass(frozen=True)
class _Pool:
    """Batches that are read together: the cells of each, those of all, ascending, and their counts."""

    parts: list[npt.NDArray[np.intp]]
    rows: npt.NDArray[np.intp]
    counts: sp.csr_matrix

    def batches(self, data: Experiment, references: References | None) -> Iterator[Batch]:
        for rows in self.parts:
            yield make_batch(data, rows, references, sp.csr_matrix(self.counts[np.searchsorted(self.rows, rows)]))


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
    )
