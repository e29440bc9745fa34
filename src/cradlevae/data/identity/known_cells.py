"""Which cells of data a split knows, by name and counts, and the warnings about those that it does not know."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

from cradlevae.data.experiment import DataFields, Experiment
from cradlevae.data.identity.cell_sketch import (
    ENOUGH_PROBES,
    CellSketch,
    SketchArray,
    choose_probes,
    gene_set,
    sketch_values,
)
from cradlevae.data.split import PARTS, Split
from cradlevae.data.split_recipes import UNUSED
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, BoolArray

NOT_THE_CELLS = "none of the split's training cells are in the data; was it made for other data?"


def adopt_split(split: Split, adata: AnnDataLike, data: Experiment, fields: DataFields) -> Split:
    """Check that a split fits the data that it is to be used for, and return it with sketches of their counts.

    Parameters
    ----------
    split
        The split. Where it was made with the counts of another layer, its cells are recognised by those as well.
    adata, data, fields
        The data, what was read of them, and where they hold it.

    Raises
    ------
    DataError
        If none of the training cells of the split are in the data.

    Warns
    -----
    UserWarning
        Where cells have the name of a cell of the split but other counts, are in no part of the split, or are cells of
        the split that the data do not hold.
    """
    other = _other_cells(split, adata, data, fields)
    known = split.parts.index.get_indexer(data.cells) >= 0
    recognised = known & ~other
    training = split.rows(data.cells, "train")
    if not recognised[training].any():
        raise DataError(NOT_THE_CELLS + _other_counts(other[known]))
    warn_of_other_counts(other, "they belong to no part of the split, and neither train nor validate")
    new = int((~known).sum())
    if new:
        warnings.warn(
            f"{new:,} of the {data.n_cells:,} cells are in no part of the split, so they neither train nor validate; "
            "split these data, or leave the cells out",
            stacklevel=4,
        )
    _warn_of_absent(split, adata.obs_names)
    return _with_own_sketch(split, data, fields, recognised)


def warn_of_namesakes(split: Split, data: Experiment) -> None:
    """Warn where cells have the name of a cell of a split, but other counts."""
    warn_of_other_counts(split.namesakes(data), "they are taken for cells that the model has not seen")


def warn_of_other_counts(other: BoolArray, consequence: str) -> None:
    """Warn where cells have the name of a cell of a split, but other counts.

    Parameters
    ----------
    other
        Whether each cell of the data is such a cell, (cells,).
    consequence
        What becomes of them.
    """
    if other.any():
        warnings.warn(
            f"{int(other.sum()):,} of the {len(other):,} cells have the name of a cell of the split but other counts: "
            f"{consequence}. If they are of another lane or experiment, make the names unique, e.g. "
            "adata.obs_names = 'lane2-' + adata.obs_names",
            stacklevel=5,
        )


def _other_counts(other: BoolArray) -> str:
    return (
        f" ({int(other.sum()):,} cells have the name of a cell of the split, but other counts)" if other.any() else ""
    )


def _warn_of_absent(split: Split, cells: pd.Index[str]) -> None:
    absent = split.parts[~split.parts.index.isin(cells)]
    if len(absent):
        numbers = absent.value_counts()
        shown = ", ".join(f"{part} {numbers[part]:,}" for part in (*PARTS, UNUSED) if part in numbers)
        warnings.warn(
            f"{len(absent):,} of the {len(split.parts):,} cells of the split are not in the data ({shown})",
            stacklevel=4,
        )


def _other_cells(split: Split, adata: AnnDataLike, data: Experiment, fields: DataFields) -> BoolArray:
    """Whether each cell has other counts than the cell of its name in the split, in all layers that may be meant."""
    other = split.namesakes(data)
    sketch = split.sketch
    if sketch is None or sketch.layer == fields.layer or not other.any():
        return other
    values = _sketch_of_layer(adata, sketch)
    if values is None:
        return other
    values = values[adata.obs_names.get_indexer(data.cells)]
    return np.asarray(other & split.other_cells(data.cells, adata.var_names, values))


def _sketch_of_layer(adata: AnnDataLike, sketch: CellSketch) -> SketchArray | None:
    """Sketches of all cells by the layer of a sketch; ``None`` where the data do not hold it."""
    if adata.X is None if sketch.layer is None else sketch.layer not in adata.layers:
        return None
    blocks = Counts(adata, sketch.layer).blocks()
    return sketch_values(blocks, adata.n_obs, adata.var_names, sketch.genes)


def _with_own_sketch(split: Split, data: Experiment, fields: DataFields, recognised: BoolArray) -> Split:
    """The split with sketches of the counts that are modelled, where its own are of others or of genes left out."""
    sketch = split.sketch
    if sketch is not None and sketch.layer == fields.layer:
        left = len(sketch.shared(data.genes))
        if left == len(sketch.genes) or left >= ENOUGH_PROBES:
            return split
    genes = choose_probes(data.counts, data.genes)
    place = split.parts.index.get_indexer(data.cells)
    present = data.sketch(genes)
    values = np.zeros((len(split.parts), present.shape[1]), dtype=np.uint8)
    known = np.zeros(len(split.parts), dtype=bool)
    rows = place >= 0
    values[place[rows]] = np.where(recognised[rows, None], present[rows], ~present[rows])  # others stay others
    known[place[rows]] = True
    return replace(split, sketch=CellSketch(genes, values, fields.layer, known, gene_set(data.genes)))
