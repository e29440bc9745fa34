"""A minibatch of cells as tensors, with the reference profiles of their counterfactuals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.counterfactual_pairs import PairBatch
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
        Counts in CSR form: the positive counts, their genes, and where the counts of each cell start (on the CPU).
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
        See :class:`SharedRows`.
    whole
        Number of cells of the whole minibatch, where several processes share it; 0 where this is the whole.
    levels
        Levels (batch, covariates, context) of the cells among all levels, (cells, columns); ``None`` is no column.
    reference_levels
        Share of each level among the cells of each reference, (references, levels); ``None`` is no column.
    pairs
        Counterfactual pairs, where the objective takes them.
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
    levels: torch.Tensor | None = None
    reference_levels: torch.Tensor | None = None
    pairs: PairBatch | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.condition)

    def to(self, device: Any, non_blocking: bool = False) -> Minibatch:
        """Return the same minibatch on another device (``starts`` stays on the CPU)."""
        moved: dict[str, Any] = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in (
                "values", "genes", "dosage", "condition", "artifact", "library_size",
                "references", "reference", "flipped", "treatments", "treatment_dosage", "failed", "failed_weight",
                "twin", "twin_cells",
            )
        }  # fmt: skip
        for name in ("levels", "reference_levels"):
            tensor = getattr(self, name)
            moved[name] = None if tensor is None else tensor.to(device, non_blocking=non_blocking)
        moved["pairs"] = None if self.pairs is None else self.pairs.to(device, non_blocking=non_blocking)
        return replace(self, **moved)


@dataclass(frozen=True)
class SharedRows:
    """What several cells of a minibatch have in common, so that the model computes it once.

    The numbers of rows are padded (:mod:`cradlevae.data.loading.padding`); the rows that are added have no influence.

    Attributes
    ----------
    treatments
        Treatments that occur in the minibatch, (treatments,).
    treatment_dosage
        Dosage of these treatments in the conditions of the minibatch, (conditions, treatments).
    failed
        Positions of the cells with an artifact, (failed,).
    failed_weight
        1 for the cells in ``failed``, 0 for the rows that are added, (failed,).
    twin
        Position of each cell's counterfactual, (cells,); cells with equal reference and flipped artifact share one.
    twin_cells
        Position of one cell of each counterfactual, (counterfactuals,).
    """

    treatments: IntArray
    treatment_dosage: Float32Array
    failed: IntArray
    failed_weight: Float32Array
    twin: IntArray
    twin_cells: IntArray


def shared_rows(
    dosage: Float32Array,
    artifact: Float32Array,
    reference: IntArray,
    flipped: Float32Array,
) -> SharedRows:
    """Find what the cells of a minibatch have in common; the arguments are those of :class:`Minibatch`."""
    treatments = np.flatnonzero((dosage != 0).any(axis=0))
    failed = np.flatnonzero(artifact.any(axis=1))
    _, first_cell, twin = np.unique(reference * 2 + (flipped != 0).any(axis=1), return_index=True, return_inverse=True)
    padded_treatments = rounded_up(treatments)
    treatment_dosage = np.zeros((-(-len(dosage) // ROUND) * ROUND, len(padded_treatments)), dtype=np.float32)
    treatment_dosage[: len(dosage), : len(treatments)] = dosage[:, treatments]
    padded_failed = rounded_up(failed)
    weight = (np.arange(len(padded_failed)) < len(failed)).astype(np.float32)
    return SharedRows(
        padded_treatments,
        treatment_dosage,
        padded_failed,
        weight,
        twin.astype(np.int64),
        rounded_up(first_cell.astype(np.int64)),
    )


def make_minibatch(
    data: Experiment,
    rows: IndexArray,
    references: CounterfactualReferences | None = None,
    counts: sp.csr_matrix | None = None,
) -> Minibatch:
    """Return the minibatch of these cells, in this order; ``counts`` are their counts, if these were read already."""
    import torch

    csr = sp.csr_matrix(data.counts[rows]) if counts is None else counts
    used, condition = np.unique(data.condition[rows], return_inverse=True)
    if references is None:
        profiles, of_references = np.zeros((0, data.n_genes), dtype=np.float32), np.zeros((0, 0), dtype=np.float32)
        reference, flipped = np.full(len(rows), -1, dtype=np.int64), 1 - data.artifact[rows]
    else:
        profiles, reference, flipped, of_references = references.of_rows(rows)
    shared = shared_rows(data.dosage[used], data.artifact[rows], reference, flipped)
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
        treatments=torch.from_numpy(shared.treatments),
        treatment_dosage=torch.from_numpy(shared.treatment_dosage),
        failed=torch.from_numpy(shared.failed),
        failed_weight=torch.from_numpy(shared.failed_weight),
        twin=torch.from_numpy(shared.twin),
        twin_cells=torch.from_numpy(shared.twin_cells),
        levels=torch.from_numpy(data.levels[rows]) if data.varied else None,
        reference_levels=torch.from_numpy(of_references) if data.varied else None,
    )
