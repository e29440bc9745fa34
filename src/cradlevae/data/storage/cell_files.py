"""The files that AnnData writes: an ``.h5ad`` file, a zarr store, or a folder of several; opened, but not yet read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cradlevae.data.storage.whole_files import form_of, whole_files
from cradlevae.errors import DataError

H5AD, ZARR = ".h5ad", ".zarr"
"""Endings of the names of files and stores."""

ZARR_MARKERS = (".zgroup", "zarr.json")
"""Names of the files by which a folder is recognised as a zarr store."""

UNREADABLE = (OSError, KeyError, ValueError, TypeError, AttributeError)
"""Errors that h5py, zarr and anndata raise where a file is damaged."""

FORMS = ("", "array", "csr_matrix", "csc_matrix", "dataframe")
"""Encodings of the arrays, matrices and tables of cells that are read; older files name none."""

CHUNK_CACHE = 32 << 20
"""Bytes that HDF5 may cache of one array over all open files; its default would grow with the number of files."""


def is_store(path: Path) -> bool:
    """Whether a path is a zarr store."""
    return path.is_dir() and any((path / name).exists() for name in ZARR_MARKERS)


def cell_files(path: Path) -> list[Path]:
    """Return the files of cells at a path: the path itself, or the files in a folder, sorted by name (10x: its parts).

    Hidden files are ignored: other systems and interrupted writers leave such files beside the real ones.

    Raises
    ------
    DataError
        If the path does not exist, or is a folder without such files.
    """
    if path.is_file() or is_store(path):
        return [path]
    if form_of(path) is not None:
        return whole_files(path)
    if not path.exists():
        raise DataError(f"no file {path}")
    shown = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    files = sorted(entry for entry in shown if entry.suffix == H5AD or is_store(entry))
    if not files:
        raise DataError(f"{path} is a folder without {H5AD} files or zarr stores, and without a 10x matrix.mtx")
    return files


def open_group(path: Path, mode: Literal["r", "r+"] = "r", *, n_files: int = 1) -> Any:
    """Open an ``.h5ad`` file or a zarr store and return its root group; ``n_files`` of them are open at a time.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    try:
        if is_store(path):
            import zarr

            return zarr.open_group(str(path.absolute()), mode=mode, use_consolidated=None if mode == "r" else False)
        import h5py

        return h5py.File(path, mode, rdcc_nbytes=min(1 << 20, CHUNK_CACHE // n_files))
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def read_element(group: Any, path: Path, name: str) -> Any:
    """Read a table, array or mapping of an open file.

    Raises
    ------
    DataError
        If the element cannot be read.
    """
    from anndata.io import read_elem

    try:
        return read_elem(group[name])
    except Exception as error:  # of which kind depends on the encoding, the file and the library
        raise unreadable(path, error, name) from None


def read_table(group: Any, path: Path, name: str) -> pd.DataFrame:
    """Read ``obs`` or ``var``; a column that cannot be read is left out with a warning.

    Raises
    ------
    DataError
        If the table or its index cannot be read.
    """
    try:
        table: pd.DataFrame = read_element(group, path, name)
        return table
    except DataError:
        attributes = dict(getattr(group.get(name), "attrs", {}))
        if attributes.get("encoding-type") != "dataframe":
            raise
    stored = group[name]
    columns: dict[str, Any] = {}
    for column in map(str, attributes["column-order"]):
        try:
            columns[column] = read_element(stored, path, column)
        except DataError as error:
            _warn_left_out(f"{name}[{column!r}]", error)
    return pd.DataFrame(columns, index=pd.Index(read_element(stored, path, str(attributes["_index"]))))


def read_mapping(group: Any, path: Path, name: str) -> dict[str, Any]:
    """Read ``uns``, or a mapping in it; an entry that cannot be read is left out with a warning. Missing: empty."""
    if name not in group:
        return {}
    stored = group[name]
    mapping = {}
    for key in stored:
        try:
            mapping[key] = read_element(stored, path, key)
        except DataError as error:
            if _is_mapping(stored, key):
                mapping[key] = read_mapping(stored, path, key)
            else:
                _warn_left_out(f"{name}[{key!r}]", error)
    return mapping


def is_of_old_form(group: Any) -> bool:
    """Whether AnnData 0.6 or an earlier one wrote a file: its tables are arrays of records."""
    return any(getattr(getattr(group.get(name), "dtype", None), "names", None) for name in ("obs", "var"))


def unreadable_form(group: Any, path: Path, name: str) -> DataError | None:
    """The error of an array, matrix or table of a form that is not known here; ``None`` for one that is."""
    try:
        kind = str(dict(group[name].attrs).get("encoding-type", ""))
    except UNREADABLE as error:
        return unreadable(path, error, name)
    if kind in FORMS:
        return None
    return unreadable(path, ValueError(f"its encoding is {kind!r}"), name)


def readable_keys(groups: Sequence[Any], files: Sequence[Path], name: str, keys: Sequence[str]) -> list[str]:
    """Those of some keys of a mapping whose form is known in every file; a warning names the others."""
    readable = []
    for key in keys:
        errors = [unreadable_form(group, file, f"{name}/{key}") for group, file in zip(groups, files, strict=True)]
        error = next((error for error in errors if error is not None), None)
        if error is None:
            readable.append(key)
        else:
            _warn_left_out(f"{name}[{key!r}]", error)
    return readable


def _is_mapping(group: Any, key: str) -> bool:
    """Whether an element is a mapping, or a group that says nothing about what it holds; not so a link to nothing."""
    try:
        stored = group[key]
        return bool(stored.attrs.get("encoding-type", "dict") == "dict" and hasattr(stored, "keys"))
    except UNREADABLE:
        return False


def _warn_left_out(what: str, error: DataError) -> None:
    warnings.warn(f"{what} is left out: {error}", stacklevel=4)


def unreadable(path: Path, error: BaseException, element: str = "") -> DataError:
    """Return an error that names the file, and the element of it, that cannot be read."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    what = f"{element} of {path}" if element else str(path)
    foreign = "encoding" in reason or any(
        type(cause).__name__ == "IORegistryError" for cause in (error, error.__cause__)
    )
    mend = (
        "another or a newer program wrote it: write it with this environment's AnnData"
        if foreign
        else "it may be truncated: copy it again"
    )
    return DataError(f"{what} cannot be read as an AnnData file ({reason}); {mend}")
