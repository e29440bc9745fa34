"""Copies of files of cells with added annotation; the counts are copied as they are."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cradlevae.data.storage.cell_files import cell_files, is_store, open_group, read_element
from cradlevae.data.storage.joining import stacked_tables
from cradlevae.data.storage.stored_cells import StoredCells
from cradlevae.errors import DataError
from cradlevae.utils.atomic import atomic_path, make_folder


def check_output(data: Path, output: Path) -> None:
    """Raise :class:`DataError` unless the output's name fits what is written: a file, a zarr store or a folder."""
    if data.is_dir() != (output.suffix != ".h5ad"):
        kind = "folder or zarr store" if data.is_dir() else ".h5ad file"
        raise DataError(f"{data} is a {kind}, and so will be the annotated copy: {output} is no name for one")


def write_annotated(cells: StoredCells, output: Path, keys: Sequence[str]) -> None:
    """Copy the files of cells, with the columns that were added to ``obs`` and some keys of ``uns``.

    Each file keeps its own columns unchanged. The output appears only when it is complete.

    Parameters
    ----------
    cells
        The cells whose files are copied.
    output
        Path of the copy: a file for a file, a folder for a zarr store or a folder.
    keys
        Keys of ``uns`` to write.

    Raises
    ------
    DataError
        If ``output`` cannot be written.
    """
    files = cell_files(cells.path)
    tables = [_obs(file) for file in files]
    added = _added(cells.obs, stacked_tables(tables))
    uns = {key: cells.uns[key] for key in keys}
    if cells.path.is_file():
        with atomic_path(output) as temporary:
            shutil.copyfile(cells.path, temporary)
            _write(temporary, _annotated(tables[0], added), uns)
        return
    make_folder(output.parent)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}-") as folder:
        copy = Path(folder) / output.name
        start = 0
        for file, table in zip(files, tables, strict=True):
            target = copy if is_store(cells.path) else copy / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.is_file():
                shutil.copyfile(file, target)
            else:
                shutil.copytree(file, target)
            stop = start + len(table)
            _write(target, _annotated(table, added.iloc[start:stop]), uns)
            start = stop
        copy.rename(output)


def _obs(file: Path) -> pd.DataFrame:
    """Read the ``obs`` table of a file."""
    store = open_group(file)
    try:
        table: pd.DataFrame = read_element(store, file, "obs")
    finally:
        if hasattr(store, "close"):
            store.close()
    return table


def _added(now: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that are new or changed."""
    return now[[name for name in now if name not in before or not now[name].equals(before[name])]]


def _annotated(table: pd.DataFrame, added: pd.DataFrame) -> pd.DataFrame:
    """Return a file's own ``obs``, types unchanged, with the added columns."""
    table = table.copy(deep=False)
    for name, column in added.items():
        categorical = isinstance(column.dtype, pd.CategoricalDtype)
        values = column.cat.remove_unused_categories() if categorical else column
        table[name] = values.array  # the same cells, in the same order
    return table


def _write(file: Path, obs: pd.DataFrame, uns: dict[str, Any]) -> None:
    """Write ``obs`` and some keys of ``uns`` into a file."""
    from anndata.io import write_elem

    with warnings.catch_warnings():  # how AnnData and zarr will write in future, and that AnnData consolidates
        warnings.filterwarnings("ignore", message="zarr v3 autosharding|Consolidated metadata")
        store = open_group(file, "r+")
        write_elem(store, "obs", obs)
        if "uns" not in store:
            write_elem(store, "uns", {})
        for key, value in uns.items():
            write_elem(store["uns"], key, value)
        if type(store).__module__.startswith("h5py"):
            store.close()
            return
        import zarr

        zarr.consolidate_metadata(store.store)
