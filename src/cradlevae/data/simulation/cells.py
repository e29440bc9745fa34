"""The cells of a simulated experiment before their counts are drawn, and the AnnData that holds them in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.simulation.damage import CLEAN
from cradlevae.data.simulation.design import Design
from cradlevae.data.simulation.escaping import draw_escaped
from cradlevae.data.simulation.ground_truth import GroundTruth
from cradlevae.data.simulation.strata import Strata, assign_strata
from cradlevae.utils.types import BoolArray, Float32Array, FloatArray, IntArray

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Cells:
    """The cells before their counts are drawn.

    Attributes
    ----------
    condition
        Position of each cell's condition in the truth's conditions, (cells,).
    strata
        Batch and context of each cell.
    z_basal, z_perturbation
        Basal state and perturbation shift, (cells, K).
    library
        Expected total counts before any damage, (cells,).
    kind
        Artifact kind, ``"none"`` for clean cells, (cells,).
    escaped
        Cells whose perturbation did not take, (cells,).
    """

    condition: IntArray
    strata: Strata
    z_basal: Float32Array
    z_perturbation: Float32Array
    library: Float32Array
    kind: npt.NDArray[np.str_]
    escaped: BoolArray

    @property
    def shown(self) -> IntArray:
        """The condition whose state each cell has: the control where it escaped, else its own, (cells,)."""
        return np.where(self.escaped, 0, self.condition)


def draw_cells(
    design: Design,
    truth: GroundTruth,
    library_size: tuple[float, float],
    kinds: tuple[str, ...],
    *,
    rng: np.random.Generator,
    batch_rng: np.random.Generator,
    context_rng: np.random.Generator,
    escaping: FloatArray,
    escape_rng: np.random.Generator,
) -> Cells:
    """Draw the cells; batches, contexts and escaping change nothing else about them.

    Parameters
    ----------
    design
        How many cells get which condition.
    truth
        The conditions and their shifts.
    library_size
        Median and log-sd of the expected total counts.
    kinds
        Kinds of artifact.
    rng, batch_rng, context_rng, escape_rng
        Sources of randomness of everything else, of the batches, of the contexts and of escaping.
    escaping
        Share of the cells of each condition that escape, (conditions,).
    """
    condition = design.conditions(len(truth.conditions), rng)
    z_basal = rng.standard_normal((design.n_cells, truth.n_latent), dtype=np.float32)
    library = np.exp(rng.normal(np.log(library_size[0]), library_size[1], design.n_cells)).astype(np.float32)
    kind = design.artifacts(truth, condition, kinds, rng)
    strata = assign_strata(design, condition, batch_rng, context_rng)
    escaped = draw_escaped(escaping, condition, escape_rng)
    shifts = truth.shifts[np.where(escaped, 0, condition)]
    return Cells(condition, strata, z_basal, shifts, library, kind, escaped)


def stratum_names(kind: str, number: int) -> list[str]:
    """Names of the batches or contexts, e.g. ``batch1`` and ``batch2``."""
    return [f"{kind}{place}" for place in range(1, number + 1)]


def assemble(
    design: Design,
    truth: GroundTruth,
    cells: Cells,
    kinds: Sequence[str],
    counts: sp.csr_matrix,
    clean: sp.csr_matrix,
    severity: Float32Array,
    escaping: FloatArray,
) -> AnnData:
    """Put counts and cells into an AnnData whose ``uns`` is still empty."""
    import anndata as ad

    columns = {
        "perturbation": pd.Categorical.from_codes(cells.condition, pd.Index(truth.conditions)),
        "true_artifact": cells.kind != CLEAN,
        "true_artifact_kind": pd.Categorical(cells.kind, categories=[CLEAN, *kinds]),
        "true_severity": severity,
    }
    if escaping.any():
        columns["true_escaped"] = cells.escaped
    if design.n_batches > 1:
        names = pd.Index(stratum_names("batch", design.n_batches))
        columns["batch"] = pd.Categorical.from_codes(cells.strata.batch, names)
    if design.n_contexts > 1:
        names = pd.Index(stratum_names("context", design.n_contexts))
        columns["context"] = pd.Categorical.from_codes(cells.strata.context, names)
    return ad.AnnData(
        X=counts,
        obs=pd.DataFrame(columns, index=pd.Index([f"cell{index}" for index in range(len(cells.kind))])),
        var=pd.DataFrame(index=pd.Index(truth.genes.astype(object))),
        layers={"clean": clean},
        obsm={"true_z_basal": cells.z_basal, "true_z_perturbation": cells.z_perturbation},
    )
