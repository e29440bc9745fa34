"""Criteria that data do not allow to assess, thresholds on the log scale, and what quality control warns of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cradlevae.data.qc.annotate import annotate_qc
from cradlevae.data.qc.apply import judge
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.data.qc.doublets import DoubletsNotAssessable, fit_doublets
from cradlevae.data.qc.gene_families import find_families
from cradlevae.data.qc.rules import MIN_BATCH
from cradlevae.errors import DataError

PERCENTAGES = ("umi", "genes", "mito", "ribo", "haemo")
NAMED = ["MT-CO1", "MT-ND1", "MT-CYB", "RPS6", "RPL7A", "RPLP0", "HBA1", "HBB", "HBG2"]


def homogeneous(n_cells: int, n_genes: int, per_gene: float, seed: int) -> sp.csr_matrix:
    """Cells that differ by their size and by chance only."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.5, 1.0, n_genes)
    rate = profile * per_gene / profile.mean() * rng.gamma(8.0, 1 / 8.0, (n_cells, 1))
    return sp.csr_matrix(rng.poisson(rate).astype(np.float32))


def cells(n_cells: int = 200, seed: int = 0, names: list[str] = NAMED, others: int = 60) -> ad.AnnData:
    counts = homogeneous(n_cells, len(names) + others, 4.0, seed).toarray() + 0.0
    counts[:, : len(names)] += np.random.default_rng(seed + 1).poisson(5.0, (n_cells, len(names)))
    adata = ad.AnnData(sp.csr_matrix(counts))
    adata.var_names = [*names, *(f"G{i}" for i in range(others))]
    return adata


def with_counts(adata: ad.AnnData, genes: list[str], counts: np.ndarray) -> ad.AnnData:
    dense = adata.X.toarray()
    dense[:, adata.var_names.get_indexer(genes)] = counts
    adata.X = sp.csr_matrix(dense)
    return adata


def annotate(adata: ad.AnnData, **options: object) -> pd.DataFrame:
    return annotate_qc(adata, **{"criteria": PERCENTAGES, **options}).set_index("criterion")


def test_traces_of_a_family_are_not_assessed() -> None:
    traces = np.zeros((200, 3))
    traces[:30, 0] = 1
    adata = with_counts(cells(), NAMED[6:], traces)
    report = annotate(adata)
    assert report.loc["haemo", "status"] == "not assessed"
    assert report.loc["haemo", "reason"].startswith("at least half of the cells have the value 0")
    assert np.isnan(report.loc["haemo", "threshold"])
    assert pd.isna(report.loc["haemo", "n_failing"])
    assert "qc_haemo" not in adata.obs
    assert (adata.obs["qc_pct_haemo"] > 0).sum() == 30  # what was measured can be read
    assert report.loc[["umi", "genes", "mito", "ribo"], "status"].eq("assessed").all()
    assert "haemo" not in judge(adata, adata.uns[QC_KEY])


def test_equal_totals_are_not_assessed_and_empty_cells_fail_all_the_same() -> None:
    counts = np.zeros((60, 12))
    rng = np.random.default_rng(0)
    for cell in range(60):
        counts[cell] = rng.multinomial(500, np.full(12, 1 / 12))
    counts[0] = 0
    counts[1] //= 2
    adata = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)))
    adata.var_names = [*NAMED, "G0", "G1", "G2"]
    report = annotate(adata, max_fail_share=1.0)
    assert report.loc["umi", "reason"].startswith("at least half of the cells have the value 500")
    assert report.loc["genes", "status"] == "not assessed"
    assert adata.obs["artifact"].iloc[0]
    assert report.loc["any", "n_failing"] == adata.obs["artifact"].sum()


