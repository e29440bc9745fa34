"""Library sizes of generated cells, from what a user may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cradlevae.data.experiment import DataFields
from cradlevae.data.labels import base_of, listed, singles_of
from cradlevae.errors import DataError
from cradlevae.model.estimation.streams import stream_seed
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import asked_batch, asked_level, asked_names
from cradlevae.utils.checks import shown
from cradlevae.utils.fields import plain
from cradlevae.utils.types import Float32Array, IntArray

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
    known = {single for name in names for single in singles_of(name)}
    by_name: dict[str, npt.NDArray[Any]] = {
        next(iter(asked_names(fields, name, known).values())): np.ravel(sizes) for name, sizes in library_size.items()
    }
    by_name |= {name: by_name[base] for name in names if name not in by_name and (base := base_of(name)) in by_name}
    missing = [name for name in names if not len(by_name.get(name, ()))]
    if missing:
        raise DataError(f"library_size has no sizes for {listed(missing)}; give some for every condition")
    sizes = []
    for name in names:
        random = np.random.default_rng([seed, 3, stream_seed(seed, name)])
        sizes.append(np.resize(random.permutation([_positive(size) for size in by_name[name]]), n_cells))
    return np.asarray(sizes, dtype=np.float32)


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
    known = {single for name in names for single in singles_of(name)}
    by_name: dict[str, list[int]] = {
        next(iter(asked_names(model.fields, name, known).values())): [_number(model, one) for one in of_cells]
        for name, of_cells in batch.items()
    }
    by_name |= {name: by_name[base] for name in names if name not in by_name and (base := base_of(name)) in by_name}
    missing = [name for name in names if not by_name.get(name)]
    if missing:
        raise DataError(f"batch has no batches for {listed(missing)}; give some for every condition")
    numbers = []
    for name in names:
        random = np.random.default_rng([seed, 3, stream_seed(seed, name)])
        numbers.append(np.resize(random.permutation(by_name[name]), n_cells))
    return np.asarray(numbers, dtype=np.int64)


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
