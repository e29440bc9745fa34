"""Files of 10x Cell Ranger, read whole: counts of features of several types, in HDF5 or a folder of text files.

The layouts are those that 10x Genomics describes for the feature-barcode matrices of Cell Ranger 3 and later, and for
the gene-barcode matrices of Cell Ranger 2, which have no types of features.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.storage.cell_files import UNREADABLE
from cradlevae.data.storage.whole_files import BARCODES, FEATURES, MATRIX, part_of
from cradlevae.errors import DataError
from cradlevae.utils.types import IndexArray

EXPRESSION, GUIDE_CAPTURE = "Gene Expression", "CRISPR Guide Capture"
"""Types of features that are read."""

TARGET_TAG = "target_gene_name"
"""Column of a feature reference with the target of each guide RNA; Cell Ranger keeps it in its HDF5 files."""


@dataclass(frozen=True)
class FeatureCounts:
    """Counts of features in cells.

    Attributes
    ----------
    counts
        (cells, features).
    cells
        Names of the cells, their barcodes.
    features
        A row for each feature: ``id``, ``name``, ``kind`` (its type), and ``target_gene_name`` where the file holds it.
    """

    counts: sp.csr_matrix
    cells: pd.Index[str]
    features: pd.DataFrame

    def of_kind(self, kind: str) -> IndexArray:
        """Positions of the features of a type."""
        return np.flatnonzero((self.features["kind"] == kind).to_numpy())


def read_h5(path: Path) -> FeatureCounts:
    """Read a 10x HDF5 file, of Cell Ranger 3 and later (``matrix/features``) or of Cell Ranger 2 (a group per genome).

    Raises
    ------
    DataError
        If the file cannot be read, or its parts do not fit together.
    """
    import h5py

    with _reading(path), h5py.File(path, "r") as file:
        group = file["matrix"] if "matrix" in file else _genome(file, path)
        for name in ("data", "indices", "indptr", "shape", "barcodes"):
            if name not in group:
                raise DataError(
                    f"{path} has no {group.name.strip('/')}/{name}; it is no 10x file, or was not written to its end"
                )
        cells = pd.Index(_texts(group["barcodes"]))
        features = _features(group)
        n_features, n_cells = (int(size) for size in group["shape"][:])
        parts = (group["data"][:], group["indices"][:], group["indptr"][:])
        _check_sizes(path, (n_features, n_cells), len(features), len(cells))
        matrix = sp.csr_matrix(parts, shape=(n_cells, n_features))
        matrix.check_format(full_check=True)
    return FeatureCounts(matrix, _unique(cells, path), features)


def read_folder(path: Path) -> FeatureCounts:
    """Read a folder with ``matrix.mtx``, ``features.tsv`` (or ``genes.tsv``) and ``barcodes.tsv``, compressed or not.

    Raises
    ------
    DataError
        If a file is absent or cannot be read, or the files do not fit together.
    """
    from scipy.io import mminfo, mmread

    matrix_file, barcode_file = part_of(path, MATRIX), part_of(path, BARCODES)
    feature_file = next((part for name in FEATURES if (part := part_of(path, name)) is not None), None)
    if matrix_file is None or barcode_file is None or feature_file is None:
        absent = [
            name
            for name, part in ((MATRIX, matrix_file), (FEATURES[0], feature_file), (BARCODES, barcode_file))
            if part is None
        ]
        raise DataError(
            f"the 10x folder {path} has no {' and no '.join(absent)} (.gz or not); copy the folder as Cell Ranger "
            "wrote it"
        )
    cells = pd.Index(_lines(barcode_file)[0].tolist())
    columns = _lines(feature_file)
    names = columns[min(1, columns.shape[1] - 1)]
    kinds = columns[2] if columns.shape[1] > 2 else EXPRESSION
    features = pd.DataFrame({"id": columns[0], "name": names, "kind": kinds})
    with _reading(matrix_file):
        kind = mminfo(str(matrix_file))[4]
        if kind in ("pattern", "complex"):
            raise DataError(
                f"{matrix_file} is a Matrix Market file of the kind {kind!r}, which holds no counts; raw UMI counts "
                "are needed"
            )
        matrix = mmread(str(matrix_file))
        _check_sizes(path, matrix.shape, len(features), len(cells))
        counts = sp.csr_matrix(sp.coo_matrix(matrix).T)
    return FeatureCounts(counts, _unique(cells, barcode_file), features)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what libraries raise where a file is damaged into a :class:`DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except (*UNREADABLE, EOFError, RuntimeError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as a 10x file ({reason}); it may be truncated, or something else: copy it again"
        ) from None


def _lines(path: Path) -> pd.DataFrame:
    """Read a file of tab-separated texts without a header."""
    with _reading(path):
        table: pd.DataFrame = pd.read_csv(
            path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3, encoding="utf-8"
        )
    return table


def _genome(file: Any, path: Path) -> Any:
    """Return the group of the only genome of a file of Cell Ranger 2."""
    genomes = [name for name in file if "gene_names" in file[name]]
    if len(genomes) == 1:
        return file[genomes[0]]
    if genomes:
        raise DataError(f"{path} holds several genomes ({', '.join(genomes)}); write each into a file of its own")
    raise DataError(f"{path} is no 10x file: it has no group 'matrix' (there: {', '.join(file) or 'nothing'})")


def _features(group: Any) -> pd.DataFrame:
    if "features" in group:
        own = group["features"]
        kinds: Any = _texts(own["feature_type"]) if "feature_type" in own else EXPRESSION
        tags = {name: _texts(own[name]) for name in ("id", "name", TARGET_TAG) if name != TARGET_TAG or name in own}
        return pd.DataFrame(tags | {"kind": kinds})
    return pd.DataFrame({"id": _texts(group["genes"]), "name": _texts(group["gene_names"]), "kind": EXPRESSION})


def _texts(stored: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in stored[:]]


def _check_sizes(path: Path, shape: tuple[int, int], n_features: int, n_cells: int) -> None:
    if shape != (n_features, n_cells):
        raise DataError(
            f"{path}: the matrix has {shape[0]:,} features and {shape[1]:,} barcodes, but {n_features:,} features and "
            f"{n_cells:,} barcodes are named; copy the files again"
        )


def _unique(cells: pd.Index[str], path: Path) -> pd.Index[str]:
    if not cells.is_unique:
        raise DataError(
            f"{path}: barcode {cells[cells.duplicated()][0]!r} occurs twice; give the cells of each lane names of "
            "their own"
        )
    return cells
