"""Files of cells that AnnData does not write and that are read whole: of 10x Cell Ranger, and of MuData."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

MATRIX, BARCODES = "matrix.mtx", "barcodes.tsv"
FEATURES = ("features.tsv", "genes.tsv")
"""Names of the files of a 10x folder, compressed (``.gz``) or not."""

H5, H5MU = (".h5", ".hdf5"), ".h5mu"
"""Endings of the names of files."""

Form = Literal["10x HDF5", "10x folder", "MuData"]
"""Forms of these files."""


def form_of(path: Path) -> Form | None:
    """Return the form of a file or folder that is read whole; ``None`` for any other, and where there is none."""
    if path.is_dir():
        return "10x folder" if part_of(path, MATRIX) is not None else None
    if not path.is_file() or path.suffix not in (*H5, H5MU):
        return None
    if path.suffix == H5MU:
        return "MuData"
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "mod" in file:
                return "MuData"
            return None if {"obs", "var"} <= set(file) else "10x HDF5"
    except OSError:  # whoever reads it says so
        return "10x HDF5"


def whole_files(path: Path) -> list[Path]:
    """Return what is read of a file or folder of such a form: the file, or those of the 10x folder."""
    if not path.is_dir():
        return [path]
    parts = [part_of(path, name) for name in (MATRIX, *FEATURES, BARCODES)]
    return [part for part in parts if part is not None]


def part_of(folder: Path, name: str) -> Path | None:
    """Return a file of a 10x folder, compressed or not; ``None`` where it is absent."""
    return next((part for part in (folder / name, folder / f"{name}.gz") if part.is_file()), None)
