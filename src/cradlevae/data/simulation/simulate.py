"""A simulated Perturb-seq experiment whose truth is known, artifacts of all six kinds included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.labels import singles_of
from cradlevae.data.simulation.damage import ARTIFACT_KINDS, CLEAN, Profile, damage, expected_profile
from cradlevae.data.simulation.ground_truth import MARKERS, GroundTruth, block_cells, draw_truth, sample_counts
from cradlevae.data.simulation.true_effects import DRAWS, true_effects
from cradlevae.errors import DataError
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array, IntArray

if TYPE_CHECKING:
    from anndata import AnnData

MIN_GENES = 10
"""Fewest genes that hold a marker of each group and some others."""


def simulate(
    *,
    n_cells: int = 6000,
    n_genes: int = 600,
    n_perturbations: int = 16,
    n_combinations: int = 24,
    n_interacting: int | None = None,
    n_latent: int = 12,
    mask_probability: float = 0.15,
    effect_size: float = 2.5,
    artifact_rate: float = 0.2,
    artifact_kinds: Sequence[str] = ARTIFACT_KINDS,
    confounded: float = 0.0,
    library_size: tuple[float, float] = (500.0, 0.25),
    control_share: float = 0.1,
    seed: int = 0,
) -> AnnData:
    """Simulate a Perturb-seq experiment with control cells, single perturbations, combinations and artifacts.

    The counts come from the generative model of CRADLE-VAE (arXiv 2409.05484) with a linear decoder; see
    :mod:`cradlevae.data.simulation.ground_truth` for the model and :mod:`cradlevae.data.simulation.damage` for the
    artifacts. All conditions but the control get equally many cells. By default about 80 % of the counts are zero; more
    genes at the same library size give more zeros (10,000 genes with 2,000 counts: 93 %).

    Parameters
    ----------
    n_cells, n_genes
        Size of the experiment. Up to 36 genes bear names of mitochondrial, ribosomal and haemoglobin genes.
    n_perturbations
        Number of single perturbations, named ``A``, ``B``, … ``Z``, ``AA``, …; all are measured alone.
    n_combinations
        Number of pairs of them that are measured together, ``A+B``.
    n_interacting
        How many of these pairs do more than the sum of their members; at most four by default.
    n_latent
        Number of latents K of basal state and perturbation.
    mask_probability
        Probability that a perturbation acts on a latent; each acts on one at least.
    effect_size
        Typical shift of an active latent, in standard deviations of the basal state.
    artifact_rate
        Probability that a cell is damaged.
    artifact_kinds
        Kinds of artifact, all equally likely.
    confounded
        Log odds ratio of being damaged for cells that carry the first perturbation; 0 makes damage
        independent of the perturbation.
    library_size
        Median and log-sd of the expected total counts of a clean cell.
    control_share
        Share of control cells.
    seed
        Seed of everything random: the same arguments on the same machine give the same counts.

    Returns
    -------
    AnnData, cells × genes; ``X`` and ``layers["clean"]`` (before any damage) are CSR float32, whole numbers.

    - ``obs``: ``perturbation``, ``true_artifact`` (bool), ``true_artifact_kind`` (``"none"`` where clean),
      ``true_severity`` (see :mod:`cradlevae.data.simulation.damage`).
    - ``obsm``: ``true_z_basal`` and ``true_z_perturbation``, cells × K.
    - ``uns["truth"]``: the fields of :class:`~cradlevae.data.simulation.ground_truth.GroundTruth` (``genes`` name
      the gene axes of all arrays here, whatever becomes of ``var_names``), and

      - ``effects`` (``effect_conditions`` × genes): difference to control of the mean of log2(1 + 1e4 x/Σx)
        of clean cells, at the library sizes of the controls;
      - ``artifact_signature`` (genes) and ``artifact_signature_by_kind`` (``artifact_kinds`` × genes): log2
        fold change of the expected expression profile of damaged cells.

    Raises
    ------
    DataError
        If an argument is out of range; the message names it and the mend.
    """
    if n_interacting is None:
        n_interacting = max(0, min(4, n_combinations))
    _check_numbers(
        n_cells=n_cells,
        n_genes=n_genes,
        n_perturbations=n_perturbations,
        n_combinations=n_combinations,
        n_interacting=n_interacting,
        n_latent=n_latent,
        mask_probability=mask_probability,
        effect_size=effect_size,
        artifact_rate=artifact_rate,
        confounded=confounded,
        control_share=control_share,
        seed=seed,
    )
    kinds_used = _check_kinds(artifact_kinds, artifact_rate)
    _check_library(library_size)
    design = Design(n_cells, n_perturbations, n_combinations, control_share, artifact_rate, confounded)
    _check_design(design, n_interacting)

    import anndata as ad

    truth_seed, cell_seed, count_seed, damage_seed, effect_seed = np.random.SeedSequence(seed).spawn(5)
    truth = draw_truth(
        n_genes=n_genes,
        n_perturbations=n_perturbations,
        n_combinations=n_combinations,
        n_interacting=n_interacting,
        n_latent=n_latent,
        mask_probability=mask_probability,
        effect_size=effect_size,
        rng=np.random.default_rng(truth_seed),
    )
    rng = np.random.default_rng(cell_seed)
    condition = design.conditions(len(truth.conditions), rng)
    z_basal = rng.standard_normal((n_cells, n_latent), dtype=np.float32)
    z_perturbation = truth.shifts[condition]
    library = np.exp(rng.normal(np.log(library_size[0]), library_size[1], n_cells)).astype(np.float32)
    kinds = design.artifacts(truth, condition, kinds_used, rng)

    clean, profile = _clean_counts(truth, z_basal, z_perturbation, library, count_seed)
    foreign = {group: truth.marker_profile(group) for group in MARKERS}
    counts, severity = damage(clean, kinds, foreign, np.random.default_rng(damage_seed))

    adata = ad.AnnData(
        X=counts,
        obs=pd.DataFrame(
            {
                "perturbation": pd.Categorical.from_codes(condition, pd.Index(truth.conditions)),
                "true_artifact": kinds != CLEAN,
                "true_artifact_kind": pd.Categorical(kinds, categories=[CLEAN, *kinds_used]),
                "true_severity": severity,
            },
            index=pd.Index([f"cell{index}" for index in range(n_cells)]),
        ),
        var=pd.DataFrame(index=pd.Index(truth.genes.astype(object))),
        layers={"clean": clean},
        obsm={"true_z_basal": z_basal, "true_z_perturbation": z_perturbation},
    )
    adata.uns["truth"] = {
        "genes": truth.genes.copy(),
        "perturbations": np.array(truth.perturbations),
        "conditions": np.array(truth.conditions),
        "mask": truth.mask,
        "embedding": truth.embedding,
        "interacting": np.array(truth.interacting, dtype=str),
        "interactions": truth.interactions,
        "baseline": truth.baseline,
        "loadings_basal": truth.loadings_basal,
        "loadings_perturbation": truth.loadings_perturbation,
        "dispersion": truth.dispersion,
        "effect_conditions": np.array(truth.conditions[1:]),
        "effects": _effects(truth, library[condition == 0], effect_seed),
        **_signatures(kinds, severity, profile, foreign, kinds_used),
    }
    return adata


@dataclass(frozen=True)
class Design:
    """How many cells get which condition, and which of them are damaged."""

    n_cells: int
    n_perturbations: int
    n_combinations: int
    control_share: float
    artifact_rate: float
    confounded: float

    @property
    def n_controls(self) -> int:
        """Number of control cells."""
        return max(1, round(self.control_share * self.n_cells))

    def conditions(self, n_conditions: int, rng: np.random.Generator) -> IntArray:
        """Condition of each cell, 0 for controls, in random order, (cells,)."""
        treated = 1 + np.arange(self.n_cells - self.n_controls) % (n_conditions - 1)
        return rng.permutation(np.concatenate([np.zeros(self.n_controls, dtype=np.int64), treated]))

    def artifacts(
        self,
        truth: GroundTruth,
        condition: IntArray,
        kinds: tuple[str, ...],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.str_]:
        """Artifact kind of each cell, (cells,)."""
        carries = np.array([truth.perturbations[0] in singles_of(name) for name in truth.conditions])
        odds_ratio = np.where(carries[condition], np.exp(self.confounded), 1.0)
        rate = self.artifact_rate
        damaged = rng.random(self.n_cells) < rate * odds_ratio / (1.0 - rate + rate * odds_ratio)
        chosen = rng.choice(np.array(kinds or (CLEAN,)), self.n_cells)
        return np.where(damaged, chosen, CLEAN)


def _clean_counts(
    truth: GroundTruth,
    z_basal: Float32Array,
    z_perturbation: Float32Array,
    library: Float32Array,
    seed: np.random.SeedSequence,
) -> tuple[sp.csr_matrix, Profile]:
    """Draw the counts before any damage; also the mean of the cells' expected expression profiles."""
    profile = np.zeros(len(truth.genes))
    blocks = []
    sampled = sample_counts(truth, z_basal, z_perturbation, library, seed)
    n_blocks = math.ceil(len(library) / block_cells(len(truth.genes)))
    for block, expression in track_slow(sampled, n_blocks, "Drawing counts"):
        blocks.append(block)
        profile += expression.sum(axis=0, dtype=np.float64)
    return sp.csr_matrix(sp.vstack(blocks, format="csr")), profile / len(library)


