"""What predictions are scored against: measured effects of cells that the model has not seen, and truths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.fingerprint import cell_fingerprints
from cradlevae.data.labels import CONTROL, closest
from cradlevae.data.moments import (
    ConditionMoments,
    condition_codes,
    condition_moments,
    measured_effects,
    moderated_variance,
)
from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_matrix import CountMatrix, subset_rows
from cradlevae.errors import DataError
from cradlevae.evaluation.ceiling import ceiling, random_halves
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray, IntArray

if TYPE_CHECKING:
    from cradlevae.evaluation.predictor import Predictor

ReferenceCells = Literal["held-out", "validation", "all"]
"""Cells of the test part; of the validation part (to choose among models); or, as published, all cells."""

ALL_CELLS_NOTE = "reference contains training cells, as published"
VALIDATION_NOTE = "chosen on these cells: early stopping and floor ranks looked at them"

REFERENCE_NOTES: dict[ReferenceCells, str] = {"held-out": "", "validation": VALIDATION_NOTE, "all": ALL_CELLS_NOTE}
"""What every score against such cells must say."""

MAX_OVERLAP = 0.01
"""Share of the reference cells that may be mistaken for training cells by their counts."""

MAX_UNMARKED = 0.5
"""Share of the reference cells without a fingerprint from which the check for training cells says little."""

MIN_CELLS = 20
"""Reference cells that a perturbation needs for its cells to be compared, and its standard errors relied on."""


@dataclass(frozen=True)
class Noise:
    """How noisy measured effects are.

    Attributes
    ----------
    n_cells
        Cells of each condition, (conditions,).
    standard_error
        Of the effects, (conditions, genes), from variances steadied by those of all conditions
        (:func:`~cradlevae.data.moments.moderated_variance`).
    halves
        The same effects, and their standard errors, measured in two halves of the cells, (conditions, genes) each.
    """

    n_cells: IntArray
    standard_error: FloatArray
    halves: tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class Reference:
    """Effects to score against.

    Attributes
    ----------
    name
        What the reference is called in tables.
    conditions
        Conditions, the rows of ``effects``.
    effects
        (conditions, genes).
    attainable_rho, attainable_low, attainable_high
        Highest ATE-ρ that can be expected of the truth, with its interval.
    attainable_r2
        The same for ATE-R²: the reliability.
    noise
        What is known of the measurement's error; ``None`` for an exact truth.
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
    """Cells to measure effects in, and what their counts tell about where they come from.

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


def reference_rows(model: Predictor, data: Experiment, cells: ReferenceCells) -> ReferenceRows:
    """Cells to measure effects in, held-out controls included; passing and failed ones.

    Cells that the model's split does not know are held out. Where a split holds no controls out (``combinations``),
    the validation controls, on which no weight was trained, stand in.

    Raises
    ------
    DataError
        If the kind of cells is unknown, no cell is left, or training cells are among them.
    """
    choices: tuple[str, ...] = get_args(ReferenceCells)
    if cells not in choices:
        listed = ", ".join(map(repr, choices))
        raise DataError(f"reference={cells!r} is none of the choices ({listed}){closest(str(cells), choices)}")
    rows = _rows(model, data, cells)
    if len(rows) == 0:
        raise DataError(
            f"no {cells} cells among the {data.n_cells} given: all of them trained or validated the model. Give cells "
            "that it has not seen, or ask for the published all-cells reference by name (reference='all')"
        )
    prints = cell_fingerprints(data.counts, list(data.genes), rows)
    known = np.isin(prints, model.fingerprints) & (prints != 0)
    if cells != "all" and known.mean() > MAX_OVERLAP:
        example = data.cells[rows[int(np.flatnonzero(known)[0])]]
        raise DataError(
            f"{int(known.sum())} of the {len(rows)} reference cells have the counts of training cells (first "
            f"{example!r}), so scores against them would mean nothing. Give cells that the model has not seen, or ask "
            "for the published all-cells reference by name (reference='all')"
        )
    return ReferenceRows(rows, float(known.mean()), float((prints == 0).mean()))


def _rows(model: Predictor, data: Experiment, cells: ReferenceCells) -> IndexArray:
    if cells == "all":
        return np.arange(data.n_cells)
    parts = model.split.parts.reindex(data.cells)
    if cells == "validation":
        return np.flatnonzero((parts == "val").to_numpy())
    rows = np.flatnonzero(((parts == "test") | parts.isna()).to_numpy())
    if len(rows) and not data.is_control[rows].any():
        controls = np.flatnonzero((parts == "val").to_numpy() & data.is_control)
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
    codes = condition_codes(data, rows, names)
    moments = condition_moments(counts, codes, names, genes=tuple(data.genes))
    enough = [CONTROL] + [name for name, n in zip(names[1:], moments.n_cells[1:], strict=True) if n >= 2]
    if len(enough) == 1 or moments.n_cells[0] < 2:
        return None
    if len(enough) < len(names):
        codes = condition_codes(data, rows, enough)
        moments = condition_moments(counts, codes, enough, genes=tuple(data.genes))
    effects = measured_effects(moments)
    top = ceiling(counts, codes, enough, seed=seed)
    noise = _noise(counts, codes, moments, seed=seed)
    return Reference(
        name, effects.names, effects.value, top.attainable_rho, top.low, top.high, top.attainable_rho**2, noise
    )


def _noise(counts: sp.csr_matrix, codes: IntArray, moments: ConditionMoments, *, seed: int) -> Noise:
    """Standard errors of the effects in these cells, and the effects in random halves of them."""
    variance = moderated_variance(moments)
    places = random_halves(codes, np.random.default_rng([seed, 3]))
    halves = []
    for half in (0, 1):
        of_half = condition_moments(counts, np.where(places == half, codes, -1), moments.names)
        value = of_half.mean[1:] - of_half.mean[0]
        halves.append((value, _standard_error(variance, of_half.n_cells)))
    return Noise(moments.n_cells[1:], _standard_error(variance, moments.n_cells), (halves[0], halves[1]))


def _standard_error(variance: FloatArray, n_cells: IntArray) -> FloatArray:
    """Of each condition's mean minus that of the controls, which are first, (conditions, genes)."""
    share = 1.0 / np.maximum(n_cells, 1)
    squared = share[:, None] * variance
    return np.asarray(np.sqrt(squared[1:] + squared[0]))


