"""Counts that stay on disk: read by runs of rows, from one file or from several, one after another.

A :class:`StoredMatrix` is indexed by rows like a CSR matrix in memory, and what it gives is one. It reads what AnnData
writes (CSR groups and dense arrays of an ``.h5ad`` file or a zarr store) and holds nothing but the row pointers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from cradlevae.errors import DataError
from cradlevae.utils.constants import BLOCK_VALUES
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnyIntArray, Float32Array, IndexArray, IntArray

Rows = AnyIntArray
Columns = IndexArray

GAP = 32
"""Rows that are not wanted but lie between wanted ones are read along up to so many: another read costs more."""

SPAN = 2_048
"""At most so many consecutive rows are read at once."""

BLOCK_CELLS = 4_096
"""How many rows a block may have."""


class _Part(Protocol):
    """The matrix of one file."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def stored(self) -> int:
        """Number of stored values."""
        ...

    def stored_in(self, rows: Rows) -> int | None:
        """Number of values stored in these rows, where it is known without reading."""
        ...

    def read(self, start: int, stop: int) -> sp.csr_matrix:
        """Consecutive rows, as CSR float32."""
        ...


class _SparsePart:
    """A CSR matrix on disk: a group with ``indptr``, ``indices`` and ``data``."""

    def __init__(self, group: Any) -> None:
        self._group = group
        n_rows, n_columns = group.attrs["shape"]
        self.shape = (int(n_rows), int(n_columns))
        self._starts = np.asarray(group["indptr"][:])
        self._indices, self._data = group["indices"], group["data"]
        self._place = _place(group)
        self.stored = int(self._starts[-1])

    def stored_in(self, rows: Rows) -> int | None:
        return int((self._starts[rows + 1] - self._starts[rows]).sum())

    def read(self, start: int, stop: int) -> sp.csr_matrix:
        starts = self._starts[start : stop + 1]
        first, last = int(starts[0]), int(starts[-1])
        indices, data = self._indices[first:last], self._data[first:last]
        return as_csr(sp.csr_matrix((data, indices, starts - first), shape=(stop - start, self.shape[1])))

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (_SparsePart, *_openable(self._group, self._place))


class _DensePart:
    """A dense matrix on disk."""

    def __init__(self, array: Any) -> None:
        self.shape = (int(array.shape[0]), int(array.shape[1]))
        self.stored = self.shape[0] * self.shape[1]
        self._array = array
        self._place = _place(array)

    def stored_in(self, rows: Rows) -> int | None:
        return None

    def read(self, start: int, stop: int) -> sp.csr_matrix:
        return as_csr(self._array[start:stop])

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (_DensePart, *_openable(self._array, self._place))


def _place(held: Any) -> tuple[Any, str]:
    """Where a group or array lies, to open it in another process: the file and the name in it, or a zarr object.

    To be asked at once: a relative path means another file when the working directory has changed.
    """
    if not type(held).__module__.startswith("h5py"):
        return held, ""
    return os.path.abspath(held.file.filename), held.name


def _openable(held: Any, place: tuple[Any, str]) -> tuple[Any, str]:
    """The place, if another process may open it."""
    file, name = place
    if name and held.file.mode != "r":
        raise DataError(
            f"{file} is open for writing, and no other process can read it then; open it for reading: "
            'anndata.read_h5ad(..., backed="r"), or cradlevae.open_cells(...)'
        )
    return place


