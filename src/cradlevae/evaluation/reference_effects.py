"""What predictions are scored against: measured effects of cells that the model has not seen, and true effects.

This file is responsible for which cells may be a reference (no training cells among them) and for the effects in them;
it knows of a model only which cells it was trained on and which conditions it can answer for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.fingerprint import cell_fingerprints
from cradlevae.data.labels import CONTROL, base_of, context_of
from cradlevae.data.moments import (
    ConditionMoments,
    condition_codes,
    condition_moments,
    measured_effects,
    moderated_variance,
)
from cradlevae.data.strata import has_strata, told_by_controls
from cradlevae.errors import DataError
from cradlevae.evaluation.ceiling import ceiling, random_halves
from cradlevae.evaluation.ground_truth import true_effects, truth_columns
from cradlevae.evaluation.predictor import Learner
from cradlevae.utils.names import closest
from cradlevae.utils.types import BoolArray, FloatArray, IndexArray, IntArray

ReferenceCells = Literal["held-out", "validation", "all"]
"""Cells of the test part; of the validation part (to choose among models); or, as published, all cells."""

ALL_CELLS_NOTE = "reference contains training cells, as published"
VALIDATION_NOTE = "chosen on these cells: early stopping and floor ranks looked at them"

REFERENCE_NOTES: dict[ReferenceCells, str] = {"held-out": "", "validation": VALIDATION_NOTE, "all": ALL_CELLS_NOTE}
"""The note that every score against such cells has."""

MAX_OVERLAP = 0.01
"""Share of the reference cells that may be mistaken for training cells by their counts."""

MAX_UNMARKED = 0.5
"""Share of the reference cells without a fingerprint from which the check for training cells says little."""

NOT_MEASURABLE = "no condition has two passing reference cells and two passing reference controls to measure in"
NO_ANSWER = "none of the held-out conditions can be predicted: training cells that the model needs for them are absent"
"""Messages of what makes an evaluation impossible."""

MIN_CELLS = 20
"""Reference cells that a perturbation needs for its cells to be compared, and its standard errors relied on."""


@dataclass(frozen=True)
class Noise:
    """How noisy measured effects are.

    Attributes
    ----------
    n_cells
        Cells that each effect is worth, (conditions,): fewer than there are where the cells and the controls of their
        strata are spread unevenly.
    standard_error
        Standard errors of the effects, (conditions, genes), from variances steadied by those of all conditions
        (:func:`~cradlevae.data.moments.moderated_variance`).
    halves
        The same effects, and their standard errors, measured in two halves of the cells, (conditions, genes) each.
    """

    n_cells: FloatArray
    standard_error: FloatArray
    halves: tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]

    @property
    def reliable(self) -> BoolArray:
        """Whether there are enough cells to rely on the standard errors, in either half too, (conditions,)."""
        measured = [np.isfinite(value).all(axis=1) for value, _ in self.halves]
        return np.asarray((self.n_cells >= MIN_CELLS) & measured[0] & measured[1])


@dataclass(frozen=True)
class Reference:
    """Effects to score against.

    Attributes
    ----------
    name
        Name of the reference in tables.
    conditions
        Conditions, the rows of ``effects``.
    effects
        (conditions, genes).
    attainable_rho, attainable_low, attainable_high
        Highest ATE-ρ that can be expected of the truth, with its interval.
    attainable_r2
        The same for ATE-R²: the reliability.
    noise
        How noisy the measured effects are; ``None`` for an exact truth.
    """

    name: str
    conditions: tuple[str, ...]
    effects: FloatArray
    attainable_rho: float
    attainable_low: float
    attainable_high: float
    attainable_r2: float
    noise: Noise | None = None


@dataclass(frozen=True)
class ReferenceRows:
    """Cells to measure effects in, and how sure it is that no training cell is among them.

    Attributes
    ----------
    rows
        Positions of the cells, ascending; passing and failed ones, controls included.
    overlap
        Share of them that have the counts of a training cell.
    unmarked
        Share of them that have too few detected genes for a fingerprint.
    """

    rows: IndexArray
    overlap: float
    unmarked: float


def check_reference(cells: Any) -> None:
    """Raise :class:`DataError` if the kind of cells is unknown."""
    choices: tuple[str, ...] = get_args(ReferenceCells)
    if not isinstance(cells, str) or cells not in choices:
        listed = ", ".join(map(repr, choices))
        raise DataError(f"reference={cells!r} is none of the choices ({listed}){closest(str(cells), choices)}")


def reference_rows(model: Learner, data: Experiment, cells: ReferenceCells) -> ReferenceRows:
    """Cells to measure effects in, held-out controls included; passing and failed ones.

    Cells that the model's split does not know are held out. Where a split holds no controls out (``combinations``),
    the validation controls, on which no weight was trained, stand in.

    Raises
    ------
    DataError
        If the kind of cells is unknown, no cell is left, or training cells are among them.
    """
    check_reference(cells)
    rows = _rows(model, data, cells)
    if len(rows) == 0:
        raise DataError(
            f"no {cells} cells among the {data.n_cells} given: all of them trained or validated the model. Give cells "
            "that it has not seen, or ask for the published all-cells reference by name (reference='all')"
        )
    prints = cell_fingerprints(data.counts, list(data.genes), rows)
    trained_on = np.isin(prints, model.fingerprints) & (prints != 0)
    if cells != "all" and trained_on.mean() > MAX_OVERLAP:
        example = data.cells[rows[int(np.flatnonzero(trained_on)[0])]]
        raise DataError(
            f"{int(trained_on.sum())} of the {len(rows)} reference cells have the counts of training cells (first "
            f"{example!r}), so scores against them would mean nothing. Give cells that the model has not seen, or ask "
            "for the published all-cells reference by name (reference='all')"
        )
    return ReferenceRows(rows, float(trained_on.mean()), float((prints == 0).mean()))


def _rows(model: Learner, data: Experiment, cells: ReferenceCells) -> IndexArray:
    if cells == "all":
        return np.arange(data.n_cells)
    parts = model.split.parts_of(data)
    if cells == "validation":
        return np.flatnonzero(parts == "val")
    rows = np.flatnonzero((parts == "test") | (parts == ""))
    if len(rows) and not data.is_control[rows].any():
        controls = np.flatnonzero((parts == "val") & data.is_control)
        rows = np.sort(np.concatenate([rows, controls]))
    return rows


def measured_reference(
    name: str,
    data: Experiment,
    counts: sp.csr_matrix,
    rows: IndexArray,
    conditions: Sequence[str],
    *,
    seed: int,
) -> Reference | None:
    """Effects measured in the given cells, with the ceiling that their noise sets; ``None`` where not measurable."""
    names = [CONTROL, *(name for name in conditions)]
    codes, strata = condition_codes(data, rows, names), data.strata[rows]
    moments = condition_moments(counts, codes, names, genes=tuple(data.genes), strata=strata)
    measurable = [CONTROL] + [name for name, n in zip(names[1:], moments.n_cells[1:], strict=True) if n >= 2]
    if len(measurable) == 1 or moments.n_cells[0] < 2:
        return None
    if len(measurable) < len(names):
        codes = condition_codes(data, rows, measurable)
        moments = condition_moments(counts, codes, measurable, genes=tuple(data.genes), strata=strata)
    effects = measured_effects(moments)
    try:
        highest = ceiling(counts, codes, measurable, seed=seed, strata=strata)
    except DataError:  # too few controls in the strata of either half
        return None
    return Reference(
        name=name,
        conditions=effects.names,
        effects=effects.value,
        attainable_rho=highest.attainable_rho,
        attainable_low=highest.low,
        attainable_high=highest.high,
        attainable_r2=highest.attainable_rho**2,
        noise=_noise(counts, codes, strata, moments, seed=seed),
    )


def _noise(counts: sp.csr_matrix, codes: IntArray, strata: IntArray, moments: ConditionMoments, *, seed: int) -> Noise:
    """Standard errors of the effects in these cells, and the effects in random halves of them."""
    variance = moderated_variance(moments)
    within = strata if has_strata(codes, strata) else None
    places = random_halves(codes, np.random.default_rng([seed, 3]), within)
    halves = []
    for half in (0, 1):
        of_half = condition_moments(counts, np.where(places == half, codes, -1), moments.names, strata=within)
        value = of_half.mean[1:] - of_half.mean[0]
        halves.append((value, _standard_error(variance, of_half)))
    return Noise(moments.n_effective[1:], _standard_error(variance, moments), (halves[0], halves[1]))


def _standard_error(variance: FloatArray, moments: ConditionMoments) -> FloatArray:
    """Standard errors of each condition's mean minus that of the controls, which are first, (conditions, genes)."""
    share = 1.0 / np.where(moments.n_cells == 0, 1.0, moments.n_effective)
    squared = share[:, None] * variance
    return np.asarray(np.sqrt(squared[1:] + squared[0]))