def test_a_batch_without_spread_is_not_assessed_while_others_are() -> None:
    adata = cells(120)
    adata.obs["lane"] = np.repeat(["none", "some"], 60)
    dense = adata.X.toarray()
    dense[:60, 6:9] = 0
    dense[:3, 6] = 1
    adata.X = sp.csr_matrix(dense)
    report = annotate(adata, batch_key="lane", max_fail_share=1.0).reset_index().set_index(["criterion", "batch"])
    assert report.loc[("haemo", "none"), "status"] == "not assessed"
    assert report.loc[("haemo", "some"), "status"] == "assessed"
    assert not adata.obs["qc_haemo"][:60].any()


@pytest.mark.parametrize("n_genes", [1, 2])
def test_a_family_of_one_or_two_genes_is_not_assessed(n_genes: int) -> None:
    adata = cells(names=[*NAMED[:n_genes], *NAMED[3:]])
    report = annotate(adata)
    assert report.loc["mito", "status"] == "not assessed"
    assert f"{n_genes} mitochondrial gene" in report.loc["mito", "reason"]
    assert "MT-CO1" in report.loc["mito", "reason"]
    assert "needs 3" in report.loc["mito", "reason"]
    assert "qc_mito" not in adata.obs
    with pytest.raises(DataError, match=r"no QC criterion can be assessed: mito: .*needs 3"):
        annotate(adata, criteria=("mito",))


# Small batches


def test_small_batches_get_the_thresholds_of_all_cells() -> None:
    adata, pooled = cells(100), cells(100)
    adata.obs["lane"] = np.where(np.arange(100) < 5, "few", np.where(np.arange(100) % 2, "odd", "even"))
    with pytest.warns(UserWarning, match=f"fewer than {MIN_BATCH} cells .*thresholds of all batches together: 'few'"):
        report = annotate(adata, batch_key="lane")
    report = report.reset_index().set_index(["criterion", "batch"])
    together = annotate(pooled)
    for criterion in PERCENTAGES:
        assert report.loc[(criterion, "few"), "threshold"] == together.loc[criterion, "threshold"]
        assert report.loc[(criterion, "few"), "note"] == "5 cells with counts: threshold of all batches together"
        assert report.loc[(criterion, "odd"), "note"] == ""
    assert report.loc[("umi", "odd"), "threshold"] != together.loc["umi", "threshold"]
    np.testing.assert_array_equal(
        judge(adata, adata.uns[QC_KEY], batch=adata.obs["lane"]), adata.obs[[f"qc_{name}" for name in PERCENTAGES]]
    )


@pytest.mark.parametrize("spelling", ["GRCh38-{}", "GRCh38_{}", "mm10-{}", "Homo_sapiens_{}", "{}.1", "{}"])
@pytest.mark.parametrize("hyphen", ["-", ".", "_"])
def test_families_are_found_in_every_spelling(spelling: str, hyphen: str) -> None:
    mito = [f"MT{hyphen}{gene}" for gene in ("CO1", "ND1", "CYB")]
    haemo = [f"Hb{gene[0]}{hyphen}{gene[1:]}" for gene in ("aa1", "bbs", "bbt")]
    others = ["MTOR", "MT1A", "MTX2"]
    names = [spelling.format(name) for name in (*mito, "RPS6", "RPL7A", "RPLP0", *haemo, *others)]
    present, absent = find_families(names)
    assert not absent
    assert [mask.nonzero()[0].tolist() for mask in present.values()] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_a_few_cells_in_all_have_no_thresholds() -> None:
    for n_cells in (3, MIN_BATCH - 1):
        with pytest.raises(DataError, match=f"umi: only {n_cells} cells with counts; a threshold needs {MIN_BATCH}"):
            annotate(cells(n_cells), max_fail_share=1.0)
    few = cells(MIN_BATCH + 5)
    few.X = sp.csr_matrix(few.X.toarray() * (np.arange(MIN_BATCH + 5) >= 6)[:, None])  # six of them are empty
    few.obs["lane"] = np.where(np.arange(MIN_BATCH + 5) % 2, "a", "b")
    with pytest.raises(DataError, match=f"only {MIN_BATCH - 1} cells with counts"):
        annotate(few, max_fail_share=1.0, batch_key="lane")
    enough = annotate(cells(MIN_BATCH), max_fail_share=1.0)
    assert enough.loc[list(PERCENTAGES), "status"].eq("assessed").all()
    assert enough["note"].eq("").all()


