"""Cells that are kept with a model, whose states its queries start from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cradlevae.utils.types import Float32Array, IndexArray, IntArray

BANK_CELLS = 2000
"""At most so many passing training controls are kept with a model, of each context."""


@dataclass(frozen=True)
class ControlBank:
    """Passing training controls, whose basal states and library sizes queries start from.

    Attributes
    ----------
    loc, scale
        q(z^b | x) of each, (cells, K).
    library_size
        Their library sizes, (cells,).
    levels
        Their levels in the columns that cells differ in (batch, covariates, context), (cells, columns).
    """

    loc: Float32Array
    scale: Float32Array
    library_size: Float32Array
    levels: IntArray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.loc):
            object.__setattr__(self, "levels", np.zeros((len(self.loc), 0), dtype=np.int64))

    def of(self, rows: IndexArray) -> ControlBank:
        """Some of the controls."""
        return ControlBank(self.loc[rows], self.scale[rows], self.library_size[rows], self.levels[rows])


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
