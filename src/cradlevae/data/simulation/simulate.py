"""Simulation of a Perturb-seq experiment with known truth and artifacts of all six kinds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from cradlevae.data.identity.marks import mark_truth
from cradlevae.data.simulation.cells import Cells, assemble, draw_cells
from cradlevae.data.simulation.damage import ARTIFACT_KINDS, Profile, damage
from cradlevae.data.simulation.design import Design, check_design, checked_kinds, checked_library, checked_numbers
from cradlevae.data.simulation.escaping import Escaping, escaping_shares
from cradlevae.data.simulation.ground_truth import MARKERS, GroundTruth, draw_truth
from cradlevae.data.simulation.record import effects_record, escaping_record, signatures, truth_record
from cradlevae.data.simulation.sampling import block_cells, sample_counts
from cradlevae.data.simulation.strata import Strata, StrataEffects, draw_strata_effects
from cradlevae.errors import DataError
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array

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
    n_batches: int = 1,
    batch_sd: float = 0.28,
    confounding: float = 0.0,
    n_contexts: int = 1,
    context_sd: float = 0.0,
    library_size: tuple[float, float] = (500.0, 0.25),
    control_share: float = 0.1,
    escaping: Escaping = 0.0,
    seed: int = 0,
) -> AnnData:
    """Simulate a Perturb-seq experiment with control cells, single perturbations, combinations and artifacts.

    The counts come from the generative model of CRADLE-VAE (arXiv 2409.05484) with a linear decoder; see
    :mod:`cradlevae.data.simulation.ground_truth` for the model, :mod:`cradlevae.data.simulation.strata` for batches and
    contexts, and :mod:`cradlevae.data.simulation.damage` for the artifacts. All conditions but the control get equally
    many cells. By default about 80 % of the counts are zero; more genes at the same library size give more zeros
    (10,000 genes with 2,000 counts: 93 %).

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
        How strongly the first perturbation and damage are confounded: the log odds ratio of being damaged for cells
        that carry it; 0 makes damage independent of the perturbation.
    n_batches
        Number of batches; with more than one, ``obs["batch"]`` has the batch of each cell (``batch1``, …).
    batch_sd
        Sd over genes of a batch's shift of the log rates, log2 units. By default the mean log2 expression of two
        batches differs by 0.25 (sd over genes), about as in replicates of a real screen (0.27–0.29). With
        ``batch_sd=0`` the cells have the same conditions, batches, contexts, basal states, library sizes and artifact
        kinds, and only the shifts are absent: the same experiment without batch effects.
    confounding
        How strongly perturbations and batches are confounded, from 0 to 1: the share of the cells of each perturbed
        condition that is put into a batch of the condition's own (in rotation); its other cells are spread over all
        batches, and those of the control always are. 0 balances all conditions over batches; 1 gives each perturbed
        condition one batch alone.
    n_contexts
        Number of contexts (cell lines, donors); with more than one, ``obs["context"]`` has the context of each cell
        (``context1``, …). Every context has expression of its own, and all conditions are spread evenly over all.
    context_sd
        Sd of the deviations of a perturbation's effects in a context from its effects at large, over the genes that
        respond to it, log2 units of the rate; those of a combination are the sum of its single ones. With 0,
        perturbations change log rates in all contexts alike.
    library_size
        Median and log-sd of the expected total counts of a clean cell.
    control_share
        Share of control cells.
    escaping
        Probability that a perturbation did not take: the cell then carries its label and has the state of a control.
        One number for all perturbed conditions, or one for each by its name (``{"A": 0.4, "A+B": 0.2}``; those that
        are not named do not escape). A cell escapes as a whole: with the label ``A+B``, neither has taken.
    seed
        Seed of everything random: the same arguments on the same machine give the same counts.

    Returns
    -------
    anndata.AnnData
        Cells × genes; ``X`` and ``layers["clean"]`` (before any damage) are CSR float32, whole numbers. It holds:

    - ``obs``: ``perturbation``, ``true_artifact`` (bool), ``true_artifact_kind`` (``"none"`` where clean),
      ``true_severity`` (see :mod:`cradlevae.data.simulation.damage`); ``batch`` and ``context`` where there are
      several; ``true_escaped`` (bool) where cells may escape.
    - ``obsm``: ``true_z_basal`` and ``true_z_perturbation``, cells × K.
    - ``uns["truth"]``: the fields of :class:`~cradlevae.data.simulation.ground_truth.GroundTruth` (``genes`` name
      the gene axes of all arrays here, whatever becomes of ``var_names``), and

      - ``effects`` (``effect_conditions`` × genes): difference to control of the mean of log2(1 + 1e4 x/Σx)
        of clean cells, at the library sizes of the controls and averaged over their batches and contexts. Where
        cells escape, these are the effects of all cells with a label, those of responders diluted, which is what
        a comparison of labelled cells with controls measures;
      - where cells escape, ``effects_of_responders`` (``effect_conditions`` × genes), the same of the cells whose
        perturbation took, and ``escaping`` (``effect_conditions``), the probabilities of escaping;
      - with several batches, ``batches`` (names) and ``batch_effects`` (batches × genes): the shifts of the log rates,
        log2 units;
      - with several contexts, ``contexts`` (names), ``context_effects`` (contexts × genes) and ``context_deviations``
        (``perturbations`` × contexts × genes), log2 units of the rate, and ``effects_by_context`` (contexts ×
        ``effect_conditions`` × genes), which are as ``effects``, among the cells of a context;
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
        n_batches=n_batches,
        batch_sd=batch_sd,
        confounding=confounding,
        n_contexts=n_contexts,
        context_sd=context_sd,
        control_share=control_share,
        seed=seed,
    )
    paired = min(4, numbers["n_combinations"]) if n_interacting is None else n_interacting
    numbers |= checked_numbers(n_interacting=paired)
    kinds = checked_kinds(artifact_kinds, numbers["artifact_rate"])
    library_size = checked_library(library_size)
    design = Design(**{entry.name: numbers[entry.name] for entry in fields(Design)})
    check_design(design, numbers["n_interacting"])
    if numbers["context_sd"] > 0 and design.n_contexts == 1:
        raise DataError(f"context_sd={context_sd} needs several contexts; raise n_contexts")

    seeds = np.random.SeedSequence(numbers["seed"]).spawn(8)
    truth_seed, cell_seed, count_seed, damage_seed, effect_seed, batch_seed, context_seed, escape_seed = seeds
    truth = draw_truth(**{name: numbers[name] for name in OF_TRUTH}, rng=np.random.default_rng(truth_seed))
    strata_rng = {"batch_rng": np.random.default_rng(batch_seed), "context_rng": np.random.default_rng(context_seed)}
    shares = escaping_shares(escaping, truth.conditions)
    cells = draw_cells(
        design, truth, library_size, kinds, rng=np.random.default_rng(cell_seed), **strata_rng, escaping=shares,
        escape_rng=np.random.default_rng(escape_seed),
    )  # fmt: skip
    strata_effects = draw_strata_effects(
        design, truth, batch_sd=numbers["batch_sd"], context_sd=numbers["context_sd"], **strata_rng
    )
    clean, profile = _clean_counts(truth, cells, strata_effects, count_seed)
    foreign = {group: truth.marker_profile(group) for group in MARKERS}
    counts, severity = damage(clean, cells.kind, foreign, np.random.default_rng(damage_seed))
    adata = assemble(design, truth, cells, kinds, counts, clean, severity, shares)
    adata.uns["truth"] = {
        **truth_record(truth, strata_effects),
        **escaping_record(effects_record(truth, strata_effects, cells, effect_seed), shares),
        **signatures(cells.kind, severity, profile, foreign, kinds),
    }
    mark_truth(adata, "simulate")
    return adata


def _clean_counts(
    truth: GroundTruth, cells: Cells, strata_effects: StrataEffects, seed: np.random.SeedSequence
) -> tuple[sp.csr_matrix, Profile]:
    """Draw the counts before any damage; also return the mean of the cells' expected expression profiles."""

    def log_shift(part: slice) -> Float32Array | None:
        strata = Strata(cells.strata.batch[part], cells.strata.context[part])
        return strata_effects.log_shift(cells.shown[part], strata)

    profile = np.zeros(len(truth.genes))
    blocks = []
    sampled = sample_counts(truth, cells.z_basal, cells.z_perturbation, cells.library, seed, log_shift)
    n_blocks = math.ceil(len(cells.library) / block_cells(len(truth.genes)))
    for block, expression in track_slow(sampled, n_blocks, "Drawing counts"):
        blocks.append(block)
        profile += expression.sum(axis=0, dtype=np.float64)
    return sp.csr_matrix(sp.vstack(blocks, format="csr")), profile / len(cells.library)
