"""Files of which a part cannot be read, and files of old versions."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv


@pytest.fixture
def file(simulated: ad.AnnData, tmp_path: Path) -> Path:
    path = tmp_path / "one.h5ad"
    simulated[:40].copy().write_h5ad(path)
    return path


def plant(path: Path, place: str, shape: tuple[int, ...] = (1,)) -> None:
    """Put an element of an unknown encoding into a file."""
    with h5py.File(path, "r+") as file:
        if place in file:
            del file[place]
        element = file.create_dataset(place, data=np.zeros(shape))
        element.attrs.update({"encoding-type": "alien", "encoding-version": "9.9.0"})


@pytest.mark.parametrize(
    ("place", "shape", "named"),
    [
        ("uns/strange", (1,), r"uns\['strange'\]"),
        ("uns/truth/strange", (1,), r"truth\['strange'\]"),
        ("obsm/strange", (40, 2), r"obsm\['strange'\]"),
        ("layers/strange", (40, 60), r"layers\['strange'\]"),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_what_cannot_be_read_is_left_out_with_a_warning(
    file: Path, place: str, shape: tuple[int, ...], named: str, folder: bool, simulated: ad.AnnData
) -> None:
    plant(file, place, shape)
    path = file
    if folder:
        path = file.parent
        simulated[40:60].copy().write_h5ad(path / "two.h5ad")
        plant(path / "two.h5ad", place, (20, *shape[1:]) if len(shape) > 1 else shape)
    with pytest.warns(UserWarning, match=f"^{named} is left out: .*alien"):
        cells = cv.open_cells(path)
    assert cells[:3].n_obs == 3
    cv.split(cells, "cells")
    assert "strange" not in {*cells.uns, *cells.obsm, *cells.layers, *cells.uns.get("truth", {})}


def test_what_is_not_read_does_no_harm(file: Path) -> None:
    for place, shape in (("varm/strange", (60, 2)), ("obsp/strange", (40, 40)), ("varp/strange", (60, 60))):
        plant(file, place, shape)
    assert cv.open_cells(file)[:2].n_obs == 2


def test_a_column_is_left_out_and_the_others_are_read(file: Path) -> None:
    plant(file, "obs/strange", (40,))
    with h5py.File(file, "r+") as stored:
        order = [*stored["obs"].attrs["column-order"], "strange"]
        stored["obs"].attrs["column-order"] = np.array(order, dtype=object)
    with pytest.warns(UserWarning, match=r"obs\['strange'\] is left out"):
        cells = cv.open_cells(file)
    assert "strange" not in cells.obs
    assert "perturbation" in cells.obs


def test_what_is_needed_and_cannot_be_read_is_an_error(file: Path) -> None:
    plant(file, "X", (40, 60))
    with pytest.warns(UserWarning, match="X is left out"):
        cells = cv.open_cells(file)
    with pytest.raises(cv.DataError, match="the AnnData has no X"):
        cv.CradleVAE(cells)


@pytest.mark.parametrize(("place", "shape"), [("X", (40, 60)), ("var", (60,)), ("obs", (40,))])
def test_without_counts_or_names_there_is_nothing_to_open(file: Path, place: str, shape: tuple[int, ...]) -> None:
    plant(file, place, shape)
    with h5py.File(file, "r+") as stored:
        del stored["layers/clean"]
    with pytest.raises(cv.DataError, match=f"{place} of .* cannot be read .*alien"):
        cv.open_cells(file)


def old_file(adata: ad.AnnData, path: Path) -> None:
    """Write cells as AnnData 0.6 did: tables as records, categories in uns, sparse matrices with other attributes."""
    codes, names = pd.factorize(adata.obs["perturbation"].astype(str))
    obs = np.zeros(adata.n_obs, dtype=[("index", "S10"), ("perturbation", "i1"), ("artifact", "?")])
    obs["index"], obs["perturbation"] = adata.obs_names.to_numpy().astype("S10"), codes
    obs["artifact"] = adata.obs["artifact"].to_numpy()
    var = np.zeros(adata.n_vars, dtype=[("index", "S10")])
    var["index"] = adata.var_names.to_numpy().astype("S10")
    with h5py.File(path, "w") as file:
        file["obs"], file["var"] = obs, var
        counts = file.create_group("X")
        counts.attrs.update({"h5sparse_format": "csr", "h5sparse_shape": np.array(adata.shape)})
        for name in ("data", "indices", "indptr"):
            counts[name] = getattr(adata.X, name)
        file.create_group("uns")["perturbation_categories"] = names.to_numpy().astype("S")


def test_a_file_of_anndata_0_6_is_read(simulated: ad.AnnData, tmp_path: Path) -> None:
    old_file(simulated, tmp_path / "old.h5ad")
    with pytest.warns(UserWarning, match=r"written by AnnData 0\.6 or earlier, so it is read into memory"):
        cells = cv.open_cells(tmp_path / "old.h5ad")
    assert (cells[:].X != simulated.X).nnz == 0
    assert list(cells.obs["perturbation"]) == list(simulated.obs["perturbation"])
    model = cv.CradleVAE(cells, n_latent=4, width=8, basal_width=8)
    assert model.data is not None
    assert model.data.n_cells == simulated.n_obs


def test_old_files_in_a_folder_and_damaged_ones_are_refused_with_the_mend(
    simulated: ad.AnnData, tmp_path: Path
) -> None:
    old_file(simulated, tmp_path / "old.h5ad")
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(tmp_path / "old.h5ad", broken / "x.h5ad")
    with h5py.File(broken / "x.h5ad", "r+") as file:
        del file["X/indptr"]
    with pytest.raises(cv.DataError, match="cannot be read as an AnnData file"):
        cv.open_cells(broken / "x.h5ad")
    simulated[:5].copy().write_h5ad(tmp_path / "new.h5ad")
    (tmp_path / "broken").rename(tmp_path.parent / f"{tmp_path.name}-broken")
    with pytest.raises(cv.DataError, match=r"old\.h5ad was written by AnnData 0\.6 .*read it and write it again"):
        cv.open_cells(tmp_path)
