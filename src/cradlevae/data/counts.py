"""Raw counts of an AnnData: found, checked and read in blocks of rows, whatever holds them.

``X`` or a layer may be CSR, CSC or dense, of any numeric dtype, in memory or backed by a file. Everything in the
package that looks at counts goes through :class:`Counts`, so no dense cells × genes array is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cradlevae.errors import DataError

BLOCK_VALUES = 20_000_000
"""How many matrix entries (cells × genes) a block read from a dense or backed source may span."""


@dataclass(frozen=True)
class Counts:
    """Counts of one AnnData, cells × genes, read in blocks of rows.

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

    adata: Any
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

    @property
    def _matrix(self) -> Any:
        return self.adata.X if self.layer is None else self.adata.layers[self.layer]

    @property
    def where(self) -> str:
        """What the counts are called in messages: ``X`` or ``layers['name']``."""
        return "X" if self.layer is None else f"layers[{self.layer!r}]"

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and of genes."""
        n_cells, n_genes = self.adata.shape
        return int(n_cells), int(n_genes)

    def blocks(self, rows: npt.NDArray[np.integer] | None = None) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """Yield ``(slice, CSR float32 block)`` over consecutive rows, or over ``rows`` (ascending) of the matrix.

        The slice counts positions in ``rows`` where that is given, cells of the matrix otherwise.
        """
        matrix: Any = self._matrix
        if sp.isspmatrix_csc(matrix) or isinstance(matrix, sp.csc_array):
            matrix = matrix.tocsr()
        n_rows = self.shape[0] if rows is None else len(rows)
        step = max(1, min(n_rows, BLOCK_VALUES // self.shape[1]))
        for start in range(0, n_rows, step):
            part = slice(start, min(start + step, n_rows))
            yield part, _as_csr(matrix[part] if rows is None else matrix[rows[part]])

    def read(self, rows: npt.NDArray[np.integer] | None = None) -> sp.csr_matrix:
        """All counts, or those of ``rows`` (ascending), as one CSR float32 matrix."""
        if rows is None and sp.issparse(self._matrix):
            return _as_csr(self._matrix)  # shares the memory of a CSR float32 matrix
        parts = [block for _, block in self.blocks(rows)]
        if not parts:
            return sp.csr_matrix(np.zeros((0, self.shape[1]), dtype=np.float32))
        return parts[0] if len(parts) == 1 else sp.csr_matrix(sp.vstack(parts, format="csr"))

    def check(self) -> None:
        """Raise :class:`DataError` unless every value is a finite non-negative integer."""
        for part, block in self.blocks():
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

    def _refuse(self, block: sp.csr_matrix, part: slice, wrong: npt.NDArray[np.bool_], what: str, mend: str) -> None:
        entry = int(np.flatnonzero(wrong)[0])
        row = int(np.searchsorted(block.indptr, entry, side="right")) - 1
        cell = self.adata.obs_names[part.start + row]
        gene = self.adata.var_names[block.indices[entry]]
        raise DataError(f"{self.where} holds {what}: {block.data[entry]:g} for cell {cell!r}, gene {gene!r}; {mend}")


def _as_csr(block: Any) -> sp.csr_matrix:
    if hasattr(block, "to_memory"):
        block = block.to_memory()
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