# Scale


def deep_and_shallow(seed: int = 0) -> ad.AnnData:
    """Cells whose totals spread over two orders of magnitude, the last ten almost empty."""
    rng = np.random.default_rng(seed)
    total = np.exp(rng.normal(np.log(300), 0.9, 300))
    total[-10:] = 4
    counts = rng.poisson(total[:, None] * rng.dirichlet(np.ones(40)))
    counts[:, 0] += 1
    return ad.AnnData(sp.csr_matrix(counts.astype(np.float32)))


def test_thresholds_below_any_count_go_to_the_log_scale(tmp_path: Path) -> None:
    adata, raw = deep_and_shallow(), deep_and_shallow()
    report = annotate(adata, criteria=("umi",))
    total = adata.X.toarray().astype(np.float64).sum(1)
    logs = np.log(total)
    expected = np.exp(np.median(logs) - 3 * np.median(np.abs(logs - np.median(logs))))
    assert report.loc["umi", "threshold"] == pytest.approx(expected, rel=1e-12)
    assert report.loc["umi", "note"] == "threshold on the log scale"
    np.testing.assert_array_equal(adata.obs["qc_umi"], total < expected)
    assert adata.obs["qc_umi"][-10:].all()

    on_raw = annotate(raw, criteria=("umi",), scale="raw")
    assert on_raw.loc["umi", "threshold"] < 0
    assert on_raw.loc["umi", "note"] == ""
    assert not raw.obs["qc_umi"].any()

    # Generated cells are judged on the scale of the annotation, at any number of MADs, also after a file.
    adata.write_h5ad(tmp_path / "annotated.h5ad")
    qc = ad.read_h5ad(tmp_path / "annotated.h5ad").uns[QC_KEY]
    np.testing.assert_array_equal(judge(adata, qc)["umi"], adata.obs["qc_umi"])
    for n_mads in (0.5, 2.0, 4.0):
        other = deep_and_shallow()
        annotate(other, criteria=("umi",), n_mads=n_mads, max_fail_share=1.0)
        np.testing.assert_array_equal(judge(adata, qc, n_mads=n_mads)["umi"], other.obs["qc_umi"])
    assert not judge(raw, raw.uns[QC_KEY])["umi"].any()
    with pytest.raises(DataError, match="scale is 'log'; choose one of auto, raw"):
        annotate(raw, scale="log")


def test_thresholds_that_cells_can_fail_stay_as_they_are() -> None:
    auto, raw = cells(), cells()
    pd.testing.assert_frame_equal(annotate(auto), annotate(raw, scale="raw"))
    pd.testing.assert_frame_equal(auto.obs, raw.obs)


def test_an_annotation_of_an_earlier_version_is_judged_as_it_was() -> None:
    adata = deep_and_shallow()
    annotate(adata, criteria=("umi",), scale="raw")
    qc = adata.uns[QC_KEY]
    del qc["scale"]
    for name in ("log_median", "log_mad", "logarithmic", "note"):
        del qc["criteria"]["umi"][name]
    assert not judge(adata, qc)["umi"].any()


# Doublets


