"""The counts of all cells on the device that trains, so that no training step waits until counts are copied.

A positive count takes 4 bytes where genes and counts are below 32,768 (8 bytes otherwise). For each minibatch the
host sends one short list of integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.minibatch import Minibatch, shared_rows
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.errors import DataError
from cradlevae.utils.accelerator import copies_overlap, free_memory
from cradlevae.utils.types import Float32Array, IndexArray, IntArray

if TYPE_CHECKING:
    import torch

FREE_SHARE = 0.5
"""Share of a device's free memory that the counts may take; the model and its gradients need the rest."""


class DeviceCells:
    """The cells of an experiment on a device.

    Parameters
    ----------
    data
        The experiment, with its counts in memory.
    device
        The device that receives the cells.
    """

    def __init__(self, data: Experiment, device: torch.device) -> None:
        import torch

        def move(array: npt.NDArray[Any]) -> torch.Tensor:
            return torch.tensor(array, device=device)

        self.device = device
        self.n_genes = data.n_genes
        counts = data.counts
        if isinstance(counts, StoredMatrix):
            raise DataError("the counts are on disk; to train with them on the device, read them: adata.to_memory()")
        self.values = move(counts.data.astype(_narrow(counts.data)))
        self.genes = move(counts.indices.astype(_narrow(counts.indices)))
        self.starts = counts.indptr.astype(np.int64)  # on the host
        self.first = move(self.starts)
        self.dosage = move(data.dosage)
        self.artifact = move(data.artifact)
        self.library_size = move(data.library_size)
        self.levels = move(data.levels) if data.varied else None

    @staticmethod
    def fits(data: Experiment, device: torch.device) -> bool:
        """Whether this is a device with enough free memory of its own for the counts."""
        if isinstance(data.counts, StoredMatrix):
            return False
        free = free_memory(device)
        if free is None:
            return False
        needed = data.counts.nnz * (_narrow(data.counts.data).itemsize + _narrow(data.counts.indices).itemsize)
        return bool(needed < FREE_SHARE * free)

    def counts(self, rows: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the ``n`` positive counts of these cells: values, genes, positions of the cells in ``rows``, (n,)."""
        import torch

        first = self.first[rows]
        lengths = self.first[rows + 1] - first
        place = torch.arange(len(rows), device=self.device)
        place = torch.repeat_interleave(place, lengths, output_size=n)  # the size is given, so that nothing waits
        shift = first - (lengths.cumsum(0) - lengths)  # how far from its place in the minibatch each cell's counts lie
        index = shift[place] + torch.arange(n, device=self.device)
        return self.values[index].float(), self.genes[index].long(), place

    def dense(self, rows: torch.Tensor, n: int) -> torch.Tensor:
        """Return the same counts as a dense array, (cells, genes)."""
        values, genes, place = self.counts(rows, n)
        out = values.new_zeros(len(rows) * self.n_genes)
        out[place * self.n_genes + genes] = values
        return out.view(len(rows), self.n_genes)


class DeviceMinibatches:
    """Minibatches of cells that are on a device, with their references.

    Parameters
    ----------
    cells
        The cells on the device.
    data
        The experiment that they belong to.
    references
        Reference profiles of the counterfactuals; ``None`` leaves them out.
    """

    def __init__(
        self, cells: DeviceCells, data: Experiment, references: CounterfactualReferences | None = None
    ) -> None:
        import torch

        self._cells = cells
        self._data = data
        self._references = references
        every = np.arange(data.n_cells)
        flipped = 1 - data.artifact if references is None else references.flipped(every)
        self._flipped_on_host = flipped
        self._flipped = torch.tensor(flipped, device=cells.device)
        profiles = np.zeros((0, data.n_genes), dtype=np.float32) if references is None else references.profiles
        self._profiles = torch.tensor(profiles, device=cells.device)

    @property
    def device(self) -> torch.device:
        """The device that holds the cells."""
        return self._cells.device

    def minibatch(self, rows: IndexArray) -> Minibatch:
        """Return the minibatch of these cells, in this order: the same as :func:`.make_minibatch` returns."""
        import torch

        cells, references = self._cells, self._references
        starts = self._starts(rows)
        used, condition = np.unique(self._data.condition[rows], return_inverse=True)
        chosen, reference = np.zeros(0, dtype=np.int64), np.full(len(rows), -1)
        if references is not None:
            chosen, reference = references.choose(rows)
        data = self._data
        shared = shared_rows(data.dosage[used], data.artifact[rows], reference, self._flipped_on_host[rows])
        on_device, used_on, condition_on, chosen_on, reference_on, treatments, failed, twin, twin_cells = self._send(
            rows, used, condition, chosen, reference, shared.treatments, shared.failed, shared.twin, shared.twin_cells
        )
        if references is not None and references.of_cells:
            profiles = cells.dense(chosen_on, int(self._starts(chosen)[-1]))
        else:
            profiles = self._profiles[chosen_on]
        values, genes, _ = cells.counts(on_device, int(starts[-1]))
        return Minibatch(
            values=values,
            genes=genes,
            starts=torch.from_numpy(starts),
            n_genes=cells.n_genes,
            dosage=cells.dosage[used_on],
            condition=condition_on,
            artifact=cells.artifact[on_device],
            library_size=cells.library_size[on_device],
            references=profiles,
            reference=reference_on,
            flipped=self._flipped[on_device],
            treatments=treatments,
            treatment_dosage=self._sent(shared.treatment_dosage),
            failed=failed,
            failed_weight=self._sent(shared.failed_weight),
            twin=twin,
            twin_cells=twin_cells,
            levels=None if cells.levels is None else cells.levels[on_device],
            reference_levels=None if cells.levels is None else self._levels_of(chosen),
        )

    def _levels_of(self, chosen: IntArray) -> torch.Tensor:
        """Return the share of each level among the cells of references, (references, levels)."""
        shares = np.zeros((0, 0), np.float32) if self._references is None else self._references.levels_of(chosen)
        return self._sent(shares)

    def _sent(self, array: Float32Array) -> torch.Tensor:
        """Send an array to the device."""
        import torch

        device = self._cells.device
        return torch.from_numpy(array).to(device, non_blocking=copies_overlap(device))

    def _starts(self, rows: IntArray) -> IntArray:
        """Return where each cell's counts start in a minibatch of these cells, and their number, (cells + 1,)."""
        first = self._cells.starts
        return np.concatenate([[0], np.cumsum(first[rows + 1] - first[rows], dtype=np.int64)])

    def _send(self, *parts: IntArray) -> tuple[torch.Tensor, ...]:
        """Send arrays of integers to the device in one copy, without waiting for it where that can be."""
        import torch

        packed, device = torch.from_numpy(np.concatenate(parts)), self._cells.device
        overlap = copies_overlap(device)
        moved = (packed.pin_memory() if overlap else packed).to(device, non_blocking=overlap)
        return torch.split(moved, [len(part) for part in parts])


def _narrow(numbers: npt.NDArray[Any]) -> np.dtype[Any]:
    """Return the smallest integer type of torch that holds these non-negative whole numbers."""
    most = numbers.max(initial=0)
    return np.dtype(np.int16 if most < 2**15 else np.int32 if most < 2**31 else np.int64)
