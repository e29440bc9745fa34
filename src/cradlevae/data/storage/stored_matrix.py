"""Counts that stay on disk: read by runs of rows, from one file or from several, one after another.

A :class:`StoredMatrix` is indexed by rows and returns CSR matrices. It reads the CSR groups and the dense arrays that
AnnData writes into an ``.h5ad`` file or a zarr store; only the row pointers are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from cradlevae.data.storage.file_matrix import DenseFileMatrix, FileMatrix, SparseFileMatrix
from cradlevae.utils.constants import BLOCK_VALUES
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnyIntArray, Float32Array, IndexArray, IntArray

Rows = AnyIntArray
Columns = IndexArray

GAP = 32
"""Up to so many unwanted rows between wanted ones are read along: a separate read takes longer."""

SPAN = 2_048
"""Largest number of consecutive rows that are read at once."""

BLOCK_CELLS = 4_096
"""Largest number of rows in a block."""


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A cells × genes matrix on disk.

    :func:`stored_matrix` and :func:`joined` return such matrices.

    Attributes
    ----------
    parts
        Matrices of single files, one after another.
    columns
        For each part, the columns that hold the genes of this matrix; ``None`` where these are all its columns.
    selected
        Which rows of all parts together are the rows of this matrix; ``None`` stands for all rows.
    """

    parts: tuple[FileMatrix, ...]
    columns: tuple[Columns | None, ...]
    selected: Rows | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and of genes."""
        first = self.columns[0]
        return (
            sum(part.shape[0] for part in self.parts) if self.selected is None else len(self.selected),
            self.parts[0].shape[1] if first is None else len(first),
        )

    @property
    def per_cell(self) -> float:
        """Average number of stored values in a row."""
        return sum(part.n_values for part in self.parts) / max(1, sum(part.shape[0] for part in self.parts))

    def subset(self, rows: Rows) -> StoredMatrix:
        """Return the matrix of these rows without reading it."""
        return replace(self, selected=np.asarray(rows) if self.selected is None else self.selected[rows])

    def with_columns(self, columns: Columns) -> StoredMatrix:
        """Return the matrix of these columns without reading it."""
        return replace(self, columns=tuple(columns if own is None else own[columns] for own in self.columns))

    def __getitem__(self, rows: slice | Rows) -> sp.csr_matrix:
        """Read these rows, in this order, as CSR float32."""
        wanted: Rows = np.arange(self.shape[0])[rows] if isinstance(rows, slice) else np.asarray(rows)
        if self.selected is not None:
            wanted = self.selected[wanted]
        ascending = len(wanted) < 2 or bool((np.diff(wanted) > 0).all())
        if ascending:
            return self._ascending(wanted)
        distinct, places = np.unique(wanted, return_inverse=True)
        return sp.csr_matrix(self._ascending(distinct)[places])

    def load(self) -> sp.csr_matrix:
        """Read the whole matrix into memory; a progress bar appears where this takes long."""
        return self._ascending(np.arange(self.shape[0]) if self.selected is None else self.selected, bar=True)

    def _ascending(self, rows: Rows, *, bar: bool = False) -> sp.csr_matrix:
        offsets = np.cumsum([0, *(part.shape[0] for part in self.parts)])
        cuts = np.searchsorted(rows, offsets)
        rows_of_part = [rows[cuts[index] : cuts[index + 1]] - offsets[index] for index in range(len(self.parts))]
        numbers = [part.n_values_in(own) for part, own in zip(self.parts, rows_of_part, strict=True)]
        pieces: Iterator[sp.csr_matrix] = (
            piece for index, own in enumerate(rows_of_part) for piece in self._read_part(index, own)
        )
        if bar:
            pieces = track_slow(pieces, -(-len(rows) // SPAN), "reading counts")
        at_most = None if None in numbers else sum(number or 0 for number in numbers)
        return _stacked(pieces, (len(rows), self.shape[1]), at_most)

    def _read_part(self, index: int, rows: Rows) -> Iterator[sp.csr_matrix]:
        part, columns = self.parts[index], self.columns[index]
        for run in _runs(rows):
            start = int(run[0])
            piece = part.read(start, int(run[-1]) + 1)
            if piece.shape[0] > len(run):
                piece = sp.csr_matrix(piece[run - start])
            if columns is not None:
                piece = sp.csr_matrix(piece[:, columns])
                piece.sort_indices()
            yield piece


def _stacked(pieces: Iterator[sp.csr_matrix], shape: tuple[int, int], at_most: int | None) -> sp.csr_matrix:
    """Stack rows; where the number of values is known, memory holds them only once."""
    if at_most is None:
        empty = sp.csr_matrix(np.zeros((0, shape[1]), dtype=np.float32))
        return sp.csr_matrix(sp.vstack([empty, *pieces], format="csr"))
    kind: type[np.int32 | np.int64] = np.int32 if at_most < np.iinfo(np.int32).max else np.int64
    values: Float32Array = np.empty(at_most, dtype=np.float32)
    genes: AnyIntArray = np.empty(at_most, dtype=kind)
    starts: AnyIntArray = np.zeros(shape[0] + 1, dtype=kind)
    row = end = 0
    for piece in pieces:
        values[end : end + piece.nnz], genes[end : end + piece.nnz] = piece.data, piece.indices
        starts[row + 1 : row + 1 + piece.shape[0]] = piece.indptr[1:].astype(kind) + end
        row, end = row + piece.shape[0], end + piece.nnz
    return sp.csr_matrix((values[:end], genes[:end], starts), shape=shape)


CountMatrix = sp.csr_matrix | StoredMatrix
"""Counts of cells × genes: a CSR matrix in memory, or one on disk. For both, ``counts[rows]`` is a CSR matrix."""


def _runs(rows: Rows) -> Iterator[Rows]:
    """Cut ascending rows into runs that are read one by one."""
    if len(rows) == 0:
        return
    jumps = np.flatnonzero(np.diff(rows) > GAP) + 1
    for run in np.split(rows, jumps):
        start = 0
        while start < len(run):
            stop = int(np.searchsorted(run, run[start] + SPAN))
            yield run[start:stop]
            start = stop


def stored_matrix(matrix: Any) -> StoredMatrix | None:
    """Return a matrix on disk as a :class:`StoredMatrix`; ``None`` for one in memory, or one stored by columns."""
    if isinstance(matrix, StoredMatrix):
        return matrix
    group = getattr(matrix, "group", matrix)  # anndata's view of a sparse group, or the group itself
    kind = dict(getattr(group, "attrs", None) or {}).get("encoding-type")
    if kind == "csr_matrix":
        return StoredMatrix((SparseFileMatrix(group),), (None,))
    if type(matrix).__module__.partition(".")[0] in ("h5py", "zarr") and len(getattr(matrix, "shape", None) or ()) == 2:
        return StoredMatrix((DenseFileMatrix(matrix),), (None,))
    return None


def joined(matrices: Sequence[StoredMatrix]) -> StoredMatrix:
    """Stack matrices on disk that have the same genes; nothing is read."""
    return StoredMatrix(
        tuple(part for matrix in matrices for part in matrix.parts),
        tuple(columns for matrix in matrices for columns in matrix.columns),
    )


def subset_rows(counts: CountMatrix, rows: Rows) -> CountMatrix:
    """Return the matrix of these rows: on disk if ``counts`` is, else in memory."""
    return counts.subset(rows) if isinstance(counts, StoredMatrix) else sp.csr_matrix(counts[rows])


def row_blocks(counts: CountMatrix, rows: Rows | None = None) -> Iterator[tuple[slice, sp.csr_matrix]]:
    """Yield ``(slice, CSR float32 block)`` over all rows, or over ``rows``; the slice then counts in ``rows``.

    A block has at most about :data:`BLOCK_VALUES` stored values, so what is computed from it stays small.
    """
    n_rows = counts.shape[0] if rows is None else len(rows)
    step = block_rows(counts)
    for start in range(0, n_rows, step):
        part = slice(start, min(start + step, n_rows))
        yield part, sp.csr_matrix(counts[part if rows is None else rows[part]])


def tracked_blocks(counts: CountMatrix, rows: Rows, description: str) -> Iterator[tuple[slice, sp.csr_matrix]]:
    """Do the same as :func:`row_blocks`, with a progress bar where it takes long."""
    return track_slow(row_blocks(counts, rows), -(-len(rows) // block_rows(counts)), description)


def group_sums(counts: CountMatrix, rows: Rows, group: IntArray, n_groups: int, description: str) -> Float32Array:
    """Sum the counts of cells by group, (groups, genes), in one pass; sums are exact up to 2^24.

    Parameters
    ----------
    counts
        Counts, (cells, genes).
    rows
        Positions of the cells, ascending.
    group
        Group of each of ``rows``, (rows,).
    n_groups
        Number of groups.
    description
        Text of the progress bar.
    """
    total = np.zeros((n_groups, counts.shape[1]), dtype=np.float32)
    for part, block in tracked_blocks(counts, rows, description):
        n = block.shape[0]
        incidence = sp.csr_matrix((np.ones(n, dtype=np.float32), (group[part], np.arange(n))), shape=(n_groups, n))
        sums = sp.coo_matrix(incidence @ block)
        total[sums.row, sums.col] += sums.data
    return total


def values_per_cell(counts: CountMatrix) -> float:
    """Return the number of stored counts of a cell, on average, and at least 1."""
    per_cell = counts.per_cell if isinstance(counts, StoredMatrix) else counts.nnz / max(1, counts.shape[0])
    return float(max(1.0, per_cell))


def cells_within(counts: CountMatrix, cells: int, values: float, least: int = 0) -> int:
    """Return how many cells have at most so many stored counts, on average: at most ``cells``, at least ``least``."""
    return max(least, min(cells, int(values / values_per_cell(counts))))


def block_rows(counts: CountMatrix) -> int:
    """Return the number of rows in a block of a matrix."""
    return int(min(BLOCK_CELLS, max(1, BLOCK_VALUES // values_per_cell(counts))))