def left_out(names: Sequence[str]) -> str:
    """What a row says of conditions with too few cells; nothing where there are none."""
    return f"left out, with fewer than {MIN_CELLS} cells: {', '.join(names)}" if names else ""


def clean_counts(adata: AnnDataLike, data: Experiment) -> CountMatrix | None:
    """The true artifact-free counts of the experiment's cells, where they are known (``layers["clean"]``)."""
    if "clean" not in adata.layers:
        return None
    rows = np.sort(adata.obs_names.get_indexer(data.cells))
    columns = adata.var_names.get_indexer(data.genes)
    return subset_rows(Counts(adata, "clean").matrix(columns), rows)


def truth_columns(truth: Any, genes: Sequence[str]) -> IndexArray | None:
    """Columns of the arrays in ``uns["truth"]`` that hold these genes; ``None`` where it does not know all of them."""
    if truth is None or "genes" not in truth:
        return None
    columns = pd.Index([str(name) for name in truth["genes"]]).get_indexer(pd.Index(genes))
    return None if (columns < 0).any() else np.asarray(columns)


def simulated_reference(adata: AnnDataLike, data: Experiment, conditions: Sequence[str]) -> Reference | None:
    """True effects of simulated data, without noise, where they are known (``uns["truth"]``).

    They are shares of the counts of all simulated genes, whichever genes are scored.
    """
    truth: Any = adata.uns.get("truth")
    columns = truth_columns(truth, list(data.genes))
    if columns is None or "effects" not in truth:
        return None
    names = [str(name) for name in truth["effect_conditions"]]
    answered = tuple(name for name in conditions if name in names)
    if not answered:
        return None
    effects = np.asarray(truth["effects"], dtype=np.float64)[:, columns]
    return Reference("simulated truth", answered, effects[[names.index(name) for name in answered]], 1.0, 1.0, 1.0, 1.0)


NO_ANSWER = "none of the held-out conditions can be predicted: training cells that the model needs for them are absent"


def scored_conditions(model: Predictor, data: Experiment, rows: IndexArray) -> tuple[list[str], list[str]]:
    """Conditions of the reference cells that the model can answer for, and those that it cannot."""
    present = [data.conditions[code] for code in np.unique(data.condition[rows]) if code != 0]
    answered = model.answerable(present)
    return answered, [name for name in present if name not in answered]
