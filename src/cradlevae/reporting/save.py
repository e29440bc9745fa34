"""Writing figures to files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cradlevae.errors import DataError
from cradlevae.utils.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 300
"""Pixels per inch of a PNG, and of the dense parts of an SVG or PDF."""
FORMATS = ("png", "svg", "pdf")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure; the suffix of ``path`` (``.png``, ``.svg``, ``.pdf``) chooses the format.

    Nothing half-written stays behind.

    Returns
    -------
    Path of the file.

    Raises
    ------
    DataError
        If the suffix is another one, or the folder cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise DataError(f"cannot save a figure as {path.name!r}; its name must end in .png, .svg or .pdf")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=DPI, facecolor=figure.get_facecolor())
    return path