def _effects(truth: GroundTruth, library: Float32Array, seed: np.random.SeedSequence) -> Float32Array:
    parts = true_effects(truth, library, seed)
    n_parts = math.ceil(DRAWS / block_cells(len(truth.genes)))
    effects = np.zeros((len(truth.conditions) - 1, len(truth.genes)))
    for part in track_slow(parts, n_parts, "Computing true effects"):
        effects += part
    return effects.astype(np.float32)


def _signatures(
    kinds: npt.NDArray[np.str_],
    severity: Float32Array,
    profile: Profile,
    foreign: dict[str, Profile],
    names: tuple[str, ...],
) -> dict[str, Any]:
    """Log2 fold changes of the expected profile, per kind and over all damaged cells."""
    damaged = np.stack(
        [
            expected_profile(kind, profile, float(severity[kinds == kind].mean()), foreign)
            if (kinds == kind).any()
            else profile
            for kind in names
        ]
    )
    share = np.array([(kinds == kind).sum() for kind in names])
    overall = share @ damaged / share.sum() if share.sum() else profile
    return {
        "artifact_kinds": np.array(names),
        "artifact_signature": np.log2(overall / profile).astype(np.float32),
        "artifact_signature_by_kind": np.log2(damaged / profile).astype(np.float32),
    }


