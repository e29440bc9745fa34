"""One rule for everything that is written: nothing is replaced unasked, and never what is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cradlevae.errors import DataError
from cradlevae.utils.atomic import make_folder


def check_output(path: str | Path, *, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> Path:
    """Check, before any long work, that a file may be written; its folder is made where it is missing.

    Parameters
    ----------
    path
        File to write.
    overwrite
        Whether to replace a file that is there.
    inputs
        Files and folders that are read; they are never replaced, whatever links or relative paths lead to them.

    Raises
    ------
    DataError
        If the file is one that is read, is a folder or lies in a zarr store, is there and must not be replaced, or
        cannot be written.
    """
    path = Path(path)
    refuse_inputs(path, inputs)
    refuse_folders([path])
    refuse_store(path)
    refuse_existing([path], overwrite=overwrite)
    make_folder(path.parent)
    return path


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Raise :class:`DataError` if one of some files is there already and must not be replaced."""
    for path in paths:
        if not overwrite and os.path.lexists(path):
            raise DataError(
                f"{path} exists already; choose another name, or replace it with overwrite=True (--overwrite)"
            )


def refuse_folders(paths: Iterable[Path], mend: str = "name a file in it") -> None:
    """Raise :class:`DataError` if there is a folder where a file is to be written."""
    for path in paths:
        if path.is_dir():
            raise DataError(f"{path} is a folder; {mend}")


NOT_A_FILE = "a file of this name is to be written, so choose another output folder, or rename it"
"""What to do about a folder in an output folder that has the name of a file."""


def refuse_inputs(path: Path, inputs: Iterable[str | Path]) -> None:
    """Raise :class:`DataError` if replacing a file or folder would replace what is read, or a part of it."""
    for given in inputs:
        source = Path(given)
        if _same(path, source) or _inside(source, path) or (_is_store(source) and _inside(path, source)):
            raise DataError(f"{path} is what is read ({source}), and is never replaced; choose another output")


def refuse_within(path: Path, folders: Iterable[Path]) -> None:
    """Raise :class:`DataError` if a path lies in one of some folders whose files are all read."""
    for folder in folders:
        if _inside(path, folder):
            raise DataError(f"{path} lies in {folder}, all files of which are read; choose another output")


def refuse_store(path: Path) -> None:
    """Raise :class:`DataError` if a path is a zarr store, or lies in one: nothing else is written into a store."""
    for folder in (path, *path.resolve().parents):
        if _is_store(folder):
            raise DataError(f"{folder} is a zarr store, into which nothing else is written; choose another output")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return one.resolve() == other.resolve()


def _is_store(path: Path) -> bool:
    """Whether a path is a folder of zarr, all files of which are one input."""
    return any((path / name).exists() for name in (".zgroup", "zarr.json"))


def _inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, all links followed."""
    return folder.is_dir() and folder.resolve() in path.resolve().parents
