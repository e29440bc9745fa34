"""Moments of training and validation cells, from which floors are computed."""

from __future__ import annotations

from cradlevae.data.experiment import Experiment
from cradlevae.data.moments import ConditionMoments, condition_moments
from cradlevae.data.split import Split
from cradlevae.data.storage.stored_matrix import subset_rows
from cradlevae.errors import DataError
from cradlevae.utils.types import IndexArray


def part_moments(split: Split, data: Experiment, part: str) -> ConditionMoments:
    """Moments of the passing cells of a part of a split (``"train"``, ``"val"`` or ``"test"``)."""
    rows = _passing(split, data, part)
    return condition_moments(
        subset_rows(data.counts, rows), data.condition[rows], data.conditions, genes=tuple(data.genes),
        symbols=data.symbols, strata=data.strata[rows],
    )  # fmt: skip


def need_training_controls(split: Split, data: Experiment) -> None:
    """Raise :class:`DataError` unless the data hold training controls that floors can be measured against."""
    n = int(data.is_control[_passing(split, data, "train")].sum())
    if n < 2:
        raise DataError(
            f"floors are made of the training cells, but {n} passing training controls are among the "
            f"{data.n_cells} cells given: pass the whole experiment, training cells included (the model knows which "
            "cells it was trained on)"
        )


def _passing(split: Split, data: Experiment, part: str) -> IndexArray:
    rows = split.rows(data, part)
    return rows[~data.failed[rows]]
