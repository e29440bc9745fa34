"""Moments of training and validation cells, from which floors are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from cradlevae.data.experiment import Experiment
from cradlevae.data.moments import ConditionMoments, condition_moments, control_row
from cradlevae.data.split import Split
from cradlevae.data.storage.stored_matrix import subset_rows
from cradlevae.data.strata import has_strata, stratum_weights
from cradlevae.errors import DataError
from cradlevae.utils.types import FloatArray, IndexArray


@dataclass(frozen=True)
class StratifiedMoments(ConditionMoments):
    """Moments within strata that know how conditions lean on the controls of each stratum.

    Attributes
    ----------
    leaning
        Weight of each stratum in a condition's effect over the root of the stratum's number of controls,
        (conditions, strata): the errors that the controls add to two effects have the covariance σ² Σ_b l_tb l_ub.
    """

    leaning: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))

    def of(self, rows: Sequence[int] | IndexArray) -> StratifiedMoments:
        """The moments of some conditions."""
        chosen = super().of(rows)
        assert isinstance(chosen, StratifiedMoments)
        return replace(chosen, leaning=self.leaning[rows])


def part_moments(split: Split, data: Experiment, part: str) -> ConditionMoments:
    """Moments of the passing cells of a part of a split (``"train"``, ``"val"`` or ``"test"``), within strata."""
    rows = _passing(split, data, part)
    condition, strata = data.condition[rows], data.strata[rows]
    moments = condition_moments(
        subset_rows(data.counts, rows), condition, data.conditions, genes=tuple(data.genes), symbols=data.symbols,
        strata=strata,
    )  # fmt: skip
    if not has_strata(condition, strata):
        return moments
    weights = stratum_weights(condition, strata, len(data.conditions), 0)
    leaning = weights.share / np.sqrt(np.maximum(weights.n_controls, 1))
    return StratifiedMoments(**{entry.name: getattr(moments, entry.name) for entry in fields(moments)}, leaning=leaning)


def shared_controls(moments: ConditionMoments, members: Sequence[str]) -> float:
    """Error that effects have in common, summed over ordered pairs, in units of that of the controls' mean.

    Without strata, all effects have the same controls: 1 for each pair. Within strata, two perturbations of different
    batches share nothing, and two of one batch more than the whole of the controls would say.

    Parameters
    ----------
    moments
        Moments of training cells.
    members
        Conditions whose effects are added.
    """
    if not isinstance(moments, StratifiedMoments):
        return float(len(members) * (len(members) - 1))
    row = {name: position for position, name in enumerate(moments.names)}
    leaning = moments.leaning[[row[name] for name in members if name in row]]
    n_controls = float(moments.n_cells[control_row(moments)])
    return n_controls * float((leaning.sum(axis=0) ** 2).sum() - (leaning**2).sum())


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