def left_out(names: Sequence[str]) -> str:
    """The note that names conditions with too few cells; empty where there are none."""
    return f"left out, with fewer than {MIN_CELLS} cells: {', '.join(names)}" if names else ""


def simulated_reference(truth: Any, genes: Sequence[str], conditions: Sequence[str]) -> Reference | None:
    """True effects of simulated data, without noise; ``None`` where they are not known.

    They are shares of the counts of all simulated genes, whichever genes are scored. A condition of a context has the
    true effects in that context, where the data were simulated with several.

    Parameters
    ----------
    truth
        ``uns["truth"]`` of simulated data, or ``None``.
    genes
        Names of the genes that are scored.
    conditions
        Conditions that are scored.
    """
    columns = truth_columns(truth, genes)
    if columns is None or "effects" not in truth:
        return None
    effects = true_effects(truth)
    answered = tuple(name for name in conditions if (context_of(name), base_of(name)) in effects)
    if not answered:
        return None
    value = np.stack([effects[context_of(name), base_of(name)][columns] for name in answered])
    return Reference("simulated truth", answered, value, 1.0, 1.0, 1.0, 1.0)


def without_controls(data: Experiment, rows: IndexArray, conditions: Sequence[str]) -> list[str]:
    """Those of some conditions that have cells, but none in a stratum with controls: no effect can be measured.

    Parameters
    ----------
    data, rows
        The experiment and its passing reference cells.
    conditions
        Conditions to look at.
    """
    codes = condition_codes(data, rows, [CONTROL, *conditions])
    told = told_by_controls(codes, data.strata[rows])
    n_cells, n_told = (
        np.bincount(codes[chosen], minlength=len(conditions) + 1) for chosen in (codes >= 0, (codes >= 0) & told)
    )
    return [name for row, name in enumerate(conditions, start=1) if n_cells[row] > 0 and n_told[row] == 0]


def scored_conditions(model: Learner, data: Experiment, rows: IndexArray) -> tuple[list[str], list[str]]:
    """Conditions of the reference cells that the model can answer for, and those that it cannot."""
    present = [data.conditions[code] for code in np.unique(data.condition[rows]) if code != 0]
    answered = model.answerable(present)
    return answered, [name for name in present if name not in answered]