@pytest.mark.parametrize(("n_cells", "n_genes", "per_gene"), [(120, 300, 3.0), (300, 2000, 0.1), (1000, 300, 3.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_cells_without_structure_have_no_doublets_to_tell(
    n_cells: int, n_genes: int, per_gene: float, seed: int
) -> None:
    with pytest.raises(DoubletsNotAssessable, match="too little structure to tell a doublet from a cell"):
        fit_doublets(homogeneous(n_cells, n_genes, per_gene, seed))


def test_a_report_says_why_doublets_are_not_assessed() -> None:
    adata = ad.AnnData(homogeneous(300, 300, 3.0, 0))
    report = annotate(adata, criteria=("umi", "doublet"))
    assert report.loc["doublet", "status"] == "not assessed"
    assert "too little structure" in report.loc["doublet", "reason"]
    assert "qc_doublet" not in adata.obs


def test_real_doublets_of_four_cell_lines_are_assessed(data_file: Callable[[str], Path]) -> None:
    adata = ad.read_h5ad(data_file("scds_hashing_4lines_2000g.h5ad"))
    report = annotate_qc(adata, criteria=("doublet",)).set_index("criterion")
    assert report.loc["doublet", "status"] == "assessed"
    true = adata.obs["doublet"].to_numpy(dtype=bool)
    called = adata.obs["qc_doublet"].to_numpy()
    assert called.any()
    assert true[called].mean() > 0.9


# What is warned of


def test_haemoglobin_of_k562_is_warned_of(data_file: Callable[[str], Path]) -> None:
    adata = ad.read_h5ad(data_file("norman2019_500g.h5ad"))
    with pytest.warns(UserWarning, match=r"'haemo' fails 13% of the cells, 6 times the tail .*K562.*criteria="):
        report = annotate(adata)
    assert report.loc["umi", "note"] == report.loc["genes", "note"] or report.loc["umi", "threshold"] > 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        annotate(adata, max_fail_share=1.0)


def test_cells_that_look_healthy_are_warned_of_and_damaged_ones_are_not() -> None:
    for factor, warned in ((3.0, True), (0.3, False)):
        adata = cells(400)
        dense = adata.X.toarray()
        dense[:32] = np.round(dense[:32] * factor)
        dense[:32, 0:3] += np.round(dense[:32].sum(1, keepdims=True) * 0.05)
        adata.X = sp.csr_matrix(dense)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = annotate(adata, criteria=("mito",))
        assert 0.05 < report.loc["mito", "share_failing"] < 0.1
        assert any("no fewer counts" in str(one.message) for one in caught) == warned


def test_ordinary_cells_are_not_warned_of(data_file: Callable[[str], Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        annotate(cells())
        annotate(ad.read_h5ad(data_file("pbmc1k_v2.h5ad")))


# Names of genes


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"GRCh38_{name}",
        lambda name: f"hg19_{name}",
        lambda name: f"mm10___{name.capitalize() if not name.startswith('MT-') else 'mt-' + name[3:].capitalize()}",
        lambda name: f"GRCm39_{name.lower()}",
        lambda name: f"{name}.1",
        str.lower,
    ],
)
def test_genes_are_recognised_however_they_are_spelt(rename: Callable[[str], str]) -> None:
    plain, renamed = cells(), cells()
    renamed.var_names = [rename(name) for name in renamed.var_names]
    report = annotate(renamed)
    assert report.loc[list(PERCENTAGES), "status"].eq("assessed").all()
    pd.testing.assert_frame_equal(report, annotate(plain))


def test_versioned_ensembl_ids_have_symbols_in_a_column() -> None:
    plain, ids = cells(), cells()
    ids.var["symbol"] = [f"GRCh38_{name}" for name in ids.var_names]
    ids.var_names = [f"ENSG{i:011d}.{i % 9}" for i in range(ids.n_vars)]
    pd.testing.assert_frame_equal(annotate(ids, gene_symbols="symbol"), annotate(plain))


def test_where_no_gene_is_recognised_the_names_are_told_that_were_looked_for() -> None:
    adata = cells()
    adata.var["gene_name"] = adata.var_names
    adata.var_names = [f"probe{i}" for i in range(adata.n_vars)]
    with pytest.warns(UserWarning, match=r"not assessed: mito, ribo, haemo.*MT-CO1.*gene_symbols='gene_name'"):
        report = annotate(adata)
    assert "looked for names such as MT-CO1" in report.loc["mito", "reason"]
