"""Cells whose counts stay on disk, with the parts of an AnnData that this package reads.

:func:`open_cells` opens one file or several. ``split``, ``CradleVAE``, ``annotate_qc``, ``clean`` and ``evaluate``
accept the result in place of an AnnData.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.storage.cell_files import (
    cell_files,
    is_of_old_form,
    open_group,
    read_element,
    read_mapping,
    read_table,
    readable_keys,
    unreadable,
    unreadable_form,
)
from cradlevae.data.storage.input_files import input_files, note_source
from cradlevae.data.storage.joining import (
    aligned_genes,
    check_names,
    common_keys,
    same_in_all,
    stackable_arrays,
    stacked_tables,
)
from cradlevae.data.storage.stored_matrix import Columns, StoredMatrix, joined, stored_matrix
from cradlevae.data.storage.whole_files import form_of
from cradlevae.errors import DataError
from cradlevae.utils.checks import path_of
from cradlevae.utils.names import listed
from cradlevae.utils.types import IndexArray

if TYPE_CHECKING:
    from anndata import AnnData


def open_cells(path: str | Path, *, guide_targets: str | Path | Mapping[str, str] | None = None) -> StoredCells:
    """Open cells without reading their counts.

    Parameters
    ----------
    path
        An ``.h5ad`` file, a zarr store, or a folder of several of these. The files of a folder must have the same genes
        (in any order) and no cell name twice; their cells follow one another in the order of the file names. Or what
        :func:`cradlevae.read_10x` reads: a 10x ``.h5`` file, a 10x folder (``matrix.mtx``) or an ``.h5mu`` file; these
        are read into memory.
    guide_targets
        The gene that each guide RNA of a 10x or ``.h5mu`` file targets (see :func:`cradlevae.read_10x`).

    Returns
    -------
    StoredCells
        The cells, to use in place of an AnnData: ``obs`` (cells × columns), ``var`` (genes × columns) and ``uns`` are
        in memory, the counts (cells × genes) on disk. What a function of this package adds stays in memory.

    Raises
    ------
    DataError
        If the path does not exist, a file is damaged, the files do not fit together, or ``guide_targets`` is given for
        files that AnnData wrote.

    Warns
    -----
    UserWarning
        As :func:`cradlevae.read_10x`. For each column, array, layer or entry of ``uns`` that cannot be read (a newer or
        foreign encoding) and is left out; and for a file of AnnData 0.6 or earlier, which is read into memory.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import cradlevae as cv
    >>> folder = Path(tempfile.mkdtemp())
    >>> cv.simulate(n_cells=100, n_genes=40, n_perturbations=4, n_combinations=4).write_h5ad(folder / "screen.h5ad")
    >>> cells = cv.open_cells(folder / "screen.h5ad")
    >>> cells.shape
    (100, 40)
    >>> cells[["cell3", "cell5"]].n_obs
    2
    """
    path = path_of("path", path)
    if form_of(path) is not None:
        return _read_whole(path, guide_targets)
    if guide_targets is not None:
        raise DataError(
            f"guide_targets is given, but {path} is no 10x or .h5mu file; give it to cradlevae.assign_guides instead"
        )
    files = cell_files(path)
    groups = [open_group(file, n_files=len(files)) for file in files]
    old = [file for file, group in zip(files, groups, strict=True) if is_of_old_form(group)]
    if old:
        return _of_old_form(path, old[0], alone=len(files) == 1)
    obs_tables, var_tables = (
        [read_table(group, file, name) for group, file in zip(groups, files, strict=True)] for name in ("obs", "var")
    )
    uns = [read_mapping(group, file, "uns") for group, file in zip(groups, files, strict=True)]
    columns = aligned_genes([table.index for table in var_tables], files)
    obs = stacked_tables(obs_tables)
    check_names(obs.index, obs_tables, files)
    matrices = _readable_matrices(groups, files, columns)
    arrays = stackable_arrays(groups, files, readable_keys(groups, files, "obsm", common_keys(groups, "obsm")))
    obsm = {key: _reader(groups, files, f"obsm/{key}") for key in arrays}
    return StoredCells(path, obs, var_tables[0], same_in_all(uns), matrices, obsm)


def _read_whole(path: Path, guide_targets: str | Path | Mapping[str, str] | None) -> StoredCells:
    """Cells of a 10x or MuData file, read into memory."""
    from cradlevae.data.guides.reading import read_10x

    adata = read_10x(path, guide_targets=guide_targets)
    return _held(path, adata)


def _held(path: Path, adata: AnnData) -> StoredCells:
    """Cells in memory that were read from a path."""
    matrices = {"X": adata.X} | {f"layers/{name}": adata.layers[name] for name in adata.layers}
    obsm = {str(key): (lambda key=key: adata.obsm[key]) for key in adata.obsm}
    return StoredCells(path, adata.obs, adata.var, dict(adata.uns), matrices, obsm)


def _of_old_form(path: Path, file: Path, *, alone: bool) -> StoredCells:
    """Cells of a file that AnnData 0.6 or an earlier one wrote, read into memory; :class:`DataError` in a folder."""
    import anndata as ad

    mend = "read it and write it again: anndata.read_h5ad(file).write_h5ad(other_file)"
    if not alone:
        raise DataError(f"{file} was written by AnnData 0.6 or earlier, and cannot be joined with other files; {mend}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the form is old
            adata = ad.read_h5ad(file)
    except Exception as error:  # of which kind depends on what is in the file
        raise unreadable(file, error) from None
    warnings.warn(f"{file} was written by AnnData 0.6 or earlier, so it is read into memory; {mend}", stacklevel=3)
    return _held(path, adata)


class StoredCells:
    """Cells × genes whose counts are on disk; :func:`open_cells` opens them.

    Indexing with cells (names, positions, a slice or a mask) reads these cells into an AnnData in memory.

    Attributes
    ----------
    path
        The file, zarr store or folder.
    obs, var, uns
        Annotation as in an AnnData, in memory. Of several files, ``uns`` holds the entries that are equal in all, and
        ``var`` is that of the first.
    X
        The counts on disk (:class:`~cradlevae.data.storage.stored_matrix.StoredMatrix`), or in memory after
        :meth:`load`.
    layers
        Other matrices on disk, by name.
    obsm
        Arrays with a row for each cell, read on demand; of several files, those that have the same form in all.

    Raises
    ------
    DataError
        On indexing, if a cell is unknown, or a mask has not one value for each cell.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import cradlevae as cv
    >>> path = Path(tempfile.mkdtemp()) / "screen.h5ad"
    >>> cv.simulate(n_cells=100, n_genes=40, n_perturbations=4, n_combinations=4).write_h5ad(path)
    >>> cells = cv.open_cells(path)
    >>> cells.n_obs, cells.n_vars, list(cells.layers)
    (100, 40, ['clean'])
    >>> cells[:10].X.shape
    (10, 40)
    """

    def __init__(
        self,
        path: Path,
        obs: pd.DataFrame,
        var: pd.DataFrame,
        uns: dict[str, Any],
        matrices: Mapping[str, Any],
        obsm: Mapping[str, Callable[[], Any]],
    ) -> None:
        self.path = path
        self.obs = obs
        self.var = var
        self.uns = uns
        self.X = matrices.get("X")
        self.layers = {
            name.removeprefix("layers/"): matrix for name, matrix in matrices.items() if name.startswith("layers/")
        }
        self.obsm = _OnDemand(obsm)
        note_source(obs, input_files(self))

    @property
    def obs_names(self) -> pd.Index[str]:
        """Names of the cells."""
        return self.obs.index

    @property
    def var_names(self) -> pd.Index[str]:
        """Names of the genes."""
        return self.var.index

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.obs)

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return len(self.var)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and of genes."""
        return self.n_obs, self.n_vars

    @property
    def isbacked(self) -> bool:
        """Always true."""
        return True

    def memory(self, layer: str | None = None) -> int:
        """Estimate the bytes that ``X`` or a layer would take in memory; 0 where it is in memory already."""
        matrix = self._matrix(layer)
        if isinstance(matrix, StoredMatrix):
            return round(8 * matrix.per_cell * matrix.shape[0])
        return 8 * int(matrix.group["data"].shape[0]) if self.by_genes(layer) else 0

    def by_genes(self, layer: str | None = None) -> bool:
        """Whether ``X`` or a layer is stored by genes (CSC), so that it can only be read as a whole."""
        return hasattr(self._matrix(layer), "to_memory")

    def load(self, layer: str | None = None) -> None:
        """Read ``X`` or a layer into memory; the other matrices stay on disk."""
        if layer is None:
            self.X = _in_memory(self.X)
        elif layer in self.layers:
            self.layers[layer] = _in_memory(self.layers[layer])
        else:
            raise DataError(f"layer {layer!r} is not in {self.path} (layers: {listed(list(self.layers))})")

    def __getitem__(self, cells: Any) -> AnnData:
        """Read these cells (names, positions, a slice or a mask) into an AnnData in memory."""
        import anndata as ad

        rows = self._rows(cells)
        return ad.AnnData(
            X=None if self.X is None else _in_memory(self.X, rows),
            obs=self.obs.iloc[rows].copy(),
            var=self.var.copy(),
            uns=dict(self.uns),
            layers={name: _in_memory(matrix, rows) for name, matrix in self.layers.items()},
            obsm=self._arrays(rows),
        )

    def _arrays(self, rows: IndexArray) -> dict[str, Any]:
        """Read the arrays of these cells; one that cannot be read is left out with a warning."""
        arrays = {}
        for key in self.obsm:
            try:
                value = self.obsm[key]
            except DataError as error:
                warnings.warn(f"obsm[{key!r}] is left out: {error}", stacklevel=4)
                continue
            arrays[key] = value.iloc[rows] if isinstance(value, pd.DataFrame) else value[rows]
        return arrays

    def to_memory(self) -> AnnData:
        """Read all cells into an AnnData in memory."""
        return self[:]

    def _matrix(self, layer: str | None) -> Any:
        return self.X if layer is None else self.layers.get(layer)

    def _rows(self, cells: Any) -> IndexArray:
        if isinstance(cells, slice):
            return np.arange(*cells.indices(self.n_obs))
        if isinstance(cells, tuple):
            raise DataError("cells on disk are indexed by cells alone; index the genes of the AnnData that this gives")
        wanted = np.atleast_1d(np.asarray(cells))
        if wanted.ndim != 1:
            raise DataError(
                f"cells are chosen by one name, position or truth value each, not by {wanted.ndim} dimensions"
            )
        if wanted.dtype == object and len(wanted) and all(isinstance(value, bool | np.bool_) for value in wanted):
            wanted = wanted.astype(bool)
        if wanted.dtype == bool:
            if len(wanted) != self.n_obs:
                raise DataError(
                    f"a mask of {len(wanted):,} values does not fit {self.n_obs:,} cells; give one per cell"
                )
            return np.flatnonzero(wanted)
        if wanted.dtype.kind in "iu":
            outside = (wanted < -self.n_obs) | (wanted >= self.n_obs)
            if outside.any():
                raise DataError(f"no cell at position {wanted[outside][0]}; there are {self.n_obs:,} cells")
            return np.asarray(np.arange(self.n_obs)[wanted])
        rows = self.obs_names.get_indexer(pd.Index(wanted))
        if (rows < 0).any():
            raise DataError(f"no cell {str(wanted[int(np.flatnonzero(rows < 0)[0])])!r} in {self.path}")
        return np.asarray(rows)

    def __repr__(self) -> str:
        return f"StoredCells({self.n_obs:,} cells × {self.n_vars:,} genes in {self.path})"


