"""The table of scores: its columns, its rows as the scorers add them, intervals, the best floor and the fraction.

Scorers decide what is a row; this file decides what a row looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.evaluation.reference_effects import REFERENCE_NOTES, ReferenceCells
from cradlevae.utils.checks import shown
from cradlevae.utils.types import FloatArray

COLUMNS = (
    "reference", "metric", "predictor", "value", "low", "high", "floor", "best_floor", "ceiling", "fraction", "note",
)  # fmt: skip
MODEL = "model"
PUBLISHED = "model (published protocol)"
REAL = "real cells"
"""Names of what is scored, beside floors: the model, the model in the published protocol, and real cells."""

N_BOOTSTRAP = 500
LOW_CEILING_NOTE = "ceiling not above the best floor"


def check_scores(scores: Any, needed: Sequence[str] = COLUMNS) -> None:
    """Raise :class:`DataError` unless this is a table of scores with the columns that are needed."""
    if not isinstance(scores, pd.DataFrame):
        raise DataError(f"scores is {shown(scores)}; it must be the table that evaluate returns")
    absent = [column for column in needed if column not in scores]
    if absent:
        raise DataError(f"the scores have no column {absent[0]!r}; give the table that evaluate returns")


def reference_label(cells: ReferenceCells, what: str) -> str:
    """Name of a reference in the table, e.g. ``"held-out passing cells"``."""
    return f"{cells} {what}"


def join_notes(*notes: str) -> str:
    """Notes of a row as one text; empty ones are left out."""
    return "; ".join(note for note in notes if note)


@dataclass
class Scores:
    """Rows of the table as they come.

    Attributes
    ----------
    cells
        Which cells are the reference; labels start with it, and every row has the note that such cells need.
    rows
        The rows so far.
    leads
        95 % intervals of the model's score minus that of the best floor, paired by perturbation, a row per reference
        and metric.
    """

    cells: ReferenceCells
    rows: list[dict[str, Any]] = field(default_factory=list)
    leads: list[dict[str, Any]] = field(default_factory=list)

    def label(self, what: str) -> str:
        """Name of a reference that is made of these cells."""
        return reference_label(self.cells, what)

    def add(self, reference: str, metric: str, predictor: str, value: float, *, note: str = "", **rest: Any) -> None:
        """Append a row; ``rest`` are further columns of :data:`COLUMNS`."""
        notes = join_notes(note, REFERENCE_NOTES[self.cells])
        row = {"reference": reference, "metric": metric, "predictor": predictor, "value": value, "note": notes}
        self.rows.append(row | rest)

    def table(self) -> pd.DataFrame:
        """The rows with all of :data:`COLUMNS`."""
        table = pd.DataFrame(self.rows).reindex(columns=list(COLUMNS))
        table["best_floor"] = table["best_floor"].fillna("")
        return table


def drawn_interval(values: FloatArray, seed: int) -> tuple[float, float]:
    """95 % interval of the mean over perturbations, drawn with replacement; NaN where there is one only.

    Parameters
    ----------
    values
        A score of each perturbation, (perturbations,).
    seed
        Seed of the draws.
    """
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), N_BOOTSTRAP)
    low, high = np.quantile(weights @ values / n, [0.025, 0.975])
    return float(low), float(high)


def best_of(metric: str, floors: Mapping[str, float]) -> tuple[float, str]:
    """The floor nearest to the metric's best value, among those that have a score, and its name.

    Returns
    -------
    Score and name; NaN and ``""`` where no floor has a score.
    """
    answered = {name: value for name, value in floors.items() if np.isfinite(value)}
    if not answered:
        return float("nan"), ""
    name = min(answered, key=lambda key: REGISTRY[metric].shortfall(answered[key]))
    return answered[name], name


def fraction_of(metric: str, value: float, floor: float, ceiling: float) -> tuple[float, str]:
    """Where a score lies between the best floor (0) and the ceiling (1), and why it has no place there.

    Returns
    -------
    The fraction and ``""``; NaN and a note where there is a ceiling but no better one than the floor; NaN and ``""``
    where there is no ceiling or no floor.
    """
    if not (np.isfinite(floor) and np.isfinite(ceiling)):
        return float("nan"), ""
    entry = REGISTRY[metric]
    if not entry.shortfall(ceiling) < entry.shortfall(floor):
        return float("nan"), LOW_CEILING_NOTE
    return float((value - floor) / (ceiling - floor)) + 0.0, ""  # no negative zero
