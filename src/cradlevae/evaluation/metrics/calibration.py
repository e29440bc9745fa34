"""Calibration: whether intervals of effects hold what they promise, and how wide they are.

A *credible* interval is the model's own; it speaks of the true effect and can be tested only where that is known. What
held-out cells show is the true effect plus the noise of few cells, so a *predictive* interval is wider: its variance is
that of the posterior plus the squared standard error of the measurement. Coverage below its nominal value says that the
model is too sure, above that it is not sure enough; of two calibrated models the one of narrower intervals knows more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.kinds import ALL_GENES, CREDIBLE, LARGEST_GENES, LEVELS, PREDICTIVE
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.utils.types import BoolArray, FloatArray

LARGEST = 20
"""Genes of largest real effect that are also looked at on their own, as in the other scores."""


def predictive_interval(
    effect: npt.ArrayLike, deviation: npt.ArrayLike, standard_error: npt.ArrayLike, level: float
) -> tuple[FloatArray, FloatArray]:
    """Where a measurement of an effect is expected: effect ± z·√(deviation² + standard_error²).

    Parameters
    ----------
    effect, deviation
        Mean and standard deviation of the posterior, (conditions, genes).
    standard_error
        Standard error of the measurement, (conditions, genes).
    level
        Nominal coverage in percent.

    Notes
    -----
    Both errors are taken as normal. The posterior need not be normal, but the mean over cells nearly is, and mostly it
    has the larger error of the two.
    """
    from scipy.stats import norm

    middle = np.asarray(effect, dtype=np.float64)
    reach = norm.ppf(0.5 + level / 200) * np.hypot(
        np.asarray(deviation, dtype=np.float64), np.asarray(standard_error, dtype=np.float64)
    )
    return middle - reach, middle + reach


def coverage(real: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, where: BoolArray | None = None) -> float:
    """Share of real effects within their intervals, ends included.

    Parameters
    ----------
    real, low, high
        Effects and the ends of their intervals, of one shape.
    where
        Which effects count, of the same shape; all by default.

    Raises
    ------
    DataError
        If shapes differ, or are empty.
    """
    inside = covered(real, low, high)
    return float(inside.mean() if where is None else (inside & where).sum() / where.sum())


def covered(real: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> BoolArray:
    """Which effects lie within their intervals; parameters and errors as :func:`coverage`."""
    truth, below, above = (np.asarray(values, dtype=np.float64) for values in (real, low, high))
    if not truth.shape == below.shape == above.shape or truth.size == 0:
        raise DataError(f"effects {truth.shape} and the ends of intervals {below.shape}, {above.shape} do not fit")
    return np.asarray((below <= truth) & (truth <= above))


def mean_width(low: npt.ArrayLike, high: npt.ArrayLike, where: BoolArray | None = None) -> float:
    """Mean width of the intervals that count (all by default), in units of the effects."""
    width = np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64)
    return float(width.mean() if where is None else (width * where).sum() / where.sum())


def largest_genes(effects: npt.ArrayLike) -> BoolArray:
    """Which genes are each condition's :data:`LARGEST` of largest |effect|, (conditions, genes)."""
    size = np.abs(np.asarray(effects, dtype=np.float64))
    chosen = np.zeros(size.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-size, axis=1, kind="stable")[:, :LARGEST], True, axis=1)
    return chosen


def _register(interval: str, level: int, genes: str, *, effects: str) -> None:
    """Register coverage and width of one sort of interval."""
    suffix, on_genes = ("", "") if genes == ALL_GENES else (
        f"_top{LARGEST}", f" on the {LARGEST} genes of largest real effect"
    )  # fmt: skip
    metric(
        f"{interval}_coverage_{level}{suffix}",
        kind="calibration",
        best=level / 100,
        on=(interval, level, genes),
        description=f"share of {effects}{on_genes} within the {level} % {interval} intervals",
    )(coverage)
    metric(
        f"{interval}_width_{level}{suffix}",
        kind="calibration",
        best=0.0,
        on=(interval, level, genes),
        description=f"mean width of the {level} % {interval} intervals{on_genes}, in units of the effect",
    )(mean_width)


for _interval, _effects in ((PREDICTIVE, "measured effects"), (CREDIBLE, "true effects")):
    for _level in LEVELS:
        for _genes in (ALL_GENES, LARGEST_GENES):
            _register(_interval, _level, _genes, effects=_effects)
