"""Rows of what only simulated data know: the true perturbation mask, and the true artifact signature."""

from __future__ import annotations

from cradlevae.evaluation.ground_truth import true_signature
from cradlevae.evaluation.inputs import ScoringInputs
from cradlevae.evaluation.metrics.registry import metrics_of
from cradlevae.evaluation.score_table import MODEL, Scores
from cradlevae.model.trained import TrainedModel
from cradlevae.query.latents import mask_probabilities
from cradlevae.query.signature import artifact_signature

REFERENCE = "simulated truth"


def score_mask(scores: Scores, inputs: ScoringInputs, model: TrainedModel) -> None:
    """Add the rows of metrics of kind ``"mask"``, where the true mask is known and the model has one."""
    truth = inputs.truth
    if truth is None or "mask" not in truth or model.module.mask is None:
        return
    names = [str(name) for name in truth["perturbations"]]
    inferred = mask_probabilities(model).reindex(names).fillna(0.0).to_numpy()
    for entry in metrics_of("mask"):
        scores.add(REFERENCE, entry.name, MODEL, entry.value(truth["mask"], inferred), note=entry.note)


def score_signature(scores: Scores, inputs: ScoringInputs, model: TrainedModel) -> None:
    """Add the rows of metrics of kind ``"signature"``.

    There are none where the true signature is not known, or the model has no artifact, several classes of it, or no
    damaged training cells.
    """
    truth = true_signature(inputs.truth, list(model.genes))
    if truth is None or not model.declaration.artifact or len(model.criteria) != 1:
        return
    if not model.trained_criteria:
        return
    change = artifact_signature(model, seed=inputs.seed)["log2_fold_change"].to_numpy()
    for entry in metrics_of("signature"):
        scores.add(REFERENCE, entry.name, MODEL, entry.value(truth, change), note=entry.note)
