"""Batches, contexts and perturbations: sizes, how evenly perturbations are spread, and how far batches differ.

Effects are measured against the controls of the same batch. That costs cells where perturbations and controls are
spread over batches differently, and is impossible where a batch has no controls.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.data.factors import Factor, strata_codes
from cradlevae.data.labels import base_of, context_of
from cradlevae.data.moments import ConditionMoments, condition_moments
from cradlevae.data.storage.stored_matrix import subset_rows
from cradlevae.data.strata import stratum_weights
from cradlevae.utils.types import BoolArray, FloatArray, IndexArray, IntArray

ENOUGH_CONTROLS = 5
"""Passing controls that a batch and the others need for the difference between them to be given."""


def batch_balance(data: Experiment) -> pd.DataFrame:
    """Sizes of batches and covariates, and how far their controls differ from those of the others.

    Parameters
    ----------
    data
        An experiment.

    Returns
    -------
    pandas.DataFrame
        A row for each category of a batch or covariate of two or more: ``column``, ``level``, ``n_cells``,
        ``n_passing``, ``n_controls`` (passing ones), ``n_conditions`` (perturbed, with passing cells), ``difference``
        (see :func:`level_differences`).
    """
    tables = []
    for factor in data.varied:
        if factor.role == "context":
            continue
        passing = ~data.failed
        n = len(factor.levels)
        plain, _ = data.plain
        pairs = np.unique(np.stack([factor.codes, plain])[:, passing & (plain > 0)], axis=1)
        tables.append(
            pd.DataFrame(
                {
                    "column": factor.key,
                    "level": factor.levels,
                    "n_cells": np.bincount(factor.codes, minlength=n),
                    "n_passing": np.bincount(factor.codes[passing], minlength=n),
                    "n_controls": np.bincount(factor.codes[passing & data.is_control], minlength=n),
                    "n_conditions": np.bincount(pairs[0], minlength=n),
                    "difference": level_differences(data, factor),
                }
            )
        )
    columns = ["column", "level", "n_cells", "n_passing", "n_controls", "n_conditions", "difference"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def level_differences(data: Experiment, factor: Factor) -> FloatArray:
    """How far the passing controls of each batch differ from those of the others, (levels,).

    Parameters
    ----------
    data
        An experiment.
    factor
        Its batches, or a covariate.

    Returns
    -------
    FloatArray
        Standard deviation over genes of the difference of mean log2(1 + 1e4·x/Σx), with the sampling noise of the means
        taken out of it: an effect of this size on every gene is what a comparison across batches would show where
        nothing happens. The other columns (contexts) are kept equal. NaN with fewer than five controls on either side.
    """
    rows = np.flatnonzero(data.is_control & ~data.failed & (factor.codes >= 0))
    others = [other.of(rows) for other in data.varied if other.key != factor.key]
    rest = strata_codes(others, len(rows))
    kept, rest = rows[rest >= 0], rest[rest >= 0]
    if not len(kept):
        return np.full(len(factor.levels), np.nan)
    cell_code = factor.codes[kept] * (rest.max() + 1) + rest
    cells, code = np.unique(cell_code, return_inverse=True)
    names = [str(cell) for cell in cells]
    moments = condition_moments(subset_rows(data.counts, kept), code.astype(np.int64), names)
    level, stratum = np.divmod(cells, rest.max() + 1)
    return np.array([_difference(moments, level == place, stratum) for place in range(len(factor.levels))])


def _difference(moments: ConditionMoments, own: np.ndarray, stratum: IntArray) -> float:
    """Size of the difference between a batch's controls and the others', noise taken out; NaN where there are few."""
    n = moments.n_cells.astype(np.float64)
    variance = np.nan_to_num(moments.variance)
    pooled = np.maximum(n - 1, 0) @ variance / max(float(np.maximum(n - 1, 0).sum()), 1.0)  # between cells, by gene
    value, noise, total, one, other = 0.0, 0.0, 0.0, 0.0, 0.0
    for of_stratum in (stratum == code for code in np.unique(stratum)):
        here, there = np.flatnonzero(own & of_stratum), np.flatnonzero(~own & of_stratum)
        n_here, n_there = n[here].sum(), n[there].sum()
        if n_here == 0 or n_there == 0:
            continue
        weight = n_here * n_there / (n_here + n_there)
        gap = n[here] @ moments.mean[here] / n_here - n[there] @ moments.mean[there] / n_there
        value, noise = value + weight * gap, noise + weight**2 * pooled * (1 / n_here + 1 / n_there)
        total, one, other = total + weight, one + n_here, other + n_there
    if min(one, other) < ENOUGH_CONTROLS:
        return float("nan")
    spread = float(np.var(value / total) - np.mean(noise / total**2))
    return float(np.sqrt(max(spread, 0.0)))


def perturbation_balance(data: Experiment) -> pd.DataFrame:
    """How many cells of each perturbation can be compared with controls of their own stratum, and what they are worth.

    Parameters
    ----------
    data
        An experiment; passing cells count.

    Returns
    -------
    pandas.DataFrame
        A row for each perturbed condition (of a context, if there are several) with passing cells: ``condition``,
        ``n_cells``, ``n_compared`` (cells in a stratum with controls), ``n_effective`` (evenly spread cells that would
        measure the effect as well), ``lost`` (1 − n_effective / n_cells). A condition with ``n_compared`` 0 cannot be
        measured.
    """
    passing = np.flatnonzero(~data.failed)
    condition, strata = data.condition[passing], data.strata[passing]
    n_cells = np.bincount(condition, minlength=len(data.conditions))
    n_compared, n_effective = np.zeros(len(n_cells), dtype=np.int64), np.zeros(len(n_cells))
    for own, cells in _contexts(data, passing):
        weights = stratum_weights(condition[cells], strata[cells], len(data.conditions), 0)
        n_compared[own], n_effective[own] = weights.n_cells.sum(axis=1)[own], weights.n_effective[own]
    rows = np.flatnonzero((n_cells > 0) & (np.arange(len(n_cells)) > 0))
    return pd.DataFrame(
        {
            "condition": [str(data.conditions[row]) for row in rows],
            "n_cells": n_cells[rows],
            "n_compared": n_compared[rows],
            "n_effective": n_effective[rows],
            "lost": 1.0 - n_effective[rows] / n_cells[rows],
        }
    )


def _contexts(data: Experiment, passing: IndexArray) -> Iterator[tuple[BoolArray, BoolArray]]:
    """Which conditions and which of the passing cells belong to each context, whose controls are all that there are."""
    of_condition = np.array([context_of(name) or "" for name in data.conditions])
    context = data.varied_by("context")
    for name in np.unique(of_condition[1:]):
        inside = np.ones(len(passing), dtype=bool)
        if name and context is not None:
            inside = context.codes[passing] == list(context.levels).index(name)
        yield of_condition == name, inside


def cells_lost(balance: pd.DataFrame) -> float:
    """Share of all perturbed cells that uneven batches cost: 1 − Σ n_effective / Σ n_cells of the table above."""
    total = float(balance["n_cells"].sum())
    return 1.0 - float(balance["n_effective"].sum()) / total if total else 0.0


def batch_shares(data: Experiment, factor: Factor) -> pd.DataFrame:
    """Share of each condition's passing cells by batch, conditions × batches, the control first; rows sum to 1.

    Conditions are those whatever their context; one without passing cells is left out.
    """
    table = level_counts(data, factor)
    return table.div(table.sum(axis=1), axis=0)


def level_counts(data: Experiment, factor: Factor) -> pd.DataFrame:
    """Passing cells of each condition, whatever its context, by category of a factor; the control is first."""
    plain, names = data.plain
    rows: IndexArray = np.flatnonzero(~data.failed & (factor.codes >= 0))
    counts = np.zeros((len(names), len(factor.levels)), dtype=np.int64)
    np.add.at(counts, (plain[rows], factor.codes[rows]), 1)
    table = pd.DataFrame(counts, index=[base_of(name) for name in names], columns=list(factor.levels))
    return table[table.sum(axis=1) > 0]


def association(counts: pd.DataFrame) -> float:
    """Cramér's V of conditions and batches: 0 where all are spread alike, 1 where each is in batches of its own.

    It is corrected for what chance adds in many small classes (Bergsma 2013).

    Parameters
    ----------
    counts
        Cells, conditions × batches.
    """
    table = counts.to_numpy(dtype=np.float64)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    n, (r, c) = table.sum(), table.shape
    if min(r, c) < 2 or n <= 1:
        return 0.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi2 = max(float(((table - expected) ** 2 / expected).sum() / n) - (r - 1) * (c - 1) / (n - 1), 0.0)
    smaller = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(min(phi2 / smaller, 1.0))) if smaller > 0 else 0.0
