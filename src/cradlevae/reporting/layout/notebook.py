"""A figure that notebooks show.

Figures of :mod:`cradlevae.reporting` are made without pyplot, so that drawing one opens no window and changes no
setting. Notebooks show such a figure only where ``%matplotlib`` has told them how; this one says it by itself.
"""

from __future__ import annotations

import io

from matplotlib.figure import Figure

SCREEN_DPI = 120
"""Pixels of a screen per inch of paper: text of 7 points then has the size of a notebook's own."""
SHARPNESS = 2
"""Pixels of the picture per pixel of a screen of low density."""


class ShownFigure(Figure):
    """A figure that a notebook shows where it is the value of a cell; pyplot does not know it, and shows it no more."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Picture and its width and height on the screen, as IPython asks for them."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=SHARPNESS * SCREEN_DPI, facecolor=self.get_facecolor())
        width, height = (round(inches * SCREEN_DPI) for inches in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}
