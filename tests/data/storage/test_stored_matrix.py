"""A matrix on disk reads like the same matrix in memory."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.storage import stored_matrix as stored
from cradlevae.data.storage.stored_cells import open_cells
from cradlevae.data.storage.stored_matrix import (
    StoredMatrix,
    group_sums,
    joined,
    row_blocks,
    stored_matrix,
    subset_rows,
)
from cradlevae.errors import DataError

DENSE = np.random.default_rng(0).poisson(0.5, (300, 13)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredMatrix]:
    """The matrix in one file of each kind, and cut into four."""
    folder = tmp_path_factory.mktemp("stored")

    def write(name: str, matrix: Any) -> StoredMatrix:
        adata = ad.AnnData(matrix)
        path = folder / name
        if path.suffix == ".h5ad":
            adata.write_h5ad(path)
            group: Any = h5py.File(path)
        else:
            adata.write_zarr(path)
            group = zarr.open_group(str(path), mode="r")
        found = stored_matrix(group["X"])
        assert found is not None
        return found

    made = {
        "h5ad csr": write("csr.h5ad", sp.csr_matrix(DENSE)),
        "h5ad dense": write("dense.h5ad", DENSE),
        "h5ad int16": write("int16.h5ad", sp.csr_matrix(DENSE.astype(np.int16))),
        "zarr csr": write("csr.zarr", sp.csr_matrix(DENSE)),
        "zarr dense": write("dense.zarr", DENSE),
    }
    cuts = [0, 1, 120, 121, 300]
    made["several"] = joined(
        [write(f"part{i}.h5ad", sp.csr_matrix(DENSE[a:b])) for i, (a, b) in enumerate(pairwise(cuts))]
    )
    return made


KINDS = ["h5ad csr", "h5ad dense", "h5ad int16", "zarr csr", "zarr dense", "several"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "GAP", 3)
    monkeypatch.setattr(stored, "SPAN", 17)
    monkeypatch.setattr(stored, "BLOCK_CELLS", 40)


def same(found: sp.csr_matrix, expected: np.ndarray) -> None:
    assert found.format == "csr"
    assert found.dtype == np.float32
    assert found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), expected)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", KINDS)
def test_rows_slices_and_columns(files: dict[str, StoredMatrix], kind: str) -> None:
    matrix = files[kind]
    assert matrix.shape == DENSE.shape
    same(matrix[:], DENSE)
    same(matrix[7:250:9], DENSE[7:250:9])
    same(matrix[np.array([], dtype=int)], DENSE[:0])
    rows = np.array([299, 0, 120, 120, 5, 119, 121])
    same(matrix[rows], DENSE[rows])
    columns = np.array([12, 0, 5])
    same(matrix.with_columns(columns)[rows], DENSE[rows][:, columns])
    kept = np.flatnonzero(np.arange(300) % 4)
    part = matrix.subset(kept).with_columns(columns).subset(np.arange(0, 200, 2))
    same(part[10:50], DENSE[kept][::2][10:50][:, columns])
    assert part.shape == (100, 3)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.integers(0, 299), max_size=60), kind=st.sampled_from(["h5ad csr", "h5ad dense", "several"]))
def test_any_rows_in_any_order(files: dict[str, StoredMatrix], rows: list[int], kind: str) -> None:
    same(files[kind][np.array(rows, dtype=int)], DENSE[np.array(rows, dtype=int)])


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", ["memory", *KINDS])
def test_blocks_and_group_sums(files: dict[str, StoredMatrix], kind: str) -> None:
    matrix = sp.csr_matrix(DENSE) if kind == "memory" else files[kind]
    rows = np.arange(3, 300, 2)
    parts, blocks = zip(*row_blocks(matrix, rows), strict=True)
    assert [part.start for part in parts] == list(range(0, len(rows), 40))
    np.testing.assert_array_equal(np.concatenate([block.toarray() for block in blocks]), DENSE[rows])
    group = np.arange(len(rows)) % 5
    sums = group_sums(matrix, rows, group, 6, "adding")
    np.testing.assert_array_equal(sums[:5], [DENSE[rows][group == g].sum(axis=0) for g in range(5)])
    assert (sums[5] == 0).all()
    np.testing.assert_array_equal(subset_rows(matrix, rows)[:].toarray(), DENSE[rows])


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_into_another_process(files: dict[str, StoredMatrix], kind: str) -> None:
    again = pickle.loads(pickle.dumps(files[kind].subset(np.arange(0, 300, 3))))
    same(again[5:40], DENSE[::3][5:40])
    same(again.load(), DENSE[::3])


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", ["file.h5ad", "dense.h5ad", "store.zarr"])
def test_it_is_found_from_another_working_directory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adata = ad.AnnData(DENSE if kind == "dense.h5ad" else sp.csr_matrix(DENSE))
    (adata.write_zarr if kind == "store.zarr" else adata.write_h5ad)(tmp_path / kind)
    monkeypatch.chdir(tmp_path)
    matrix = open_cells(kind).X
    monkeypatch.chdir("/")
    same(pickle.loads(pickle.dumps(matrix))[5:40], DENSE[5:40])
    same(matrix[5:40], DENSE[5:40])


@pytest.mark.parametrize("matrix", [DENSE, sp.csr_matrix(DENSE)])
def test_a_file_that_is_open_for_writing_stays_with_its_process(matrix: Any, tmp_path: Path) -> None:
    ad.AnnData(matrix).write_h5ad(tmp_path / "a.h5ad")
    found = stored_matrix(ad.read_h5ad(tmp_path / "a.h5ad", backed="r+").X)
    assert found is not None
    same(found[5:40], DENSE[5:40])
    with pytest.raises(DataError, match=r"a\.h5ad is open for writing, .* open it for reading: .*backed=\"r\""):
        pickle.dumps(found)


def test_what_is_in_memory_is_not_stored() -> None:
    for matrix in (DENSE, sp.csr_matrix(DENSE), sp.csc_array(DENSE)):
        assert stored_matrix(matrix) is None


def test_zeros_and_duplicates_that_are_stored_do_not_show(tmp_path: Path) -> None:
    messy = sp.csr_matrix((np.array([1.0, 0, 2, 3]), np.array([2, 0, 1, 1]), np.array([0, 2, 4])), shape=(2, 4))
    with h5py.File(tmp_path / "messy.h5", "w") as file:
        ad.io.write_elem(file, "X", messy)
        found = stored_matrix(file["X"])
        assert found is not None
        same(found[:], messy.toarray())
        assert found[:].nnz == 2
