"""The register of scores: a metric is a plain function with a name, a kind, a best value and a description.

Register your own with :func:`metric`; it then appears wherever scores are computed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from cradlevae.errors import DataError

Function = TypeVar("Function", bound=Callable[..., float])


@dataclass(frozen=True)
class Metric:
    """A registered score.

    Attributes
    ----------
    name
        What the score is called in tables.
    kind
        What it scores: ``"effect"`` (two effect matrices), ``"de"`` (two sets of tests), ``"qc"`` (generated
        cells), ``"cells"`` (two samples of cells), ``"calibration"`` (intervals of effects), ``"likelihood"``,
        ``"leakage"``, ``"clean"`` (cleaned cells), ``"mask"``, ``"signature"``, or a kind of your own.
    best
        Value of a perfect prediction; infinite where more (or less) is better without end.
    description
        One line for tables and reports.
    function
        The function itself.
    needs
        Names of the keyword arguments that the function takes.
    """

    name: str
    kind: str
    best: float
    description: str
    function: Callable[..., float]
    needs: tuple[str, ...]

    def shortfall(self, value: float) -> float:
        """How far a score is from the best value: the smaller, the better; negative only where ``best`` is infinite.

        A best value amid the range counts both ways: leakage is as far from 0.5 below as above.
        """
        if np.isfinite(self.best):
            return abs(value - self.best)
        return -value if self.best > 0 else value


REGISTRY: dict[str, Metric] = {}
"""Every registered metric by name."""


def metric(name: str, *, kind: str = "effect", best: float, description: str) -> Callable[[Function], Function]:
    """Register a function as a metric.

    Metrics of kind ``"effect"`` are wrapped: they get float64 arrays whose shapes agree, and are not called
    when a value is missing.

    Raises
    ------
    DataError
        If the name is taken.

    Examples
    --------
    >>> @metric("max_error", best=0.0, description="largest absolute error")
    ... def max_error(real, predicted):
    ...     return float(abs(real - predicted).max())
    """

    def register(function: Function) -> Function:
        if name in REGISTRY:
            raise DataError(f"a metric named {name!r} is already registered; choose another name")
        parameters = inspect.signature(function).parameters.values()
        needs = tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
        registered = cast(Function, _guarded(function) if kind == "effect" else function)
        REGISTRY[name] = Metric(name, kind, best, description, registered, needs)
        return registered

    return register


def _guarded(function: Callable[..., float]) -> Callable[..., float]:
    @functools.wraps(function)
    def guarded(real: npt.ArrayLike, predicted: npt.ArrayLike, **names: Any) -> float:
        truth, guess = np.asarray(real, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
        if truth.ndim != 2 or truth.shape != guess.shape or truth.size == 0:
            raise DataError(
                f"real effects {truth.shape} and predicted effects {guess.shape} must both be "
                "(perturbations, genes) with at least one of each"
            )
        for which, length in (("perturbations", truth.shape[0]), ("genes", truth.shape[1])):
            if which in names and len(names[which]) != length:
                raise DataError(f"{len(names[which])} names of {which} for effects of shape {truth.shape}")
        if not (np.isfinite(truth).all() and np.isfinite(guess).all()):
            return float("nan")
        return float(function(truth, guess, **names))

    return guarded
