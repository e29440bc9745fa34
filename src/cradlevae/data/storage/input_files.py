"""The files that the counts and annotation of an AnnData are read from while something is computed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from cradlevae.data.storage.stored_matrix import stored_matrix
from cradlevae.utils.outputs import refuse_inputs, refuse_within

READ_FROM = "cradlevae_read_from"
"""Key of ``obs.attrs`` with the paths that cells were read from; copies and parts of a table keep it, files do not."""


def note_source(obs: pd.DataFrame, files: Iterable[Path]) -> None:
    """Note in a table of cells which files, stores and folders they are read from."""
    obs.attrs[READ_FROM] = [str(file.absolute()) for file in files]


def refuse_read(output: Path, adata: Any) -> None:
    """Raise :class:`DataError` if a file or folder is what cells are read from, or would come to lie in it."""
    files = input_files(adata)
    refuse_inputs(output, files)
    refuse_within(output, [file for file in files if file.is_dir()])


def input_files(adata: Any) -> list[Path]:
    """Files, stores and folders that cells are or were read from; none for an AnnData of another origin in memory.

    Parameters
    ----------
    adata
        An AnnData, in memory or backed, cells on disk, or an experiment that was read from one of them.
    """
    matrices = [getattr(adata, name, None) for name in ("X", "counts")]
    layers = getattr(adata, "layers", None)
    matrices += [] if layers is None else [layers[name] for name in layers]
    files = [file for matrix in matrices for file in _files_of(matrix)]
    for name in ("path", "filename"):
        path = getattr(adata, name, None)
        if path is not None:
            files.append(Path(path))
    whole = getattr(adata, "_adata_ref", None) if getattr(adata, "is_view", False) else adata  # views keep no notes
    files += [Path(file) for file in getattr(getattr(whole, "obs", None), "attrs", {}).get(READ_FROM, ())]
    return list(dict.fromkeys(files))


def _files_of(matrix: Any) -> list[Path]:
    on_disk = None if matrix is None else stored_matrix(matrix)
    if on_disk is None:
        group = getattr(matrix, "group", None)  # stored by genes
        return [] if group is None else _file_of(group)
    return [file for part in on_disk.parts for file in _file_of(part.source)]


def _file_of(element: Any) -> list[Path]:
    """The file of a group or array of h5py or zarr."""
    if type(element).__module__.startswith("h5py"):
        return [Path(element.file.filename)]
    root = getattr(getattr(element, "store", None), "root", None)
    return [] if root is None else [Path(str(root))]
