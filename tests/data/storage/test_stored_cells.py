"""Cells in a file, a zarr store or a folder of several are the cells of the AnnData that was written."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.experiment import DataFields, read_experiment
from cradlevae.data.qc import doublets
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.data.storage import stored_matrix as stored
from cradlevae.data.storage.annotated_copy import check_copy, write_annotated
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2")

FIELDS = DataFields(artifact_key="failed")

KINDS = ("file", "store", "folder")


def write(adata: ad.AnnData, kind: str, folder: Path) -> Path:
    """Write an AnnData; a folder gets two files and a store, whose genes are in another order."""
    if kind == "file":
        adata.write_h5ad(folder / "cells.h5ad")
        return folder / "cells.h5ad"
    if kind == "store":
        adata.write_zarr(folder / "cells.zarr")
        return folder / "cells.zarr"
    parts = folder / "cells"
    parts.mkdir()
    adata[:100].copy().write_h5ad(parts / "a.h5ad")
    adata[100:130, ::-1].copy().write_h5ad(parts / "b.h5ad")
    adata[130:].copy().write_zarr(parts / "c.zarr")
    (parts / "notes.txt").write_text("not cells")
    (parts / "._a.h5ad").write_text("what another system says of a.h5ad")
    return parts


@pytest.fixture(scope="module")
def whole(simulated: ad.AnnData) -> ad.AnnData:
    adata = simulated.copy()
    adata.obsm["guides"] = pd.DataFrame({"control": 1, "A": np.arange(400) % 2}, index=adata.obs_names)
    del adata.obs["artifact"]
    adata.obs["failed"] = adata.obs["true_artifact"]
    adata.uns["other"] = {"text": "x", "numbers": np.array([1.0, np.nan])}
    return adata


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest, whole: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(whole, request.param, tmp_path_factory.mktemp("cells"))


def test_it_looks_like_the_anndata(path: Path, whole: ad.AnnData) -> None:
    cells = cv.open_cells(path)
    assert cells.shape == whole.shape == (cells.n_obs, cells.n_vars)
    assert list(cells.obs_names) == list(whole.obs_names)
    assert list(cells.var_names) == list(whole.var_names)
    assert isinstance(cells.X, StoredMatrix)
    assert isinstance(cells.layers["clean"], StoredMatrix)
    assert cells.uns["other"]["text"] == "x"
    assert set(cells.uns) == set(whole.uns)
    assert isinstance(cells.obs["perturbation"].dtype, pd.CategoricalDtype)
    pd.testing.assert_frame_equal(cells.obsm["guides"], whole.obsm["guides"])
    assert str(path) in repr(cells)


def test_some_cells_in_memory(path: Path, whole: ad.AnnData) -> None:
    cells = cv.open_cells(path)
    for chosen in (slice(5, 200, 7), np.array([399, 3, 120]), whole.obs_names[[110, 5]], np.arange(400) % 3 == 0):
        some, expected = cells[chosen], whole[chosen]
        assert list(some.obs_names) == list(expected.obs_names)
        np.testing.assert_array_equal(some.X.toarray(), expected.X.toarray())
        np.testing.assert_array_equal(some.layers["clean"].toarray(), expected.layers["clean"].toarray())
        np.testing.assert_array_equal(some.obsm["true_z_basal"], expected.obsm["true_z_basal"])
    np.testing.assert_array_equal(cells.to_memory().X.toarray(), whole.X.toarray())
    with pytest.raises(DataError, match="no cell 'nobody'"):
        cells[["nobody"]]


def test_an_experiment_of_it_is_that_of_the_anndata(path: Path, whole: ad.AnnData) -> None:
    cells = cv.open_cells(path)
    genes = list(whole.var_names[::-2])
    for options in ({}, {"genes": genes, "perturbations": tuple("ABCDE")}):
        found, expected = (read_experiment(adata, FIELDS, **options) for adata in (cells, whole))
        assert isinstance(found.counts, StoredMatrix)
        np.testing.assert_array_equal(found.counts[:].toarray(), expected.counts.toarray())
        np.testing.assert_array_equal(found.library_size, expected.library_size)
        np.testing.assert_array_equal(found.condition, expected.condition)
        np.testing.assert_array_equal(found.artifact, expected.artifact)
    assert cells.memory() > 8 * whole.X.nnz * 0.9
    cells.load()
    assert cells.memory() == 0
    assert sp.issparse(read_experiment(cells, FIELDS).counts)


def test_split_and_quality_control_agree_with_those_in_memory(path: Path, whole: ad.AnnData) -> None:
    cells, memory = cv.open_cells(path), whole.copy()
    assert cv.split(cells, "combinations").hash == cv.split(memory, "combinations").hash
    report = cv.annotate_qc(cells, max_fail_share=1)
    pd.testing.assert_frame_equal(report, cv.annotate_qc(memory, max_fail_share=1))
    pd.testing.assert_frame_equal(cells.obs, memory.obs)


def test_annotation_is_written_into_a_copy(path: Path, whole: ad.AnnData, tmp_path: Path) -> None:
    cells = cv.open_cells(path)
    cv.annotate_qc(cells, criteria=["umi", "genes"])
    output = tmp_path / "new" / path.name
    check_copy(path, output, [path], overwrite=False)
    write_annotated(cells, output, [QC_KEY])
    again = cv.open_cells(output)
    pd.testing.assert_frame_equal(again.obs, cells.obs)
    assert again.uns[QC_KEY]["n_failing"] == cells.uns[QC_KEY]["n_failing"]
    np.testing.assert_array_equal(again.X[:].toarray(), whole.X.toarray())
    assert [entry.name for entry in output.parent.iterdir()] == [path.name]
    if path.suffix == ".zarr":
        assert "qc_umi" in ad.read_zarr(output).obs
    assert QC_KEY not in cv.open_cells(path).uns
    with pytest.raises(DataError, match="no name for one"):
        check_copy(path, output.with_suffix("" if path.is_file() else ".h5ad"), [path], overwrite=False)


def test_a_store_of_the_newer_format_is_annotated(whole: ad.AnnData, tmp_path: Path) -> None:
    with ad.settings.override(zarr_write_format=3), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole.write_zarr(tmp_path / "cells.zarr")
    cells = cv.open_cells(tmp_path / "cells.zarr")
    np.testing.assert_array_equal(cells.X[3:9].toarray(), whole.X[3:9].toarray())
    cv.annotate_qc(cells, criteria=["umi"])
    write_annotated(cells, tmp_path / "new.zarr", [QC_KEY])
    assert "qc_umi" in ad.read_zarr(tmp_path / "new.zarr").obs


def test_files_that_do_not_fit_together_are_refused_by_name(whole: ad.AnnData, tmp_path: Path) -> None:
    first = whole[:50].copy()
    first.write_h5ad(tmp_path / "a.h5ad")
    whole[49:90].copy().write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(
        DataError, match=r"'cell49' occurs more than once in .*a\.h5ad, .*b\.h5ad; make the names unique"
    ):
        cv.open_cells(tmp_path)
    whole[50:90, :-1].copy().write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(DataError, match=r"b\.h5ad has other genes \(59\) than .*a\.h5ad \(60\)"):
        cv.open_cells(tmp_path)
    by_genes = whole[50:90].copy()
    by_genes.X = by_genes.X.tocsc()
    by_genes.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(DataError, match=r"X of .*b\.h5ad is stored by genes"):
        cv.open_cells(tmp_path)


def test_counts_by_genes_are_counted_and_read_whole(whole: ad.AnnData, tmp_path: Path) -> None:
    adata = whole.copy()
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    cells = cv.open_cells(tmp_path / "cells.h5ad")
    assert cells.by_genes()
    assert not cells.by_genes("clean")
    assert cells.memory() == 8 * whole.X.nnz
    cells.load()
    assert not cells.by_genes()
    assert cells.memory() == 0
    np.testing.assert_array_equal(cells.X.toarray(), whole.X.toarray())


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        cv.open_cells(tmp_path / "none.h5ad")
    with pytest.raises(DataError, match="folder without"):
        cv.open_cells(tmp_path)
    (tmp_path / "broken.h5ad").write_bytes(b"not hdf5 at all")
    with pytest.raises(DataError, match="cannot be read as an AnnData file"):
        cv.open_cells(tmp_path / "broken.h5ad")


def test_what_differs_between_files_is_left_out_and_missing_columns_show(whole: ad.AnnData, tmp_path: Path) -> None:
    one, two = whole[:50].copy(), whole[50:90].copy()
    two.uns["other"]["text"] = "y"
    del two.layers["clean"], two.obs["failed"]
    one.write_h5ad(tmp_path / "a.h5ad")
    two.write_h5ad(tmp_path / "b.h5ad")
    cells = cv.open_cells(tmp_path)
    assert "other" not in cells.uns
    assert "truth" in cells.uns
    assert "clean" not in cells.layers
    with pytest.raises(DataError, match=r"obs\['failed'\] must be boolean or 0/1, but holds nan"):
        read_experiment(cells, FIELDS)


def test_a_model_trained_on_disk_is_that_trained_in_memory(
    path: Path, whole: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    cells = cv.open_cells(path)
    split = cv.split(whole, "cells")
    models = [cv.CradleVAE(adata, artifact_key="failed", split=split, **tiny_options) for adata in (whole, cells)]
    for model in models:
        model.train(2, **quick)
    one, two = (model.history.drop(columns="seconds") for model in models)
    pd.testing.assert_frame_equal(one, two)  # one pool holds all cells, so even their order is the same
    np.testing.assert_array_equal(models[0].trained.fingerprints, models[1].trained.fingerprints)
    one, two = (models[0].clean(adata, "failed", seed=1) for adata in (whole, cells))
    np.testing.assert_allclose(one.layers["expected"], two.layers["expected"], rtol=1e-5)
    np.testing.assert_array_equal(one.obs_names, two.obs_names)


@pytest.mark.slow
def test_scores_on_disk_are_those_in_memory(whole: ad.AnnData, model: cv.CradleVAE, tmp_path: Path) -> None:
    adata = whole.copy()
    adata.obs["artifact"] = adata.obs["failed"]
    cells = cv.open_cells(write(adata, "folder", tmp_path))
    one, two = (cv.evaluate(model, data, n_cells=20) for data in (adata, cells))
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-6)


def test_doublets_on_disk_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doublets, "MAX_CELLS", 350)  # the others are scored block by block
    monkeypatch.setattr(stored, "BLOCK_CELLS", 30)
    memory = cv.simulate(n_cells=500, n_genes=300, n_perturbations=4, n_combinations=2, seed=0)
    dense = memory.X.toarray()
    dense[::2] = dense[::2][:, np.random.default_rng(0).permutation(300)]  # two types of cells: doublets can be told
    memory.X = sp.csr_matrix(dense)
    cells = cv.open_cells(write(memory, "folder", tmp_path))
    cv.annotate_qc(cells, max_fail_share=1)
    cv.annotate_qc(memory, max_fail_share=1)
    assert memory.obs["qc_doublet_score"].notna().sum() > 400
    pd.testing.assert_frame_equal(cells.obs, memory.obs)


@pytest.mark.parametrize("length", [1, 399, 401])
@pytest.mark.parametrize("form", [np.array, list, pd.Series, lambda mask: pd.Series(mask, dtype="boolean")])
def test_a_mask_must_have_a_value_for_each_cell(path: Path, length: int, form: Any) -> None:
    cells = cv.open_cells(path)
    with pytest.raises(DataError, match=f"a mask of {length} values does not fit 400 cells"):
        cells[form([True] * length)]
    assert cells[form([True] * 3 + [False] * 397)].n_obs == 3


def test_cells_are_chosen_by_what_fits(path: Path) -> None:
    cells = cv.open_cells(path)
    name = cells.obs_names[5]
    assert list(cells[name].obs_names) == list(cells[5].obs_names) == list(cells[[-395]].obs_names) == [name]
    for wrong, message in (
        ([400], "no cell at position 400"),
        ([-401], "no cell at position -401"),
        ((slice(None), [0]), "indexed by cells alone"),
        (np.ones((400, 2), dtype=bool), "not by 2 dimensions"),
        (["nobody"], "no cell 'nobody'"),
    ):
        with pytest.raises(DataError, match=message):
            cells[wrong]
