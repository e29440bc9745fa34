"""The files that AnnData writes: an ``.h5ad`` file, a zarr store, or a folder of several; opened, but not yet read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cradlevae.errors import DataError

H5AD, ZARR = ".h5ad", ".zarr"
"""Endings of the names of files and stores."""

ZARR_MARKERS = (".zgroup", "zarr.json")
"""Names of the files by which a folder is recognised as a zarr store."""

UNREADABLE = (OSError, KeyError, ValueError, TypeError, AttributeError)
"""Errors that h5py, zarr and anndata raise where a file is damaged."""

CHUNK_CACHE = 32 << 20
"""Bytes that HDF5 may cache of one array over all open files; its default would grow with the number of files."""


def is_store(path: Path) -> bool:
    """Whether a path is a zarr store."""
    return path.is_dir() and any((path / name).exists() for name in ZARR_MARKERS)


def cell_files(path: Path) -> list[Path]:
    """Return the files of cells at a path: the path itself, or the files in a folder, sorted by name.

    Hidden files are ignored: other systems and interrupted writers leave such files beside the real ones.

    Raises
    ------
    DataError
        If the path does not exist, or is a folder without such files.
    """
    if path.is_file() or is_store(path):
        return [path]
    if not path.exists():
        raise DataError(f"no file {path}")
    shown = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    files = sorted(entry for entry in shown if entry.suffix == H5AD or is_store(entry))
    if not files:
        raise DataError(f"{path} is a folder without {H5AD} files or zarr stores")
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
    """Read a table, array or mapping of an open file; a missing ``uns`` is read as empty.

    Raises
    ------
    DataError
        If the element cannot be read.
    """
    from anndata.io import read_elem

    if name == "uns" and name not in group:
        return {}
    try:
        return read_elem(group[name])
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: BaseException) -> DataError:
    """Return an error that names the damaged file."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path} cannot be read as an AnnData file ({reason}); it may be truncated: copy it again")
