"""An AnnData from blocks of rows: the same numbers from a file, which is whole or not there."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.data.storage import block_writer as rows_module
from cradlevae.data.storage.block_writer import from_blocks, rounded
from cradlevae.errors import DataError
from cradlevae.nn.gamma_poisson import GammaPoisson
from cradlevae.query import counterfactual as counterfactual_module
from cradlevae.query import predict as predict_module
from cradlevae.query import twins as twins_module


def same(one: ad.AnnData, two: ad.AnnData) -> None:
    """Both in memory."""
    pd.testing.assert_frame_equal(one.obs, two.obs)
    pd.testing.assert_frame_equal(one.var, two.var)
    assert set(one.layers) == set(two.layers)
    for a, b in [(one.X, two.X), *((one.layers[name], two.layers[name]) for name in one.layers)]:
        assert sp.issparse(a) == sp.issparse(b)
        np.testing.assert_array_equal(a.toarray() if sp.issparse(a) else a, b.toarray() if sp.issparse(b) else b)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few cells, written a few at a time."""
    monkeypatch.setattr(predict_module, "CELLS_AT_A_TIME", 3)
    monkeypatch.setattr(counterfactual_module, "BLOCK_VALUES", 16 * 60 * 3)
    monkeypatch.setattr(rows_module, "WRITTEN_VALUES", 60 * 7)


@pytest.mark.usefixtures("small_blocks")
def test_predicted_cells_are_the_same_in_a_file(strong: cv.CradleVAE, tmp_path: Path) -> None:
    in_memory = strong.predict(["A", "B+C"], 10, artifact=True)
    path = tmp_path / "predicted.h5ad"
    in_file = strong.predict(["A", "B+C"], 10, artifact=True, output=path)
    assert not isinstance(in_file.X, sp.csr_matrix)  # not read yet
    assert in_file.shape == in_memory.shape
    same(in_file.to_memory(), in_memory)
    same(in_file[[2, 17, 5]].to_memory(), in_memory[[2, 17, 5]].copy())
    same(ad.read_h5ad(path), in_memory)
    assert (path.stat().st_mode & 0o444) == 0o444


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("cells", ["all", "failed"])
def test_cleaned_cells_are_the_same_in_a_file(
    strong: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path, cells: Any
) -> None:
    some = simulated[:50].copy()
    in_memory = strong.clean(some, cells)
    in_file = strong.clean(some, cells, output=str(tmp_path / "clean.h5ad"))
    same(in_file.to_memory(), in_memory)
    same(ad.read_h5ad(tmp_path / "clean.h5ad"), in_memory)
    backed = ad.read_h5ad(tmp_path / "clean.h5ad", backed="r")
    np.testing.assert_array_equal(backed.X[3:5].toarray(), in_memory.X[3:5].toarray())
    np.testing.assert_array_equal(backed.layers["expected"][3:5], in_memory.layers["expected"][3:5])
    backed.file.close()


def test_the_callers_blocks_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "WRITTEN_VALUES", 4 * 5)
    alive: set[int] = set()
    most = 0

    def blocks() -> Iterator[dict[str, Any]]:
        nonlocal most
        for i in range(60):
            dense = np.full((2, 5), i, dtype=np.float32)
            alive.add(i)
            weakref.finalize(dense, alive.discard, i)
            most = max(most, len(alive))
            yield {"X": dense, "whole": sp.csr_matrix(dense)}
            del dense

    obs = pd.DataFrame(index=[f"cell{i}" for i in range(120)])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(5)])
    found = from_blocks(blocks(), lambda: obs, var, 120, tmp_path / "x.h5ad")
    assert most <= 6
    np.testing.assert_array_equal(found.X[:, 2], np.repeat(np.arange(60), 2))
    np.testing.assert_array_equal(found[[3]].layers["whole"].toarray(), [[1] * 5])


def test_what_is_not_whole_is_not_there(
    strong: cv.CradleVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    path = tmp_path / "folder" / "predicted.h5ad"
    original, calls = GammaPoisson.sample, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(GammaPoisson, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        strong.predict("A", 20, output=path)
    assert list(path.parent.iterdir()) == []


def test_files_of_other_kinds_are_refused_before_any_work(
    strong: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("decoded")

    monkeypatch.setattr(twins_module, "make_minibatch", never)
    with pytest.raises(DataError, match=r"clean.csv ends in '.csv'; cells are written as .h5ad"):
        strong.clean(simulated, output=tmp_path / "clean.csv")
    with pytest.raises(DataError, match="cannot write into"):
        strong.clean(simulated, output="/proc/x/clean.h5ad")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=1), st.integers(4, 20))
def test_rounding_keeps_the_bits_that_it_says(values: list[float], bits: int) -> None:
    exact = np.array(values, dtype=np.float32)
    found = rounded(exact, bits)
    assert np.abs(found / exact - 1).max() <= 2.0 ** -(bits + 1)
    assert (found.view(np.uint32) % (1 << (23 - bits)) == 0).all()
    np.testing.assert_array_equal(rounded(np.zeros(2, dtype=np.float32), bits), 0)
