"""What a verdict consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

Level = Literal["good", "note", "warning"]


@dataclass(frozen=True)
class Finding:
    """One sentence or two of a verdict.

    Attributes
    ----------
    level
        ``"good"``: rely on it; ``"note"``: know it; ``"warning"``: distrust it, or do otherwise.
    topic
        What it is about, in one or two words.
    text
        The finding in whole sentences, with its numbers.
    """

    level: Level
    topic: str
    text: str


def of_metric(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of one metric."""
    return scores[scores["metric"] == metric]


def attribute(scores: pd.DataFrame, name: str) -> Any:
    """What evaluate knows beside the rows; ``None`` where the table came without it."""
    return scores.attrs.get(name)
