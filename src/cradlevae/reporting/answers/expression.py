"""The figure of one gene across perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.reporting.layout.forest import MAX_ROWS, forest, height_of
from cradlevae.reporting.style import (
    FAILED,
    MODEL,
    MUTED,
    PASSING,
    check_table,
    name_axes,
    one_panel,
    one_panel_done,
    shorten,
)
from cradlevae.utils.checks import optional_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDED = ("expression", "low", "high")


def expression(table: pd.DataFrame, gene: str | None = None, *, ax: Axes | None = None) -> Figure | Axes:
    """Expression of one gene under each perturbation, with intervals, from low to high.

    Parameters
    ----------
    table
        What :meth:`cradlevae.CradleVAE.expression` returns: a row for each perturbation, the control first, with
        ``expression``, ``low``, ``high`` and ``n_cells``. Of more than 40, those that differ most from the control
        are drawn.
    gene
        Name of the gene, for the title; ``None`` takes it from ``table.attrs["gene"]`` where it is there.
    ax
        Axes to draw into; ``None`` makes a figure of one column's width.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        The figure; or the axes, where some were given.

    Raises
    ------
    DataError
        If a column is absent, or there is no row.

    Examples
    --------
    >>> import pandas as pd
    >>> import cradlevae as cv
    >>> table = pd.DataFrame(
    ...     {"expression": [1.0, 2.5], "low": [0.9, 2.1], "high": [1.1, 2.9], "n_cells": [200, 50]},
    ...     index=["control", "A"],
    ... )
    >>> figure = cv.pl.expression(table, "gene3")
    >>> figure.savefig("gene3.pdf")  # doctest: +SKIP
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['control', 'A']
    """
    asked = optional_text("gene", gene)
    check_table("table", table, NEEDED, "model.expression")
    if len(table) == 0:
        raise DataError("table has no row; give the table that model.expression returns")
    name = asked or str(table.attrs.get("gene", "Expression"))
    control = float(table["expression"].iloc[0])
    treated = table.iloc[1:]
    up, down = treated["low"] > control, treated["high"] < control
    far = np.maximum(treated["low"].to_numpy() - control, control - treated["high"].to_numpy())
    beyond = pd.Series(far, treated.index)  # how far the interval is from the control
    shown_rows = treated.loc[beyond.sort_values(ascending=False, kind="stable").index[:MAX_ROWS]]
    shown_rows = shown_rows.sort_values("expression", ascending=False, kind="stable")
    rows = pd.concat([table.iloc[:1], shown_rows])
    colours = [MUTED]
    for low, high in zip(shown_rows["low"], shown_rows["high"], strict=True):
        colours.append(FAILED if low > control else MODEL if high < control else PASSING)

    drawn = one_panel(ax, height_of(len(rows)))
    drawn.axvline(control, color=MUTED, linewidth=0.8, zorder=1)
    drawn.axvspan(float(table["low"].iloc[0]), float(table["high"].iloc[0]), color=MUTED, alpha=0.12, linewidth=0)
    counts = [f"n = {n:,.0f}" for n in rows["n_cells"]] if "n_cells" in rows else [""] * len(rows)
    value, low, high = (rows[column].to_numpy(dtype=np.float64) for column in NEEDED)
    names = [str(name) for name in rows.index]
    forest(drawn, names, value, low, high, colours, counts)
    name_axes(drawn, x="mean of log2(1 + counts per 10,000)")
    n = len(treated)
    title = (
        f"{shorten(name)}: up in {int(up.sum()):,}, down in {int(down.sum()):,} of {n:,} perturbation{'s'[: n != 1]}"
    )
    caption = "Line and band: the control and its interval. Coloured: intervals that exclude the control. "
    if len(shown_rows) < n:
        caption += f"Shown: the {len(shown_rows)} of {n:,} that differ most. "
    if "n_cells" in rows and (rows["n_cells"] == 0).any():
        caption += "0 cells: not seen in training."
    return one_panel_done(drawn, ax, title, caption)
