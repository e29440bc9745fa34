"""Library sizes of generated cells, from what a user may write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cradlevae.data.experiment import DataFields
from cradlevae.data.labels import base_of, singles_of
from cradlevae.errors import DataError
from cradlevae.model.estimation.streams import stream_seed
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import asked_batch, asked_level, asked_names
from cradlevae.utils.checks import shown
from cradlevae.utils.fields import plain
from cradlevae.utils.names import listed
from cradlevae.utils.types import Float32Array, IntArray

Value = TypeVar("Value")

LibrarySize = float | str | Mapping[str, npt.ArrayLike]
"""A number, ``"controls"`` (those of real passing training controls), or sizes of cells by condition."""


def chosen_sizes(
    library_size: LibrarySize, names: Sequence[str], fields: DataFields, n_cells: int, seed: int
) -> Float32Array | None:
    """Library sizes of the cells of each condition, (conditions, n_cells); ``None`` for ``"controls"``.

    A condition's sizes come as often as each other, as far as they can, in random order.

    Raises
    ------
    DataError
        If it is something else, a size is not positive, or a condition has none.
    """
    if isinstance(library_size, str) and library_size == "controls":
        return None
    if not isinstance(library_size, Mapping):
        return np.full((len(names), n_cells), _positive(library_size), dtype=np.float32)
    by_name = _of_conditions("library_size has no sizes", library_size, names, fields)
    sizes = {name: [_positive(size) for size in np.ravel(by_name[name])] for name in names}
    return np.asarray([_in_order(sizes[name], name, n_cells, seed) for name in names], dtype=np.float32)


Batches = str | Mapping[str, Sequence[str]]
"""A batch, or those of cells by condition."""


def chosen_batches(
    batch: Batches | None, names: Sequence[str], model: TrainedModel, n_cells: int, seed: int
) -> IntArray | None:
    """Number of the batch of each cell of each condition, (conditions, n_cells); ``None`` keeps those of the states.

    Batches of real cells come in the order of the library sizes of the same cells (:func:`chosen_sizes`).

    Raises
    ------
    DataError
        If a batch is unknown, or a condition has none.
    """
    if batch is None or model.column("batch") is None:
        asked_batch(model, batch if not isinstance(batch, Mapping) else None)
        return None
    if not isinstance(batch, Mapping):
        return np.full((len(names), n_cells), asked_batch(model, batch), dtype=np.int64)
    return np.asarray(batches_of_cells(batch, lambda one: _number(model, one), names, model.fields, n_cells, seed))


def batches_of_cells(
    batch: Mapping[str, Sequence[str]],
    read: Callable[[Any], Value],
    names: Sequence[str],
    fields: DataFields,
    n_cells: int,
    seed: int,
) -> list[list[Value]]:
    """Batches of so many cells of each condition, as they are read, in the order of the cells' library sizes.

    Parameters
    ----------
    batch
        Batches of real cells by condition.
    read
        What stands for a batch; raises for one that is unknown.
    names
        Canonical conditions.
    fields
        Separator and control labels of the data.
    n_cells, seed
        As of :func:`chosen_sizes`.
    """
    given = {name: [read(one) for one in of_cells] for name, of_cells in batch.items()}
    by_name = _of_conditions("batch has no batches", given, names, fields)
    return [_in_order(by_name[name], name, n_cells, seed) for name in names]


def _of_conditions(lacking: str, given: Mapping[str, Any], names: Sequence[str], fields: DataFields) -> dict[str, Any]:
    """What is given for the real cells of each condition, by its canonical name, or by that without its context.

    Parameters
    ----------
    lacking
        Beginning of the message for conditions without any.
    given
        Values of real cells, by what a user wrote.
    names
        Canonical conditions.
    fields
        Separator and control labels of the data.
    """
    known = {single for name in names for single in singles_of(name)}
    by_name: dict[str, Any] = {
        next(iter(asked_names(fields, name, known).values())): of_cells for name, of_cells in given.items()
    }
    by_name |= {name: by_name[base] for name in names if name not in by_name and (base := base_of(name)) in by_name}
    missing = [name for name in names if not np.size(by_name.get(name, ()))]
    if missing:
        raise DataError(f"{lacking} for {listed(missing)}; give some for every condition")
    return by_name


def _in_order(values: Sequence[Value], name: str, n_cells: int, seed: int) -> list[Value]:
    """Values of real cells in random order, as often as there are cells to make.

    The order depends on the seed, the condition and the number of values alone: it is that of the same cells' others.
    """
    random = np.random.default_rng([seed, 3, stream_seed(seed, name)])
    return [values[place] for place in np.resize(random.permutation(len(values)), n_cells).tolist()]


def _number(model: TrainedModel, batch: object) -> int:
    """Number of the batch of a real cell: one without training cells, too, adds what is most likely, nothing."""
    name, column = asked_level(model.fields, model.levels, "batch", batch), model.column("batch")
    return 0 if name is None or column is None else column.number(name)


def _positive(size: object) -> float:
    number = plain(size)
    try:
        value = -1.0 if isinstance(number, bool) else float(number)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 < value < float("inf"):
        raise DataError(f"library_size is {shown(size)}; give a positive number or 'controls', or sizes by condition")
    return value
