"""What one evaluation works on: the experiment, read once, its reference cells, and what is computed from them once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.marks import KnownTruth
from cradlevae.data.labels import CONTROL
from cradlevae.data.moments import ConditionMoments
from cradlevae.data.storage.stored_matrix import CountMatrix
from cradlevae.evaluation.floors.training_moments import part_moments
from cradlevae.evaluation.ground_truth import clean_counts
from cradlevae.evaluation.predictor import Predictor
from cradlevae.utils.types import AnnDataLike, IndexArray

GENERATED_CONDITIONS = 200
"""Cells of at most so many conditions are generated, chosen at random."""


@dataclass(frozen=True)
class ScoringInputs:
    """What all scorers of one evaluation work on.

    Attributes
    ----------
    predictor
        What is scored.
    adata
        The experiment as it was given: truth and thresholds of QC are looked up in it, cells are not read again.
    data
        Its cells, read and checked.
    rows
        Reference cells, passing and failed ones, ascending.
    conditions
        Perturbed conditions of the reference cells that the predictor can answer for.
    seed
        Seed of every draw.
    known
        What of the data is taken for the truth.
    denoiser
        Whether a denoiser is trained, as a floor of cleaned cells.
    """

    predictor: Predictor
    adata: AnnDataLike
    data: Experiment
    rows: IndexArray
    conditions: tuple[str, ...]
    seed: int
    known: KnownTruth = field(default_factory=KnownTruth)
    denoiser: bool = True

    @cached_property
    def generated_conditions(self) -> tuple[str, ...]:
        """Conditions that cells are generated of: all, or of thousands, whose cells would fill the memory, some."""
        n = len(self.conditions)
        if n <= GENERATED_CONDITIONS:
            return self.conditions
        chosen = np.random.default_rng(self.seed).choice(n, GENERATED_CONDITIONS, replace=False)
        return tuple(self.conditions[row] for row in np.sort(chosen))

    @cached_property
    def passing(self) -> IndexArray:
        """Reference cells that passed QC."""
        return self.rows[~self.data.failed[self.rows]]

    @cached_property
    def answered_rows(self) -> IndexArray:
        """Reference cells that are controls or of a condition that the predictor can answer for."""
        answered = np.isin(self.data.conditions, [CONTROL, *self.conditions])
        return self.rows[answered[self.data.condition[self.rows]]]

    @cached_property
    def training_rows(self) -> IndexArray:
        """Training cells, passing and failed ones."""
        return self.predictor.split.rows(self.data, "train")

    @cached_property
    def train(self) -> ConditionMoments:
        """Moments of the passing training cells."""
        return part_moments(self.predictor.split, self.data, "train")

    @cached_property
    def validation(self) -> ConditionMoments:
        """Moments of the passing validation cells."""
        return part_moments(self.predictor.split, self.data, "val")

    @cached_property
    def truth(self) -> Any:
        """What is known of simulated data (``uns["truth"]``), or ``None``."""
        return self.known.simulated

    @cached_property
    def true_counts(self) -> CountMatrix | None:
        """True artifact-free counts of all cells, (cells, genes), or ``None``."""
        return None if self.known.layer is None else clean_counts(self.adata, self.data, self.known.layer)


def cells_alone(data: Experiment, rows: IndexArray) -> Experiment:
    """Some cells of an experiment with the conditions that they have, as if no others had been read."""
    part = data.subset(rows)
    present = np.union1d([0], part.condition)  # the control is always the first
    place = np.full(len(data.conditions), -1, dtype=part.condition.dtype)
    place[present] = np.arange(len(present))
    conditions = tuple(data.conditions[code] for code in present)
    return replace(part, conditions=conditions, condition=place[part.condition])
