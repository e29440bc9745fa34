"""Batches and contexts that a floor knows by name, and what a user may write for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cradlevae.data.factors import Factor
from cradlevae.data.fields import DataFields
from cradlevae.data.labels import Condition, closest, context_of, in_context, listed, singles_of
from cradlevae.errors import DataError
from cradlevae.model.estimation.streams import stream_seed
from cradlevae.query.arguments import asked_names

Batches = str | Mapping[str, Sequence[str]]
"""A batch, or batches of cells by condition, one for each library size that is given in the same way."""


@dataclass(frozen=True)
class Levels:
    """Batches, covariates and contexts of the training data.

    Attributes
    ----------
    fields
        The columns.
    by_column
        Their categories, by column.
    """

    fields: DataFields
    by_column: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, fields: DataFields, factors: Sequence[Factor]) -> Levels:
        """The categories of some factors."""
        return cls(fields, {factor.key: factor.levels for factor in factors})

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts; empty where the data have no column of them."""
        return self.by_column.get(self.fields.context_key or "", ())

    @property
    def batches(self) -> tuple[str, ...]:
        """Batches; empty where the data have no column of them."""
        return self.by_column.get(self.fields.batch_key or "", ())

    def in_context(self, asked: Mapping[str, Condition], context: str | None) -> dict[str, Condition]:
        """Conditions in a context, by what was written; :class:`DataError` for a context that is not known."""
        if context is not None:
            self._check(context, "context", self.contexts)
        for condition in asked.values():
            if context_of(condition) is not None:
                self._check(context_of(condition), "context", self.contexts)
        if context is None or len(self.contexts) < 2:
            return dict(asked)
        return {label: in_context(condition, context) for label, condition in asked.items()}

    def of_cells(self, batch: Batches | None, names: Sequence[str], n_cells: int, seed: int) -> list[list[str]] | None:
        """Batch of each cell of each condition, (conditions, n_cells); ``None`` where none is asked for.

        Batches that are given by condition are drawn in the order in which
        :func:`cradlevae.query.library_sizes.chosen_sizes` draws library sizes, so that those of one cell stay together.

        Raises
        ------
        DataError
            If a batch is unknown, or a condition has none.
        """
        if batch is None:
            return None
        if not isinstance(batch, Mapping):
            self._check(batch, "batch", self.batches)
            return [[str(batch)] * n_cells for _ in names]
        known = {single for name in names for single in singles_of(name)}
        by_name: dict[str, list[str]] = {
            next(iter(asked_names(self.fields, name, known).values())): [str(level) for level in given]
            for name, given in batch.items()
        }
        missing = [name for name in names if not by_name.get(name)]
        if missing:
            raise DataError(f"batch has none for {listed(missing)}; give some for every condition")
        for level in sorted({level for given in by_name.values() for level in given}):
            self._check(level, "batch", self.batches)
        cells = []
        for name in names:
            random = np.random.default_rng([seed, 3, stream_seed(seed, name)])
            order = np.resize(random.permutation(len(by_name[name])), n_cells)
            cells.append([by_name[name][place] for place in order])
        return cells

    def check_batch(self, batch: str | None) -> None:
        """Raise :class:`DataError` for a batch that is not known."""
        if batch is not None:
            self._check(batch, "batch", self.batches)

    @staticmethod
    def _check(level: object, role: str, known: Sequence[str]) -> None:
        if not known:
            raise DataError(f"{role} is {level!r}, but the training data had no {role}: name a column with {role}_key=")
        if not isinstance(level, str) or level not in known:
            raise DataError(f"unknown {role} {level!r}{closest(str(level), list(known))}")
