"""Rank sums of one gene for many conditions at once, within strata, with tie correction.

Zeros are one tie whose size is known, so only non-zero values are ever sorted. Cells of different strata are never
compared: values are replaced by keys that order all values of a stratum before those of the next.
"""

from __future__ import annotations

import numpy as np

from cradlevae.utils.types import AnyIntArray, FloatArray


def standardised_rank_sums(
    values: FloatArray, groups: AnyIntArray, strata: AnyIntArray, n_cells: FloatArray, base: int
) -> FloatArray:
    """Tie-corrected z of one gene for every condition against condition ``base``, (conditions,).

    Parameters
    ----------
    values, groups, strata
        The gene's non-zero values, with their conditions and strata.
    n_cells
        Numbers of all cells, zeros included, (strata, conditions).
    base
        The control condition.

    Notes
    -----
    Several strata are combined as by van Elteren (1960), with weights 1/(N + 1).
    """
    centred, variance = _centred_rank_sums(values, groups, strata, n_cells, base)
    n_control = n_cells[:, [base]]
    # One value throughout leaves no variance but rounding: there is nothing to test.
    testable = variance > 1e-6 * np.maximum(n_cells, 1.0) * n_control
    any_testable = np.asarray(testable.any(axis=0))
    if len(n_cells) > 1:
        weight = testable / (n_cells + n_control + 1.0)
        centred, variance = weight * centred, weight**2 * variance
    centred, variance = centred.sum(axis=0), variance.sum(axis=0)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    return np.asarray(np.divide(centred, deviation, out=np.zeros(n_cells.shape[1]), where=any_testable))


def _centred_rank_sums(
    values: FloatArray, groups: AnyIntArray, strata: AnyIntArray, n_cells: FloatArray, base: int
) -> tuple[FloatArray, FloatArray]:
    """Rank sums minus their expectations and their variances under the null hypothesis, (strata, conditions) both."""
    shape = n_cells.shape
    place = strata * shape[1] + groups
    keys = values if shape[0] == 1 else _keys(values, strata)
    controls = np.sort(keys[groups == base])
    n_expressed = np.bincount(place, minlength=n_cells.size).reshape(shape)
    zeros, n_control = n_cells - n_expressed, n_cells[:, [base]]
    # Pairs (perturbed cell, control cell) in which the perturbed cell is higher; ties count half.
    below = np.searchsorted(controls, keys, side="left")
    not_above = np.searchsorted(controls, keys, side="right")
    of_earlier_strata = np.cumsum(n_expressed[:, base]) - n_expressed[:, base]
    beaten = zeros[strata, base] - of_earlier_strata[strata] + 0.5 * (below + not_above)
    wins = np.bincount(place, weights=beaten, minlength=n_cells.size).reshape(shape) + 0.5 * zeros * zeros[:, [base]]

    control_strata = np.repeat(np.arange(shape[0]), n_expressed[:, base])
    ties = _tie_terms(keys, place, controls, control_strata, shape) + _cubed(zeros + zeros[:, [base]])
    n = n_cells + n_control
    variance = n_cells * n_control / 12.0 * (n + 1.0 - ties / np.maximum(n * (n - 1.0), 1.0))
    return wins - 0.5 * n_cells * n_control, variance


def _keys(values: FloatArray, strata: AnyIntArray) -> AnyIntArray:
    """Whole numbers that order the values of each stratum, all of them before those of the next stratum."""
    distinct, rank = np.unique(values, return_inverse=True)
    return np.asarray(strata * len(distinct) + rank)


def _tie_terms(
    keys: FloatArray | AnyIntArray,
    place: AnyIntArray,
    controls: FloatArray | AnyIntArray,
    control_strata: AnyIntArray,
    shape: tuple[int, int],
) -> FloatArray:
    """Sum of t³ − t over the tied non-zero values of each condition and the controls, (strata, conditions).

    Parameters
    ----------
    keys, place
        Key of each value, and the position of its stratum and condition in the flattened result.
    controls, control_strata
        Sorted keys of the controls, with their strata.
    shape
        Numbers of strata and of conditions.
    """
    control_key, first, control_size = np.unique(controls, return_index=True, return_counts=True)
    alone = np.bincount(control_strata[first], weights=_cubed(control_size.astype(np.float64)), minlength=shape[0])[
        :, None
    ]
    if not len(keys):
        return np.zeros(shape)
    order = np.lexsort((keys, place))
    key, group = keys[order], place[order]
    first = np.flatnonzero(np.r_[True, (key[1:] != key[:-1]) | (group[1:] != group[:-1])])
    size = np.diff(np.r_[first, len(key)]).astype(np.float64)
    key, group = key[first], group[first]
    shared = np.zeros(len(key))
    if len(control_key):
        position = np.minimum(np.searchsorted(control_key, key), len(control_key) - 1)
        shared = np.where(control_key[position] == key, control_size[position], 0).astype(np.float64)
    more = _cubed(size + shared) - _cubed(shared)
    return np.asarray(alone + np.bincount(group, weights=more, minlength=shape[0] * shape[1]).reshape(shape))


def _cubed(size: FloatArray) -> FloatArray:
    return np.asarray(size**3 - size)
