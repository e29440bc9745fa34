"""The thresholds that quality control finds in real cells, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cradlevae.data.qc.criteria import CRITERIA, LOW, Spread, direction, mad_thresholds
from cradlevae.data.qc.doublets import DoubletsNotAssessable, fit_doublets
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IndexArray

SWITCHED_OFF = "switched off"
NO_COUNTS = "no cell has counts"
NO_SPREAD = "at least half of the cells have the value {value}, so there is no spread to set a threshold by"
TOO_FEW = "only {n} cells with counts; a threshold needs {least}"
"""Reasons why a criterion is not assessed."""

POOLED = "{n} cells with counts: threshold of all batches together"
"""Note on a batch of a few cells."""

ROUNDING = 1e-12
"""A MAD that is smaller than this part of the median is rounding."""

MIN_BATCH = 20
"""Fewest cells with counts of a batch that has thresholds of its own, and of data that have thresholds at all.

The standard error of a MAD is about 1.2/√n of it: a quarter at 20 cells, as much as half at five.
"""


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
    spread
        Medians and MADs of the batches; NaN where there are none.
    threshold
        Threshold of each batch, (batches,); NaN where there is none.
    logarithmic
        Whether the threshold was found on the logarithm of the values, (batches,).
    reasons
        Why the criterion is not assessed in each batch, (batches,); empty where it is assessed.
    notes
        What else there is to know of each batch, (batches,); often empty.
    """

    criterion: str
    spread: Spread
    threshold: FloatArray
    logarithmic: BoolArray
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def assessed(self) -> bool:
        """Whether the criterion is assessed in at least one batch."""
        return "" in self.reasons

    @classmethod
    def without_spread(cls, criterion: str, threshold: FloatArray, reasons: Sequence[str]) -> Rule:
        """Return the rule of a criterion whose thresholds, if it has any, do not come from medians and MADs."""
        n = len(reasons)
        nothing = np.full(n, np.nan)
        spread = Spread(nothing, nothing, nothing, nothing)
        return cls(criterion, spread, threshold, np.zeros(n, dtype=bool), tuple(reasons), ("",) * n)

    @classmethod
    def unassessed(cls, criterion: str, reasons: Sequence[str]) -> Rule:
        """Return the rule of a criterion that is assessed in no batch."""
        return cls.without_spread(criterion, np.full(len(reasons), np.nan), reasons)


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
    scale: str,
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
    scale
        ``"auto"`` or ``"raw"``, see :func:`~cradlevae.data.qc.criteria.mad_thresholds`.
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
            rules[criterion] = _mad_rule(criterion, values[criterion], batches, empty, n_mads, scale)
    if not any(rule.assessed for rule in rules.values()):
        why = "; ".join(f"{criterion}: {rules[criterion].reasons[0]}" for criterion in criteria)
        raise DataError(f"no QC criterion can be assessed: {why}")
    return rules


def small_batches(batches: Batches, empty: BoolArray) -> list[int]:
    """Return the batches that have cells with counts, but fewer than :data:`MIN_BATCH`, if there are others."""
    n_counted = np.bincount(batches.codes[~empty], minlength=len(batches.names))
    small = np.flatnonzero((n_counted > 0) & (n_counted < MIN_BATCH))
    return [int(index) for index in small] if (n_counted > 0).sum() > 1 else []


def _mad_rule(
    criterion: str, values: FloatArray, batches: Batches, empty: BoolArray, n_mads: float, scale: str
) -> Rule:
    """Find the threshold of a criterion in each batch from the median and the MAD of the cells with counts.

    A batch of a few cells gets the threshold of all cells together; a few cells in all have none.
    """
    n_counted = int((~empty).sum())
    pooled = small_batches(batches, empty)
    spreads, reasons, notes = [], [], []
    for index in range(len(batches.names)):
        own = (batches.codes == index) & ~empty
        used = ~empty if index in pooled else own
        median, mad = _median_and_mad(values[used])
        logs = _median_and_mad(np.log(values[used])) if criterion in LOW else (np.nan, np.nan)
        spreads.append((median, mad, *logs))
        reason = NO_SPREAD.format(value=f"{median:g}") if mad <= ROUNDING * abs(median) else ""
        if not own.any() and direction(criterion) == "high":
            # Where all cells are empty they still fail the low criteria: only the high ones cannot be assessed.
            reason = NO_COUNTS
        if n_counted < MIN_BATCH:
            reason = TOO_FEW.format(n=n_counted, least=MIN_BATCH)
        reasons.append(reason)
        together = index in pooled and n_counted >= MIN_BATCH
        notes.append(POOLED.format(n=int(own.sum())) if together else "")
    spread = Spread(*np.array(spreads).T)
    threshold, logarithmic = mad_thresholds(criterion, spread, n_mads, scale)
    assessed = np.array([not reason for reason in reasons])
    return Rule(
        criterion,
        spread,
        np.where(assessed, threshold, np.nan),
        logarithmic & assessed,
        tuple(reasons),
        tuple(notes),
    )


def _median_and_mad(values: FloatArray) -> tuple[float, float]:
    """Return median and median absolute deviation; NaN of no values."""
    if len(values) == 0:
        return np.nan, np.nan
    median = float(np.median(values))
    return median, float(np.median(np.abs(values - median)))


def _doublet_rule(counts: Counts, batches: Batches, empty: BoolArray, seed: int) -> tuple[Rule, FloatArray]:
    """Find the doublet threshold of each batch and the score of each cell: both cells of a doublet are of one batch."""
    matrix = counts.matrix()
    scores = np.full(len(empty), np.nan)
    threshold = np.full(len(batches.names), np.nan)
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
    return Rule.without_spread("doublet", threshold, reasons), scores
