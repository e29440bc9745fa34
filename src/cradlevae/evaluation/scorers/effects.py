"""Rows of predicted effects: the model and every floor, by every metric of kind "effect", against every reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from cradlevae.data.naming.gene_names import unrecognised_targets
from cradlevae.evaluation.floors.registry import FLOORS, floor_effects
from cradlevae.evaluation.inputs import ScoringInputs
from cradlevae.evaluation.metrics.effect_distances import CONSTANT
from cradlevae.evaluation.metrics.effects import effect_scores
from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.evaluation.predictor import Predictor, symbols_of_genes
from cradlevae.evaluation.reference_effects import Reference
from cradlevae.evaluation.score_table import (
    MODEL,
    N_BOOTSTRAP,
    PUBLISHED,
    Scores,
    best_of,
    drawn_interval,
    fraction_of,
    join_notes,
)
from cradlevae.evaluation.scorers.responses import responses
from cradlevae.query.effects import published_effects
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnnDataLike, FloatArray, IntArray

MEANS = ("jaccard_20", "pearson_delta")
"""Metrics that are means over perturbations and have an interval too, for the model."""

WITHOUT_TARGETS = ("discrimination_l1", "discrimination_l2", "discrimination_cosine")
"""Metrics that leave out the genes that a perturbation targets."""

TARGETS_NOTE = (
    "target genes are not left out: the genes are Ensembl ids and the perturbations are not; name a column of var that "
    "holds their symbols with gene_symbols="
)


def score_effects(
    scores: Scores, inputs: ScoringInputs, references: Sequence[Reference], predicted: AnnDataLike, *, published: bool
) -> None:
    """Add the rows of metrics of kind ``"effect"``, of the model and of every floor that the data allow.

    Parameters
    ----------
    scores
        Table to add to.
    inputs
        What is scored.
    references
        Effects to score against.
    predicted
        The model's effects, an AnnData: conditions × genes.
    published
        Whether to score a trained model's effects as the released evaluation takes them, too.
    """
    model, seed = inputs.predictor.latent_model, inputs.seed
    floors = [name for name, entry in FLOORS.items() if entry.usable(inputs.train, inputs.validation)]
    as_published = None
    if published and model is not None:
        as_published = published_effects(model, list(inputs.conditions), seed=seed)
    for reference in references:
        names = list(reference.conditions)
        predictions = _predictions(inputs, names, predicted, as_published, floors)
        _score_predictions(scores, reference, predictions, inputs.predictor, seed)
        scores.add(
            reference.name, "attainable_rho", "ceiling", reference.attainable_rho,
            low=reference.attainable_low, high=reference.attainable_high,
        )  # fmt: skip


def _predictions(
    inputs: ScoringInputs,
    names: list[str],
    predicted: AnnDataLike,
    as_published: AnnDataLike | None,
    floors: Sequence[str],
) -> Iterator[tuple[str, FloatArray]]:
    """What the model and each floor predict, (conditions, genes), one after the other: tables may be large."""
    yield MODEL, np.asarray(predicted[names].X, dtype=np.float64)
    if as_published is not None:
        yield PUBLISHED, np.asarray(as_published[names].X, dtype=np.float64)
    for floor in track_slow(floors, len(floors), "scoring floors"):
        yield floor, floor_effects(floor, inputs.train, inputs.validation, names)


def _score_predictions(
    scores: Scores,
    reference: Reference,
    predictions: Iterable[tuple[str, FloatArray]],
    predictor: Predictor,
    seed: int,
) -> None:
    """Add the rows of some predictions against one reference; the model's comes first."""
    conditions, genes, symbols = list(reference.conditions), list(predictor.genes), symbols_of_genes(predictor)
    values: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    draws: dict[str, dict[str, FloatArray]] = {}
    known = None
    if reference.noise is not None:
        known = responses(reference.effects, reference.noise, conditions, genes, symbols)
    for name, value in predictions:
        values[name] = effect_scores(reference.effects, value, perturbations=conditions, genes=genes, symbols=symbols)
        values[name] |= {} if known is None else known.scores(value)
        draws[name] = flattened_draws(reference.effects, value, seed)
        intervals[name] = {metric: _interval(drawn) for metric, drawn in draws[name].items()}
        if name == MODEL:
            intervals[name] |= mean_intervals(reference.effects, value, seed)
    targets_note = TARGETS_NOTE if unrecognised_targets(conditions, genes, symbols) else ""
    ceilings = {"ate_rho": reference.attainable_rho, "ate_r2": reference.attainable_r2}
    for metric in values[MODEL]:
        highest = ceilings.get(metric, float("nan"))
        floor, best_floor = best_of(metric, {name: values[name][metric] for name in FLOORS if name in values})
        if metric in draws[MODEL] and metric in draws.get(best_floor, {}):
            low, high = _interval(draws[MODEL][metric] - draws[best_floor][metric])
            scores.leads.append({"reference": reference.name, "metric": metric, "low": low, "high": high})
        for name in values:
            value_of = values[name][metric]
            low, high = intervals[name].get(metric, (np.nan, np.nan))
            fraction, reason = fraction_of(metric, value_of, floor, highest)
            note = join_notes(reason, REGISTRY[metric].note, targets_note if metric in WITHOUT_TARGETS else "")
            scores.add(
                reference.name, metric, name, value_of, low=low, high=high, floor=floor, best_floor=best_floor,
                ceiling=highest, fraction=fraction, note=note,
            )  # fmt: skip


