"""What validation cells say of the residual of effects: how much of it holds, and how much wider effects spread.

All of it is sums over conditions and genes, some genes at a time. Tables are (conditions, genes), the control first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cradlevae.nn.hierarchy import Evidence, gene_blocks
from cradlevae.nn.joint import JointPosterior
from cradlevae.utils.types import Float32Array, FloatArray

Table = npt.NDArray[np.floating]

SHARE_SD = 0.5
"""Standard deviation, a priori, of the share of the residual that holds in other cells."""

APART, APART_SD = 0.5, 0.5
"""Weight, a priori, of the posterior in which conditions and genes vary each by itself, and its standard deviation."""

WIDENING_SD = 1.0
"""Standard deviation, a priori, of the square of the widening of intervals about 1."""


def weight_apart(held_out: Evidence, expected: Float32Array, posterior: JointPosterior) -> float:
    """Weight of the posterior in which each varies by itself; a priori as much as the other one's."""
    away = posterior.apart - posterior.together
    return _slope(held_out, (expected, posterior.together), away, APART, APART_SD)


def share_that_holds(held_out: Evidence, expected: Float32Array, residual: Float32Array) -> float:
    """Regression of what the decoder leaves of other cells' means on the residual.

    A priori the share is 1 ± ½, which decides where there are few of these cells.
    """
    return _slope(held_out, (expected,), residual, 1.0, SHARE_SD)


def _slope(held_out: Evidence, without: Sequence[Float32Array], added: Float32Array, before: float, sd: float) -> float:
    """How much of what is added other cells' means ask for, 0 to 1; gene by gene about a common base.

    Parameters
    ----------
    held_out
        Other cells.
    without, added
        Tables whose sum is the effects without what is added, and that.
    before, sd
        How much it is a priori.
    """
    precision = 1 / sd**2
    covered = before * precision
    if held_out.measured.sum() > 1:
        for part in gene_blocks(*added.shape):
            weight = held_out.precision_of(part)
            left = _about_base(held_out.mean[:, part] - sum(table[:, part] for table in without), weight)
            explained = _about_base(added[:, part], weight)
            precision += float(np.vdot(weight * explained, explained))
            covered += float(np.vdot(weight * explained, left))
    return float(np.clip(covered / precision, 0.0, 1.0))


def distance_of(held_out: Evidence, predicted: Float32Array) -> FloatArray:
    """How far means of other cells are from their prediction: mean squares in units of their noise, (conditions,)."""
    total = np.zeros(len(predicted))
    if held_out.measured.any():
        for part in gene_blocks(*predicted.shape):
            weight = held_out.precision_of(part)
            away = _about_base(held_out.mean[:, part] - predicted[:, part], weight)
            total += (weight * away**2).sum(axis=1, dtype=np.float64)
    return np.asarray(total / predicted.shape[1])


def _about_base(table: Table, weight: Float32Array) -> Table:
    base = (weight * table).sum(axis=0, dtype=np.float64) / weight.sum(axis=0, dtype=np.float64)
    return np.asarray(table - base.astype(table.dtype))


def widening(held_out: Evidence, predicted: Table, variance: Table, error: Table) -> float:
    """Factor of the standard deviation of effects that explains how far means of other cells are from them.

    Parameters
    ----------
    held_out
        These cells.
    predicted, variance
        Effects and their posterior variance.
    error
        Monte-Carlo error of the effects.
    """
    if held_out.measured.sum() < 2:
        return 1.0
    everything = slice(None)
    away = _about_base(held_out.mean - predicted, held_out.precision_of(everything))
    rows = held_out.measured
    noise = held_out.variance_of(everything)[rows] + error[rows] ** 2
    squares, spread = away[rows] ** 2 - noise, variance[rows]
    factor = 1.0
    for _ in range(10):
        precision = spread / (noise + factor * spread) ** 2 / 2
        weight, explained = float(np.vdot(precision, spread)), float(np.vdot(precision, squares))
        factor = max(1.0, float((1 / WIDENING_SD**2 + explained) / (1 / WIDENING_SD**2 + weight)))
    return float(np.sqrt(factor))
