"""The files that AnnData writes, opened but not read: an ``.h5ad`` file, a zarr store, or a folder of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cradlevae.errors import DataError

H5AD, ZARR = ".h5ad", ".zarr"

ZARR_MARKERS = (".zgroup", "zarr.json")
"""Files that make a folder a zarr store."""

UNREADABLE = (OSError, KeyError, ValueError, TypeError, AttributeError)
"""What reading a damaged file raises."""

CHUNK_CACHE = 32 << 20
"""Bytes of chunks that HDF5 may keep of one array in each of all open files; its own choice grows with the files."""


def is_store(path: Path) -> bool:
    """Whether a path is a zarr store."""
    return path.is_dir() and any((path / name).exists() for name in ZARR_MARKERS)


def cell_files(path: Path) -> list[Path]:
    """The files of cells at a path: itself, or what a folder holds, by name.

    Hidden files are none: other systems and interrupted writers leave such beside the real ones.

    Raises
    ------
    DataError
        If there is nothing, or a folder without such files.
    """
    if path.is_file() or is_store(path):
        return [path]
    if not path.exists():
        raise DataError(f"no file {path}")
    shown = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    found = sorted(entry for entry in shown if entry.suffix == H5AD or is_store(entry))
    if not found:
        raise DataError(f"{path} is a folder without {H5AD} files or zarr stores")
    return found


def open_group(path: Path, mode: Literal["r", "r+"] = "r", *, n_files: int = 1) -> Any:
    """The root group of an ``.h5ad`` file or a zarr store; ``n_files`` such are open at a time.

    Raises
    ------
    DataError
        If it cannot be read.
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
    """A table, array or mapping of an open file; ``uns`` is empty where it is absent.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    from anndata.io import read_elem

    if name == "uns" and name not in group:
        return {}
    try:
        return read_elem(group[name])
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: BaseException) -> DataError:
    """An error that says which file is damaged."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path} cannot be read as an AnnData file ({reason}); it may be truncated: copy it again")
