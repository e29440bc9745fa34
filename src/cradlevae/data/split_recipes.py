"""Recipes of splits: the part of every cell from its condition, and what there is to know of the outcome."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from cradlevae.data.labels import CONTROL, singles_of
from cradlevae.errors import DataError
from cradlevae.utils.names import listed
from cradlevae.utils.types import IntArray

Labels: TypeAlias = "pd.Series[str]"
"""A text for each cell, by its name: its condition, or its part."""


@dataclass(frozen=True)
class Cells:
    """What recipes look at.

    Attributes
    ----------
    labels
        Canonical condition of each cell, ``""`` where it has none.
    strata
        Stratum (batch, covariates and context) of each cell, (cells,); every part gets its share of each.
    contexts
        Context of each cell, (cells,); ``None`` where the fields name no column of contexts.
    """

    labels: Labels
    strata: IntArray
    contexts: Labels | None = None


@dataclass(frozen=True)
class Options:
    """What recipes may be told.

    Attributes
    ----------
    n_shared
        Of ``perturbations``: single perturbations of a held-out condition that are seen in training.
    held_out
        Of ``contexts``: conditions and contexts that are held out; empty holds out a random quarter.
    """

    n_shared: int = 0
    held_out: tuple[tuple[str, str], ...] = ()


UNUSED = "unused"
"""Part of cells that neither train nor score a model, e.g. of a held-out perturbation outside the test set."""

VALIDATION_SHARE = 0.2
"""Share of the cells of trainable conditions that validate."""

TEST_SHARE = 0.2
"""Share of all cells that the ``cells`` recipe holds out."""


def _combinations(cells: Cells, generator: np.random.Generator, options: Options) -> tuple[Labels, list[str]]:
    """Hold out a quarter of the combinations, those that a model can answer for first.

    Where all of the random quarter can be answered, it is that of the published recipe.
    """
    labels = cells.labels
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
    return _held_out(cells, set(held_out), set(), generator), notes


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


def _published_combinations(cells: Cells, generator: np.random.Generator, options: Options) -> tuple[Labels, list[str]]:
    return _held_out(cells, _quarter_of_combinations(cells.labels, generator)[0], set(), generator), []


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


def _perturbations(cells: Cells, generator: np.random.Generator, options: Options) -> tuple[Labels, list[str]]:
    """Hold out the conditions with a quarter of the single perturbations (for ``n_shared=2``: of the combinations).

    Of the conditions that this concerns, those with exactly ``n_shared`` single perturbations in the training
    conditions are the test part; the others are unused.
    """
    labels, n_shared = cells.labels, options.n_shared
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
    return _held_out(cells, test, touched - test, generator), []


def _contexts(cells: Cells, generator: np.random.Generator, options: Options) -> tuple[Labels, list[str]]:
    """Hold out conditions in contexts, with a share of the controls of these contexts.

    Combinations with a held-out single perturbation in its context are unused: they would tell of it.
    """
    labels, contexts = cells.labels, cells.contexts
    if contexts is None:
        raise DataError(
            "this recipe holds out perturbations in contexts; name the column of contexts with context_key="
        )
    present = sorted(set(zip(labels, contexts, strict=True)))
    treated = [(name, context) for name, context in present if name not in (CONTROL, "")]
    chosen = _chosen_contexts(treated, options.held_out, generator)
    touched = {
        (name, context)
        for name, context in treated
        if any(context == other and set(singles_of(held)) <= set(singles_of(name)) for held, other in chosen)
    }
    seen = {single for name, context in treated if (name, context) not in touched for single in singles_of(name)}
    lost = [f"{name} in {context}" for name, context in sorted(chosen) if not seen.issuperset(singles_of(name))]
    if lost:
        raise DataError(
            f"{listed(lost)} cannot be predicted when held out: no other context has its perturbations; hold out less"
        )
    pair = list(zip(labels, contexts, strict=True))
    parts = _within_conditions(cells, generator, {"val": VALIDATION_SHARE})
    controls = np.array([(name == CONTROL) and any(context == held for _, held in chosen) for name, context in pair])
    of_controls = _within_conditions(cells, generator, {"test": TEST_SHARE, "val": VALIDATION_SHARE * (1 - TEST_SHARE)})
    parts[controls] = of_controls[controls]
    parts[[one in chosen for one in pair]] = "test"
    parts[[(one in touched and one not in chosen) or one[0] == "" for one in pair]] = UNUSED
    return parts, []


def _chosen_contexts(
    treated: Sequence[tuple[str, str]], held_out: Sequence[tuple[str, str]], generator: np.random.Generator
) -> set[tuple[str, str]]:
    """The pairs of condition and context to hold out: those that are named, else a random quarter that can be answered.

    Of a random quarter, each perturbation stays in one context at least.
    """
    if held_out:
        for name, context in held_out:
            if (name, context) not in treated:
                contexts = sorted({other for label, other in treated if label == name})
                known = (
                    f"{name!r} is in {listed(contexts)}"
                    if contexts
                    else f"known: {listed(sorted({label for label, _ in treated}))}"
                )
                raise DataError(f"held_out names {name!r} in {context!r}, of which there are no cells; {known}")
        return set(held_out)
    left = Counter(single for name, _ in treated for single in singles_of(name))
    with_single: dict[tuple[str, str], set[tuple[str, str]]] = {}
    """The pairs of each single perturbation in each context."""
    for name, context in treated:
        for single in singles_of(name):
            with_single.setdefault((single, context), set()).add((name, context))
    chosen: set[tuple[str, str]] = set()
    untrained: set[tuple[str, str]] = set()
    needed: set[str] = set()
    for position in generator.permutation(len(treated)):
        if len(chosen) == np.ceil(0.25 * len(treated)):
            break
        name, context = treated[position]
        singles = set(singles_of(name))
        # combinations with it in this context are not trained on, either
        lost = set.intersection(*(with_single[single, context] for single in singles)) - untrained
        taken = Counter(single for other, _ in lost for single in singles_of(other))
        if all(left[single] > taken[single] for single in needed & set(taken) | singles):
            left.subtract(taken)
            chosen.add((name, context))
            untrained |= lost
            needed |= singles
    if not chosen:
        raise DataError("no perturbation is in two contexts, so none can be held out in one of them")
    return chosen


def _held_out(cells: Cells, test: set[str], unused: set[str], generator: np.random.Generator) -> Labels:
    """Put whole conditions into the test or unused part, and the cells of all others into train and validation."""
    labels = cells.labels
    parts = _within_conditions(cells, generator, {"val": VALIDATION_SHARE})
    parts[labels.isin(test).to_numpy()] = "test"
    parts[(labels.isin(unused) | (labels == "")).to_numpy()] = UNUSED
    return parts


def _cells(cells: Cells, generator: np.random.Generator, options: Options) -> tuple[Labels, list[str]]:
    shares = {"test": TEST_SHARE, "val": VALIDATION_SHARE * (1 - TEST_SHARE)}
    parts = _within_conditions(cells, generator, shares)
    parts[(cells.labels == "").to_numpy()] = UNUSED
    return parts, []


def _within_conditions(cells: Cells, generator: np.random.Generator, shares: dict[str, float]) -> Labels:
    """Assign random parts within each condition, so that every condition has training cells.

    Where a condition is in several strata, every part gets its share of each of them, to a cell.
    """
    parts = np.full(len(cells.labels), "train", dtype=object)
    codes, names = pd.factorize(cells.labels, sort=True)
    in_order = np.argsort(codes, kind="stable")
    for rows in np.split(in_order, np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]):
        rows = generator.permutation(rows)
        strata = cells.strata[rows]
        if len(rows) and (strata != strata[0]).any():
            parts[rows] = _spread(strata, generator, shares)
            continue
        start = 0
        for part, share in shares.items():
            stop = start + round(share * len(rows))
            parts[rows[start:stop]] = part
            start = stop
    return pd.Series(parts, index=cells.labels.index, dtype=object)


def _spread(strata: IntArray, generator: np.random.Generator, shares: dict[str, float]) -> npt.NDArray[np.object_]:
    """Parts of the cells of a condition, which are in random order: each part takes cells at equal steps of strata."""
    parts = np.full(len(strata), "train", dtype=object)
    left = np.argsort(strata, kind="stable")
    for part, share in shares.items():
        n = round(share * len(strata))
        step = len(left) / max(n, 1)
        chosen = np.minimum(((np.arange(n) + generator.random()) * step).astype(np.int64), len(left) - 1)
        parts[left[chosen]] = part
        left = np.delete(left, chosen)
    return parts


RECIPES: dict[str, Callable[[Cells, np.random.Generator, Options], tuple[Labels, list[str]]]] = {
    "combinations": _combinations,
    "combinations_published": _published_combinations,
    "cells": _cells,
    "perturbations": _perturbations,
    "contexts": _contexts,
}
"""Recipes by name: from the condition, stratum and context of each cell to its part, with notes."""