def _opened_again(kind: type[_SparsePart | _DensePart], where: Any, name: str) -> _Part:
    if not name:
        return kind(where)
    import h5py

    return kind(h5py.File(where, "r")[name])


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A cells × genes matrix on disk.

    Made by :func:`stored_matrix` and :func:`joined`.

    Attributes
    ----------
    parts
        Matrices of single files, one after another.
    columns
        For each, where it holds the genes of this matrix; ``None`` where they are its own.
    kept
        Which rows of all parts together are the rows of this matrix; ``None`` takes all.
    """

    parts: tuple[_Part, ...]
    columns: tuple[Columns | None, ...]
    kept: Rows | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and of genes."""
        first = self.columns[0]
        return (
            sum(part.shape[0] for part in self.parts) if self.kept is None else len(self.kept),
            self.parts[0].shape[1] if first is None else len(first),
        )

    @property
    def per_cell(self) -> float:
        """Stored values in a row, on average."""
        return sum(part.stored for part in self.parts) / max(1, sum(part.shape[0] for part in self.parts))

    def subset(self, rows: Rows) -> StoredMatrix:
        """The matrix of these rows; nothing is read."""
        return replace(self, kept=np.asarray(rows) if self.kept is None else self.kept[rows])

    def with_columns(self, columns: Columns) -> StoredMatrix:
        """The matrix of these columns; nothing is read."""
        return replace(self, columns=tuple(columns if own is None else own[columns] for own in self.columns))

    def __getitem__(self, rows: slice | Rows) -> sp.csr_matrix:
        """These rows in this order, CSR float32."""
        wanted: Rows = np.arange(self.shape[0])[rows] if isinstance(rows, slice) else np.asarray(rows)
        if self.kept is not None:
            wanted = self.kept[wanted]
        ascending = len(wanted) < 2 or bool((np.diff(wanted) > 0).all())
        if ascending:
            return self._ascending(wanted)
        distinct, places = np.unique(wanted, return_inverse=True)
        return sp.csr_matrix(self._ascending(distinct)[places])

    def load(self) -> sp.csr_matrix:
        """All of it, in memory; a bar tells how far it is."""
        return self._ascending(np.arange(self.shape[0]) if self.kept is None else self.kept, bar=True)

    def _ascending(self, rows: Rows, *, bar: bool = False) -> sp.csr_matrix:
        offsets = np.cumsum([0, *(part.shape[0] for part in self.parts)])
        cuts = np.searchsorted(rows, offsets)
        of_part = [rows[cuts[index] : cuts[index + 1]] - offsets[index] for index in range(len(self.parts))]
        known = [part.stored_in(own) for part, own in zip(self.parts, of_part, strict=True)]
        pieces: Iterator[sp.csr_matrix] = (
            piece for index, own in enumerate(of_part) for piece in self._of_part(index, own)
        )
        if bar:
            pieces = track_slow(pieces, -(-len(rows) // SPAN), "reading counts")
        at_most = None if None in known else sum(number or 0 for number in known)
        return _stacked(pieces, (len(rows), self.shape[1]), at_most)

    def _of_part(self, index: int, rows: Rows) -> Iterator[sp.csr_matrix]:
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
    """Rows one after another; where the number of values is known, they are never held twice."""
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
"""Counts of cells × genes: a CSR matrix in memory, or one on disk. Both give ``counts[rows]``, a CSR matrix."""


def _runs(rows: Rows) -> Iterator[Rows]:
    """Cut ascending rows where reading goes on elsewhere."""
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
    """What reads a matrix where it lies on disk; ``None`` for one in memory, or one that is stored by columns."""
    if isinstance(matrix, StoredMatrix):
        return matrix
    group = getattr(matrix, "group", matrix)  # anndata's view of a sparse group, or the group itself
    kind = dict(getattr(group, "attrs", None) or {}).get("encoding-type")
    if kind == "csr_matrix":
        return StoredMatrix((_SparsePart(group),), (None,))
    if type(matrix).__module__.partition(".")[0] in ("h5py", "zarr") and len(getattr(matrix, "shape", None) or ()) == 2:
        return StoredMatrix((_DensePart(matrix),), (None,))
    return None


def joined(matrices: Sequence[StoredMatrix]) -> StoredMatrix:
    """Whole matrices of the same genes, one after another."""
    return StoredMatrix(
        tuple(part for matrix in matrices for part in matrix.parts),
        tuple(columns for matrix in matrices for columns in matrix.columns),
    )


def subset_rows(counts: CountMatrix, rows: Rows) -> CountMatrix:
    """The matrix of these rows, on disk as before or in memory."""
    return counts.subset(rows) if isinstance(counts, StoredMatrix) else sp.csr_matrix(counts[rows])


def row_blocks(counts: CountMatrix, rows: Rows | None = None) -> Iterator[tuple[slice, sp.csr_matrix]]:
    """Yield ``(slice, CSR float32 block)`` over all rows, or over ``rows``, which the slice then counts.

    A block holds about :data:`BLOCK_VALUES` stored values at most, so what is computed of it stays small.
    """
    n_rows = counts.shape[0] if rows is None else len(rows)
    step = block_rows(counts)
    for start in range(0, n_rows, step):
        part = slice(start, min(start + step, n_rows))
        yield part, sp.csr_matrix(counts[part if rows is None else rows[part]])


def tracked_blocks(counts: CountMatrix, rows: Rows, description: str) -> Iterator[tuple[slice, sp.csr_matrix]]:
    """As :func:`row_blocks`, with a bar where it takes long."""
    return track_slow(row_blocks(counts, rows), -(-len(rows) // block_rows(counts)), description)


def group_sums(counts: CountMatrix, rows: Rows, group: IntArray, n_groups: int, description: str) -> Float32Array:
    """Sum of the counts of ``rows`` (ascending) by group, (groups, genes), in one pass; exact up to 2^24.

    Parameters
    ----------
    counts
        Counts.
    rows
        Cells.
    group
        Group of each of ``rows``.
    n_groups
        Number of groups.
    description
        What the progress bar says.
    """
    total = np.zeros((n_groups, counts.shape[1]), dtype=np.float32)
    for part, block in tracked_blocks(counts, rows, description):
        n = block.shape[0]
        membership = sp.csr_matrix((np.ones(n, dtype=np.float32), (group[part], np.arange(n))), shape=(n_groups, n))
        sums = sp.coo_matrix(membership @ block)
        total[sums.row, sums.col] += sums.data
    return total


def block_rows(counts: CountMatrix) -> int:
    """How many rows a block of a matrix has."""
    per_cell = counts.per_cell if isinstance(counts, StoredMatrix) else counts.nnz / max(1, counts.shape[0])
    return int(min(BLOCK_CELLS, max(1, BLOCK_VALUES // max(1.0, per_cell))))


def as_csr(block: Any) -> sp.csr_matrix:
    """A matrix as CSR float32, canonical and without stored zeros; shares memory where it is that already."""
    if not sp.issparse(block):
        block = np.asarray(block)
        if block.dtype.kind not in "buif":
            raise DataError(f"counts have dtype {block.dtype}; they must be numbers")
    csr = sp.csr_matrix(block, dtype=np.float32)
    if not csr.has_canonical_format or (csr.data == 0).any():
        csr = csr.copy()  # the caller's matrix stays as it is
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr
