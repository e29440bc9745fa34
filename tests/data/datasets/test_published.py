"""The published data sets, from small files written as they are published."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.experiment import read_experiment
from cradlevae.data.storage import block_writer as rows_module
from cradlevae.errors import DataError

SYMBOLS = ["MT-CO1", "RPL3", "HBG1", "TBCE", "TBCE", "ACTB"]
IDS = [f"ENSG{place:011d}" for place in range(len(SYMBOLS))]


def counts(n_cells: int) -> np.ndarray:
    return np.random.default_rng(0).poisson(2.0, (n_cells, len(SYMBOLS))).astype(np.float32) + 1


def by_id(symbols: str) -> pd.DataFrame:
    return pd.DataFrame({symbols: SYMBOLS}, index=IDS)


def norman() -> ad.AnnData:
    """As published: Ensembl ids, raw counts, the assignment of guide RNAs in ``obs``."""
    pairs = ["CBL_CNN1", "NegCtrl0_NegCtrl0", "AHR_NegCtrl0", "NegCtrl0_AHR", "NegCtrl10_NegCtrl0",
             "NegCtrl1_NegCtrl0", "CNN1_CBL", "CBL_NegCtrl0"]  # fmt: skip
    obs = pd.DataFrame(
        {
            "guide_identity": [f"{pair}__{pair}" for pair in pairs],
            "read_count": 900.0,
            "gemgroup": [1, 1, 2, 2, 3, 3, 4, 4],
            "good_coverage": [True] * 7 + [False],
            "number_of_cells": [1, 1, 1, 2, 1, 1, 1, 1],
            "guide_AHR": 0,
            "guide_ids": ["CBL,CNN1", "", "AHR", "AHR", "", "", "CBL,CNN1", "CBL"],
        },
        index=[f"AAAC{letter}-{lane}" for letter, lane in zip("ACGTACGT", [1, 1, 2, 2, 3, 3, 4, 4], strict=True)],
    )
    return ad.AnnData(sp.csr_matrix(counts(8)), obs=obs, var=by_id("gene_symbols"))


def dixit() -> ad.AnnData:
    """As published: a column for each guide RNA."""
    guides = ["INTERGENIC393453", "sgELK1_1", "sgELK1_6", "sgEGR1_2"]
    there = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]], dtype=bool)
    obs = pd.DataFrame(there, columns=guides, index=[f"AACT_p7d_A{place}" for place in range(5)])
    obs.insert(0, "guide", ["?"] * 5)
    obs.insert(0, "cluster", ["tfs_7", "tfs_7", "tfs_13", "tfs_highmoi", "tfs_highmoi"])
    return ad.AnnData(sp.csr_matrix(counts(5)), obs=obs, var=by_id("gene_symbols"))


def adamson() -> ad.AnnData:
    """As scPerturb publishes 10X010: symbols, names of cells without lanes."""
    labels = ["SPI1_pDS255", "63(mod)_pBA580", "*", "Gal4-4(mod)_pBA582", "IER3IP1_pDS002", "IER3IP1_pDS110", np.nan]
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels), "UMI count": 8.0}, index=list("ABCDEFG"))
    var = pd.DataFrame({"ensembl_id": IDS}, index=pd.Index(["MT-CO1", "RPL3", "HBG1", "TBCE", "TBCE-1", "ACTB"]))
    return ad.AnnData(sp.csc_matrix(counts(7)), obs=obs, var=var)


def replogle() -> ad.AnnData:
    """As the authors publish it: dense counts, Ensembl ids."""
    obs = pd.DataFrame(
        {
            "gem_group": [27, 27, 5, 5],
            "gene": pd.Categorical(["non-targeting", "NAF1", "BUB1", "NAF1"]),
            "sgID_AB": ["non-targeting_1|non-targeting_2", *["NAF1_+_164087918.23-P1P2|NAF1_-_164087674.23-P1P2"] * 3],
            "mitopercent": 0.1,
        },
        index=["AAAC-27", "AAAG-27", "AAAC-5", "AAAG-5"],
    )
    return ad.AnnData(counts(4), obs=obs, var=by_id("gene_name"))


PUBLISHED: dict[str, tuple[Any, list[str], list[str], dict[str, int]]] = {
    "norman": (
        norman,
        ["CBL+CNN1", "control", "AHR", "control", "CBL+CNN1"],
        ["1", "1", "2", "3", "4"],
        {
            "several cells in one droplet": 1,
            "too few reads to be sure of the guide RNA": 1,
            "control guide RNAs that the authors leave out": 1,
        },
    ),
    "dixit": (
        dixit,
        ["control", "ELK1", "ELK1", "EGR1+ELK1"],
        ["tfs_7", "tfs_7", "tfs_13", "tfs_highmoi"],
        {"no guide RNA assigned": 1},
    ),
    "adamson": (
        adamson,
        ["SPI1", "control", "control", "IER3IP1", "IER3IP1"],
        ["all"] * 5,
        {"no guide RNA assigned": 2},
    ),
    "replogle": (replogle, ["control", "NAF1", "BUB1", "NAF1"], ["27", "27", "5", "5"], {}),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CRADLEVAE_CACHE", str(folder))
    return folder


def written(adata: ad.AnnData, tmp_path: Path) -> Path:
    path = tmp_path / "published.h5ad"
    adata.write_h5ad(path)
    return path


def converted(name: str, adata: ad.AnnData, tmp_path: Path) -> ad.AnnData:
    return cv.datasets.load(name, path=written(adata, tmp_path), cache=tmp_path / "cache")


@pytest.mark.filterwarnings("ignore:X is stored by genes")
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_becomes_what_the_package_reads(name: str, tmp_path: Path, cache: Path) -> None:
    make, conditions, batch, left_out = PUBLISHED[name]
    source = make()
    path = written(source, tmp_path)
    found = getattr(cv.datasets, name)(path=path)
    assert found.obs["perturbation"].tolist() == conditions
    assert found.obs["batch"].tolist() == batch
    assert found.var["ensembl_id"].tolist() == IDS
    assert found.var_names.is_unique
    assert "TBCE" in found.var_names
    assert sp.issparse(found.X)
    assert found.X.format == "csr"
    whole = pd.DataFrame(np.asarray(source.X.todense() if sp.issparse(source.X) else source.X), source.obs_names)
    np.testing.assert_array_equal(found.X.toarray(), whole.loc[found.obs_names])
    said = found.uns["dataset"]
    assert said["left_out"] == left_out
    assert said["published_cells"] == source.n_obs
    assert said["split"] in ("combinations", "cells")
    assert "doi" in said["citation"]
    assert cache.is_dir()
    found.obs["artifact"] = False
    read = read_experiment(found, cv.DataFields())
    assert read.n_cells == len(conditions)
    assert read.is_control.any()


def test_labels_stay_as_published(tmp_path: Path) -> None:
    found = converted("norman", norman(), tmp_path)
    assert found.obs["label"].iloc[0] == "CBL_CNN1__CBL_CNN1"


def test_repeated_symbols_have_their_id_behind_them(tmp_path: Path) -> None:
    found = converted("norman", norman(), tmp_path)
    assert list(found.var_names) == ["MT-CO1", "RPL3", "HBG1", "TBCE", f"TBCE_{IDS[4]}", "ACTB"]


def test_genes_without_a_symbol_keep_their_id(tmp_path: Path) -> None:
    adata = norman()
    adata.var["gene_symbols"] = ["MT-CO1", None, "", "A", "A", "A"]
    assert list(converted("norman", adata, tmp_path).var_names[:4]) == ["MT-CO1", IDS[1], IDS[2], "A"]
    del adata.var["gene_symbols"]
    with pytest.raises(DataError, match=r"Ensembl ids, and none of the columns 'gene_symbols', .* \(there: none\)"):
        converted("norman", adata, tmp_path)


@pytest.mark.parametrize(
    ("name", "column", "labels", "expected"),
    [
        ("norman", "guide_ids", ["", "A,B", "B"], ["control", "A+B", "B"]),
        ("norman", "guide_merged", ["ctrl", "A+B", "B+ctrl"], ["control", "A+B", "B"]),
        ("norman", "perturbation_name", ["control", "B+A", "B"], ["control", "A+B", "B"]),
        ("norman", "perturbation", ["control", "B_A", "B"], ["control", "A+B", "B"]),
        ("dixit", "guide", ["INTERGENIC12", "sgYY1_3", "sgYY1_3;sgELF1_1"], ["control", "YY1", "ELF1+YY1"]),
        ("dixit", "perturbation", ["p_INTERGENIC12", "p_sgYY1_3", "p_sgYY1_3 + p_sgELF1_1"],
         ["control", "YY1", "ELF1+YY1"]),
        ("dixit", "perturbation", ["control", "YY1", "ELF1_YY1"], ["control", "YY1", "ELF1+YY1"]),
        ("adamson", "guide identity", ["63(mod)_pBA580", "XBP1_pBA578", "ATF6_IRE1_pMJ152"],
         ["control", "XBP1", "ATF6+ERN1"]),
        ("adamson", "perturbation", ["control", "XBP1", "ATF6"], ["control", "XBP1", "ATF6"]),
        ("replogle", "perturbation", ["control", "NAF1", "BUB1"], ["control", "NAF1", "BUB1"]),
    ],
)  # fmt: skip
def test_other_layouts(name: str, column: str, labels: list[str], expected: list[str], tmp_path: Path) -> None:
    obs = pd.DataFrame({column: labels}, index=["AAAC-1", "AACC-1", "ACCC-2"])
    found = converted(name, ad.AnnData(sp.csr_matrix(counts(3)), obs=obs, var=by_id("gene_name")), tmp_path)
    assert found.obs["perturbation"].tolist() == expected
    assert found.obs["batch"].tolist() == ["1", "1", "2"]


def test_guides_of_several_genes_are_left_out_where_none_belong_together(tmp_path: Path) -> None:
    adata = replogle()
    del adata.obs["gene"]
    adata.obs["sgID_AB"] = ["non-targeting_1|non-targeting_2", "A_+_1.2-P1|A_-_3.4-P1", "A_+_1.2-P1|B_-_3.4-P1P2",
                            "B_+_1.2-P1|B_-_3.4-P1"]  # fmt: skip
    found = converted("replogle", adata, tmp_path)
    assert found.obs["perturbation"].tolist() == ["control", "A", "B"]
    assert found.uns["dataset"]["left_out"] == {"guide RNAs of several genes": 1}


def test_what_was_converted_is_a_layout_too(tmp_path: Path) -> None:
    first = converted("norman", norman(), tmp_path)
    again = converted("norman", first, tmp_path)
    pd.testing.assert_frame_equal(again.obs[["perturbation", "batch"]], first.obs[["perturbation", "batch"]])
    np.testing.assert_array_equal(again.X.toarray(), first.X.toarray())


@pytest.mark.parametrize("place", ["counts", "raw"])
def test_raw_counts_are_found_beside_normalised_ones(place: str, tmp_path: Path) -> None:
    adata = norman()
    raw = adata.X.toarray()
    if place == "raw":
        adata.raw = adata
        adata = adata[:, [5, 0]].copy()
    else:
        adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    found = converted("norman", adata, tmp_path)
    assert found.uns["dataset"]["counts"] == ("raw" if place == "raw" else "layers['counts']")
    np.testing.assert_array_equal(found.X.toarray(), raw[[0, 1, 2, 4, 6]])


def test_normalised_counts_alone_are_refused(tmp_path: Path) -> None:
    adata = norman()
    adata.X = adata.X.log1p()
    with pytest.raises(DataError, match=r"holds no raw counts: X hold other numbers"):
        converted("norman", adata, tmp_path)
    assert not (tmp_path / "cache" / "norman.h5ad").exists()


def test_an_unknown_layout_names_the_columns(tmp_path: Path) -> None:
    adata = norman()
    adata.obs = adata.obs[["gemgroup", "read_count"]]
    with pytest.raises(
        DataError, match=r"no known layout of norman: .* 'guide_identity', .*there: 'gemgroup', 'read_count'"
    ):
        converted("norman", adata, tmp_path)


def test_labels_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    adata = norman()
    adata.obs["guide_identity"] = [*adata.obs["guide_identity"][:6], "CBL", "CBL_CNN1__CBL"]
    with pytest.raises(
        DataError, match=r"2 of the 8 labels in obs\['guide_identity'\].* norman: 'CBL', 'CBL_CNN1__CBL'"
    ):
        converted("norman", adata, tmp_path)


def test_cells_of_another_experiment_are_refused(tmp_path: Path) -> None:
    obs = pd.DataFrame({"perturbation": ["control", "A2M", "STAT1"], "MOI": 1}, index=list("abc"))
    other = ad.AnnData(sp.csr_matrix(counts(3)), obs=obs, var=by_id("gene_name"))
    with pytest.raises(DataError, match=r"perturbs 'A2M', 'STAT1', which dixit does not .*Frangieh.*figshare"):
        converted("dixit", other, tmp_path)
    other.obs["perturbation"] = ["control", "chr1.10050_top_two_chr11.1801_top_two", "nan"]
    with pytest.raises(DataError, match=r"'chr1.10050_top_two_chr11.1801_top_two'; .*Gasperini.*figshare"):
        converted("replogle", other, tmp_path)


def test_a_file_without_controls_or_guides_is_refused(tmp_path: Path) -> None:
    adata = replogle()
    adata.obs["gene"] = ["A", "A", "B", "B"]
    with pytest.raises(DataError, match="no control cells: obs\\['gene'\\] of this replogle file holds 'A', 'B'"):
        converted("replogle", adata, tmp_path)
    adata.obs["gene"] = "nan"
    with pytest.raises(DataError, match="no cell is left"):
        converted("replogle", adata, tmp_path)


def test_conversion_is_the_same_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = converted("norman", norman(), tmp_path)
    monkeypatch.setattr("cradlevae.data.storage.stored_matrix.BLOCK_CELLS", 2)
    monkeypatch.setattr(rows_module, "WRITTEN_VALUES", 1)
    parts = cv.datasets.norman(path=tmp_path / "published.h5ad", cache=tmp_path / "other")
    np.testing.assert_array_equal(parts.X.toarray(), whole.X.toarray())


def test_the_second_use_converts_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(norman(), tmp_path)
    first = cv.datasets.norman(path=path)
    with monkeypatch.context() as patched:
        patched.setattr("cradlevae.data.datasets.convert", lambda *_: pytest.fail("converted again"))
        backed = cv.datasets.norman(path=path, backed=True)
        assert isinstance(backed, cv.StoredCells)
        np.testing.assert_array_equal(backed.to_memory().X.toarray(), first.X.toarray())
    norman()[:6].copy().write_h5ad(path)
    assert cv.datasets.norman(path=path).n_obs == 4  # another file: converted anew
    (cache / "norman.h5ad").write_bytes(b"damaged")
    assert cv.datasets.norman(path=path).n_obs == 4


def test_what_is_left_out_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cradlevae"):
        converted("dixit", dixit(), tmp_path)
    assert "dixit: 1 of 5 cells left out: no guide RNA assigned" in caplog.text


def test_a_full_disk_leaves_no_converted_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rows_module, "_append_sparse", full)
    with pytest.raises(DataError, match=r"cannot write .*norman.h5ad: No space left on device; about .* must be free"):
        converted("norman", norman(), tmp_path)
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix == ".h5ad"] == []


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown data set 'normann'; did you mean 'norman'"):
        cv.datasets.load("normann")
    with pytest.raises(DataError, match="no file"):
        cv.datasets.norman(path=tmp_path / "absent.h5ad", cache=tmp_path)
    (tmp_path / "text.h5ad").write_text("text")
    with pytest.raises(DataError, match="cannot be read as an AnnData file"):
        cv.datasets.norman(path=tmp_path / "text.h5ad", cache=tmp_path)
