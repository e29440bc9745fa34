"""Escaping cells of a simulated experiment: they carry the label of a perturbation that did not take.

A cell escapes as a whole, for instance because its Cas9 is silent: a cell with the label ``A+B`` has the state of both
perturbations together or that of a control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cradlevae.data.labels import CONTROL
from cradlevae.errors import DataError
from cradlevae.utils.checks import shown
from cradlevae.utils.fields import plain
from cradlevae.utils.names import closest
from cradlevae.utils.types import BoolArray, FloatArray, IntArray

Escaping = float | Mapping[str, float]
"""Share of the perturbed cells that escape: one number, or one for each condition; others then do not escape."""


def escaping_shares(escaping: Any, conditions: Sequence[str]) -> FloatArray:
    """Share of the cells of each condition that escape, (conditions,); that of the control is 0.

    Parameters
    ----------
    escaping
        What a user wrote: :data:`Escaping`.
    conditions
        The conditions, the control first.

    Raises
    ------
    DataError
        If a share is no number from 0 to 1, or names a condition that is not simulated.
    """
    shares = np.zeros(len(conditions))
    if not isinstance(escaping, Mapping):
        shares[1:] = _checked_share("escaping", escaping)
        return shares
    known = [str(name) for name in conditions[1:]]
    for name, share in escaping.items():
        if name not in known:
            why = "controls cannot escape" if name == CONTROL else "it is not simulated"
            raise DataError(f"escaping names {shown(name)}, but {why}{closest(str(name), known)}")
        shares[1 + known.index(name)] = _checked_share(f"escaping of {name!r}", share)
    return shares


def _checked_share(what: str, share: Any) -> float:
    number = plain(share)
    if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number <= 1:
        raise DataError(f"{what} is {shown(share)}; it must be a share from 0 to 1")
    return float(number)


def draw_escaped(shares: FloatArray, condition: IntArray, rng: np.random.Generator) -> BoolArray:
    """Draw which cells escape, (cells,), from the shares of their conditions."""
    return np.asarray(rng.random(len(condition)) < shares[condition])