def flattened_draws(real: FloatArray, predicted: FloatArray, seed: int) -> dict[str, FloatArray]:
    """ATE-ρ and ATE-R² of perturbations drawn with replacement; the same perturbations for all predictions.

    Parameters
    ----------
    real, predicted
        Effects, (perturbations, genes).
    seed
        Seed of the draws.

    Returns
    -------
    Scores by metric, (samples,); nothing for fewer than two perturbations, or where a prediction is missing.
    """
    weights = _weights(real, predicted, seed)
    if weights is None:
        return {}
    sums = np.stack(
        [
            np.full(len(real), real.shape[1]), real.sum(1), predicted.sum(1), (real**2).sum(1),
            (predicted**2).sum(1), (real * predicted).sum(1), ((real - predicted) ** 2).sum(1),
        ]
    )  # fmt: skip
    n, x, y, xx, yy, xy, residual = sums @ weights.T
    spread_x, spread_y = xx - x**2 / n, yy - y**2 / n
    # What is left of a constant is rounding: its correlation is 0, as in the scores.
    varies = (spread_x > CONSTANT * xx) & (spread_y > CONSTANT * yy)
    rho = np.divide(xy - x * y / n, np.sqrt(np.abs(spread_x * spread_y)), out=np.zeros_like(x), where=varies)
    exact = (residual == 0).astype(np.float64)  # a constant truth is predicted exactly or not at all
    r2 = 1 - np.divide(residual, spread_x, out=1 - exact, where=spread_x > CONSTANT * xx)
    return {"ate_rho": rho, "ate_r2": r2}


def mean_intervals(real: FloatArray, predicted: FloatArray, seed: int) -> dict[str, tuple[float, float]]:
    """95 % intervals, over perturbations, of the metrics that are means over perturbations."""
    if not np.isfinite(predicted).all() or len(real) < 2:
        return {}
    intervals = {}
    for name in MEANS:
        each = [REGISTRY[name].function(real[[row]], predicted[[row]]) for row in range(len(real))]
        intervals[name] = drawn_interval(np.array(each), seed)
    return intervals


def _weights(real: FloatArray, predicted: FloatArray, seed: int) -> IntArray | None:
    """How often each perturbation is drawn, (samples, perturbations)."""
    if not np.isfinite(predicted).all() or len(real) < 2:
        return None
    n = len(real)
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), N_BOOTSTRAP)


def _interval(samples: FloatArray) -> tuple[float, float]:
    """Central 95 % of some samples."""
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)
