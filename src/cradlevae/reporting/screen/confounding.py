"""The figure of perturbations that change how often cells fail quality control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.reporting.layout.forest import MAX_ROWS, forest, height_of
from cradlevae.reporting.style import (
    FAILED,
    INK,
    MUTED,
    PASSING,
    WIDTH,
    check_table,
    name_axes,
    one_panel,
    one_panel_done,
    say_instead,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDED = ("perturbation", "n_cells", "n_failed", "log_odds", "low", "high", "flagged")


def confounding(alarm: pd.DataFrame, *, ax: Axes | None = None) -> Figure | Axes:
    """Forest plot of the log odds of failing quality control, each perturbation against the controls.

    Parameters
    ----------
    alarm
        The table that :func:`cradlevae.confounding_alarm` returns.
    ax
        Axes to draw into; ``None`` makes a figure of two columns' width.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        One panel, a line per perturbation that was compared with controls, up to 40; or the axes, where some were
        given.

    Raises
    ------
    DataError
        If a column is absent.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> alarm = cv.confounding_alarm(adata, artifact_key="true_artifact")
    >>> len(cv.pl.confounding(alarm).axes[0].get_yticklabels())
    7
    """
    check_table("alarm", alarm, NEEDED, "confounding_alarm")
    n_absent = int(alarm["log_odds"].isna().sum())
    alarm = alarm[alarm["log_odds"].notna()]
    rows = _chosen(alarm)
    drawn = one_panel(ax, height_of(len(rows)), WIDTH)
    if rows.empty:
        name_axes(drawn)
        say_instead(drawn, "there are no perturbations to compare with the controls", width=80)
        return one_panel_done(drawn, ax, "Quality control and perturbations")
    drawn.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    value, low, high = (rows[column].to_numpy(dtype=np.float64) for column in ("log_odds", "low", "high"))
    colours = [FAILED if hot else PASSING for hot in rows["flagged"]]
    shares = [f"{failed:,} of {cells:,} fail" for failed, cells in zip(rows["n_failed"], rows["n_cells"], strict=True)]
    forest(drawn, list(rows["perturbation"].astype(str)), value, low, high, colours, shares)
    for label, hot in zip(drawn.get_yticklabels(), rows["flagged"], strict=True):
        label.set_color(FAILED if hot else INK)
    name_axes(drawn, x="log odds ratio of failing quality control (natural log; 0 = as the control cells)")
    return one_panel_done(drawn, ax, _title(alarm), _caption(len(alarm), len(rows), n_absent))


def _chosen(alarm: pd.DataFrame) -> pd.DataFrame:
    """Choose the rows to draw, from the top down by log odds."""
    order = alarm.assign(_size=alarm["log_odds"].abs()).sort_values(
        ["flagged", "_size"], ascending=False, kind="stable"
    )
    return order.iloc[:MAX_ROWS].sort_values("log_odds", ascending=False, kind="stable").reset_index(drop=True)


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
