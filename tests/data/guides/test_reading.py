"""Counts of genes and guide RNAs come out of files in the published layouts as they were written."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.experiment import read_experiment
from cradlevae.data.storage.input_files import input_files
from cradlevae.errors import DataError

FORMS = ("h5", "folder", "h5mu")


def same(one: Any, other: Any) -> bool:
    return one.shape == other.shape and abs(one - other).nnz == 0


@pytest.mark.parametrize("form", FORMS)
def test_counts_and_names(form: str, guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(guide_screen, form, tmp_path)
    adata = cv.read_10x(path, guide_targets=guide_screen.targets)
    assert same(adata.X, guide_screen.genes.X)
    assert adata.X.dtype == np.float32
    assert same(adata.obsm["guides"], guide_screen.guides)
    assert sp.issparse(adata.obsm["guides"])
    assert list(adata.var_names) == list(guide_screen.genes.var_names)
    assert list(adata.obs_names) == [f"{name}-1" for name in guide_screen.genes.obs_names]
    assert adata.uns["guides"]["target"].to_dict() == guide_screen.targets
    if form != "h5mu":
        assert adata.var["gene_ids"].iloc[1] == "ENSG00000000001"
        assert adata.uns["guides"].loc["NT_1", "id"] == "id_NT_1"
    assert path.absolute() in input_files(adata)


@pytest.mark.parametrize("form", FORMS)
def test_open_cells_gives_the_same(form: str, guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(guide_screen, form, tmp_path)
    cells = cv.open_cells(path, guide_targets=guide_screen.targets)
    part = cells[10:30]
    assert same(part.X, guide_screen.genes.X[10:30])
    assert same(part.obsm["guides"], guide_screen.guides[10:30])
    assert cells.memory() == 0
    cells.load()
    with pytest.raises(DataError, match=r"is no 10x or .h5mu file"):
        cv.open_cells(_as_h5ad(cells.to_memory(), tmp_path), guide_targets={})


def _as_h5ad(adata: ad.AnnData, folder: Path) -> Path:
    adata.write_h5ad(folder / "whole.h5ad")
    return folder / "whole.h5ad"


def test_what_is_read_can_be_written_and_read_again(
    guide_screen: Any, written: Callable[..., Path], tmp_path: Path
) -> None:
    adata = cv.read_10x(written(guide_screen, "h5", tmp_path), guide_targets=guide_screen.targets)
    again = cv.open_cells(_as_h5ad(adata, tmp_path)).to_memory()
    assert same(again.obsm["guides"], guide_screen.guides)
    pd.testing.assert_frame_equal(again.uns["guides"].astype(str), adata.uns["guides"].astype(str))
    again.obs["artifact"] = False
    with pytest.warns(UserWarning, match="cells without a guide RNA in obsm"):
        data = read_experiment(again, cv.DataFields(guides_key="guides", guide_min_count=12))
    assert data.perturbations == tuple("ABCDE")
    true = guide_screen.labels.to_numpy()[again.obs_names.isin(data.cells)]
    assert (np.array(data.conditions)[data.condition] == true).sum() > 0.9 * adata.n_obs


def test_features_of_other_types_are_left_out_and_counted(
    guide_screen: Any, written: Callable[..., Path], tmp_path: Path
) -> None:
    kinds = ["Gene Expression"] * 50 + ["Antibody Capture"] * 10 + ["CRISPR Guide Capture"] * 13
    with pytest.warns(
        UserWarning, match="other types than genes and guide RNAs are left out: 10 of 'Antibody Capture'"
    ):
        adata = cv.read_10x(written(guide_screen, "h5", tmp_path, kinds=kinds), guide_targets=guide_screen.targets)
    assert adata.shape == (400, 50)


@pytest.mark.parametrize("form", ["h5", "folder"])
def test_without_types_all_features_are_genes(
    form: str, guide_screen: Any, written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written(guide_screen, form, tmp_path, kinds=None)
    adata = cv.read_10x(path)
    assert adata.shape == (400, 73)
    assert "guides" not in adata.obsm
    with pytest.raises(DataError, match="no counts of guide RNAs 'guides' in obsm"):
        cv.assign_guides(adata)
    with pytest.raises(DataError, match=r"guide_targets is given, but .* has no features of type"):
        cv.read_10x(path, guide_targets={"A_1": "A"})


def test_cell_ranger_2(tmp_path: Path) -> None:
    matrix = sp.random(5, 4, 0.5, format="csc", random_state=0, data_rvs=lambda n: np.arange(1, n + 1))
    with h5py.File(tmp_path / "old.h5", "w") as file:
        group = file.create_group("GRCh38")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"], group["barcodes"] = [5, 4], np.array(["A-1", "C-1", "G-1", "T-1"], dtype="S")
        group["genes"] = np.array([f"ENSG{index}" for index in range(5)], dtype="S")
        group["gene_names"] = np.array(["X", "Y", "Y", "", "Z"], dtype="S")
    adata = cv.read_10x(tmp_path / "old.h5")
    assert list(adata.var_names) == ["X", "Y", "Y-1", "ENSG3", "Z"]
    np.testing.assert_array_equal(adata.X.toarray(), matrix.T.toarray())
    with h5py.File(tmp_path / "old.h5", "a") as file:
        file.copy("GRCh38", "mm10")
    with pytest.raises(DataError, match=r"several genomes \(GRCh38, mm10\)"):
        cv.read_10x(tmp_path / "old.h5")


def test_a_plain_folder_of_cell_ranger_2(tmp_path: Path) -> None:
    (tmp_path / "genes.tsv").write_text("ENSG1\tNA\nENSG2\tB\n")
    (tmp_path / "barcodes.tsv").write_text("AA-1\nAC-1\nAG-1\n")
    (tmp_path / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n2 3 2\n1 1 5\n2 3 7\n")
    adata = cv.read_10x(tmp_path)
    assert list(adata.var_names) == ["NA", "B"]
    np.testing.assert_array_equal(adata.X.toarray(), [[5, 0], [0, 0], [0, 7]])
    (tmp_path / ".hidden.h5ad").write_text("")
    (tmp_path / "other.h5ad").write_text("")
    assert cv.open_cells(tmp_path).shape == (3, 2)


def test_the_feature_reference_that_a_file_holds_names_the_targets(
    guide_screen: Any, written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written(guide_screen, "h5", tmp_path)
    with h5py.File(path, "a") as file:
        targets = [""] * 60 + ["Non-Targeting" if name.startswith("NT") else "E" for name in guide_screen.names]
        file["matrix/features/target_gene_name"] = np.array(targets, dtype="S")
    assert set(cv.read_10x(path).uns["guides"]["target"]) == {"E", "control"}


# -- bad input -------------------------------------------------------------------------------------------------


def cut(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_hdf5(share: float, guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(guide_screen, "h5", tmp_path)
    cut(path, share)
    for read in (cv.read_10x, cv.open_cells):
        with pytest.raises(DataError, match=r"screen.h5 cannot be read as a 10x file .* may be truncated"):
            read(path)


@pytest.mark.parametrize("name", ["matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_parts(
    name: str, share: float, guide_screen: Any, written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written(guide_screen, "folder", tmp_path)
    cut(path / name, share)
    with pytest.raises(DataError, match=name.split(".")[0]):
        cv.read_10x(path)


def test_a_matrix_with_fewer_lines_than_it_says(
    guide_screen: Any, written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written(guide_screen, "folder", tmp_path)
    lines = gzip.decompress((path / "matrix.mtx.gz").read_bytes()).splitlines(keepends=True)
    (path / "matrix.mtx.gz").write_bytes(gzip.compress(b"".join(lines[:-100])))
    with pytest.raises(DataError, match=r"matrix.mtx.gz cannot be read as a 10x file"):
        cv.read_10x(path)


@pytest.mark.parametrize("name", ["features", "barcodes"])
def test_absent_parts_of_a_folder(name: str, guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(guide_screen, "folder", tmp_path)
    (path / f"{name}.tsv.gz").unlink()
    with pytest.raises(DataError, match=rf"has no {name}.tsv \(.gz or not\)"):
        cv.read_10x(path)


@pytest.mark.parametrize("name", ["barcodes", "indptr", "shape"])
def test_absent_parts_of_a_file(name: str, guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(guide_screen, "h5", tmp_path)
    with h5py.File(path, "a") as file:
        del file[f"matrix/{name}"]
    with pytest.raises(DataError, match=f"has no matrix/{name}"):
        cv.read_10x(path)


@pytest.mark.parametrize("form", ["h5", "folder"])
def test_parts_that_do_not_fit(form: str, guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    barcodes = [f"{name}-1" for name in guide_screen.genes.obs_names]
    with pytest.raises(DataError, match="400 barcodes, but 73 features and 399 barcodes are named"):
        cv.read_10x(written(guide_screen, form, tmp_path, barcodes=barcodes[:-1]))


@pytest.mark.parametrize("form", ["h5", "folder"])
def test_barcodes_that_occur_twice(form: str, guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    barcodes = ["A-1", "A-1", *(f"{name}-1" for name in guide_screen.genes.obs_names[2:])]
    with pytest.raises(DataError, match="barcode 'A-1' occurs twice"):
        cv.read_10x(written(guide_screen, form, tmp_path, barcodes=barcodes))


def test_indices_beyond_the_matrix(guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(guide_screen, "h5", tmp_path)
    with h5py.File(path, "a") as file:
        file["matrix/indices"][5] = 9999
    with pytest.raises(DataError, match="cannot be read as a 10x file"):
        cv.read_10x(path)


def test_a_guide_rna_without_target_is_named(guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(guide_screen, "h5", tmp_path)
    targets = {name: target for name, target in guide_screen.targets.items() if name != "C_2"}
    with pytest.raises(DataError, match="guide_targets has no target for 1 of 13 guide RNAs: 'C_2'"):
        cv.read_10x(path, guide_targets=targets)


def test_no_gene_expression(guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(guide_screen, "h5", tmp_path, kinds=["CRISPR Guide Capture"] * 73)
    with pytest.raises(
        DataError, match=r"no features of type 'Gene Expression' \(types there: 'CRISPR Guide Capture'\)"
    ):
        cv.read_10x(path)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x")
    for name, message in (("absent.h5", "no file"), ("text.txt", "neither a 10x"), ("", "neither a 10x")):
        with pytest.raises(DataError, match=message):
            cv.read_10x(tmp_path / name)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["values"] = [1, 2]
    with pytest.raises(DataError, match="is no 10x file: it has no group 'matrix'"):
        cv.read_10x(tmp_path / "other.h5")
    with pytest.raises(DataError, match=r"without a 10x matrix.mtx"):
        cv.open_cells(tmp_path)


# -- MuData ----------------------------------------------------------------------------------------------------


def write_mudata(path: Path, modalities: dict[str, ad.AnnData]) -> Path:
    """The groups that MuData writes, without MuData."""
    with h5py.File(path, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.attrs["encoding-type"] = "MuData"
        for name, adata in modalities.items():
            ad.io.write_elem(file, f"mod/{name}", adata)
    return path


def parts(screen: Any) -> tuple[ad.AnnData, ad.AnnData]:
    genes = screen.genes.copy()
    return genes, ad.AnnData(
        screen.guides.astype(float), obs=genes.obs[[]].copy(), var=pd.DataFrame(index=screen.names)
    )


def test_modalities_are_known_by_name_and_aligned_by_cell(guide_screen: Any, tmp_path: Path) -> None:
    genes, guides = parts(guide_screen)
    genes.layers["counts"] = genes.X.copy()
    order = np.random.default_rng(0).permutation(guides.n_obs)[:390]
    path = write_mudata(
        tmp_path / "screen.h5mu", {"rna": genes, "crispr": guides[order].copy(), "prot": guides[:, :4].copy()}
    )
    absent = pytest.warns(UserWarning, match="10 of 400 cells are not in the modality 'crispr'")
    with absent, pytest.warns(UserWarning, match="left out: 4 of 'prot'"):
        adata = cv.read_10x(path, guide_targets=guide_screen.targets)
    expected = guide_screen.guides.toarray()
    expected[np.setdiff1d(np.arange(400), order)] = 0
    np.testing.assert_array_equal(adata.obsm["guides"].toarray(), expected)
    assert same(adata.layers["counts"], guide_screen.genes.X)


def test_mudata_that_cannot_be_read(guide_screen: Any, tmp_path: Path) -> None:
    genes, guides = parts(guide_screen)
    with pytest.raises(DataError, match=r"no modality of gene expression \(there: a, b\)"):
        cv.read_10x(write_mudata(tmp_path / "a.h5mu", {"a": genes, "b": guides}))
    with pytest.raises(DataError, match="several modalities of CRISPR Guide Capture: 'crispr', 'guides'"):
        cv.read_10x(write_mudata(tmp_path / "b.h5mu", {"rna": genes, "crispr": guides, "guides": guides}))
    guides.X = guides.X * 0.5
    with pytest.raises(DataError, match="counts of guide RNAs are not whole numbers"):
        cv.read_10x(write_mudata(tmp_path / "c.h5mu", {"rna": genes, "guides": guides}))
    cut(tmp_path / "c.h5mu")
    with pytest.raises(DataError, match="cannot be read"):
        cv.read_10x(tmp_path / "c.h5mu")


def test_mudata_with_own_labels_keeps_them(guide_screen: Any, tmp_path: Path) -> None:
    genes, _ = parts(guide_screen)
    genes.obs["perturbation"] = guide_screen.labels.to_numpy()
    cells = cv.open_cells(write_mudata(tmp_path / "screen.h5mu", {"rna": genes}))
    assert list(cells.obs["perturbation"]) == list(guide_screen.labels)
