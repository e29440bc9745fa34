"""Batches and contexts that a floor knows by name, and what a user may write for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cradlevae.data.factors import Factor
from cradlevae.data.fields import DataFields
from cradlevae.data.labels import Condition, context_of, in_context
from cradlevae.query.arguments import asked_context, asked_level
from cradlevae.query.library_sizes import Batches, batches_of_cells


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
        return asked_context(self.fields, self.by_column, context)

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
        return batches_of_cells(batch, lambda one: str(self.batch(one)), names, self.fields, n_cells, seed)
