"""What travels with a simulated experiment: its ground truth, true effects and artifact signatures as arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cradlevae.data.simulation.cells import Cells, stratum_names
from cradlevae.data.simulation.damage import Profile, expected_profile
from cradlevae.data.simulation.ground_truth import GroundTruth
from cradlevae.data.simulation.sampling import block_cells
from cradlevae.data.simulation.strata import Strata, StrataEffects
from cradlevae.data.simulation.true_effects import DRAWS, true_effects
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array, FloatArray


def truth_record(truth: GroundTruth, strata_effects: StrataEffects) -> dict[str, Any]:
    """Return the ground truth as arrays that an ``.h5ad`` file holds; one batch, or one context, is not mentioned."""
    record = {
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
    n_batches, n_contexts = len(strata_effects.batch_effects), len(strata_effects.context_effects)
    if n_batches > 1:
        record |= {
            "batches": np.array(stratum_names("batch", n_batches)),
            "batch_effects": strata_effects.batch_effects,
        }
    if n_contexts > 1:
        record |= {
            "contexts": np.array(stratum_names("context", n_contexts)),
            "context_effects": strata_effects.context_effects,
            "context_deviations": strata_effects.context_deviations,
        }
    return record


def effects_record(
    truth: GroundTruth, strata_effects: StrataEffects, cells: Cells, seed: np.random.SeedSequence
) -> dict[str, Float32Array]:
    """Compute the effects of all conditions but the control, log2 units.

    ``effects`` are (conditions − 1, genes), the mean over contexts weighted by their shares of the controls. With
    several contexts, ``effects_by_context`` are (contexts, conditions − 1, genes).
    """
    controls = cells.condition == 0
    library, batch = cells.library[controls], cells.strata.batch[controls]
    n_contexts = len(strata_effects.context_effects)
    n_parts = n_contexts * math.ceil(DRAWS / block_cells(len(truth.genes)))
    by_context = np.zeros((n_contexts, len(truth.conditions) - 1, len(truth.genes)))
    # Every context is computed with the same draws, so that little noise is left in the difference of two.
    parts = (
        (context, part)
        for context in range(n_contexts)
        for part in true_effects(
            truth,
            library,
            np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key),
            strata=Strata(batch, np.full(len(batch), context)),
            strata_effects=strata_effects,
        )
    )
    for context, part in track_slow(parts, n_parts, "Computing true effects"):
        by_context[context] += part
    if n_contexts == 1:
        return {"effects": by_context[0].astype(np.float32)}
    effects = _mean_over_contexts(by_context, cells.strata.context[controls])
    return {"effects": effects.astype(np.float32), "effects_by_context": by_context.astype(np.float32)}


def _mean_over_contexts(by_context: FloatArray, context: npt.NDArray[np.int64]) -> FloatArray:
    """Mean of the effects, weighted by how many of the cells are of each context, (conditions − 1, genes)."""
    share = np.bincount(context, minlength=len(by_context)) / len(context)
    return np.asarray(np.tensordot(share, by_context, axes=1))


def escaping_record(effects: dict[str, Float32Array], escaping: FloatArray) -> dict[str, Float32Array | FloatArray]:
    """Return the effects of all labelled cells, those of responders, and the shares; the former alone if none escape.

    An effect is a difference of means, so that of all cells with a label is the responders' times their share.

    Parameters
    ----------
    effects
        Those of :func:`effects_record`, which are of cells whose perturbation took.
    escaping
        Share of the cells of each condition that escape, the control first, (conditions,).
    """
    if not escaping.any():
        return {**effects}
    took = (1 - escaping[1:]).astype(np.float32)[:, None]
    return {
        **{name: table * took for name, table in effects.items()},
        "effects_of_responders": effects["effects"],
        "escaping": escaping[1:],
    }


def signatures(
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
