"""Names beside the points of a figure, placed so that they cover neither each other nor the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cradlevae.reporting.style import INK, MUTED, NOTE_SIZE
from cradlevae.utils.types import FloatArray, IndexArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


REACH = (4.0, 8.0, 13.0, 19.0, 26.0, 34.0, 44.0, 56.0)
"""Distances between a point and its name that are tried, in points (1/72 inch)."""
ANGLES = np.deg2rad(np.arange(0.0, 360.0, 22.5))
GAP = 2.0
"""Least space around a name, in points: a name that touches no centre then touches no dot."""


def settle(figure: Figure) -> None:
    """Arrange the panels now, so that positions on the page are known."""
    figure.draw_without_rendering()


def label_points(ax: Axes, x: FloatArray, y: FloatArray, names: Sequence[str], chosen: IndexArray) -> None:
    """Write the names of the ``chosen`` points next to them, with a thin line where they had to move away.

    A name that would cover a point, another name or the frame wherever it stood is left out.

    Parameters
    ----------
    ax
        Axes with final limits in a figure that has been through :func:`settle`.
    x, y
        All points, (points,); names keep clear of them.
    names
        The names of all points.
    chosen
        Positions of the points to name, the most important first. Points outside the axes are left out.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.patheffects import withStroke

    figure: Any = ax.figure
    renderer = figure.canvas.get_renderer()
    unit = figure.dpi / 72.0
    frame: Any = ax.get_window_extent(renderer)
    at = ax.transData.transform(np.column_stack([x, y]))
    inside = (at >= frame.min).all(axis=1) & (at <= frame.max).all(axis=1)
    font = FontProperties(size=NOTE_SIZE)
    halo = [withStroke(linewidth=1.6, foreground="white", alpha=0.85)]
    taken: list[FloatArray] = []  # left, bottom, right, top in pixels
    for index in chosen:
        if not inside[index]:
            continue
        width, height, _ = renderer.get_text_width_height_descent(str(names[index]), font, False)
        half = np.array([width, height]) / 2 + GAP * unit
        place = _best_box(at[index], half, unit, frame, at[inside], taken)
        if place is None:
            continue
        box, offset = place
        taken.append(box)
        line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.4, "shrinkA": 0.0, "shrinkB": 1.5}
        note = ax.annotate(
            str(names[index]),
            xy=(float(x[index]), float(y[index])),
            xytext=(float(offset[0] / unit), float(offset[1] / unit)),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=NOTE_SIZE,
            color=INK,
            arrowprops=line,
            parse_math=False,
            path_effects=halo,
            zorder=6,
        )
        note.set_in_layout(False)


def _best_box(
    point: FloatArray, half: FloatArray, unit: float, frame: Any, points: FloatArray, taken: list[FloatArray]
) -> tuple[FloatArray, FloatArray] | None:
    """The closest box in which a name covers nothing, and its centre relative to the point; ``None`` where is none."""
    others = np.array(taken).reshape(-1, 4)
    for reach in REACH:
        for angle in ANGLES:
            towards = np.array([np.cos(angle), np.sin(angle)])
            offset = towards * (reach * unit) + np.clip(towards * 1.5, -1.0, 1.0) * half
            low, high = point + offset - half, point + offset + half
            covers = ((points > low) & (points < high)).all(axis=1).any()
            clashes = ((others[:, :2] < high) & (others[:, 2:] > low)).all(axis=1).any()
            outside = (low < frame.min).any() or (high > frame.max).any()
            if not (covers or clashes or outside):
                return np.concatenate([low, high]), offset
    return None
