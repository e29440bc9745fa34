"""A list of values with intervals, one below the other, and the number of cells at the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cradlevae.reporting.style import INK, MUTED, NOTE_SIZE, TICK_SIZE, shorten
from cradlevae.utils.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ROWS = 40
"""Largest number of rows that are drawn."""
NAME_LENGTH = 22
"""Characters of a name that leave room for the values in one column of a page."""
ROW_HEIGHT = 0.165
"""Height of a row in inches."""


def height_of(n_rows: int) -> float:
    """Height in inches of a figure of so many rows, with title, axis and caption."""
    return 1.5 + ROW_HEIGHT * max(n_rows, 3)


def forest(
    ax: Axes,
    names: Sequence[str],
    value: FloatArray,
    low: FloatArray,
    high: FloatArray,
    colours: Sequence[str],
    at_right: Sequence[str],
) -> None:
    """Draw a dot and its interval in each row, the first row at the top.

    Parameters
    ----------
    ax
        Axes.
    names
        Names of the rows, written at the left; (rows,).
    value, low, high
        Value and interval of each row, (rows,); a row whose value is missing stays empty.
    colours
        Colours of the rows, (rows,).
    at_right
        What is written at the right of each row, e.g. its number of cells, (rows,).
    """
    height = np.arange(len(names))[::-1]
    known = np.isfinite(value)
    bounded = known & np.isfinite(low) & np.isfinite(high)
    colour = np.array(colours, dtype=object)
    ax.hlines(height[bounded], low[bounded], high[bounded], colors=list(colour[bounded]), linewidth=1.3, zorder=2)
    ax.scatter(value[known], height[known], s=20, c=list(colour[known]), linewidths=0, zorder=3, clip_on=False)
    ax.grid(False, axis="y")
    ax.set_ylim(-0.8, len(names) - 0.2)
    ax.set_yticks(height, [shorten(name, NAME_LENGTH) for name in names], fontsize=TICK_SIZE, parse_math=False)
    ax.tick_params(axis="y", length=0)
    right = ax.secondary_yaxis("right")
    right.set_yticks(height, list(at_right), fontsize=NOTE_SIZE, color=MUTED)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    for label in ax.get_yticklabels():
        label.set_color(INK)
