"""Raw counts of an AnnData, checked and read in blocks of rows.

``X`` or a layer may be CSR, CSC or dense, of any numeric dtype, in memory or on disk. The whole package reads counts
through :class:`Counts`. So no dense cells × genes array is ever made, and counts on disk stay on disk.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from cradlevae.data.storage.file_matrix import as_csr
from cradlevae.data.storage.stored_matrix import (
    Columns,
    CountMatrix,
    StoredMatrix,
    block_rows,
    row_blocks,
    stored_matrix,
)
from cradlevae.errors import DataError
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnnDataLike, AnyIntArray, BoolArray, Float32Array

CHECKED_VALUES = 20_000_000
"""Largest number of matrix entries (cells × genes) in a block of a matrix in memory."""


@dataclass(frozen=True)
class Counts:
    """The counts of one AnnData, cells × genes, read in blocks of rows.

    Parameters
    ----------
    adata
        The AnnData, in memory or backed.
    layer
        Name of the layer that holds the counts; ``None`` reads ``X``.

    Raises
    ------
    DataError
        If the layer is absent, or there are no cells, genes or counts matrix.
    """

    adata: AnnDataLike
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and self.layer not in self.adata.layers:
            known = ", ".join(map(repr, self.adata.layers.keys())) or "none"
            raise DataError(f"layer {self.layer!r} is not in the AnnData (layers: {known})")
        n_cells, n_genes = self.adata.shape
        if n_cells == 0:
            raise DataError("the AnnData has no cells")
        if n_genes == 0:
            raise DataError("the AnnData has no genes")
        if self._matrix is None:
            raise DataError("the AnnData has no X; name the layer that holds the counts with layer=")

    @cached_property
    def _matrix(self) -> Any:
        """A :class:`StoredMatrix` where the counts are on disk, else the matrix of the AnnData, or ``None``."""
        matrix = self.adata.X if self.layer is None else self.adata.layers[self.layer]
        on_disk = stored_matrix(matrix)
        if on_disk is not None:
            return on_disk
        if hasattr(matrix, "to_memory"):
            warnings.warn(
                f"{self.where} is stored by genes (CSC) and cannot be read by cells, so all of it is read into memory; "
                "write it as CSR to leave it on disk",
                stacklevel=2,
            )
            matrix = matrix.to_memory()
        by_genes = sp.isspmatrix_csc(matrix) or isinstance(matrix, sp.csc_array)
        return sp.csr_matrix(matrix, dtype=np.float32) if by_genes else matrix

    @property
    def where(self) -> str:
        """Name of the counts in messages: ``X`` or ``layers['name']``."""
        return "X" if self.layer is None else f"layers[{self.layer!r}]"

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and of genes."""
        n_cells, n_genes = self.adata.shape
        return int(n_cells), int(n_genes)

    def matrix(self, columns: Columns | None = None) -> CountMatrix:
        """Return all counts: as a matrix on disk where they are on disk, else as one CSR float32 matrix.

        Parameters
        ----------
        columns
            Positions of the genes to take, in this order; ``None`` takes all.
        """
        if isinstance(self._matrix, StoredMatrix):
            return self._matrix if columns is None else self._matrix.with_columns(columns)
        whole = self.read()
        return whole if columns is None else sp.csr_matrix(whole[:, columns])

    def blocks(self, rows: AnyIntArray | None = None) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """Yield ``(slice, CSR float32 block)`` over consecutive rows, or over ``rows`` (ascending) of the matrix.

        The slice counts positions in ``rows`` where ``rows`` is given, else the cells of the matrix.
        """
        matrix = self._matrix
        if isinstance(matrix, StoredMatrix):
            yield from row_blocks(matrix, rows)
            return
        n_rows = self.shape[0] if rows is None else len(rows)
        step = max(1, min(n_rows, CHECKED_VALUES // self.shape[1]))
        for start in range(0, n_rows, step):
            part = slice(start, min(start + step, n_rows))
            yield part, as_csr(matrix[part if rows is None else rows[part]])

    def read(self, rows: AnyIntArray | None = None) -> sp.csr_matrix:
        """Read all counts, or those of ``rows`` (ascending), into one CSR float32 matrix in memory."""
        if rows is None and sp.issparse(self._matrix):
            return as_csr(self._matrix)  # shares the memory of a CSR float32 matrix
        parts = [block for _, block in self.blocks(rows)]
        if not parts:
            return sp.csr_matrix(np.zeros((0, self.shape[1]), dtype=np.float32))
        return parts[0] if len(parts) == 1 else sp.csr_matrix(sp.vstack(parts, format="csr"))

    def checked_blocks(self) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """Yield the blocks of :meth:`blocks`; :class:`DataError` where a value is no finite non-negative integer."""
        matrix = self._matrix
        step = block_rows(matrix) if isinstance(matrix, StoredMatrix) else CHECKED_VALUES // self.shape[1]
        for part, block in track_slow(self.blocks(), -(-self.shape[0] // max(1, step)), "reading counts"):
            self._check(part, block)
            yield part, block

    def check(self) -> None:
        """Raise :class:`DataError` unless every value is a finite non-negative integer."""
        for _ in self.checked_blocks():
            pass

    def library_sizes(
        self, columns: Columns | None = None, also: Callable[[slice, sp.csr_matrix], None] | None = None
    ) -> Float32Array:
        """Compute the total count of each cell over these genes, (cells,); the counts are checked as they are read.

        ``also`` is called with each block, so that whatever else needs all counts shares the pass.
        """
        chosen = np.ones(self.shape[1])
        if columns is not None:
            chosen = np.bincount(columns, minlength=self.shape[1]).astype(np.float64)
        sizes = np.empty(self.shape[0], dtype=np.float32)
        for part, block in self.checked_blocks():
            sizes[part] = block @ chosen
            if also is not None:
                also(part, block)
        return sizes

    def _check(self, part: slice, block: sp.csr_matrix) -> None:
        values = block.data
        for wrong, what in (
            (~np.isfinite(values), "NaN or infinite values"),
            (values < 0, "negative values"),
        ):
            if wrong.any():
                self._refuse(block, part, wrong, what, "this model needs raw UMI counts")
        fractional = values != np.round(values)
        if fractional.any():
            looks = "it looks log-normalised" if values.max() < 20 else "it looks normalised"
            self._refuse(
                block, part, fractional, "fractional values",
                f"{looks}; name the layer with the raw counts (layer=), e.g. 'counts', or adata.raw.to_adata()",
            )  # fmt: skip

    def _refuse(self, block: sp.csr_matrix, part: slice, wrong: BoolArray, what: str, mend: str) -> None:
        entry = int(np.flatnonzero(wrong)[0])
        row = int(np.searchsorted(block.indptr, entry, side="right")) - 1
        cell = self.adata.obs_names[part.start + row]
        gene = self.adata.var_names[block.indices[entry]]
        raise DataError(f"{self.where} holds {what}: {block.data[entry]:g} for cell {cell!r}, gene {gene!r}; {mend}")