class _OnDemand(Mapping[str, Any]):
    """A mapping whose values are read on demand."""

    def __init__(self, readers: Mapping[str, Callable[[], Any]]) -> None:
        self._readers = readers

    def __getitem__(self, key: str) -> Any:
        return self._readers[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _in_memory(matrix: Any, rows: IndexArray | None = None) -> Any:
    if hasattr(matrix, "to_memory"):
        matrix = matrix.to_memory().tocsr()
    if isinstance(matrix, StoredMatrix):
        return matrix.load() if rows is None else matrix[rows]
    return matrix if rows is None else matrix[rows]


def _reader(groups: Sequence[Any], files: Sequence[Path], name: str) -> Callable[[], Any]:
    def read() -> Any:
        parts = [read_element(group, file, name) for group, file in zip(groups, files, strict=True)]
        if len(parts) == 1:
            return parts[0]
        if isinstance(parts[0], pd.DataFrame):
            return pd.concat(parts)
        return sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.concatenate(parts)

    return read


def _readable_matrices(
    groups: Sequence[Any], files: Sequence[Path], columns: Sequence[Columns | None]
) -> dict[str, Any]:
    """Return ``X`` and the layers of all files; those that cannot be read are left out with a warning.

    Raises
    ------
    DataError
        If ``X`` cannot be read and there is no layer in its place.
    """
    layers = readable_keys(groups, files, "layers", common_keys(groups, "layers"))
    matrices = {f"layers/{layer}": _matrices(groups, files, columns, f"layers/{layer}") for layer in layers}
    if not all("X" in group for group in groups):
        return matrices
    reasons = [
        reason for group, file in zip(groups, files, strict=True) if (reason := unreadable_form(group, file, "X"))
    ]
    if not reasons:
        return {"X": _matrices(groups, files, columns, "X")} | matrices
    if not matrices:
        raise reasons[0]
    warnings.warn(f"X is left out: {reasons[0]}", stacklevel=3)
    return matrices


def _matrices(groups: Sequence[Any], files: Sequence[Path], columns: Sequence[Columns | None], name: str) -> Any:
    """Return the matrices of all files as one."""
    matrices = [stored_matrix(group[name]) for group in groups]
    if len(matrices) == 1 and matrices[0] is None:
        from anndata.io import sparse_dataset

        return sparse_dataset(groups[0][name])  # stored by genes: whoever reads it gets a warning
    aligned = []
    for matrix, own, file in zip(matrices, columns, files, strict=True):
        if matrix is None:
            raise DataError(f"{name} of {file} is stored by genes (CSC) and cannot be read by cells; write it as CSR")
        aligned.append(matrix if own is None else matrix.with_columns(own))
    return joined(aligned)
