"""The register of metrics: a metric is a plain function with a name, a kind, a best value and a description.

A function that is registered with :func:`metric` appears among the scores of :func:`cradlevae.evaluate`. Its *kind*
says what it is given; all functions of one kind have one signature. All return one number, a kind ``"clean"`` one
number per cell.

==============  ==============================================================================================
kind            what the function is given
==============  ==============================================================================================
effect          ``(real, predicted, *, perturbations, genes, symbols)``: real and predicted effects, (perturbations,
                genes) each, the names of the rows and columns, and the symbols of the columns (``gene_symbols``; the
                names again where the data have no such column).
response        ``(real, predicted, *, weights, hits)``: measured and predicted effects of at most 500 perturbations,
                (perturbations, genes) each, the weight of each gene (rows sum to 1) and whether held-out cells call it
                (bool), of the same shape; target genes are 0 in all of them.
counts          ``(real, predicted)``: expression, fold changes and p-values of groups of cells with raw counts, both
                with the real controls (:class:`~cradlevae.evaluation.metrics.vcc2026.CountGroups`).
cells           ``(real, generated)``: two samples of cells of one perturbation, of equal size
                (:class:`~cradlevae.evaluation.metrics.samples.CellSample`: coordinates, expression).
de              ``(real, predicted)``: differential expression in real and in generated cells
                (:class:`~cradlevae.evaluation.metrics.de.DETest`) of the same perturbations.
qc              ``(fails)``: which QC criteria each artifact-free generated cell fails, a table cells × criteria.
                ``on`` is the number of median absolute deviations of the thresholds: 3.0, 4.0 or 5.0.
calibration     ``(*, real, low, high, where)``: real effects of one perturbation, the ends of their intervals, and
                which genes count (bool), (genes,) each. The score is the mean over perturbations. ``on`` says which
                intervals: ``("predictive", 90, "all genes")`` by default; or ``"credible"``, 50,
                ``"largest effects"``. Predictive intervals are compared with measured effects, credible ones with
                true effects. Where no effect is known to compare with, only functions without ``real`` are scored.
likelihood      ``(log_likelihood)``: the importance-weighted bound on log p(x) of each reference cell, (cells,), in
                nats.
leakage         ``(states, failed, *, seed)``: latent states, (draws, cells, K), and whether each cell failed QC,
                (cells,). ``on`` says which: ``("z_basal", "draws")`` by default; or ``"z_perturbation"``,
                ``"means"`` (posterior means, as one draw).
mask            ``(true_mask, probability)``: true mask (0/1) of simulated data and posterior probabilities,
                (perturbations, latents) each; the numbers of latents may differ.
signature       ``(truth, log2_fold_change)``: true and inferred log2 fold change of each gene by the artifact,
                (genes,).
clean           ``(true_counts, profile)``: true artifact-free counts (CSR, cells × genes) and a predicted profile of
                each cell, (cells, genes), or of all cells, (1, genes), in any units;
                returns a score of each cell, (cells,). The score is the mean over cells.
mixing          ``(cells, *, seed)``: passing cells and as many failed ones after cleaning, in one space
                (:class:`~cradlevae.evaluation.metrics.mixing.Mixture`: coordinates, failed, condition).
==============  ==============================================================================================

What stands after ``*`` is given by keyword, to functions that have a parameter of that name.
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
from cradlevae.evaluation.metrics.kinds import KINDS, Kind

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes
    ----------
    name
        Name of the score in tables.
    kind
        Name of its kind, a key of :data:`~cradlevae.evaluation.metrics.kinds.KINDS`.
    best
        Value of a perfect prediction; infinite where more (or less) is better without end.
    description
        One line for tables and reports.
    function
        The function itself, of the signature of its kind.
    needs
        Names of those options of its kind that the function takes.
    on
        Input that it is computed on, of those of its kind; ``None`` where its kind has only one.
    note
        What the rows of the metric have in the column ``note``.
    """

    name: str
    kind: str
    best: float
    description: str
    function: Callable[..., Any]
    needs: tuple[str, ...]
    on: Any = None
    note: str = ""

    @property
    def own(self) -> bool:
        """Whether it is a metric of yours: one that this package does not bring."""
        return not self.function.__module__.startswith("cradlevae.")

    def shortfall(self, value: float) -> float:
        """How far a score is from the best value: the smaller, the better; negative only where ``best`` is infinite.

        A best value amid the range counts both ways: leakage is as far from 0.5 below as above.
        """
        if np.isfinite(self.best):
            return abs(value - self.best)
        return -value if self.best > 0 else value

    def value(self, *arguments: Any, **options: Any) -> float:
        """The score: the function's number for these arguments and for those of these options that it takes."""
        return float(self._result(arguments, options))

    def of_each_cell(self, *arguments: Any, **options: Any) -> npt.NDArray[np.float64]:
        """A score for each cell, (cells,), of a metric that gives one per cell."""
        return np.asarray(self._result(arguments, options), dtype=np.float64)

    def _result(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return self.function(*arguments, **{name: value for name, value in options.items() if name in self.needs})


EFFECTS = ("effect", "response")
"""Kinds whose functions are given effects."""

REGISTRY: dict[str, Metric] = {}
"""Every registered metric by name."""


def metric(
    name: str, *, kind: str = "effect", best: float, description: str, on: Any = None, note: str = ""
) -> Callable[[Function], Function]:
    """Register a function as a metric.

    Metrics of kind ``"effect"`` and ``"response"`` are wrapped: they get float64 arrays whose shapes agree, and score
    NaN, without being called, where a value is missing.

    Parameters
    ----------
    name
        Name of the score in tables.
    kind
        What the function is given; see the table at the top of this module.
    best
        Value of a perfect prediction; infinite where more (or less) is better without end.
    description
        One line for tables and reports.
    on
        Which input of its kind it is computed on, for kinds that have several; the default of its kind if ``None``.
    note
        What its rows have in the column ``note``.

    Raises
    ------
    DataError
        If the name is taken, the kind or the input is unknown, or the function does not have the kind's signature.

    Examples
    --------
    A metric of effects:

    >>> from cradlevae.evaluation.metrics.registry import REGISTRY, metric
    >>> @metric("max_error", best=0.0, description="largest absolute error")
    ... def max_error(real, predicted):
    ...     return abs(real - predicted).max()
    >>> REGISTRY["max_error"].value([[1.0, 2.0]], [[1.5, 2.0]])
    0.5

    A metric of generated cells, given the table of the QC criteria that each cell fails at 5 MADs:

    >>> @metric("fails_twice", kind="qc", best=0.0, on=5.0, description="share of cells that fail two criteria")
    ... def fails_twice(fails):
    ...     return (fails.sum(axis=1) >= 2).mean()

    Take them out again:

    >>> for name in ("max_error", "fails_twice"):
    ...     del REGISTRY[name]
    """
    if kind not in KINDS:
        raise DataError(f"unknown kind of metric {kind!r}; known kinds: {', '.join(KINDS)}")
    choices = KINDS[kind].on
    if on is not None and on not in choices:
        listed = ", ".join(map(repr, choices)) if choices else "it has one only, leave on= out"
        raise DataError(f"metric {name!r} cannot be computed on {on!r}; inputs of kind {kind!r}: {listed}")
    chosen = choices[0] if choices and on is None else on

    def register(function: Function) -> Function:
        if name in REGISTRY:
            raise DataError(f"a metric named {name!r} is already registered; choose another name")
        needs = _needed_options(name, function, KINDS[kind])
        registered = cast(Function, _guarded(function) if kind in EFFECTS else function)
        REGISTRY[name] = Metric(name, kind, best, description, registered, needs, chosen, note)
        return registered

    return register


def metrics_of(kind: str) -> list[Metric]:
    """The registered metrics of a kind, in the order in which they were registered."""
    return [entry for entry in REGISTRY.values() if entry.kind == kind]


def _needed_options(name: str, function: Callable[..., Any], kind: Kind) -> tuple[str, ...]:
    """Options of the kind that the function takes; :class:`DataError` if it cannot be called as its kind is."""
    signature = inspect.signature(function)
    needs = tuple(parameter for parameter in signature.parameters if parameter in kind.options)
    try:
        signature.bind(*kind.arguments, **dict.fromkeys(needs))
    except TypeError as error:
        raise DataError(
            f"metric {name!r} has the signature {signature}, but functions of kind {kind.name!r} are called as "
            f"{kind.signature}: {error}"
        ) from None
    return needs


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
