"""Tables of a user, whatever types their columns have, go into a file or are left out with a warning."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.data.storage.writable import writable_table

N = 4
KEPT: dict[str, Any] = {
    "numbers": np.arange(N),
    "truths": [True, False, True, False],
    "texts": list("abcd"),
    "categories": pd.Categorical(list("abab")),
    "nullable": pd.array([1, None, 3, 4], dtype="Int64"),
    "nullable_truths": pd.array([True, None, False, True], dtype="boolean"),
    "nullable_floats": pd.array([1.5, None, 3.0, 4.0], dtype="Float64"),
    "strings": pd.array(["a", None, "c", "d"], dtype="string"),
    "sparse": pd.arrays.SparseArray([0, 0, 1, 0]),
    "missing_texts": ["a", None, "c", "d"],
    "string_categories": pd.Categorical(pd.array(list("abab"), dtype="string")),
}
AS_TEXT: dict[str, Any] = {
    "dates": pd.date_range("2024-01-01", periods=N),
    "zoned": pd.date_range("2024-01-01", periods=N, tz="UTC"),
    "durations": pd.to_timedelta(np.arange(N), unit="h"),
    "intervals": pd.cut(np.arange(N), 2),
    "periods": pd.period_range("2024-01", periods=N, freq="M"),
    "mixed_categories": pd.Categorical([1, "a", 2.5, 1]),
    "mixed": [1, "a", None, 2.5],
    "lists": [[1], [2], [3], [4]],
}


def written(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table after it has been in a file."""
    ad.AnnData(np.zeros((len(table), 1), dtype=np.float32), obs=table).write_h5ad(path)
    return ad.read_h5ad(path).obs


@pytest.mark.parametrize("name", KEPT)
def test_columns_of_these_types_keep_their_values(name: str, tmp_path: Path) -> None:
    table = pd.DataFrame({name: KEPT[name]}, index=[f"cell{i}" for i in range(N)])
    back = written(writable_table(table, "obs"), tmp_path / "x.h5ad")
    assert list(back.index) == list(table.index)
    before, after = table[name].astype(object), back[name].astype(object)
    np.testing.assert_array_equal(after.isna(), before.isna())
    assert list(after.dropna()) == list(before.dropna())


@pytest.mark.parametrize("name", AS_TEXT)
def test_columns_of_these_types_become_texts_and_a_warning_names_them(name: str, tmp_path: Path) -> None:
    table = pd.DataFrame({name: AS_TEXT[name]}, index=[f"cell{i}" for i in range(N)])
    with pytest.warns(UserWarning, match=f"columns of obs are written as text: '{name}'"):
        plain = writable_table(table, "obs")
    back = written(plain, tmp_path / "x.h5ad")
    assert list(back[name].dropna().astype(str)) == [str(value) for value in table[name].dropna()]
    np.testing.assert_array_equal(back[name].isna(), table[name].isna())


def test_arrow_columns_keep_their_values(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    columns = {"int64": [1, None, 3, 4], "string": ["a", None, "c", "d"], "double": [1.5, 2.0, None, 4.0]}
    table = pd.DataFrame({name: pd.array(values, dtype=f"{name}[pyarrow]") for name, values in columns.items()})
    table.index = pd.Index([f"cell{i}" for i in range(N)], dtype="string")
    back = written(writable_table(table, "obs"), tmp_path / "x.h5ad")
    for name, values in columns.items():
        assert [None if pd.isna(value) else value for value in back[name]] == values


def test_what_has_no_place_is_left_out_and_named(tmp_path: Path) -> None:
    table = pd.DataFrame(np.arange(12).reshape(4, 3), columns=["_index", "twice", "twice"])
    table.index = pd.Index(list("abcd"), name="twice")
    with (
        pytest.warns(UserWarning, match="left out, because they cannot be written: '_index', 'twice'"),
        pytest.warns(UserWarning, match="the index of var is called 'twice' as a column of other values is"),
    ):
        plain = writable_table(table, "var")
    back = written(plain, tmp_path / "x.h5ad")
    assert list(back["twice"]) == [1, 4, 7, 10]
    assert list(back.index) == list("abcd")


@pytest.mark.parametrize("name", ["dates", "intervals", "mixed_categories", "strings"])
def test_a_model_of_any_annotation_of_genes_is_saved(
    name: str, simulated: ad.AnnData, quick: dict[str, Any], tmp_path: Path
) -> None:
    adata = simulated.copy()
    adata.var[name] = pd.Series({**KEPT, **AS_TEXT}[name]).iloc[np.arange(adata.n_vars) % N].array
    adata.var.index.name = name
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = cv.CradleVAE(adata, n_latent=4, width=8, basal_width=8)
    assert any(f"{name!r}" in str(warning.message) for warning in caught)  # before the training, not after it
    model.train(1, **quick)
    model.save(tmp_path / "run")
    assert list(cv.load(tmp_path / "run").trained.genes) == list(adata.var_names)


def test_columns_of_cells_pass_through_a_file(strong: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path) -> None:
    adata = simulated[:8].copy()
    adata.obs["when"] = pd.date_range("2024-01-01", periods=8)
    adata.obs["plate"] = pd.array(["p1", None] * 4, dtype="string")
    with pytest.warns(UserWarning, match="columns of obs are written as text: 'when'"):
        strong.clean(adata, output=tmp_path / "clean.h5ad")
    back = ad.read_h5ad(tmp_path / "clean.h5ad").obs
    assert str(back["when"].iloc[0]).startswith("2024-01-01")
    assert list(back["plate"].dropna()) == ["p1"] * 4
