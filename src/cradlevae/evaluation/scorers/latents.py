"""Rows of what a trained model infers about held-out cells: their likelihood, and artifact in their latent states."""

from __future__ import annotations

import numpy as np

from cradlevae.data.experiment import Experiment
from cradlevae.evaluation.inputs import ScoringInputs, cells_alone
from cradlevae.evaluation.metrics.kinds import DRAWS, LATENTS, LEAKAGE_DRAWS, MEANS
from cradlevae.evaluation.metrics.registry import metrics_of
from cradlevae.evaluation.score_table import MODEL, Scores
from cradlevae.model.trained import TrainedModel
from cradlevae.query.latents import latents, log_likelihood
from cradlevae.utils.types import FloatArray

SCORED_CELLS = 2000
"""At most so many reference cells, drawn at random, are scored for likelihood and leakage."""


def sampled_cells(inputs: ScoringInputs) -> Experiment:
    """The reference cells that are scored for likelihood and leakage."""
    shuffled = np.random.default_rng(inputs.seed).permutation(inputs.answered_rows)
    return cells_alone(inputs.data, np.sort(shuffled[:SCORED_CELLS]))


def score_likelihood(scores: Scores, model: TrainedModel, cells: Experiment, *, seed: int) -> None:
    """Add the rows of metrics of kind ``"likelihood"``, from 100 particles per cell."""
    values = log_likelihood(model, cells, seed=seed).to_numpy()
    for entry in metrics_of("likelihood"):
        scores.add(scores.label("cells"), entry.name, MODEL, entry.value(values), note=entry.note)


def score_leakage(scores: Scores, model: TrainedModel, cells: Experiment, *, seed: int) -> None:
    """Add the rows of metrics of kind ``"leakage"``.

    Parameters
    ----------
    scores
        Table to add to.
    model
        A trained model.
    cells
        Reference cells.
    seed
        Seed of the draws from the posterior, and of the metrics.
    """
    draws = [latents(model, cells, sample=True, seed=seed + draw).obsm for draw in range(LEAKAGE_DRAWS)]
    means = latents(model, cells, seed=seed).obsm
    states: dict[tuple[str, str], FloatArray] = {}
    for name in LATENTS:
        states[name, DRAWS] = np.stack([draw[name] for draw in draws])
        states[name, MEANS] = means[name][None]
    for entry in metrics_of("leakage"):
        value = entry.value(states[entry.on], cells.failed, seed=seed)
        scores.add(scores.label("cells"), entry.name, MODEL, value, note=entry.note)
