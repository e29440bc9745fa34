"""Recipes of splits: the part of every cell from its condition, and what there is to know of the outcome."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from cradlevae.data.labels import CONTROL, listed, singles_of
from cradlevae.errors import DataError

Labels: TypeAlias = "pd.Series[str]"
"""A text for each cell, by its name: its condition, or its part."""

UNUSED = "unused"
"""Part of cells that neither train nor score a model, e.g. of a held-out perturbation outside the test set."""

VALIDATION_SHARE = 0.2
"""Share of the cells of trainable conditions that validate."""

TEST_SHARE = 0.2
"""Share of all cells that the ``cells`` recipe holds out."""


def _combinations(labels: Labels, generator: np.random.Generator, n_shared: int) -> tuple[Labels, list[str]]:
    """Hold out a quarter of the combinations, those that a model can answer for first.

    Where all of the random quarter can be answered, it is that of the published recipe.
    """
    published, shuffled = _quarter_of_combinations(labels, generator)
    present = sorted(set(labels.unique()) - {CONTROL, ""})
    held_out, unanswerable = _answerable_first(shuffled[::-1], present, len(published))
    notes = []
    if set(held_out) != published:
        notes.append(
            f"combinations whose single perturbations all have training cells are held out first: "
            f"{listed(sorted(set(held_out) - published))} in place of {listed(sorted(published - set(held_out)))}"
        )
    if unanswerable:
        notes.append(
            f"{len(unanswerable)} of {len(held_out)} held-out combinations have a single perturbation without training "
            f"cells, so most models cannot predict them: {listed(sorted(unanswerable))}"
        )
        warnings.warn(notes[-1], stacklevel=4)
    return _held_out(labels, set(held_out), set(), generator), notes


def _answerable_first(
    combinations: Sequence[str], conditions: Sequence[str], n_held_out: int
) -> tuple[list[str], list[str]]:
    """Choose combinations in this order, those first whose single perturbations stay in other conditions.

    Returns
    -------
    held_out
        The combinations that are chosen.
    unanswerable
        Those of them with a single perturbation that no other condition is left to train on.
    """
    left = Counter(single for name in conditions for single in singles_of(name))
    needed: set[str] = set()
    """Single perturbations of the combinations that are held out."""
    held_out: list[str] = []
    for name in combinations:
        singles = singles_of(name)
        if len(held_out) < n_held_out and all(left[single] > 1 for single in singles):
            left.subtract(singles)
            needed.update(singles)
            held_out.append(name)
    others = [name for name in combinations if name not in held_out]
    # A filler must not take the last training cells of what the chosen ones need.
    harmless = [name for name in others if not needed.intersection(singles_of(name))]
    fillers = [*harmless, *(name for name in others if name not in harmless)][: n_held_out - len(held_out)]
    for name in fillers:
        left.subtract(singles_of(name))
    held_out += fillers
    return held_out, [name for name in held_out if any(left[single] < 1 for single in singles_of(name))]


def _published_combinations(labels: Labels, generator: np.random.Generator, n_shared: int) -> tuple[Labels, list[str]]:
    return _held_out(labels, _quarter_of_combinations(labels, generator)[0], set(), generator), []


def _quarter_of_combinations(labels: Labels, generator: np.random.Generator) -> tuple[set[str], list[str]]:
    """Return a random quarter of the combinations, and the random order of all, whose end the quarter is."""
    names = sorted(name for name in labels.unique() if len(singles_of(name)) > 1)
    if not names:
        raise DataError(
            "this recipe needs combinations (labels such as A+B), but there are none; "
            "use recipe 'cells', or set separator= to what stands between the perturbations"
        )
    return _last_quarter(names, generator)


def _last_quarter(names: list[str], generator: np.random.Generator) -> tuple[set[str], list[str]]:
    shuffled = list(generator.permutation(np.array(names, dtype=object)))
    return set(shuffled[-int(np.ceil(0.25 * len(names))) :]), shuffled


def _perturbations(labels: Labels, generator: np.random.Generator, n_shared: int) -> tuple[Labels, list[str]]:
    """Hold out the conditions with a quarter of the single perturbations (for ``n_shared=2``: of the combinations).

    Of the conditions that this concerns, those with exactly ``n_shared`` single perturbations in the training
    conditions are the test part; the others are unused.
    """
    if n_shared not in (0, 1, 2):
        raise DataError(f"n_shared is {n_shared!r}; it must be 0, 1 or 2")
    conditions = sorted(set(labels.unique()) - {CONTROL, ""})
    if n_shared == 2:
        touched, _ = _quarter_of_combinations(labels, generator)
    else:
        singles = sorted({single for name in conditions for single in singles_of(name)})
        hidden, _ = _last_quarter(singles, generator)
        touched = {name for name in conditions if not hidden.isdisjoint(singles_of(name))}
    seen = {single for name in conditions if name not in touched for single in singles_of(name)}
    test = {name for name in touched if sum(single in seen for single in singles_of(name)) == n_shared}
    if not test:
        raise DataError(
            f"no condition has exactly {n_shared} perturbations seen in training; use another n_shared or seed"
        )
    return _held_out(labels, test, touched - test, generator), []


def _held_out(labels: Labels, test: set[str], unused: set[str], generator: np.random.Generator) -> Labels:
    """Put whole conditions into the test or unused part, and the cells of all others into train and validation."""
    parts = _within_conditions(labels, generator, {"val": VALIDATION_SHARE})
    parts[labels.isin(test).to_numpy()] = "test"
    parts[(labels.isin(unused) | (labels == "")).to_numpy()] = UNUSED
    return parts


def _cells(labels: Labels, generator: np.random.Generator, n_shared: int) -> tuple[Labels, list[str]]:
    shares = {"test": TEST_SHARE, "val": VALIDATION_SHARE * (1 - TEST_SHARE)}
    parts = _within_conditions(labels, generator, shares)
    parts[(labels == "").to_numpy()] = UNUSED
    return parts, []


def _within_conditions(labels: Labels, generator: np.random.Generator, shares: dict[str, float]) -> Labels:
    """Assign random parts within each condition, so that every condition has training cells."""
    parts = np.full(len(labels), "train", dtype=object)
    codes, names = pd.factorize(labels, sort=True)
    in_order = np.argsort(codes, kind="stable")
    for rows in np.split(in_order, np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]):
        rows = generator.permutation(rows)
        start = 0
        for part, share in shares.items():
            stop = start + round(share * len(rows))
            parts[rows[start:stop]] = part
            start = stop
    return pd.Series(parts, index=labels.index, dtype=object)


RECIPES: dict[str, Callable[[Labels, np.random.Generator, int], tuple[Labels, list[str]]]] = {
    "combinations": _combinations,
    "combinations_published": _published_combinations,
    "cells": _cells,
    "perturbations": _perturbations,
}
"""Recipes by name: from the condition of each cell and ``n_shared`` to its part, with notes."""
