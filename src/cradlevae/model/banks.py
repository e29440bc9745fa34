"""Cells that are kept with a model, whose states its queries start from."""

from __future__ import annotations

from dataclasses import dataclass

from cradlevae.utils.types import Float32Array

BANK_CELLS = 2000
"""At most so many passing training controls are kept with a model."""


@dataclass(frozen=True)
class ControlBank:
    """Passing training controls, whose basal states and library sizes queries start from.

    Attributes
    ----------
    loc, scale
        q(z^b | x) of each, (cells, K).
    library_size
        Their library sizes, (cells,).
    """

    loc: Float32Array
    scale: Float32Array
    library_size: Float32Array


@dataclass(frozen=True)
class DamageBank:
    """Failed training cells, whose own artifact states queries take for damaged cells.

    Attributes
    ----------
    loc, scale
        q(s | x) of each, (cells, K).
    artifact
        Their artifact indicators, (cells, C).
    """

    loc: Float32Array
    scale: Float32Array
    artifact: Float32Array
