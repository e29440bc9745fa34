"""Counterfactual pairs: passing cells, and copies of them that are damaged anew in every minibatch.

A cell and its damaged copy are the same cell, and how it would look undamaged is known. The pairs of a minibatch depend
on the seed, the epoch and the cells of the minibatch alone; every process draws those of the whole minibatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cradlevae.data.damage.copies import damaged_copies
from cradlevae.data.damage.operators import Surroundings
from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.shard import Shard
from cradlevae.data.storage.stored_matrix import cells_within
from cradlevae.utils.types import BoolArray, Float32Array, IndexArray

if TYPE_CHECKING:
    import torch

MOST_CELLS = 20_000
MOST_VALUES = 20_000_000
"""At most so many cells, of so many positive counts, are copied; where there are more, they are drawn at random."""


@dataclass(frozen=True)
class PairBatch:
    """Cells and their damaged copies, as tensors.

    Attributes
    ----------
    counts
        Undamaged counts, (pairs, genes).
    damaged
        Counts of the damaged copies, (pairs, genes).
    kind
        Which of the model's damages each copy has suffered, (pairs,).
    severity
        How hard, from 0 to 1, (pairs,).
    parent
        Condition of the cell that was added, (pairs,); −1 where there is none.
    treatments, treatment_dosage, condition
        Treatments of the cells; their dosages by condition, (conditions, treatments); the condition of each, (pairs,).
    levels
        Levels (batch, covariates, context) of the cells, (pairs, columns); ``None`` is no column.
    whole, first, n_own
        Number of pairs of the whole minibatch, where several processes share it; which of them is the first here; and
        how many count here (none, where a process without a part computes the first one).
    """

    counts: torch.Tensor
    damaged: torch.Tensor
    kind: torch.Tensor
    severity: torch.Tensor
    parent: torch.Tensor
    treatments: torch.Tensor
    treatment_dosage: torch.Tensor
    condition: torch.Tensor
    levels: torch.Tensor | None
    whole: int
    first: int
    n_own: int

    def to(self, device: Any, non_blocking: bool = False) -> PairBatch:
        """Return the same pairs on another device."""
        moved = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if hasattr(value := getattr(self, field.name), "to")
        }
        return replace(self, **moved)


class CounterfactualPairs:
    """Makes the pairs of every minibatch.

    Parameters
    ----------
    data
        The experiment.
    rows
        Cells of a part of the split, ascending; those that passed quality control are copied.
    damages
        Keys of the damage operators.
    share
        Number of pairs of a minibatch, as a share of its cells.
    pools
        Profiles of ambient RNA that failed cells show, (pools, genes).
    retained
        Genes whose RNA a leaking cell retains, (genes,).
    seed
        Seed of everything random.
    """

    def __init__(
        self,
        data: Experiment,
        rows: IndexArray,
        *,
        damages: Sequence[str],
        share: float,
        pools: Float32Array,
        retained: BoolArray,
        seed: int = 0,
    ) -> None:
        self._data, self._damages, self._share, self._seed = data, tuple(damages), share, seed
        self._pools, self._retained, self._epoch = pools, retained, 0
        passing = rows[~data.failed[rows]]
        random = np.random.default_rng(seed)
        most = cells_within(data.counts, MOST_CELLS, MOST_VALUES)
        if len(passing) > most:
            passing = np.sort(random.permutation(passing)[:most])
        self._rows = passing
        self._counts = sp.csr_matrix(data.counts[passing])
        total = np.asarray(self._counts.sum(axis=0), dtype=np.float64).ravel() + 0.1
        self._profile = total / total.sum()
        self._condition = data.plain[0][passing]

    def set_epoch(self, epoch: int) -> None:
        """Damage cells anew in this epoch."""
        self._epoch = epoch

    def of_minibatch(
        self,
        rows: IndexArray,
        shard: Shard = Shard(),  # noqa: B008 (frozen)
    ) -> PairBatch | None:
        """The pairs of a minibatch of these cells, or a process's part of them; ``None`` where no cell passed.

        Parameters
        ----------
        rows
            Cells of the whole minibatch.
        shard
            Which part of the pairs to return.
        """
        import torch

        n = max(1, round(self._share * len(rows)))
        if not len(self._rows):
            return None
        random = np.random.default_rng([self._seed, self._epoch, len(rows), int(rows[0]), int(rows[-1])])
        chosen, others = random.integers(len(self._rows), size=(2, n))
        counts = self._counts[chosen].toarray()
        around = Surroundings(self._counts[others].toarray(), self._profile, self._pools, self._retained)
        copies = damaged_copies(counts, around, self._damages, random)
        data, cells = self._data, self._rows[chosen]
        used, condition = np.unique(data.condition[cells], return_inverse=True)
        treatments = np.flatnonzero((data.dosage[used] != 0).any(axis=0))
        parent = np.where(copies.mixed, self._condition[others], -1)
        own, mine = shard.computed(n), shard.cells(n)
        return PairBatch(
            counts=torch.from_numpy(counts[own]),
            damaged=torch.from_numpy(copies.counts[own]),
            kind=torch.from_numpy(copies.kind[own]),
            severity=torch.from_numpy(copies.severity[own].astype(np.float32)),
            parent=torch.from_numpy(parent[own].astype(np.int64)),
            treatments=torch.from_numpy(treatments),
            treatment_dosage=torch.from_numpy(np.ascontiguousarray(data.dosage[used][:, treatments])),
            condition=torch.from_numpy(condition[own].astype(np.int64)),
            levels=torch.from_numpy(data.levels[cells][own]) if data.varied else None,
            whole=n,
            first=own.start,
            n_own=mine.stop - mine.start,
        )
