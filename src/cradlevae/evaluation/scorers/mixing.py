"""Rows of cleaned cells among passing ones: how far failed cells still stand apart after cleaning, and before.

For every failed cell that is looked at there are two passing ones of the same condition and stratum: one that it is
mixed with, and one that takes its place among ``real cells``, which show what can be reached. All are reference cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.evaluation.inputs import ScoringInputs, cells_alone
from cradlevae.evaluation.metrics.clean import profile_floors
from cradlevae.evaluation.metrics.mixing import Mixture
from cradlevae.evaluation.metrics.pca_space import fit_space
from cradlevae.evaluation.metrics.registry import metrics_of
from cradlevae.evaluation.score_table import MODEL, REAL, Scores, best_of, fraction_of, join_notes
from cradlevae.model.trained import TrainedModel
from cradlevae.query.counterfactual import clean
from cradlevae.utils.types import IndexArray, IntArray

FEWEST_CELLS, MOST_CELLS = 20, 1000
"""Fewest and most failed cells that are looked at."""

WITHOUT_LABEL = f"{MODEL} (label unused)"
EXPECTED = f"{MODEL} (expected counts)"
AS_MEASURED = "as measured"
TRUTH = "true counts"
"""Names of what is scored, beside the model, floors and real cells."""

FLOORS = AS_MEASURED, "perturbation_mean"

NOTES = {
    MODEL: "X of clean",
    WITHOUT_LABEL: "X of clean(use_label=False)",
    EXPECTED: "layers['expected'] of clean, which is no cell's counts",
    AS_MEASURED: "failed cells before cleaning",
    "perturbation_mean": "Poisson counts of the mean of the passing training cells of the perturbation",
    TRUTH: "true counts of the failed cells",
    REAL: "passing cells in the place of failed ones",
}


@dataclass(frozen=True)
class Matched:
    """Cells that agree, place by place, in condition and stratum: rows of an experiment, (cells,) each."""

    failed: IndexArray
    passing: IndexArray
    instead: IndexArray


def score_mixing(scores: Scores, inputs: ScoringInputs, model: TrainedModel) -> None:
    """Add the rows of metrics of kind ``"mixing"``, where the model has an artifact; NaN where cells are too few."""
    data, reference = inputs.data, scores.label("passing cells")
    if not model.declaration.artifact:
        return
    cells = matched_cells(data, inputs.answered_rows, inputs.seed)
    if len(cells.failed) < FEWEST_CELLS:
        note = f"{len(cells.failed)} failed cells with two passing ones of their condition, fewer than {FEWEST_CELLS}"
        for entry in metrics_of("mixing"):
            scores.add(reference, entry.name, MODEL, float("nan"), note=note)
        return
    train = inputs.training_rows
    space = fit_space(data.counts, train[~data.failed[train]], seed=inputs.seed)
    passing = space.project(sp.csr_matrix(data.counts[cells.passing]))
    failed = np.repeat([False, True], len(cells.failed))
    condition = np.tile(data.condition[cells.failed], 2)
    values: dict[str, dict[str, float]] = {entry.name: {} for entry in metrics_of("mixing")}
    for predictor, counts in _versions(inputs, model, cells):
        mixture = Mixture(np.concatenate([passing, space.project(counts)]), failed, condition)
        for entry in metrics_of("mixing"):
            values[entry.name][predictor] = entry.value(mixture, seed=inputs.seed)
    for entry in metrics_of("mixing"):
        own = values[entry.name]
        floor, best_floor = best_of(entry.name, {name: own[name] for name in FLOORS})
        for predictor, value in own.items():
            fraction, why = fraction_of(entry.name, value, floor, own[REAL])
            scores.add(
                reference, entry.name, predictor, value, floor=floor, best_floor=best_floor,
                ceiling=own[REAL], fraction=fraction, note=join_notes(NOTES[predictor], why, entry.note),
            )  # fmt: skip


def matched_cells(data: Experiment, rows: IndexArray, seed: int) -> Matched:
    """Failed cells, some of ``rows``, with two passing ones each, of the same condition and stratum; at random."""
    rng = np.random.default_rng([seed, 7])
    rows = rng.permutation(rows)
    group = np.unique(np.stack([data.condition, data.strata]), axis=1, return_inverse=True)[1].ravel()
    failed, passing = rows[data.failed[rows]], rows[~data.failed[rows]]
    of_failed, of_passing = _place(group[failed]), _place(group[passing])
    n_passing = np.bincount(group[passing], minlength=int(group.max()) + 1)
    failed = failed[of_failed < n_passing[group[failed]] // 2][:MOST_CELLS]
    by_place = {(int(group[row]), int(place)): row for row, place in zip(passing, of_passing, strict=True)}
    keys = list(zip(group[failed].tolist(), _place(group[failed]).tolist(), strict=True))
    chosen = np.array([(by_place[code, 2 * place], by_place[code, 2 * place + 1]) for code, place in keys])
    first, second = chosen.reshape(-1, 2).astype(np.int64).T
    return Matched(failed, first, second)


def _place(groups: IntArray) -> IntArray:
    """How many cells of the same group stand before each cell, (cells,)."""
    order = np.argsort(groups, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0]) if len(groups) else np.zeros(0, dtype=np.int64)
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(first, np.diff(np.r_[first, len(groups)]))
    return place


def _versions(inputs: ScoringInputs, model: TrainedModel, cells: Matched) -> Iterator[tuple[str, sp.csr_matrix]]:
    """What stands for the failed cells, one predictor after another: its name, and counts, (failed cells, genes)."""
    data, failed = inputs.data, cells.failed
    alone = cells_alone(data, failed)
    twins = clean(model, alone, seed=inputs.seed)
    yield MODEL, twins.X
    yield WITHOUT_LABEL, clean(model, alone, use_label=False, seed=inputs.seed).X
    yield EXPECTED, sp.csr_matrix(twins.layers["expected"])
    yield AS_MEASURED, sp.csr_matrix(data.counts[failed])
    profile = dict(profile_floors(data, inputs.training_rows, failed))["perturbation_mean"]
    share = profile / profile.sum(axis=1, keepdims=True)
    drawn = np.random.default_rng([inputs.seed, 8]).poisson(share * model.passing_library_size)
    yield "perturbation_mean", sp.csr_matrix(drawn)
    if inputs.true_counts is not None:
        yield TRUTH, sp.csr_matrix(inputs.true_counts[failed])
    yield REAL, sp.csr_matrix(data.counts[cells.instead])
