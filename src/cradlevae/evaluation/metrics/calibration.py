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
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.utils.types import BoolArray, FloatArray

LEVELS = (50, 90)
"""Nominal coverage in percent."""

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
        Of the measurement, (conditions, genes).
    level
        Nominal coverage in percent.

    Notes
    -----
    Taken as normal. The posterior need not be, but a mean over cells is nearly so and mostly the wider of the two.
    """
    from scipy.stats import norm

    middle = np.asarray(effect, dtype=np.float64)
    reach = norm.ppf(0.5 + level / 200) * np.hypot(
        np.asarray(deviation, dtype=np.float64), np.asarray(standard_error, dtype=np.float64)
    )
    return middle - reach, middle + reach


def coverage(real: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> float:
    """Share of real effects within their intervals, ends included.

    Parameters
    ----------
    real, low, high
        Effects and the ends of their intervals, of one shape.

    Raises
    ------
    DataError
        If shapes differ, or are empty.
    """
    return float(covered(real, low, high).mean())


def covered(real: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> BoolArray:
    """Which effects lie within their intervals; parameters and errors as :func:`coverage`."""
    truth, below, above = (np.asarray(values, dtype=np.float64) for values in (real, low, high))
    if not truth.shape == below.shape == above.shape or truth.size == 0:
        raise DataError(f"effects {truth.shape} and the ends of intervals {below.shape}, {above.shape} do not fit")
    return np.asarray((below <= truth) & (truth <= above))


def mean_width(low: npt.ArrayLike, high: npt.ArrayLike) -> float:
    """Mean width of intervals, in units of the effects."""
    return float((np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64)).mean())


def largest_genes(effects: npt.ArrayLike) -> BoolArray:
    """Which genes are each condition's :data:`LARGEST` of largest |effect|, (conditions, genes)."""
    size = np.abs(np.asarray(effects, dtype=np.float64))
    chosen = np.zeros(size.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-size, axis=1, kind="stable")[:, :LARGEST], True, axis=1)
    return chosen


for _kind, _of in (("predictive", "measured effects"), ("credible", "true effects")):
    for _level in LEVELS:
        for _suffix, _where in (("", ""), (f"_top{LARGEST}", f" on the {LARGEST} genes of largest real effect")):
            metric(
                f"{_kind}_coverage_{_level}{_suffix}",
                kind="calibration",
                best=_level / 100,
                description=f"share of {_of}{_where} within the {_level} % {_kind} intervals",
            )(coverage)
            metric(
                f"{_kind}_width_{_level}{_suffix}",
                kind="calibration",
                best=0.0,
                description=f"mean width of the {_level} % {_kind} intervals{_where}, in units of the effect",
            )(mean_width)
