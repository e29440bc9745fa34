"""Batches and contexts that a floor knows by name, and what a user may write for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cradlevae.data.factors import Factor
from cradlevae.data.fields import DataFields
from cradlevae.data.labels import Condition, base_of, context_of, in_context, listed, singles_of
from cradlevae.errors import DataError
from cradlevae.model.estimation.streams import stream_seed
from cradlevae.query.arguments import asked_level, asked_names
from cradlevae.query.library_sizes import Batches


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

    def batch(self, batch: str | None) -> str | None:
        """A batch by name; :class:`DataError` for one that is not known."""
        return asked_level(self.fields, self.by_column, "batch", batch)

    def context(self, context: str | None) -> str | None:
        """A context by name; ``None`` where there is one only, :class:`DataError` for one that is not known."""
        known = asked_level(self.fields, self.by_column, "context", context)
        return known if known is not None and len(self.by_column[str(self.fields.context_key)]) > 1 else None

    def in_context(self, asked: Mapping[str, Condition], context: str | None) -> dict[str, Condition]:
        """Conditions in a context, by what was written; :class:`DataError` for a context that is not known."""
        context = self.context(context)
        for condition in asked.values():
            self.context(context_of(condition))
        if context is None:
            return dict(asked)
        return {label: in_context(condition, context) for label, condition in asked.items()}

    def of_cells(self, batch: Batches | None, names: Sequence[str], n_cells: int, seed: int) -> list[list[str]] | None:
        """Batch of each cell of each condition, (conditions, n_cells); ``None`` where none is asked for.

        Batches of real cells come in the order of the library sizes of the same cells
        (:func:`cradlevae.query.library_sizes.chosen_sizes`).

        Raises
        ------
        DataError
            If a batch is unknown, or a condition has none.
        """
        if batch is None:
            return None
        if not isinstance(batch, Mapping):
            return [[str(self.batch(batch))] * n_cells for _ in names]
        known = {single for name in names for single in singles_of(name)}
        by_name: dict[str, list[str]] = {
            next(iter(asked_names(self.fields, name, known).values())): [str(self.batch(one)) for one in of_cells]
            for name, of_cells in batch.items()
        }
        by_name |= {name: by_name[base] for name in names if name not in by_name and (base := base_of(name)) in by_name}
        missing = [name for name in names if not by_name.get(name)]
        if missing:
            raise DataError(f"batch has no batches for {listed(missing)}; give some for every condition")
        cells = []
        for name in names:
            random = np.random.default_rng([seed, 3, stream_seed(seed, name)])
            order = np.resize(random.permutation(len(by_name[name])), n_cells)
            cells.append([by_name[name][place] for place in order])
        return cells
