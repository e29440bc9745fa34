"""Where a published file holds its raw counts, and the names of its genes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from cradlevae.data.naming.gene_names import SYMBOL_COLUMNS, are_ensembl_ids
from cradlevae.data.storage.cell_files import cell_files, open_group, read_element
from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_cells import StoredCells
from cradlevae.data.storage.stored_matrix import stored_matrix
from cradlevae.errors import DataError
from cradlevae.utils.names import listed

COUNT_LAYERS = ("counts", "count", "raw_counts")
"""Layers that may hold the raw counts."""

ENSEMBL_COLUMNS = ("ensembl_id", "gene_id", "gene_ids", "ensembl")
"""Columns of ``var`` that may hold the Ensembl ids."""


def find_counts(cells: StoredCells) -> tuple[Counts, str, pd.DataFrame]:
    """Return the raw counts of a file, their place (a layer, ``X`` or ``raw``), and the annotation of their genes.

    Raises
    ------
    DataError
        If no place holds integers.
    """
    looked = []
    for place, holder, layer in _places(cells):
        counts = Counts(holder, layer)
        _, block = next(counts.blocks())
        if np.isfinite(block.data).all() and (block.data >= 0).all() and (block.data == np.round(block.data)).all():
            return counts, place, holder.var
        looked.append(place)
    raise DataError(
        f"{cells.path} holds no raw counts: {' and '.join(looked) or 'X, which is absent,'} hold other numbers than "
        "non-negative integers; get the file with the raw UMI counts"
    )


def gene_table(var: pd.DataFrame) -> pd.DataFrame:
    """Return a table with unique gene symbols as its index, and the Ensembl ids where there are any.

    Where a symbol occurs again, its Ensembl id (else a number) is appended.

    Raises
    ------
    DataError
        If the genes have ids but no symbols.
    """
    names = pd.Index(var.index.astype(str))
    ids = next((var[name].astype(str) for name in ENSEMBL_COLUMNS if name in var), None)
    if are_ensembl_ids(list(names)):
        column = next((name for name in SYMBOL_COLUMNS if name in var), None)
        if column is None:
            raise DataError(
                f"the genes are Ensembl ids, and none of the columns {listed(SYMBOL_COLUMNS, 9)} of var holds their "
                f"symbols (there: {listed([str(name) for name in var], 9) or 'none'}); add one"
            )
        ids = pd.Series(names, index=var.index)
        symbols = var[column].astype(object).where(var[column].notna(), "").astype(str)
        names = pd.Index(np.where(symbols == "", ids, symbols))
    table = pd.DataFrame(index=unique_names(names, ids))
    if ids is not None:
        table["ensembl_id"] = ids.to_numpy()
    return table


def _places(cells: StoredCells) -> Iterator[tuple[str, StoredCells, str | None]]:
    """Yield the places where the counts may be, the likeliest first."""
    for layer in COUNT_LAYERS:
        if layer in cells.layers:
            yield f"layers[{layer!r}]", cells, layer
    if cells.X is not None:
        yield "X", cells, None
    file, *others = cell_files(cells.path)
    group = open_group(file)
    if "raw/X" in group and not others:
        matrix = stored_matrix(group["raw/X"])
        if matrix is None:
            from anndata.io import sparse_dataset

            matrix = sparse_dataset(group["raw/X"])
        var = read_element(group, file, "raw/var")
        yield "raw", StoredCells(cells.path, cells.obs, var, {}, {"X": matrix}, {}), None


def unique_names(names: pd.Index[str], ids: pd.Series[str] | None = None) -> pd.Index[str]:
    """Make names unique: an id or a number is appended where a name occurs again."""
    unique: list[str] = []
    taken = set(names)
    seen: set[str] = set()
    for place, name in enumerate(names):
        new, number = name, 0
        while new in seen or (new in taken and new != name):
            number += 1
            new = f"{name}_{ids.iloc[place]}" if ids is not None and number == 1 else f"{name}-{number}"
        seen.add(new)
        unique.append(new)
    return pd.Index(unique)
