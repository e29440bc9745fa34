"""The thresholds that quality control finds in real cells, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cradlevae.data.qc.criteria import CRITERIA, direction, mad_threshold
from cradlevae.data.qc.doublets import DoubletsNotAssessable, fit_doublets
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IndexArray

SWITCHED_OFF = "switched off"
NO_COUNTS = "no cell has counts"
"""Reasons why a criterion is not assessed."""


@dataclass(frozen=True)
class Batches:
    """The experimental batches (10x lanes, plates) of the cells.

    Attributes
    ----------
    names
        Names of the batches, (batches,).
    codes
        Position of each cell's batch in ``names``, (cells,).
    """

    names: tuple[str, ...]
    codes: IndexArray


@dataclass(frozen=True)
class Rule:
    """How one criterion judges the cells of each batch.

    Attributes
    ----------
    criterion
        Name of the criterion.
    median, mad, threshold
        Median, median absolute deviation and threshold of each batch, (batches,); NaN where there is none.
    reasons
        Why the criterion is not assessed in each batch, (batches,); empty where it is assessed.
    """

    criterion: str
    median: FloatArray
    mad: FloatArray
    threshold: FloatArray
    reasons: tuple[str, ...]

    @property
    def assessed(self) -> bool:
        """Whether the criterion is assessed in at least one batch."""
        return "" in self.reasons

    @classmethod
    def unassessed(cls, criterion: str, reasons: Sequence[str]) -> Rule:
        """Return the rule of a criterion that is assessed in no batch."""
        nothing = np.full(len(reasons), np.nan)
        return cls(criterion, nothing, nothing, nothing, tuple(reasons))


def read_batches(adata: AnnDataLike, batch_key: str | None) -> Batches:
    """Read the batch of each cell from a column of ``obs``; without a column all cells are one batch, ``"all"``."""
    if batch_key is None:
        return Batches(("all",), np.zeros(adata.n_obs, dtype=np.intp))
    if batch_key not in adata.obs:
        known = ", ".join(map(repr, adata.obs.columns)) or "none"
        raise DataError(f"obs has no column {batch_key!r} (batch_key=); its columns: {known}")
    column = adata.obs[batch_key]
    if column.isna().any():
        raise DataError(f"obs[{batch_key!r}] (batch_key=) is missing for {int(column.isna().sum())} cells")
    codes, names = pd.factorize(column.astype(str), sort=True)
    return Batches(tuple(names), codes)


def criterion_rules(
    criteria: Sequence[str],
    counts: Counts,
    values: dict[str, FloatArray],
    absent: Mapping[str, str],
    batches: Batches,
    *,
    n_mads: float,
    seed: int,
) -> dict[str, Rule]:
    """Find the thresholds of every criterion; the doublet scores are added to ``values``.

    Parameters
    ----------
    criteria
        Criteria to assess; the others become unassessed rules.
    counts
        The cells' counts.
    values
        Value of each cell by criterion, each (cells,); see :func:`~cradlevae.data.qc.criteria.measure`.
    absent
        Gene families without a gene, and why each cannot be assessed.
    batches
        Batches of the cells.
    n_mads
        Number of MADs between median and threshold.
    seed
        Seed of the simulated doublets.

    Raises
    ------
    DataError
        If no criterion can be assessed; the message holds the reasons.
    """
    empty = values["umi"] == 0
    rules = {criterion: Rule.unassessed(criterion, [SWITCHED_OFF] * len(batches.names)) for criterion in CRITERIA}
    for criterion in criteria:
        if criterion == "doublet":
            rules[criterion], values[criterion] = _doublet_rule(counts, batches, empty, seed)
        elif criterion in absent:
            rules[criterion] = Rule.unassessed(criterion, [absent[criterion]] * len(batches.names))
        else:
            rules[criterion] = _mad_rule(criterion, values[criterion], batches, empty, n_mads)
    if not any(rule.assessed for rule in rules.values()):
        why = "; ".join(f"{criterion}: {rules[criterion].reasons[0]}" for criterion in criteria)
        raise DataError(f"no QC criterion can be assessed: {why}")
    return rules


def _mad_rule(criterion: str, values: FloatArray, batches: Batches, empty: BoolArray, n_mads: float) -> Rule:
    """Find the threshold of a criterion in each batch from the median and the MAD of the cells with counts."""
    median, mad = np.full((2, len(batches.names)), np.nan)
    reasons = []
    for index in range(len(batches.names)):
        counted = values[(batches.codes == index) & ~empty]
        if len(counted):
            median[index] = np.median(counted)
            mad[index] = np.median(np.abs(counted - median[index]))
        # Where all cells are empty they still fail the low criteria: only the high ones cannot be assessed.
        reasons.append("" if len(counted) or direction(criterion) == "low" else NO_COUNTS)
    return Rule(criterion, median, mad, mad_threshold(criterion, median, mad, n_mads), tuple(reasons))


def _doublet_rule(counts: Counts, batches: Batches, empty: BoolArray, seed: int) -> tuple[Rule, FloatArray]:
    """Find the doublet threshold of each batch and the score of each cell: both cells of a doublet are of one batch."""
    matrix = counts.matrix()
    scores = np.full(len(empty), np.nan)
    threshold, nothing = np.full((2, len(batches.names)), np.nan)
    reasons = []
    for index in range(len(batches.names)):
        rows = np.flatnonzero((batches.codes == index) & ~empty)
        try:
            reference = fit_doublets(matrix, rows, seed=seed)
        except DoubletsNotAssessable as error:
            reasons.append(str(error))
            continue
        scores[rows], threshold[index] = reference.scores, reference.threshold
        reasons.append("")
    return Rule("doublet", nothing, nothing, threshold, tuple(reasons)), scores
