"""Joining several files of cells: genes in one order, one table of cells, and the settings that all files share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.storage.stored_matrix import Columns
from cradlevae.errors import DataError
from cradlevae.utils.constants import MADE_MARK


def aligned_genes(names: Sequence[pd.Index[str]], files: Sequence[Path]) -> list[Columns | None]:
    """Return the columns in each file of the genes of the first; ``None`` where the order is the same.

    Raises
    ------
    DataError
        If a file has other genes than the first.
    """
    columns: list[Columns | None] = []
    for own, file in zip(names, files, strict=True):
        if own.equals(names[0]):
            columns.append(None)
            continue
        comparable = len(own) == len(names[0]) and own.is_unique and names[0].is_unique
        same = comparable and bool((names[0].get_indexer(own) >= 0).all())
        if not same:
            raise DataError(
                f"{file} has other genes ({len(own):,}) than {files[0]} ({len(names[0]):,}); files of one folder must "
                "have the same genes: restrict them to the common ones"
            )
        columns.append(np.asarray(own.get_indexer(names[0])))
    return columns


def stacked_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Stack the ``obs`` tables of all files; categorical columns stay categorical."""
    if len(tables) == 1:
        return tables[0]
    tables = [table.copy(deep=False) for table in tables]
    for name in tables[0]:
        columns = [table[name] for table in tables if name in table]
        if len(columns) == len(tables) and all(isinstance(column.dtype, pd.CategoricalDtype) for column in columns):
            columns = _with_one_dtype(columns)
            ordered = columns[0].cat.ordered and len({column.dtype for column in columns}) == 1
            categories = pd.api.types.union_categoricals(columns, ignore_order=True).categories
            for table, column in zip(tables, columns, strict=True):
                table[name] = pd.Categorical(column, categories=categories, ordered=ordered)
    return pd.concat(tables)


def _with_one_dtype(columns: Sequence[pd.Series[Any]]) -> list[pd.Series[Any]]:
    """Give the categories of all columns one dtype: numbers where all are numbers, else text.

    Missing values stay missing. A column with missing values only takes the dtype of the others.
    """
    known = [column.cat.categories for column in columns if len(column.cat.categories)]
    if len({categories.dtype for categories in known}) < 2:
        kind: Any = known[0].dtype if known else columns[0].cat.categories.dtype
    else:
        dtype = pd.concat([categories.to_series() for categories in known]).dtype
        kind = str if pd.api.types.is_object_dtype(dtype) else dtype
    return [_with_dtype(column, kind) for column in columns]


def _with_dtype(column: pd.Series[Any], kind: Any) -> pd.Series[Any]:
    categories = column.cat.categories
    if categories.empty:
        return column.cat.set_categories(pd.Index([], dtype=object if kind is str else kind))
    return column if categories.dtype == kind else column.cat.rename_categories(list(categories.astype(kind)))


def check_names(names: pd.Index[str], tables: Sequence[pd.DataFrame], files: Sequence[Path]) -> None:
    """Raise :class:`DataError` if two files hold a cell of the same name."""
    if len(files) == 1 or names.is_unique:
        return
    name = names[names.duplicated()][0]
    where = [str(file) for file, table in zip(files, tables, strict=True) if name in table.index]
    raise DataError(
        f"cell name {name!r} occurs more than once in {', '.join(where)}; make the names unique, for instance with the "
        "file's name: adata.obs_names = 'plate1-' + adata.obs_names"
    )


def same_in_all(mappings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the entries that are equal in all mappings, and the mark of cells that a model made if any has it."""
    first, *others = mappings
    same = {key: value for key, value in first.items() if all(_equal(value, other.get(key)) for other in others)}
    made = [mapping[MADE_MARK] for mapping in mappings if MADE_MARK in mapping]
    return same | ({MADE_MARK: made[0]} if made else {})


def common_keys(groups: Sequence[Any], name: str) -> list[str]:
    """Return the keys that a mapping has in every file, in the order of the first."""
    if not all(name in group for group in groups):
        return []
    return [key for key in groups[0][name] if all(key in group[name] for group in groups)]


def stackable_arrays(groups: Sequence[Any], files: Sequence[Path], keys: Sequence[str]) -> list[str]:
    """Return which of some arrays of ``obsm`` can be stacked; a warning names those that cannot."""
    stackable = []
    for key in keys:
        forms = [_form(group[f"obsm/{key}"]) for group in groups]
        other = next((index for index, form in enumerate(forms) if form != forms[0]), None)
        if other is None:
            stackable.append(key)
        else:
            warnings.warn(
                f"obsm[{key!r}] is left out: in {files[other]} it is {forms[other]}, in {files[0]} {forms[0]}",
                stacklevel=3,
            )
    return stackable


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and set(one) == set(other)
            and all(_equal(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, pd.DataFrame):
        return isinstance(other, pd.DataFrame) and one.equals(other)
    if sp.issparse(one) or sp.issparse(other):
        return False
    left, right = np.asarray(one), np.asarray(other)
    numbers = left.dtype.kind in "fc" and right.dtype.kind in "fc"
    return left.shape == right.shape and np.array_equal(left, right, equal_nan=numbers)


def _form(stored: Any) -> str:
    """Describe the form of an array, in which several files must agree; columns of tables are matched by name."""
    kind = str(stored.attrs.get("encoding-type", "array"))
    if kind == "dataframe":
        return "a table"
    shape = stored.attrs["shape"] if kind in ("csr_matrix", "csc_matrix") else getattr(stored, "shape", ())
    width = " × ".join(f"{int(n):,}" for n in shape[1:]) or "1"
    return f"{'a sparse matrix' if kind.endswith('_matrix') else 'an array'} of width {width}"