RANGES: dict[str, tuple[type, float, float]] = {
    "n_cells": (int, 2, np.inf),
    "n_genes": (int, MIN_GENES, np.inf),
    "n_perturbations": (int, 1, np.inf),
    "n_combinations": (int, 0, np.inf),
    "n_interacting": (int, 0, np.inf),
    "n_latent": (int, 1, np.inf),
    "mask_probability": (float, 0, 1),
    "effect_size": (float, 0, 10),
    "artifact_rate": (float, 0, 1),
    "confounded": (float, -10, 10),
    "control_share": (float, 0, 1),
    "seed": (int, 0, np.inf),
}
"""Type and bounds of the arguments that are one number."""


def _check_numbers(**arguments: Any) -> None:
    for name, value in arguments.items():
        kind, low, high = RANGES[name]
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole and (kind is int or not isinstance(value, float | np.floating)):
            raise DataError(f"{name}={value!r} must be a {'whole ' if kind is int else ''}number")
        if not low <= value <= high:
            bounds = f"at least {low}" if high == np.inf else f"between {low} and {high}"
            raise DataError(f"{name}={value!r} must be {bounds}")


def _check_design(design: Design, n_interacting: int) -> None:
    n_pairs = design.n_perturbations * (design.n_perturbations - 1) // 2
    if design.n_combinations > n_pairs:
        raise DataError(
            f"n_combinations={design.n_combinations} exceeds the {n_pairs} pairs of "
            f"{design.n_perturbations} perturbations; lower it or raise n_perturbations"
        )
    if n_interacting > design.n_combinations:
        raise DataError(
            f"n_interacting={n_interacting} exceeds n_combinations={design.n_combinations}; "
            "lower it or raise n_combinations"
        )
    n_conditions = design.n_perturbations + design.n_combinations
    n_treated = design.n_cells - design.n_controls
    if n_treated < n_conditions:
        raise DataError(
            f"n_cells={design.n_cells} with control_share={design.control_share} leaves {n_treated} "
            f"cells for {n_conditions} perturbations and combinations; raise n_cells or lower control_share"
        )


def _check_kinds(artifact_kinds: Sequence[str], artifact_rate: float) -> tuple[str, ...]:
    kinds = (artifact_kinds,) if isinstance(artifact_kinds, str) else tuple(artifact_kinds)
    if any(kind not in ARTIFACT_KINDS for kind in kinds) or len(set(kinds)) < len(kinds):
        raise DataError(f"artifact_kinds={kinds!r} must name each of {', '.join(ARTIFACT_KINDS)} at most once")
    if not kinds and artifact_rate > 0:
        raise DataError("artifact_kinds is empty; name a kind, or set artifact_rate=0")
    return kinds


def _check_library(library_size: tuple[float, float]) -> None:
    try:
        median, spread = map(float, library_size)
    except (TypeError, ValueError):
        raise DataError(f"library_size={library_size!r} must be two numbers: median and log-sd") from None
    if not (1.0 <= median <= 1e6 and 0.0 <= spread <= 3.0):
        raise DataError(f"library_size={library_size!r} must be a median from 1 to 1e6 and a log-sd from 0 to 3")
