"""The figure of perturbations that change how often cells fail quality control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.reporting.style import (
    FAILED,
    INK,
    MUTED,
    NOTE_SIZE,
    PASSING,
    TICK_SIZE,
    dress,
    headline,
    name_axes,
    new_figure,
    say_instead,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 40
"""Largest number of perturbations that are drawn: the flagged ones first, then those of the largest log odds."""
NEEDED = ("perturbation", "n_cells", "n_failed", "log_odds", "low", "high", "flagged")


def confounding_figure(alarm: pd.DataFrame) -> Figure:
    """Forest plot of the log odds of failing quality control, each perturbation against the controls.

    Parameters
    ----------
    alarm
        The table that :func:`cradlevae.confounding_alarm` returns.

    Returns
    -------
    matplotlib.figure.Figure
        One panel, a line per perturbation that was compared with controls, up to 40.

    Raises
    ------
    DataError
        If a column is absent.
    """
    absent = [column for column in NEEDED if column not in alarm]
    if absent:
        raise DataError(f"the alarm has no column {absent[0]!r}; give the table of confounding_alarm")
    n_absent = int(alarm["log_odds"].isna().sum())
    alarm = alarm[alarm["log_odds"].notna()]
    rows = _chosen(alarm)
    figure = new_figure(1.6 + 0.165 * max(len(rows), 2))
    ax = figure.add_subplot()
    dress(ax)
    if rows.empty:
        name_axes(ax)
        say_instead(ax, "there are no perturbations to compare with the controls", width=80)
        headline(figure, "Quality control and perturbations")
        return figure
    height = np.arange(len(rows))
    flagged = rows["flagged"].to_numpy(dtype=bool)
    value = rows["log_odds"].to_numpy(dtype=np.float64)
    ax.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    for mask, colour in ((~flagged, PASSING), (flagged, FAILED)):
        ax.hlines(height[mask], rows["low"][mask], rows["high"][mask], color=colour, linewidth=1.3, zorder=2)
        ax.plot(value[mask], height[mask], "o", color=colour, markersize=4.5, markeredgewidth=0, zorder=3)
    ax.grid(False, axis="y")
    ax.set_ylim(-0.8, len(rows) - 0.2)
    ax.set_yticks(height, list(rows["perturbation"].astype(str)), fontsize=TICK_SIZE, parse_math=False)
    for label, hot in zip(ax.get_yticklabels(), flagged, strict=True):
        label.set_color(FAILED if hot else INK)
    right = ax.secondary_yaxis("right")
    shares = [f"{failed:,} of {cells:,}" for failed, cells in zip(rows["n_failed"], rows["n_cells"], strict=True)]
    right.set_yticks(height, shares, fontsize=NOTE_SIZE, color=MUTED)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    name_axes(ax, x="log odds ratio of failing quality control (natural log; 0 = as the control cells)")
    ax.set_title("cells that fail", loc="right", fontsize=NOTE_SIZE, color=MUTED)
    headline(figure, _title(alarm), _caption(len(alarm), len(rows), n_absent))
    return figure


def _chosen(alarm: pd.DataFrame) -> pd.DataFrame:
    """Choose the rows to draw, from the bottom up by log odds."""
    order = alarm.assign(_size=alarm["log_odds"].abs()).sort_values(
        ["flagged", "_size"], ascending=False, kind="stable"
    )
    return order.iloc[:MAX_ROWS].sort_values("log_odds", kind="stable").reset_index(drop=True)


def _title(alarm: pd.DataFrame) -> str:
    n = int(alarm["flagged"].sum())
    if n == 0:
        return f"None of {len(alarm):,} perturbations is seen to change how often cells fail quality control"
    verb = "changes" if n == 1 else "change"
    return f"{n:,} of {len(alarm):,} perturbations {verb} how often cells fail quality control"


def _caption(n_compared: int, n_shown: int, n_absent: int) -> str:
    text = (
        "Bars: 95 % intervals. Orange: flagged (exact test, Benjamini-Hochberg); the artifact that the model "
        "sees in these cells may be biology."
    )
    if n_shown < n_compared:
        text += f" Shown: {n_shown} of {n_compared:,}, the flagged first, then the largest."
    if n_absent:
        text += f" Not compared, for want of controls in their batches: {n_absent:,}."
    return text
