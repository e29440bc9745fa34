"""Rows of cleaned cells against their true artifact-free counts, of all damaged cells and by what was done to them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.evaluation.floors.denoiser import denoised_profiles
from cradlevae.evaluation.inputs import ScoringInputs, cells_alone
from cradlevae.evaluation.metrics.clean import profile_floors
from cradlevae.evaluation.metrics.registry import Metric, metrics_of
from cradlevae.evaluation.score_table import MODEL, Scores, best_of
from cradlevae.model.trained import TrainedModel
from cradlevae.query.counterfactual import clean
from cradlevae.utils.types import FloatArray

DENOISER = "denoiser"
"""Name of the denoiser among the predictors."""

DAMAGE_COLUMNS = ("artifact_kind", "true_artifact_kind")
"""Columns of ``obs`` that say what was done to planted or simulated damaged cells."""


def score_clean(scores: Scores, inputs: ScoringInputs, model: TrainedModel) -> None:
    """Add the rows of metrics of kind ``"clean"``, where true counts are known and the model has an artifact."""
    damaged = inputs.answered_rows[inputs.data.failed[inputs.answered_rows]]
    if not model.declaration.artifact or inputs.true_counts is None or not len(damaged):
        return
    cells = cells_alone(inputs.data, damaged)
    true_counts = sp.csr_matrix(inputs.true_counts[damaged])
    metrics = metrics_of("clean")
    of_cells: dict[str, dict[str, FloatArray]] = {entry.name: {} for entry in metrics}
    for predictor, profile in _profiles(inputs, model, damaged, cells):
        for entry in metrics:
            of_cells[entry.name][predictor] = entry.of_each_cell(true_counts, profile)
    kinds = damage_kinds(cells.obs)
    for kind in ("", *sorted(set(kinds))):
        of_kind = np.ones(len(damaged), dtype=bool) if not kind else kinds == kind
        reference = scores.label("clean counts (truth)") + (f", {kind}" if kind else "")
        for entry in metrics:
            values = {predictor: each[of_kind] for predictor, each in of_cells[entry.name].items()}
            _add_means(scores, reference, entry, values)


def _profiles(
    inputs: ScoringInputs, model: TrainedModel, damaged: npt.NDArray[np.intp], cells: Experiment
) -> Iterator[tuple[str, FloatArray]]:
    """Predicted profiles of the damaged cells, one predictor after another: the model, then floors."""
    cleaned = clean(model, cells, cells="failed", seed=inputs.seed)
    yield MODEL, np.asarray(cleaned.layers["expected"], dtype=np.float64)
    yield from profile_floors(inputs.data, inputs.training_rows, damaged)
    if inputs.denoiser:
        yield DENOISER, denoised_profiles(inputs.data, inputs.training_rows, damaged, seed=inputs.seed)


def damage_kinds(obs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """What was done to damaged cells, where the data tell (planted or simulated), (cells,); empty where not."""
    for column in DAMAGE_COLUMNS:
        if column in obs:
            return np.asarray(obs[column].astype(str), dtype=np.str_)
    return np.zeros(0, dtype=np.str_)


def _add_means(scores: Scores, reference: str, entry: Metric, of_cells: dict[str, FloatArray]) -> None:
    """Add a row for each predictor: the mean over cells and its normal 95 % interval."""
    means = {name: float(values.mean()) for name, values in of_cells.items()}
    floor, best_floor = best_of(entry.name, {name: value for name, value in means.items() if name != MODEL})
    for name, value in means.items():
        error = 1.96 * of_cells[name].std() / np.sqrt(len(of_cells[name]))
        scores.add(
            reference, entry.name, name, value, low=value - error, high=value + error, floor=floor,
            best_floor=best_floor, note=entry.note,
        )  # fmt: skip
