"""Files of one folder whose annotation differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.storage.joining import stacked_tables


@pytest.fixture
def two(simulated: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
    return simulated[:30].copy(), simulated[30:50].copy()


def written(folder: Path, *files: ad.AnnData) -> Path:
    for name, adata in zip("abc", files, strict=False):
        adata.write_h5ad(folder / f"{name}.h5ad")
    return folder


@pytest.mark.parametrize(
    ("one", "other", "joined"),
    [
        (["x", "y"], [np.nan, np.nan], ["x", "y", np.nan, np.nan]),
        ([np.nan, np.nan], [1, 2], [np.nan, np.nan, 1, 2]),
        ([np.nan, np.nan], [np.nan, np.nan], [np.nan] * 4),
        ([1, np.nan], ["x", np.nan], ["1", np.nan, "x", np.nan]),
        ([1, 2], [1.5, 2.0], [1.0, 2.0, 1.5, 2.0]),
        ([True, False], [3, 4], ["True", "False", "3", "4"]),
    ],
)
def test_categories_of_another_kind(one: list[Any], other: list[Any], joined: list[Any]) -> None:
    for second in (pd.Categorical(other), pd.Categorical(other, ordered=True)):
        tables = [pd.DataFrame({"t": pd.Categorical(one)}), pd.DataFrame({"t": second})]
        found = stacked_tables(tables)["t"]
        assert isinstance(found.dtype, pd.CategoricalDtype)
        assert [None if pd.isna(value) else value for value in found] == [
            None if pd.isna(value) else value for value in joined
        ]
        assert list(tables[0]["t"].dropna()) == [value for value in one if not pd.isna(value)]


def test_a_folder_with_a_column_that_one_file_lacks_values_of(
    two: tuple[ad.AnnData, ad.AnnData], tmp_path: Path
) -> None:
    for adata, value in zip(two, ("d1", np.nan), strict=True):
        adata.obs["donor"] = pd.Categorical([value] * adata.n_obs)
    donor = cv.open_cells(written(tmp_path, *two)).obs["donor"]
    assert donor.value_counts(dropna=False).to_list() == [30, 20]
    assert list(donor.cat.categories) == ["d1"]


def test_arrays_by_cell_of_another_form_are_left_out(two: tuple[ad.AnnData, ad.AnnData], tmp_path: Path) -> None:
    for adata, width, wrap in zip(two, (5, 4), (np.asarray, sp.csr_matrix), strict=True):
        adata.obsm["X_pca"] = np.ones((adata.n_obs, width))
        adata.obsm["kind"] = wrap(np.ones((adata.n_obs, 3)))
        adata.obsm["same"] = sp.csr_matrix(np.ones((adata.n_obs, 3)))
        columns = [f"c{number}" for number in range(width)]
        adata.obsm["table"] = pd.DataFrame(np.ones((adata.n_obs, width)), index=adata.obs_names, columns=columns)
    with (
        pytest.warns(UserWarning, match=r"obsm\['X_pca'\] is left out: in .*b\.h5ad it is an array of width 4, in"),
        pytest.warns(UserWarning, match=r"obsm\['kind'\] is left out: in .* it is a sparse matrix of width 3, in"),
    ):
        cells = cv.open_cells(written(tmp_path, *two))
    assert set(cells.obsm) == {"same", "table", *two[0].obsm} - {"X_pca", "kind"}
    assert cells[25:35].obsm["same"].shape == (10, 3)
    assert cells.to_memory().obsm["table"]["c4"].isna().sum() == 20
