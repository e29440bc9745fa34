"""Counts come out alike whatever holds them, and what is no count is refused by cell and gene."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.data.storage import counts as counts_module
from cradlevae.data.storage import stored_matrix as stored_module
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError

MakeAnnData = Callable[..., ad.AnnData]


@pytest.fixture
def dense() -> np.ndarray:
    return np.random.default_rng(0).poisson(0.7, (23, 11))


def blockwise(counts: Counts, rows: np.ndarray | None = None) -> np.ndarray:
    return np.concatenate([block.toarray() for _, block in counts.blocks(rows)])


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array, np.asarray])
def test_every_form_and_dtype_reads_alike(make_adata: MakeAnnData, dense: np.ndarray, form: Any, dtype: str) -> None:
    counts = Counts(make_adata(dense.astype(dtype), form=form))
    counts.check()
    whole = counts.read()
    assert whole.format == "csr"
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole.toarray(), dense)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("backed", [False, True])
def test_blocks_cover_the_cells_in_order(
    make_adata: MakeAnnData,
    dense: np.ndarray,
    form: Any,
    backed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counts_module, "CHECKED_VALUES", 5 * dense.shape[1])
    monkeypatch.setattr(stored_module, "BLOCK_CELLS", 5)
    adata = make_adata(dense.astype(np.float32), form=form)
    if backed:
        adata.write_h5ad(tmp_path / "counts.h5ad")
        adata = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    with pytest.warns(UserWarning, match="stored by genes") if backed and form is sp.csc_matrix else nullcontext():
        counts = Counts(adata)
    counts.check()
    parts = [part for part, _ in counts.blocks()]
    assert [(part.start, part.stop) for part in parts] == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)]
    np.testing.assert_array_equal(blockwise(counts), dense)
    np.testing.assert_array_equal(counts.read().toarray(), dense)
    rows = np.array([0, 3, 4, 9, 17, 18, 22])
    np.testing.assert_array_equal(blockwise(counts, rows), dense[rows])
    np.testing.assert_array_equal(counts.read(rows).toarray(), dense[rows])
    assert counts.read(np.array([], dtype=int)).shape == (0, dense.shape[1])
    if backed:
        adata.file.close()


@given(st.lists(st.integers(0, 22), unique=True).map(sorted), st.integers(1, 300))
def test_chosen_rows_whatever_the_block_size(rows: list[int], block_values: int) -> None:
    dense = np.random.default_rng(1).poisson(1.0, (23, 11))
    counts = Counts(ad.AnnData(sp.csr_matrix(dense.astype(np.float32))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts_module, "CHECKED_VALUES", block_values)
        np.testing.assert_array_equal(counts.read(np.array(rows, dtype=int)).toarray(), dense[rows])


def test_a_layer_is_read_where_named(make_adata: MakeAnnData, dense: np.ndarray) -> None:
    adata = make_adata(np.log1p(dense))
    adata.layers["counts"] = sp.csr_matrix(dense)
    counts = Counts(adata, "counts")
    counts.check()
    np.testing.assert_array_equal(counts.read().toarray(), dense)


def test_a_layer_is_enough(dense: np.ndarray) -> None:
    adata = ad.AnnData(layers={"counts": sp.csr_matrix(dense)})
    np.testing.assert_array_equal(Counts(adata, "counts").read().toarray(), dense)
    with pytest.raises(DataError, match=r"has no X; name the layer"):
        Counts(adata)


def test_explicit_zeros_and_doubled_entries_are_tidied_in_a_copy() -> None:
    values, columns, starts = (
        np.array([1.0, 0.0, 2.0, 3.0], np.float32),
        np.array([1, 0, 2, 2]),
        np.array([0, 2, 4]),
    )
    messy = sp.csr_matrix((values, columns, starts), shape=(2, 3))
    read = Counts(ad.AnnData(messy)).read()
    np.testing.assert_array_equal(read.toarray(), [[0, 1, 0], [0, 0, 5]])
    assert read.nnz == 2
    assert messy.nnz == 4  # the caller's matrix is as it was


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-2.0, r"X holds negative values: -2 for cell 'cell3', gene 'gene2'.*raw UMI counts"),
        (np.nan, r"X holds NaN or infinite values: nan for cell 'cell3', gene 'gene2'"),
        (np.inf, r"X holds NaN or infinite values: inf for cell 'cell3', gene 'gene2'"),
        (0.5, r"X holds fractional values: 0.5 for cell 'cell3', gene 'gene2'"),
    ],
)
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("block_values", [20, 10_000])
def test_what_is_no_count_is_named(
    make_adata: MakeAnnData, dense: np.ndarray, value: float, message: str, form: Any, block_values: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(counts_module, "CHECKED_VALUES", block_values)
    wrong = dense.astype(float)
    wrong[3, 2] = value
    with pytest.raises(DataError, match=message):
        Counts(make_adata(wrong, form=form)).check()


def test_log_normalised_data_are_called_that(make_adata: MakeAnnData, dense: np.ndarray) -> None:
    size_factors = dense.sum(axis=1, keepdims=True) / 1e4
    with pytest.raises(DataError, match=r"fractional values.*looks log-normalised; name the layer.*layer="):
        Counts(make_adata(np.log1p(dense / size_factors))).check()
    with pytest.raises(DataError, match=r"fractional values.*looks normalised"):
        Counts(make_adata(dense / size_factors)).check()


def test_nothing_to_read_is_refused(make_adata: MakeAnnData, dense: np.ndarray) -> None:
    adata = make_adata(dense)
    with pytest.raises(DataError, match="no cells"):
        Counts(adata[:0])
    with pytest.raises(DataError, match="no genes"):
        Counts(adata[:, :0])
    with pytest.raises(DataError, match=r"layer 'raw' is not in the AnnData \(layers: none\)"):
        Counts(adata, "raw")


def test_values_that_are_no_numbers_are_refused() -> None:
    adata = ad.AnnData(np.zeros((2, 2), dtype=np.float32))
    adata.layers["text"] = np.array([["a", "b"], ["c", "d"]])
    with pytest.raises(DataError, match="they must be numbers"):
        Counts(adata, "text").check()
