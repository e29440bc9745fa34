"""Tables of cells or genes as an AnnData file can hold them, whatever types a user's columns have."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

RESERVED = "_index"
"""Name of the column in which AnnData keeps the index."""

AS_TEXT = "mMO"
"""Kinds of dtype (dates, durations, objects) that are written as text."""


def writable_table(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return a table with every column that can be written, in a type that can be.

    Texts, categories and nullable and Arrow columns keep their values, and missing values stay missing; dates,
    durations, intervals and mixed values become texts. A warning names the columns that become texts, and those that
    are left out because they cannot be written at all.

    Parameters
    ----------
    table
        ``obs`` or ``var``; it is not changed.
    where
        What it is, for the warnings.

    Warns
    -----
    UserWarning
        Where columns become texts or are left out, or the index loses a name that is also a column's.
    """
    columns: dict[str, Any] = {}
    texts, left_out = [], []
    for position, name in enumerate(table.columns):
        column = table.iloc[:, position]
        key = str(name)
        values = _writable(column)
        if key in columns or key == RESERVED or not _can_be_written(key, values):
            left_out.append(key)
            continue
        columns[key] = values
        if _becomes_text(column):
            texts.append(key)
    index, renamed = _writable_index(table.index, columns)
    if texts:
        warnings.warn(f"columns of {where} are written as text: {', '.join(map(repr, texts))}", stacklevel=3)
    if left_out:
        shown = ", ".join(map(repr, left_out))
        warnings.warn(f"columns of {where} are left out, because they cannot be written: {shown}", stacklevel=3)
    if renamed:
        warnings.warn(
            f"the index of {where} is called {table.index.name!r} as a column of other values is; it is written "
            "without a name",
            stacklevel=3,
        )
    result = pd.DataFrame(columns, index=index)
    result.columns = pd.Index(list(columns), dtype=object)
    return result


def _becomes_text(column: pd.Series[Any]) -> bool:
    """Whether the values of a column are other than text, and are written as text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _becomes_text(column.cat.categories.to_series())
    if isinstance(column.dtype, pd.SparseDtype):
        return False
    if isinstance(column.dtype, pd.IntervalDtype | pd.PeriodDtype | pd.DatetimeTZDtype):
        return True
    if _is_string(column.dtype):
        return False
    kind = _kind(column.dtype)
    if kind == "O":
        present = column[column.notna().to_numpy()]
        return not present.map(lambda value: isinstance(value, str)).all()
    return kind in AS_TEXT


def _writable(column: pd.Series[Any]) -> Any:
    """The values of a column in a type that AnnData writes."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        return _writable(pd.Series(column.to_numpy()))
    if isinstance(dtype, pd.CategoricalDtype):
        return _categorical(column)
    if isinstance(dtype, pd.ArrowDtype):
        if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_integer_dtype(dtype):
            return column.convert_dtypes(dtype_backend="numpy_nullable").array
        if pd.api.types.is_float_dtype(dtype):
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
        return _text(column)
    if pd.api.types.is_extension_array_dtype(dtype) and pd.api.types.is_float_dtype(dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if _is_string(dtype) or _becomes_text(column) or _kind(dtype) == "O":
        return _text(column)
    return column.array


def _categorical(column: pd.Series[Any]) -> pd.Categorical:
    """A column of categories whose categories are numbers or texts."""
    categories = column.cat.categories
    if categories.dtype.kind in "biuf" and isinstance(categories.dtype, np.dtype):
        return pd.Categorical(column)
    names = pd.Index([str(name) for name in categories], dtype=object)
    codes = column.cat.codes.to_numpy()
    if not names.is_unique:  # 1 and "1"
        codes = np.where(codes >= 0, pd.factorize(names)[0][codes], -1)
        names = names.unique()
    return pd.Categorical.from_codes(codes, names, ordered=bool(column.cat.ordered))


def _text(column: pd.Series[Any]) -> Any:
    """A column as texts; categories where values are missing, because plain texts cannot be."""
    missing = column.isna().to_numpy()
    texts = np.array([None if gone else str(value) for value, gone in zip(column, missing, strict=True)], dtype=object)
    return pd.Categorical(texts) if missing.any() else texts


def _is_string(dtype: Any) -> bool:
    return isinstance(dtype, pd.StringDtype) or (
        isinstance(dtype, pd.ArrowDtype) and pd.api.types.is_string_dtype(dtype)
    )


def _kind(dtype: Any) -> str:
    return str(getattr(dtype, "kind", "O"))


def _writable_index(index: pd.Index[Any], columns: dict[str, Any]) -> tuple[pd.Index[Any], bool]:
    """The index as texts, and whether it lost its name to a column of other values."""
    values = pd.Index([str(name) for name in index], dtype=object)
    name = index.name
    if name is None or name == RESERVED or not isinstance(name, str):
        return values, False
    if name in columns and not np.array_equal(np.asarray(columns[name], dtype=object), values.to_numpy()):
        return values, True
    return values.rename(name), False


def _can_be_written(name: str, values: Any) -> bool:
    """Try to write a column into a file in memory: the first value, or all where the values may differ in type."""
    import h5py
    from anndata.io import read_elem, write_elem

    uniform = isinstance(getattr(values, "dtype", None), np.dtype) and values.dtype.kind in "biuf"
    table = pd.DataFrame({name: values[:1] if uniform else values})
    with h5py.File.in_memory() as file:
        try:
            table.index = table.index.astype(str)
            write_elem(file, "table", table)
            return bool(read_elem(file["table"])[name].notna().sum() == table[name].notna().sum())
        except Exception:  # whatever the libraries raise, it cannot be written or read
            return False
