"""Files of cells written again with other annotation, their counts copied as they are."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cradlevae.data.cell_files import cell_files, is_store, open_group
from cradlevae.data.cells import StoredCells
from cradlevae.data.files import atomic_path, make_folder
from cradlevae.errors import DataError


def check_output(data: Path, output: Path) -> None:
    """Raise :class:`DataError` unless an output is named like what it will be: a file, a zarr store or a folder."""
    if data.is_dir() != (output.suffix != ".h5ad"):
        kind = "folder or zarr store" if data.is_dir() else ".h5ad file"
        raise DataError(f"{data} is a {kind}, and so will be the annotated copy: {output} is no name for one")


def write_annotated(cells: StoredCells, output: Path, keys: Sequence[str]) -> None:
    """Copy the files of cells, with ``obs`` and some of ``uns`` as they are in memory; atomic.

    Parameters
    ----------
    cells
        The cells.
    output
        Where to write: a file for a file, a folder for a zarr store or a folder.
    keys
        Keys of ``uns`` to write.

    Raises
    ------
    DataError
        If ``output`` cannot be written.
    """
    if cells.path.is_file():
        with atomic_path(output) as temporary:
            shutil.copyfile(cells.path, temporary)
            _annotate(temporary, cells, slice(None), keys)
        return
    make_folder(output.parent)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}-") as folder:
        copy = Path(folder) / output.name
        start = 0
        files = cell_files(cells.path)
        for file in files:
            target = copy if is_store(cells.path) else copy / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.is_file():
                shutil.copyfile(file, target)
            else:
                shutil.copytree(file, target)
            start = _annotate(target, cells, slice(start, None), keys)
        copy.rename(output)


def _annotate(file: Path, cells: StoredCells, part: slice, keys: Sequence[str]) -> int:
    """Write into a file its part of the cells' ``obs``, which starts there; returns where the next file's starts."""
    store = open_group(file, "r+")
    index = store["obs"].attrs["_index"]
    stop = (part.start or 0) + int(store["obs"][index].shape[0])
    obs = cells.obs.iloc[part.start : stop]
    with warnings.catch_warnings():  # how AnnData and zarr will write in future, and that AnnData consolidates
        warnings.filterwarnings("ignore", message="zarr v3 autosharding|Consolidated metadata")
        _write(store, obs if len(obs) == cells.n_obs else _compact(obs), {key: cells.uns[key] for key in keys})
    return stop


def _write(store: Any, obs: pd.DataFrame, uns: dict[str, Any]) -> None:
    from anndata.io import write_elem

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


def _compact(obs: pd.DataFrame) -> pd.DataFrame:
    """Without categories that no cell of this file has."""
    obs = obs.copy(deep=False)
    for name in obs:
        if isinstance(obs[name].dtype, pd.CategoricalDtype):
            obs[name] = obs[name].cat.remove_unused_categories()
    return obs
