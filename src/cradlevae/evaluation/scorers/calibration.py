"""Rows of calibration: the model's intervals against held-out measurements, and against the truth where it is exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cradlevae.evaluation.metrics.calibration import LARGEST, LEVELS, covered, largest_genes, predictive_interval
from cradlevae.evaluation.predictor import Predictor, predicted_effects
from cradlevae.evaluation.reference_effects import MIN_CELLS, Noise, Reference, left_out
from cradlevae.evaluation.score_table import MODEL, Scores, drawn_interval
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray

MEASURED = "measured effect; interval widened by its standard error"
HALVED = f"the same, measured in one half of the cells; its {LARGEST} genes chosen by the other half"
EXACT = "true effect; the credible interval itself"


def score_calibration(
    scores: Scores, model: Predictor, references: Sequence[Reference], predicted: AnnDataLike, *, seed: int
) -> None:
    """Add the rows of coverage and width.

    Parameters
    ----------
    scores
        Table to add to.
    model
        A trained model.
    references
        What to score against.
    predicted
        The model's effects with their 90 % intervals, an AnnData: conditions × genes.
    seed
        Seed of the bootstrap, and of the effects, whose intervals of other levels have the same draws.

    Notes
    -----
    Genes of large *measured* effect are partly those of large noise: chosen and scored on the same cells, a calibrated
    interval would cover them too rarely. So one half of the cells chooses and the other is scored, and the other way
    round.
    """
    by_level = {round(100 * predicted.uns["effects"]["credible"]): predicted}
    for reference in references:
        if reference.noise is not None:
            _score_measured(scores, reference, reference.noise, predicted, seed=seed)
            continue
        for level in LEVELS:
            if level not in by_level:
                by_level[level] = predicted_effects(model, list(predicted.obs_names), seed=seed, credible=level / 100)
            layers = by_level[level][list(reference.conditions)].layers
            low, high = (np.asarray(layers[name], dtype=np.float64) for name in ("low", "high"))
            inside = covered(reference.effects, low, high)
            everywhere, largest = np.ones_like(inside), largest_genes(reference.effects)
            for suffix, where in (("", everywhere), (f"_top{LARGEST}", largest)):
                _add(scores, reference.name, "credible", f"{level}{suffix}", inside, high - low, where, EXACT, seed)


def _score_measured(scores: Scores, reference: Reference, noise: Noise, predicted: AnnDataLike, *, seed: int) -> None:
    enough = np.flatnonzero(noise.n_cells >= MIN_CELLS)
    unscored = left_out([name for name, n in zip(reference.conditions, noise.n_cells, strict=True) if n < MIN_CELLS])
    if not len(enough):
        for level in LEVELS:
            scores.add(reference.name, f"predictive_coverage_{level}", MODEL, float("nan"), note=unscored)
        return
    chosen = predicted[[reference.conditions[row] for row in enough]]
    effect = np.asarray(chosen.X, dtype=np.float64)
    layers = {name: np.asarray(chosen.layers[name], dtype=np.float64) for name in ("sd", "mc_error", "low", "high")}
    deviation = np.hypot(layers["sd"], layers["mc_error"])
    everywhere = np.ones(effect.shape, dtype=bool)
    first, second = (tuple(values[enough] for values in half) for half in noise.halves)
    for level in LEVELS:
        low, high = predictive_interval(effect, deviation, noise.standard_error[enough], level)
        inside = covered(reference.effects[enough], low, high)
        note = "; ".join(text for text in (MEASURED, unscored) if text)
        _add(scores, reference.name, "predictive", f"{level}", inside, high - low, everywhere, note, seed)
        of_halves = []
        for (chooser, _), (value, error) in ((first, second), (second, first)):
            low, high = predictive_interval(effect, deviation, error, level)
            of_halves.append((covered(value, low, high), high - low, largest_genes(chooser)))
        inside, width, where = (np.concatenate(parts, axis=1) for parts in zip(*of_halves, strict=True))
        note = "; ".join(text for text in (HALVED, unscored) if text)
        _add(scores, reference.name, "predictive", f"{level}_top{LARGEST}", inside, width, where, note, seed)
    width = layers["high"] - layers["low"]
    level = round(100 * predicted.uns["effects"]["credible"])
    _add_mean(
        scores, reference.name, f"credible_width_{level}", width.mean(axis=1), "the credible interval itself", seed
    )


def _add(
    scores: Scores,
    reference: str,
    kind: str,
    which: str,
    inside: BoolArray,
    width: FloatArray,
    where: BoolArray,
    note: str,
    seed: int,
) -> None:
    """Rows of coverage and mean width over the effects ``where`` says, (conditions, genes) each."""
    n = where.sum(axis=1)
    _add_mean(scores, reference, f"{kind}_coverage_{which}", (inside & where).sum(axis=1) / n, note, seed)
    _add_mean(scores, reference, f"{kind}_width_{which}", (width * where).sum(axis=1) / n, note, seed)


def _add_mean(scores: Scores, reference: str, metric: str, each: FloatArray, note: str, seed: int) -> None:
    """A row of the mean over perturbations."""
    low, high = drawn_interval(each, seed)
    scores.add(reference, metric, MODEL, float(each.mean()), low=low, high=high, note=note)
