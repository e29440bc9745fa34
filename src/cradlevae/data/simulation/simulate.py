"""Simulation of a Perturb-seq experiment with known truth and artifacts of all six kinds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.marks import mark_truth
from cradlevae.data.simulation.damage import ARTIFACT_KINDS, CLEAN, Profile, damage, expected_profile
from cradlevae.data.simulation.design import Design, check_design, checked_kinds, checked_library, checked_numbers
from cradlevae.data.simulation.ground_truth import MARKERS, GroundTruth, block_cells, draw_truth, sample_counts
from cradlevae.data.simulation.true_effects import DRAWS, true_effects
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array, IntArray

if TYPE_CHECKING:
    from anndata import AnnData


OF_TRUTH = (
    "n_genes",
    "n_perturbations",
    "n_combinations",
    "n_interacting",
    "n_latent",
    "mask_probability",
    "effect_size",
)
"""Arguments of :func:`simulate` that the ground truth is drawn by."""


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
        Number of these pairs whose effect is not the sum of the two single effects; at most four by default.
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
    anndata.AnnData
        Cells × genes; ``X`` and ``layers["clean"]`` (before any damage) are CSR float32, whole numbers. It holds:

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

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=200, n_genes=50, n_perturbations=3, n_combinations=2, seed=1)
    >>> adata.shape, list(adata.layers)
    ((200, 50), ['clean'])
    >>> adata.uns["truth"]["perturbations"].tolist()
    ['A', 'B', 'C']
    >>> adata.uns["truth"]["effects"].shape  # five perturbed conditions, log2 units
    (5, 50)
    """
    numbers = checked_numbers(
        n_cells=n_cells,
        n_genes=n_genes,
        n_perturbations=n_perturbations,
        n_combinations=n_combinations,
        n_latent=n_latent,
        mask_probability=mask_probability,
        effect_size=effect_size,
        artifact_rate=artifact_rate,
        confounded=confounded,
        control_share=control_share,
        seed=seed,
    )
    paired = min(4, numbers["n_combinations"]) if n_interacting is None else n_interacting
    numbers |= checked_numbers(n_interacting=paired)
    kinds = checked_kinds(artifact_kinds, numbers["artifact_rate"])
    library_size = checked_library(library_size)
    design = Design(**{entry.name: numbers[entry.name] for entry in fields(Design)})
    check_design(design, numbers["n_interacting"])

    truth_seed, cell_seed, count_seed, damage_seed, effect_seed = np.random.SeedSequence(numbers["seed"]).spawn(5)
    truth = draw_truth(**{name: numbers[name] for name in OF_TRUTH}, rng=np.random.default_rng(truth_seed))
    cells = _draw_cells(design, truth, library_size, kinds, np.random.default_rng(cell_seed))
    clean, profile = _clean_counts(truth, cells, count_seed)
    foreign = {group: truth.marker_profile(group) for group in MARKERS}
    counts, severity = damage(clean, cells.kind, foreign, np.random.default_rng(damage_seed))
    adata = _assemble(truth, cells, kinds, counts, clean, severity)
    adata.uns["truth"] = _record(truth) | {
        "effects": _effects(truth, cells.library[cells.condition == 0], effect_seed),
        **_signatures(cells.kind, severity, profile, foreign, kinds),
    }
    mark_truth(adata, "simulate")
    return adata


@dataclass(frozen=True)
class _Cells:
    """The cells before their counts are drawn.

    Attributes
    ----------
    condition
        Position of each cell's condition in the truth's conditions, (cells,).
    z_basal, z_perturbation
        Basal state and perturbation shift, (cells, K).
    library
        Expected total counts before any damage, (cells,).
    kind
        Artifact kind, ``"none"`` for clean cells, (cells,).
    """

    condition: IntArray
    z_basal: Float32Array
    z_perturbation: Float32Array
    library: Float32Array
    kind: npt.NDArray[np.str_]


def _draw_cells(
    design: Design,
    truth: GroundTruth,
    library_size: tuple[float, float],
    kinds: tuple[str, ...],
    rng: np.random.Generator,
) -> _Cells:
    condition = design.conditions(len(truth.conditions), rng)
    z_basal = rng.standard_normal((design.n_cells, truth.n_latent), dtype=np.float32)
    library = np.exp(rng.normal(np.log(library_size[0]), library_size[1], design.n_cells)).astype(np.float32)
    kind = design.artifacts(truth, condition, kinds, rng)
    return _Cells(condition, z_basal, truth.shifts[condition], library, kind)


def _assemble(
    truth: GroundTruth,
    cells: _Cells,
    kinds: tuple[str, ...],
    counts: sp.csr_matrix,
    clean: sp.csr_matrix,
    severity: Float32Array,
) -> AnnData:
    """Put counts and cells into an AnnData whose ``uns`` is still empty."""
    import anndata as ad

    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical.from_codes(cells.condition, pd.Index(truth.conditions)),
            "true_artifact": cells.kind != CLEAN,
            "true_artifact_kind": pd.Categorical(cells.kind, categories=[CLEAN, *kinds]),
            "true_severity": severity,
        },
        index=pd.Index([f"cell{index}" for index in range(len(cells.kind))]),
    )
    return ad.AnnData(
        X=counts,
        obs=obs,
        var=pd.DataFrame(index=pd.Index(truth.genes.astype(object))),
        layers={"clean": clean},
        obsm={"true_z_basal": cells.z_basal, "true_z_perturbation": cells.z_perturbation},
    )


def _record(truth: GroundTruth) -> dict[str, Any]:
    """Return the ground truth as arrays that an ``.h5ad`` file holds."""
    return {
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
    }


def _clean_counts(truth: GroundTruth, cells: _Cells, seed: np.random.SeedSequence) -> tuple[sp.csr_matrix, Profile]:
    """Draw the counts before any damage; also return the mean of the cells' expected expression profiles."""
    profile = np.zeros(len(truth.genes))
    blocks = []
    sampled = sample_counts(truth, cells.z_basal, cells.z_perturbation, cells.library, seed)
    n_blocks = math.ceil(len(cells.library) / block_cells(len(truth.genes)))
    for block, expression in track_slow(sampled, n_blocks, "Drawing counts"):
        blocks.append(block)
        profile += expression.sum(axis=0, dtype=np.float64)
    return sp.csr_matrix(sp.vstack(blocks, format="csr")), profile / len(cells.library)


def _effects(truth: GroundTruth, library: Float32Array, seed: np.random.SeedSequence) -> Float32Array:
    """Compute the effects of all conditions but the control, (conditions − 1, genes), log2 units."""
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
    kinds_used: tuple[str, ...],
) -> dict[str, Any]:
    """Compute the log2 fold changes of the expected profile, for each kind and over all damaged cells."""
    damaged = np.stack(
        [
            expected_profile(kind, profile, float(severity[kinds == kind].mean()), foreign)
            if (kinds == kind).any()
            else profile
            for kind in kinds_used
        ]
    )
    share = np.array([(kinds == kind).sum() for kind in kinds_used])
    overall = share @ damaged / share.sum() if share.sum() else profile
    return {
        "artifact_kinds": np.array(kinds_used),
        "artifact_signature": np.log2(overall / profile).astype(np.float32),
        "artifact_signature_by_kind": np.log2(damaged / profile).astype(np.float32),
    }
