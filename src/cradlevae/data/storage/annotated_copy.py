"""Copies of files of cells with added annotation; the counts are copied as they are."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cradlevae.data.storage.cell_files import H5AD, cell_files, is_of_old_form, is_store, open_group, read_table
from cradlevae.data.storage.joining import stacked_tables
from cradlevae.data.storage.stored_cells import StoredCells
from cradlevae.data.storage.whole_files import form_of
from cradlevae.errors import DataError
from cradlevae.utils.atomic import atomic_path, make_folder, write_h5ad
from cradlevae.utils.outputs import check_output, refuse_existing, refuse_inputs


def check_copy(data: Path, output: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Check, before any long work, that an annotated copy of a file, a zarr store or a folder may be written.

    Parameters
    ----------
    data
        What is copied.
    output
        Path of the copy.
    inputs
        Files and folders that are read, and never replaced.
    overwrite
        Whether to replace what is there.

    Raises
    ------
    DataError
        If the name does not fit what is written, or would replace what is read, or what may not be replaced.
    """
    if form_of(data) is not None:
        if output.suffix != H5AD:
            raise DataError(f"{data} is copied into an AnnData file, so the annotated copy must end in .h5ad: {output}")
        check_output(output, overwrite=overwrite, inputs=inputs)
        return
    for file in cell_files(data):
        if is_of_old_form(open_group(file)):
            raise DataError(
                f"{file} was written by AnnData 0.6 or earlier; read it and write it again, then annotate it"
            )
    if data.is_dir() != (output.suffix != ".h5ad"):
        kind = "folder or zarr store" if data.is_dir() else ".h5ad file"
        raise DataError(f"{data} is a {kind}, and so will be the annotated copy: {output} is no name for one")
    if not data.is_dir():
        check_output(output, overwrite=overwrite, inputs=inputs)
        return
    refuse_inputs(output, inputs)
    refuse_existing([output], overwrite=overwrite)
    if output.exists() and not _holds_cells_only(output):
        raise DataError(f"{output} holds more than files of cells, so it is not replaced; choose another output")
    make_folder(output.parent)


def _holds_cells_only(output: Path) -> bool:
    """Whether a path is a zarr store, or a folder of files and stores of cells and nothing else."""
    return is_store(output) or (output.is_dir() and set(output.iterdir()) == set(cell_files(output)))


def write_annotated(cells: StoredCells, output: Path, keys: Sequence[str], *, overwrite: bool = False) -> None:
    """Copy the files of cells, with the columns that were added to ``obs`` and some keys of ``uns``.

    All else is copied as it is; files that AnnData does not write become one AnnData file. The output appears only when
    it is complete.

    Parameters
    ----------
    cells
        The cells whose files are copied.
    output
        Path of the copy: a file for a file, a folder for a zarr store or a folder.
    keys
        Keys of ``uns`` to write.
    overwrite
        Whether to replace what is there (see :func:`check_copy`).

    Raises
    ------
    DataError
        If ``output`` is there already or cannot be written, or a file is of a form that cannot be added to.
    """
    files = cell_files(cells.path)
    check_copy(cells.path, output, [cells.path, *files], overwrite=overwrite)
    if form_of(cells.path) is not None:
        write_h5ad(cells.to_memory(), output)
        return
    tables = [_obs(file) for file in files]
    added = _added(cells.obs, stacked_tables(tables))
    uns = {key: cells.uns[key] for key in keys}
    if cells.path.is_file():
        with atomic_path(output) as temporary:
            shutil.copyfile(cells.path, temporary)
            _write(temporary, added, uns)
        return
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
            _write(target, added.iloc[start:stop], uns)
            start = stop
        earlier = Path(folder) / "earlier"
        if output.exists():
            output.rename(earlier)
        try:
            copy.rename(output)
        except OSError:
            if earlier.exists():
                earlier.rename(output)
            raise


def _obs(file: Path) -> pd.DataFrame:
    """Read the ``obs`` table of a file."""
    store = open_group(file)
    try:
        return read_table(store, file, "obs")
    finally:
        if hasattr(store, "close"):
            store.close()


def _added(now: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that are new or changed."""
    return now[[name for name in now if name not in before or not now[name].equals(before[name])]]


def _write(file: Path, added: pd.DataFrame, uns: dict[str, Any]) -> None:
    """Write columns of ``obs`` (of the same cells, in the same order) and some keys of ``uns`` into a file."""
    from anndata.io import write_elem

    with warnings.catch_warnings():  # how AnnData and zarr will write in future, and that AnnData consolidates
        warnings.filterwarnings("ignore", message="zarr v3 autosharding|Consolidated metadata")
        store = open_group(file, "r+")
        table = store["obs"]
        for name, column in added.items():
            categorical = isinstance(column.dtype, pd.CategoricalDtype)
            values = column.cat.remove_unused_categories().array if categorical else column.to_numpy()
            write_elem(table, str(name), values)
        order = [str(name) for name in table.attrs["column-order"]]
        order += [str(name) for name in added if str(name) not in order]
        table.attrs["column-order"] = order
        if "uns" not in store:
            write_elem(store, "uns", {})
        for key, value in uns.items():
            write_elem(store["uns"], key, value)
        if type(store).__module__.startswith("h5py"):
            store.close()
            return
        import zarr

        zarr.consolidate_metadata(store.store)
