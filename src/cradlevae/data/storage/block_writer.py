"""Building an AnnData from blocks of rows: in memory, or in a file without ever holding whole matrices in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.storage.input_files import refuse_read
from cradlevae.data.storage.writable import writable_table
from cradlevae.errors import DataError
from cradlevae.utils.atomic import atomic_path
from cradlevae.utils.outputs import check_output
from cradlevae.utils.types import Float32Array

Block = dict[str, Any]
"""Consecutive rows of ``X`` and of layers, by name: CSR matrices or float32 arrays, (rows, genes)."""

WRITTEN_VALUES = 4_000_000
"""Blocks are collected until they span so many values (cells × genes), and then written together."""

COMPRESSION: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
"""How HDF5 compresses the matrices."""


def from_blocks(
    blocks: Iterable[Block],
    obs: Callable[[], pd.DataFrame],
    var: pd.DataFrame,
    n_rows: int,
    output: str | Path | None,
    *,
    uns: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ad.AnnData:
    """Build an AnnData from blocks of rows.

    Parameters
    ----------
    blocks
        The rows in order, each block with the same names.
    obs
        Returns the annotation of the cells. It is called when all blocks have arrived, and once before, to check that
        the table can be written.
    var
        Annotation of the genes.
    n_rows
        Number of rows in all blocks.
    output
        ``.h5ad`` file to write block by block; it appears when it is complete. ``None`` keeps the matrices in memory.
    uns
        Unstructured annotation.
    overwrite
        Whether to replace a file that is there.

    Returns
    -------
    anndata.AnnData
        With ``output``, its ``X`` and layers stay in the file, and parts are read on demand
        (``adata[cells].to_memory()``).

    Raises
    ------
    DataError
        If ``output`` does not end in ``.h5ad``, is there already or cannot be written.
    """
    if output is None:
        return _in_memory(blocks, obs, var, n_rows, uns or {})
    path = check_cells_output(output, overwrite=overwrite)
    with atomic_path(path) as temporary:
        table = _write(blocks, obs, var, n_rows, temporary, uns or {})
    return _open(path, table, var, uns or {})


def check_cells_output(output: str | Path, *, overwrite: bool, read_from: Any = None) -> Path:
    """Check, before any long work, that cells may be written into a file.

    Parameters
    ----------
    output
        The file.
    overwrite
        Whether to replace a file that is there.
    read_from
        AnnData or cells on disk that are read meanwhile, whose files are never replaced.

    Raises
    ------
    DataError
        If the name does not end in ``.h5ad``, the file is there already or is one that is read, or cannot be written.
    """
    path = Path(output)
    if path.suffix != ".h5ad":
        raise DataError(f"{path} ends in {path.suffix!r}; cells are written as .h5ad")
    if read_from is not None:
        refuse_read(path, read_from)
    return check_output(path, overwrite=overwrite)


def rounded(values: Float32Array, bits: int) -> Float32Array:
    """Round positive values to so many bits of their mantissa (relative error 2^−(bits + 1)), to compress well."""
    dropped = 23 - bits
    whole = values.view(np.uint32) + np.uint32(1 << (dropped - 1))
    result: Float32Array = (whole & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)).view(np.float32)
    return result


def _in_memory(
    blocks: Iterable[Block],
    obs: Callable[[], pd.DataFrame],
    var: pd.DataFrame,
    n_rows: int,
    uns: Mapping[str, Any],
) -> ad.AnnData:
    dense: dict[str, Float32Array] = {}
    sparse: dict[str, list[sp.csr_matrix]] = {}
    start = 0
    for block in blocks:
        for name, rows in block.items():
            if isinstance(rows, sp.csr_matrix):
                sparse.setdefault(name, []).append(rows)
            else:
                whole = dense.setdefault(name, np.empty((n_rows, len(var)), dtype=np.float32))
                whole[start : start + len(rows)] = rows
        start += _n_rows(block)
    layers: dict[str, Any] = dense | {
        name: sp.csr_matrix(sp.vstack(parts, format="csr")) for name, parts in sparse.items()
    }
    return ad.AnnData(X=layers.pop("X"), obs=obs(), var=var.copy(), uns=dict(uns), layers=layers)


def _write(
    blocks: Iterable[Block],
    obs: Callable[[], pd.DataFrame],
    var: pd.DataFrame,
    n_rows: int,
    path: Path,
    uns: Mapping[str, Any],
) -> pd.DataFrame:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("layers", "obsm", "varm", "obsp", "varp"):
            ad.io.write_elem(file, name, {})
        ad.io.write_elem(file, "uns", dict(uns))
        ad.io.write_elem(file, "var", writable_table(var, "var"))
        ad.io.write_elem(file, "obs", writable_table(obs(), "obs"))  # its warnings come now, not after all the work
        start = 0
        for block in _larger(blocks, max(1, WRITTEN_VALUES // len(var))):
            for name, rows in block.items():
                place = name if name == "X" else f"layers/{name}"
                if isinstance(rows, sp.csr_matrix):
                    _append_sparse(file, place, rows)
                else:
                    _put_dense(file, place, rows, start, n_rows)
            start += _n_rows(block)
        with warnings.catch_warnings():  # they have been given
            warnings.simplefilter("ignore")
            table = writable_table(obs(), "obs")
        ad.io.write_elem(file, "obs", table)
    return table


def _append_sparse(file: Any, place: str, rows: sp.csr_matrix) -> None:
    if place not in file:
        group = file.create_group(place)
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (0, rows.shape[1])})
        for name, kind in (("data", rows.dtype), ("indices", np.int32), ("indptr", np.int64)):
            options = COMPRESSION | {"chunks": (1 << 16,), "maxshape": (None,), "dtype": kind}
            group.create_dataset(name, data=np.zeros(int(name == "indptr"), dtype=kind), **options)
    ad.io.sparse_dataset(file[place]).append(rows)


def _put_dense(file: Any, place: str, rows: Float32Array, start: int, n_rows: int) -> None:
    if place not in file:
        shape = n_rows, rows.shape[1]
        chunks = min(64, n_rows), min(4096, rows.shape[1])
        dataset = file.create_dataset(place, shape=shape, dtype=np.float32, chunks=chunks, **COMPRESSION)
        dataset.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    file[place][start : start + len(rows)] = rows


def _larger(blocks: Iterable[Block], n_rows: int) -> Iterator[Block]:
    """Yield the same rows in blocks of at least ``n_rows``; the last may be smaller."""
    waiting: list[Block] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(_n_rows, waiting)) >= n_rows:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(blocks: list[Block]) -> Block:
    def join(parts: list[Any]) -> Any:
        return sp.csr_matrix(sp.vstack(parts, format="csr")) if sp.issparse(parts[0]) else np.concatenate(parts)

    return {name: join([block[name] for block in blocks]) for name in blocks[0]}


def _n_rows(block: Block) -> int:
    return int(block["X"].shape[0])


def _open(path: Path, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> ad.AnnData:
    import h5py

    file = h5py.File(path, "r")

    def matrix(place: str) -> Any:
        return ad.io.sparse_dataset(file[place]) if isinstance(file[place], h5py.Group) else file[place]

    layers = {name: matrix(f"layers/{name}") for name in file["layers"]}
    return ad.AnnData(X=matrix("X"), obs=obs, var=var.copy(), uns=dict(uns), layers=layers)
