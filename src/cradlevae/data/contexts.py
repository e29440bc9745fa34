"""The columns that cells differ in, by which a model numbers their levels, and the contexts of its treatments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cradlevae.data.dosage import treatment_dosage
from cradlevae.data.experiment import Experiment
from cradlevae.data.factors import Role, keys_of
from cradlevae.data.fields import DataFields
from cradlevae.data.labels import context_of
from cradlevae.errors import DataError
from cradlevae.utils.names import listed
from cradlevae.utils.types import IndexArray


@dataclass(frozen=True)
class Column:
    """A column of ``obs`` that cells differ in.

    Attributes
    ----------
    role, key, levels
        As of a :class:`.Factor`.
    first
        Number of its first level among the levels of all columns.
    """

    role: Role
    key: str
    levels: tuple[str, ...]
    first: int

    def number(self, level: str) -> int:
        """Number of a level among those of all columns; :class:`DataError` with the known ones where it is unknown."""
        if level not in self.levels:
            raise DataError(f"unknown {self.role} {level!r}; known: {listed(self.levels, 8)}")
        return self.first + self.levels.index(level)


def columns_of(fields: DataFields, levels: Mapping[str, Sequence[str]]) -> tuple[Column, ...]:
    """The columns of two levels or more in the order in which levels are numbered: batch, covariates, context.

    Parameters
    ----------
    fields
        Which column is what.
    levels
        Levels by column.
    """
    columns, first = [], 0
    for role, key in keys_of(fields):
        if len(levels[key]) > 1:
            columns.append(Column(role, key, tuple(levels[key]), first))
            first += len(levels[key])
    return tuple(columns)


def measured_contexts(data: Experiment, rows: IndexArray) -> tuple[tuple[str, str], ...]:
    """Pairs of treatment and context that some cells tell of; none where there is one context."""
    context, own = data.varied_by("context"), data.own_treatments
    if context is None:
        return ()
    names = [data.conditions[code] for code in np.unique(data.condition[rows])]
    treated = treatment_dosage(names, data.perturbations, data.treatments) != 0
    contexts = [context_of(name) for name in names]
    found = {(own[column], contexts[row]) for row, column in np.argwhere(treated)}
    return tuple((name, level) for name in own for level in context.levels if (name, level) in found)


def measured_pairs(data: Experiment, rows: IndexArray) -> tuple[tuple[str, str], ...]:
    """Those of :func:`measured_contexts` whose treatment is measured in several contexts.

    In one context alone, what is the treatment's and what is the context's cannot be told apart.
    """
    measured = measured_contexts(data, rows)
    several = Counter(treatment for treatment, _ in measured)
    return tuple(pair for pair in measured if several[pair[0]] > 1)


def context_shares(data: Experiment, rows: IndexArray) -> dict[str, float]:
    """Share of each context among the controls of some cells."""
    context = data.varied_by("context")
    if context is None:
        return {}
    n_cells = np.bincount(context.codes[rows[data.is_control[rows]]], minlength=len(context.levels))
    shares = n_cells / max(int(n_cells.sum()), 1)
    return {level: float(share) for level, share in zip(context.levels, shares, strict=True)}
