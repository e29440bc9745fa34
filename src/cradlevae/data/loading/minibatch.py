"""A minibatch of cells as tensors, straight from the CSR matrix, with the references of their counterfactuals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.padding import ROUND, rounded_up
from cradlevae.utils.types import Float32Array, IndexArray, IntArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Minibatch:
    """A minibatch of cells as tensors.

    Attributes
    ----------
    values, genes, starts
        Counts as CSR: positive counts, their genes, and where each cell's start (on the CPU).
    n_genes
        Number of genes.
    dosage
        Dosage of the conditions in the minibatch, (conditions, perturbations).
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
    treatments, treatment_dosage, failed, failed_weight, twin, twin_cells
        See :class:`Places`.
    whole
        Cells of the minibatch that these are a process's part of; 0 where they are the minibatch.
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
    treatments: torch.Tensor
    treatment_dosage: torch.Tensor
    failed: torch.Tensor
    failed_weight: torch.Tensor
    twin: torch.Tensor
    twin_cells: torch.Tensor
    whole: int = 0

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.condition)

    def to(self, device: Any, non_blocking: bool = False) -> Minibatch:
        """The same minibatch on another device (``starts`` stays on the CPU)."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in (
                "values", "genes", "dosage", "condition", "artifact", "library_size",
                "references", "reference", "flipped", "treatments", "treatment_dosage", "failed", "failed_weight",
                "twin", "twin_cells",
            )
        }  # fmt: skip
        return replace(self, **moved)


@dataclass(frozen=True)
class Places:
    """Where the cells of a minibatch share something, which is then computed once.

    Numbers of rows are rounded up (:mod:`cradlevae.data.loading.padding`); the rows that are added count for nothing.

    Attributes
    ----------
    treatments
        Perturbations that occur, (treatments,).
    treatment_dosage
        Dosage of the treatments in the conditions of the minibatch, (conditions, treatments).
    failed
        Cells with an artifact, (failed,).
    failed_weight
        1, and 0 for those added, (failed,).
    twin
        Counterfactual of each cell, (cells,); cells of equal reference and flipped artifact share it.
    twin_cells
        A cell of each counterfactual, (counterfactuals,).
    """

    treatments: IntArray
    treatment_dosage: Float32Array
    failed: IntArray
    failed_weight: Float32Array
    twin: IntArray
    twin_cells: IntArray


def shared_places(
    dosage: Float32Array,
    artifact: Float32Array,
    reference: IntArray,
    flipped: Float32Array,
) -> Places:
    """The places of a minibatch; arguments as in :class:`Minibatch`."""
    treatments = np.flatnonzero((dosage != 0).any(axis=0))
    failed = np.flatnonzero(artifact.any(axis=1))
    _, one, twin = np.unique(reference * 2 + (flipped != 0).any(axis=1), return_index=True, return_inverse=True)
    padded_treatments = rounded_up(treatments)
    treatment_dosage = np.zeros((-(-len(dosage) // ROUND) * ROUND, len(padded_treatments)), dtype=np.float32)
    treatment_dosage[: len(dosage), : len(treatments)] = dosage[:, treatments]
    rounded_failed = rounded_up(failed)
    weight = (np.arange(len(rounded_failed)) < len(failed)).astype(np.float32)
    return Places(
        padded_treatments,
        treatment_dosage,
        rounded_failed,
        weight,
        twin.astype(np.int64),
        rounded_up(one.astype(np.int64)),
    )


def make_minibatch(
    data: Experiment,
    rows: IndexArray,
    references: CounterfactualReferences | None = None,
    counts: sp.csr_matrix | None = None,
) -> Minibatch:
    """The minibatch of these cells, in this order; ``counts`` are theirs, where they have been read."""
    import torch

    csr = sp.csr_matrix(data.counts[rows]) if counts is None else counts
    used, condition = np.unique(data.condition[rows], return_inverse=True)
    if references is None:
        profiles = np.zeros((0, data.n_genes), dtype=np.float32)
        reference, flipped = np.full(len(rows), -1, dtype=np.int64), 1 - data.artifact[rows]
    else:
        profiles, reference, flipped = references.of(rows)
    places = shared_places(data.dosage[used], data.artifact[rows], reference, flipped)
    return Minibatch(
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
        treatments=torch.from_numpy(places.treatments),
        treatment_dosage=torch.from_numpy(places.treatment_dosage),
        failed=torch.from_numpy(places.failed),
        failed_weight=torch.from_numpy(places.failed_weight),
        twin=torch.from_numpy(places.twin),
        twin_cells=torch.from_numpy(places.twin_cells),
    )
