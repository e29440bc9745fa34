"""Rows of calibration: the model's intervals against held-out measurements, and against the truth where it is exact.

A scorer makes the sorts of interval that metrics of kind "calibration" are computed on; a metric's ``on`` chooses one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cradlevae.evaluation.inputs import ScoringInputs
from cradlevae.evaluation.metrics.calibration import LARGEST, largest_genes, predictive_interval
from cradlevae.evaluation.metrics.kinds import ALL_GENES, CREDIBLE, LARGEST_GENES, LEVELS, PREDICTIVE
from cradlevae.evaluation.metrics.registry import Metric, metrics_of
from cradlevae.evaluation.reference_effects import Noise, Reference, left_out
from cradlevae.evaluation.score_table import MODEL, Scores, drawn_interval, join_notes
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IndexArray

MEASURED = "measured effect; interval widened by its standard error"
HALVED = f"the same, measured in one half of the cells; its {LARGEST} genes chosen by the other half"
EXACT = "true effect; the credible interval itself"
WIDTH_ALONE = "the credible interval itself"


@dataclass(frozen=True)
class Intervals:
    """One sort of interval of the effects of some perturbations, (perturbations, genes) each.

    Attributes
    ----------
    low, high
        Ends of the intervals.
    where
        Which effects count.
    note
        What the intervals are compared with, in words.
    real
        Effects that they should hold; ``None`` where these are not known.
    """

    low: FloatArray
    high: FloatArray
    where: BoolArray
    note: str
    real: FloatArray | None = None


IntervalSorts = Mapping[tuple[str, int, str], Intervals]
"""Intervals by sort: predictive or credible, nominal coverage in percent, and the effects that count."""


def score_calibration(
    scores: Scores, inputs: ScoringInputs, references: Sequence[Reference], predicted: AnnDataLike
) -> None:
    """Add the rows of metrics of kind ``"calibration"``.

    Parameters
    ----------
    scores
        Table to add to.
    inputs
        What is scored; its seed is that of the bootstrap, and of the effects, whose intervals of other levels have the
        same draws.
    references
        Effects to score against.
    predicted
        The predictor's effects with their 90 % intervals, an AnnData: conditions × genes.

    Notes
    -----
    Genes of large *measured* effect are partly those of large noise: chosen and scored on the same cells, a calibrated
    interval would cover them too rarely. So one half of the cells chooses and the other is scored, and the other way
    round.
    """
    by_level, seed = {_level(predicted): predicted}, inputs.seed

    def effects_at(level: int) -> AnnDataLike:
        if level not in by_level:
            by_level[level] = inputs.predictor.effects(list(inputs.conditions), level / 100, seed=seed)
        return by_level[level]

    for reference in references:
        if reference.noise is None:
            _add_rows(scores, reference.name, _exact_intervals(reference, effects_at), seed)
            continue
        rows = np.flatnonzero(reference.noise.reliable)
        reliable = zip(reference.conditions, reference.noise.reliable, strict=True)
        unscored = left_out([name for name, enough in reliable if not enough])
        if len(rows):
            _add_rows(
                scores, reference.name, _measured_intervals(reference, reference.noise, rows, predicted, unscored), seed
            )
            continue
        for entry in metrics_of("calibration"):
            interval, _, genes = entry.on
            if interval == PREDICTIVE and genes == ALL_GENES and "real" in entry.needs:
                scores.add(reference.name, entry.name, MODEL, float("nan"), note=unscored)


def _level(predicted: AnnDataLike) -> int:
    """Nominal coverage of the intervals that come with effects, in percent."""
    return round(100 * float(predicted.uns["effects"]["credible"]))


def _exact_intervals(reference: Reference, effects_at: Callable[[int], AnnDataLike]) -> IntervalSorts:
    """Credible intervals for true effects."""
    sorts = {}
    largest = largest_genes(reference.effects)
    for level in LEVELS:
        layers = effects_at(level)[list(reference.conditions)].layers
        low, high = (np.asarray(layers[name], dtype=np.float64) for name in ("low", "high"))
        for genes, where in ((ALL_GENES, np.ones_like(largest)), (LARGEST_GENES, largest)):
            sorts[CREDIBLE, level, genes] = Intervals(low, high, where, EXACT, reference.effects)
    return sorts


def _measured_intervals(
    reference: Reference, noise: Noise, rows: IndexArray, predicted: AnnDataLike, unscored: str
) -> IntervalSorts:
    """Predictive intervals for the measured effects of some rows of a reference, and the credible intervals' width."""
    chosen = predicted[[reference.conditions[row] for row in rows]]
    effect = np.asarray(chosen.X, dtype=np.float64)
    layers = {name: np.asarray(chosen.layers[name], dtype=np.float64) for name in ("sd", "mc_error", "low", "high")}
    deviation = np.hypot(layers["sd"], layers["mc_error"])
    everywhere = np.ones(effect.shape, dtype=bool)
    sorts = {}
    for level in LEVELS:
        low, high = predictive_interval(effect, deviation, noise.standard_error[rows], level)
        note = join_notes(MEASURED, unscored)
        sorts[PREDICTIVE, level, ALL_GENES] = Intervals(low, high, everywhere, note, reference.effects[rows])
        halves = _halved_intervals(noise, rows, effect, deviation, level, join_notes(HALVED, unscored))
        sorts[PREDICTIVE, level, LARGEST_GENES] = halves
    own = (CREDIBLE, _level(predicted), ALL_GENES)
    sorts[own] = Intervals(layers["low"], layers["high"], everywhere, WIDTH_ALONE)
    return sorts


def _halved_intervals(
    noise: Noise, rows: IndexArray, effect: FloatArray, deviation: FloatArray, level: int, note: str
) -> Intervals:
    """Predictive intervals for effects in each half of the cells, on genes that the other half chooses."""
    first, second = (tuple(values[rows] for values in half) for half in noise.halves)
    parts = []
    for (chooser, _), (value, error) in ((first, second), (second, first)):
        low, high = predictive_interval(effect, deviation, error, level)
        parts.append((low, high, largest_genes(chooser), value))
    low, high, where, real = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    return Intervals(low, high, where, note, real)


def _add_rows(scores: Scores, reference: str, sorts: IntervalSorts, seed: int) -> None:
    """Add a row for each metric whose intervals are there: the mean over perturbations."""
    for entry in metrics_of("calibration"):
        intervals = sorts.get(entry.on)
        if intervals is None or (intervals.real is None and "real" in entry.needs):
            continue
        values = _of_perturbations(entry, intervals)
        low, high = drawn_interval(values, seed)
        note = join_notes(intervals.note, entry.note)
        scores.add(reference, entry.name, MODEL, float(values.mean()), low=low, high=high, note=note)


def _of_perturbations(entry: Metric, intervals: Intervals) -> FloatArray:
    """The metric of each perturbation, (perturbations,)."""
    values = []
    for row in range(len(intervals.low)):
        arrays = {name: getattr(intervals, name)[row] for name in ("low", "high", "where")}
        if intervals.real is not None:
            arrays["real"] = intervals.real[row]
        values.append(entry.value(**arrays))
    return np.array(values)
