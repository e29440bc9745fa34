"""One matrix in one file, read by runs of rows; a process that receives it opens the file again."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from cradlevae.errors import DataError
from cradlevae.utils.types import AnyIntArray


class FileMatrix(Protocol):
    """The matrix of one file."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        ...

    @property
    def n_values(self) -> int:
        """Number of stored values."""
        ...

    @property
    def source(self) -> Any:
        """The group or array of h5py or zarr."""
        ...

    def n_values_in(self, rows: AnyIntArray) -> int | None:
        """Return the number of values in these rows, or ``None`` where only reading would tell."""
        ...

    def read(self, start: int, stop: int) -> sp.csr_matrix:
        """Read consecutive rows as CSR float32."""
        ...


class SparseFileMatrix:
    """A CSR matrix on disk: a group with ``indptr``, ``indices`` and ``data``."""

    def __init__(self, group: Any) -> None:
        self.source = group
        n_rows, n_columns = group.attrs["shape"]
        self.shape = (int(n_rows), int(n_columns))
        self._starts = np.asarray(group["indptr"][:])
        self._indices, self._data = group["indices"], group["data"]
        self._place = _place(group)
        self.n_values = int(self._starts[-1])

    def n_values_in(self, rows: AnyIntArray) -> int | None:
        """Return the number of values in these rows."""
        return int((self._starts[rows + 1] - self._starts[rows]).sum())

    def read(self, start: int, stop: int) -> sp.csr_matrix:
        """Read consecutive rows as CSR float32."""
        starts = self._starts[start : stop + 1]
        first, last = int(starts[0]), int(starts[-1])
        indices, data = self._indices[first:last], self._data[first:last]
        return as_csr(sp.csr_matrix((data, indices, starts - first), shape=(stop - start, self.shape[1])))

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (SparseFileMatrix, *_openable(self.source, self._place))


class DenseFileMatrix:
    """A dense matrix on disk."""

    def __init__(self, array: Any) -> None:
        self.shape = (int(array.shape[0]), int(array.shape[1]))
        self.n_values = self.shape[0] * self.shape[1]
        self.source = array
        self._place = _place(array)

    def n_values_in(self, rows: AnyIntArray) -> int | None:
        """Return ``None``: only reading tells which values are zero."""
        return None

    def read(self, start: int, stop: int) -> sp.csr_matrix:
        """Read consecutive rows as CSR float32."""
        return as_csr(self.source[start:stop])

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (DenseFileMatrix, *_openable(self.source, self._place))


def _place(element: Any) -> tuple[Any, str]:
    """Return what another process needs to open a group or array: the file and the name in it, or a zarr object.

    This is determined when the file is opened, because a relative path means another file once the working directory
    has changed.
    """
    if not type(element).__module__.startswith("h5py"):
        return element, ""
    return os.path.abspath(element.file.filename), element.name


def _openable(element: Any, place: tuple[Any, str]) -> tuple[Any, str]:
    """Return the place; :class:`DataError` where another process may not open it."""
    file, name = place
    if name and element.file.mode != "r":
        raise DataError(
            f"{file} is open for writing, and no other process can read it then; open it for reading: "
            'anndata.read_h5ad(..., backed="r"), or cradlevae.open_cells(...)'
        )
    return place


def _opened_again(kind: type[SparseFileMatrix | DenseFileMatrix], where: Any, name: str) -> FileMatrix:
    if not name:
        return kind(where)
    import h5py

    return kind(h5py.File(where, "r")[name])


def as_csr(block: Any) -> sp.csr_matrix:
    """Return a matrix as canonical CSR float32 without stored zeros; the memory is shared where it is that already."""
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
