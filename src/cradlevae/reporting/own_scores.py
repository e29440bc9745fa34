"""Scores by metrics that a user has registered, each on a scale of its own."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.reporting.style import CEILING, FLOOR, MODEL, NOTE_SIZE, TICK_SIZE, headline, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODEL_NAME = "model"
TITLE_CHARACTERS = 44


def own_scores_figure(scores: pd.DataFrame) -> Figure | None:
    """Draw the scores of a user's own metrics; ``None`` where there are none.

    Parameters
    ----------
    scores
        Tidy scores as :func:`cradlevae.evaluate` returns them.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each metric that was registered by the user and each reference, a row for each predictor.
    """
    own = scores[scores["metric"].isin([entry.name for entry in REGISTRY.values() if entry.own])]
    groups = [rows for _, rows in own.groupby(["metric", "reference"], sort=False)]
    if not groups:
        return None
    most = max(map(len, groups))
    figure, axes = panels(len(groups), columns=2, row_height=0.8 + 0.17 * most)
    for ax, rows in zip(axes, groups, strict=True):
        _panel(ax, rows)
    caption = (
        "Blue: the model. Grey: what it is compared with. Green: the best value. Bars: 95 % intervals, if computed."
    )
    headline(figure, "Scores by your own metrics", caption)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw one metric against one reference, the model on top."""
    entry = REGISTRY[str(rows["metric"].iloc[0])]
    rows = rows.iloc[::-1]  # from the bottom up
    names = [str(name) for name in rows["predictor"]]
    ax.grid(False, axis="y")
    ax.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=TICK_SIZE, parse_math=False)
    ax.set_ylim(-0.6, len(names) - 0.4)
    for height, row in enumerate(rows.to_dict(orient="records")):
        colour = MODEL if row["predictor"].startswith(MODEL_NAME) else FLOOR
        ax.plot([row["value"]], [height], "o", color=colour, markersize=5 if colour == MODEL else 4)
        if np.isfinite([row["low"], row["high"]]).all():
            ax.hlines(height, row["low"], row["high"], color=colour, linewidth=1.3, alpha=0.6)
    if np.isfinite(entry.best):
        ax.axvline(entry.best, color=CEILING, linewidth=0.8, zorder=0)
    title = textwrap.fill(f"{entry.name.replace('_', ' ')}: {entry.description}", TITLE_CHARACTERS)
    name_axes(ax, title=title)
    ax.set_xlabel(textwrap.fill(str(rows["reference"].iloc[0]), TITLE_CHARACTERS), fontsize=NOTE_SIZE, parse_math=False)
