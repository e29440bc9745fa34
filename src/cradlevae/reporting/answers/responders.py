"""The figure of responding cells: which share of each perturbation's cells it took in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.reporting.layout.forest import MAX_ROWS, forest, height_of
from cradlevae.reporting.style import (
    MODEL,
    check_table,
    name_axes,
    one_panel,
    one_panel_done,
    say_instead,
)
from cradlevae.utils.checks import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDED = ("share", "low", "high")


def responders(responders: Any, *, ax: Axes | None = None) -> Figure | Axes:
    """Share of each perturbation's cells that respond, with its interval, from high to low.

    Parameters
    ----------
    responders
        What :meth:`cradlevae.CradleVAE.responders` returns; or its ``shares``, a row for each perturbation with
        ``share``, ``low``, ``high`` and ``n_cells``. Of more than 40, those of the lowest shares are drawn.
    ax
        Axes to draw into; ``None`` makes a figure of one column's width.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        The figure; or the axes, where some were given.

    Raises
    ------
    DataError
        If a column is absent.

    Examples
    --------
    >>> import pandas as pd
    >>> import cradlevae as cv
    >>> shares = pd.DataFrame({"share": [0.9, 0.4], "low": [0.8, 0.3], "high": [1.0, 0.5]}, index=["A", "B"])
    >>> figure = cv.pl.responders(shares)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['A', 'B']
    """
    shares = responders if isinstance(responders, pd.DataFrame) else getattr(responders, "shares", None)
    if shares is None:
        raise DataError(f"responders is {shown(responders)}; give what model.responders returns")
    check_table("responders", shares, NEEDED, "model.responders")
    rows = shares.sort_values("share", kind="stable", na_position="last")[:MAX_ROWS].iloc[::-1]
    drawn = one_panel(ax, height_of(len(rows)))
    if rows.empty:
        say_instead(drawn, "there is no perturbation")
        return one_panel_done(drawn, ax, "Responding cells")
    value, low, high = (100.0 * rows[column].to_numpy(dtype=np.float64) for column in NEEDED)
    counts = [f"n = {n:,.0f}" for n in rows["n_cells"]] if "n_cells" in rows else [""] * len(rows)
    names = [str(name) for name in rows.index]
    forest(drawn, names, value, low, high, [MODEL] * len(rows), counts)
    drawn.set_xlim(0, 100)
    name_axes(drawn, x="% of cells that respond")
    n = len(shares)
    some = f"in the median of {n:,} perturbations" if n > 1 else "of one perturbation's"
    title = f"Responding cells: {np.nanmedian(shares['share'].to_numpy(dtype=np.float64)):.0%} {some}"
    caption = "Bars: intervals of the share. The other cells look as controls do: the perturbation did not take."
    if len(rows) < n:
        caption += f" Shown: the {len(rows)} lowest of {n:,}."
    return one_panel_done(drawn, ax, title, caption)
