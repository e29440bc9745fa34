"""QC annotation of real cells against closed forms, and generated cells judged by its thresholds."""

from __future__ import annotations

import os
import warnings
from contextlib import nullcontext
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.qc.annotate import annotate_qc
from cradlevae.data.qc.apply import doublet_reference, judge
from cradlevae.data.qc.criteria import CRITERIA, QC_KEY, VALUE_COLUMNS
from cradlevae.data.qc.doublets import DoubletsNotAssessable, fit_doublets
from cradlevae.data.qc.table import qc_table
from cradlevae.errors import DataError

DATA = Path(os.environ.get("CRADLEVAE_DATA", Path(__file__).parents[4] / "shared" / "data"))
WITHOUT_DOUBLETS = CRITERIA[:-1]

HUMAN = ["MT-CO1", "MT-ND4L", "MT-CYB", "RPS6", "RPLP0", "RPL36AL", "RPSA", "RPS4Y1", "HBA1", "HBG2", "HBB", "HBZ"]
MOUSE = [
    "mt-Co1",
    "mt-Nd4l",
    "mt-Cytb",
    "Rps6",
    "Rplp0",
    "Rpl36al",
    "Rpsa",
    "Rps3a1",
    "Hba-a1",
    "Hbb-bs",
    "Hbb-bh1",
    "Hba-x",
]
FAMILY = ["mito"] * 3 + ["ribo"] * 5 + ["haemo"] * 4
DECOYS = [
    "RPS6KA1",
    "RPS19BP1",
    "RPL34-AS1",
    "RPS10-NUDT3",
    "HBEGF",
    "HBP1",
    "HBS1L",
    "MTOR",
    "MT1X",
    "Rps6ka1",
]
GENES = HUMAN + DECOYS + [f"G{i}" for i in range(9)]


def make(n_cells: int = 60, seed: int = 0, genes: list[str] = GENES, rate: float = 3.0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    depth = rng.gamma(8.0, 1 / 8.0, (n_cells, 1))
    counts = rng.poisson(depth * rng.gamma(2.0, rate / 2, len(genes)), (n_cells, len(genes))).astype(np.float32)
    return ad.AnnData(
        sp.csr_matrix(counts),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=list(genes)),
    )


def annotate(adata: ad.AnnData, **options: object) -> pd.DataFrame:
    """Annotate without doublets and without the warning of high shares, which small data often give."""
    return annotate_qc(adata, **{"criteria": WITHOUT_DOUBLETS, "max_fail_share": 1.0, **options})


def oracle(dense: np.ndarray, n_mads: float) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Values and thresholds of GENES × cells without an empty one."""
    total = dense.sum(1)
    values = {"umi": total, "genes": (dense > 0).sum(1)}
    for family in ("mito", "ribo", "haemo"):
        values[family] = 100 * dense[:, np.flatnonzero(np.array(FAMILY) == family)].sum(1) / total
    thresholds = {}
    for criterion, value in values.items():
        mad = np.median(np.abs(value - np.median(value)))
        thresholds[criterion] = np.median(value) + (-1 if criterion in ("umi", "genes") else 1) * n_mads * mad
    return values, thresholds


@pytest.mark.parametrize("n_mads", [1.5, 3, 4.0])
def test_thresholds_and_failing_cells_match_the_closed_form(n_mads: float) -> None:
    adata = make()
    report = annotate(adata, n_mads=n_mads, scale="raw").set_index("criterion")
    dense = adata.X.toarray().astype(np.float64)
    values, thresholds = oracle(dense, n_mads)
    failing = np.zeros(adata.n_obs, dtype=bool)
    for criterion in WITHOUT_DOUBLETS:
        low = criterion in ("umi", "genes")
        fails = values[criterion] < thresholds[criterion] if low else values[criterion] > thresholds[criterion]
        np.testing.assert_allclose(adata.obs[VALUE_COLUMNS[criterion]], values[criterion], rtol=1e-12)
        np.testing.assert_array_equal(adata.obs[f"qc_{criterion}"], fails)
        assert report.loc[criterion, "threshold"] == pytest.approx(thresholds[criterion], rel=1e-12)
        assert report.loc[criterion, "n_failing"] == fails.sum()
        assert report.loc[criterion, "share_failing"] == pytest.approx(fails.mean())
        assert report.loc[criterion, "direction"] == ("low" if low else "high")
        failing |= fails
    assert failing.any()
    assert adata.obs["artifact"].dtype == bool
    np.testing.assert_array_equal(adata.obs["artifact"], failing)
    assert report.loc["any", "n_failing"] == failing.sum()
    assert report.loc["doublet", "status"] == "not assessed"
    assert report.loc["doublet", "reason"] == "switched off"
    assert pd.isna(report.loc["doublet", "n_failing"])


def test_only_the_family_of_a_gene_is_counted() -> None:
    for genes, names in ((HUMAN, "human"), (MOUSE, "mouse")):
        one_each = ad.AnnData(sp.csr_matrix(np.eye(len(genes) + len(DECOYS), dtype=np.float32)))
        one_each.var_names = genes + DECOYS
        ordinary = make(100, genes=genes + DECOYS)  # without them no criterion has a spread
        both = ad.concat([one_each, ordinary], index_unique="-")
        annotate(both)
        for column in ("mito", "ribo", "haemo"):
            expected = np.array([100.0 * (family == column) for family in FAMILY] + [0.0] * len(DECOYS))
            found = both.obs[f"qc_pct_{column}"].iloc[: len(expected)]
            np.testing.assert_array_equal(found, expected, err_msg=names)


def test_symbols_may_stand_in_a_column_of_var() -> None:
    named, ids = make(), make()
    ids.var["gene_name"] = ids.var_names
    ids.var_names = [f"ENSG{i:011d}" for i in range(ids.n_vars)]
    annotate(named)
    annotate(ids, gene_symbols="gene_name")
    pd.testing.assert_frame_equal(named.obs, ids.obs)
    with pytest.raises(DataError, match=r"no column 'symbol'.*'gene_name'"):
        annotate(ids, gene_symbols="symbol")


@pytest.mark.parametrize(
    ("column", "hint"),
    [("feature_name", "gene_symbols='feature_name'"), ("other", "add a column of gene symbols")],
)
def test_ensembl_ids_are_pointed_out_and_not_guessed_around(column: str, hint: str) -> None:
    adata = make()
    adata.var[column] = adata.var_names
    adata.var_names = [f"ENSMUSG{i:011d}.1" for i in range(adata.n_vars)]
    with pytest.warns(UserWarning, match=f"mito, ribo, haemo.*Ensembl ids.*{hint}"):
        report = annotate(adata).set_index("criterion")
    assert (report.loc[["mito", "ribo", "haemo"], "status"] == "not assessed").all()
    assert hint in report.loc["mito", "reason"]
    assert (report.loc[["umi", "genes"], "status"] == "assessed").all()


def test_absent_genes_are_not_assessed_rather_than_passed() -> None:
    adata = make(genes=[f"G{i}" for i in range(20)] + HUMAN[:3])
    report = annotate(adata).set_index("criterion")
    assert report.loc["ribo", ["status", "reason"]].tolist() == [
        "not assessed",
        "no ribosomal gene among the 23 genes (looked for names such as RPS6, RPL7A, Rplp0)",
    ]  # fmt: skip
    assert np.isnan(report.loc["ribo", "threshold"])
    assert np.isnan(report.loc["ribo", "share_failing"])
    assert "qc_mito" in adata.obs
    assert not {"qc_ribo", "qc_pct_ribo", "qc_haemo", "qc_doublet_score"} & set(adata.obs)
    with pytest.raises(DataError, match="no QC criterion can be assessed: haemo: no haemoglobin gene"):
        annotate(adata, criteria=("haemo", "ribo"))


def test_biology_that_fails_many_cells_is_warned_about_and_can_be_switched_off() -> None:
    adata = make(200)
    dense = adata.X.toarray()
    dense[:, [GENES.index(name) for name in HUMAN if name.startswith("HB")]] = 0
    dense[:, GENES.index("HBG2")] = np.arange(200) % 3 + 1
    dense[:80, GENES.index("HBG2")] = 50  # as in K562: many cells express it, the median cell hardly does
    adata.X = sp.csr_matrix(dense)
    with pytest.warns(UserWarning, match=r"'haemo' fails 40% of the cells, more than 20%.*K562.*criteria="):
        annotate(adata, max_fail_share=0.2)
    assert adata.obs["qc_haemo"].sum() == 80  # it counts nevertheless
    assert adata.obs["artifact"][:80].all()
    annotate(adata, criteria=("umi", "genes", "mito", "ribo"), max_fail_share=0.2)
    assert "qc_haemo" not in adata.obs
    assert adata.obs["artifact"].mean() < 0.2


def test_batches_have_their_own_thresholds() -> None:
    parts = [make(40, 1), make(50, 2, rate=9.0)]
    both = ad.concat(parts, index_unique="-")
    both.obs["lane"] = pd.Categorical(["b"] * 40 + ["a"] * 50)
    shuffled = both[np.random.default_rng(0).permutation(90)].copy()
    report = annotate(shuffled, batch_key="lane").set_index(["criterion", "batch"])
    together = shuffled[both.obs_names]
    for part, name, rows in ((parts[0], "b", slice(0, 40)), (parts[1], "a", slice(40, 90))):
        alone = annotate(part).set_index("criterion")
        for criterion in WITHOUT_DOUBLETS:
            assert report.loc[(criterion, name), "threshold"] == alone.loc[criterion, "threshold"]
            assert report.loc[(criterion, name), "n_failing"] == alone.loc[criterion, "n_failing"]
        np.testing.assert_array_equal(together.obs["artifact"][rows], part.obs["artifact"])
    assert report.loc[("any", "all"), "n_failing"] == sum(part.obs["artifact"].sum() for part in parts)
    assert len(report) == 2 * len(CRITERIA) + 1


def test_cells_without_counts_fail_umi_and_genes_and_do_not_move_the_medians() -> None:
    adata, without = make(), make()
    empty = sp.csr_matrix((30, adata.n_vars), dtype=np.float32)
    with_empty = ad.AnnData(sp.vstack([empty, adata.X], format="csr"), var=adata.var)
    report, reference = annotate(with_empty), annotate(without)
    np.testing.assert_array_equal(report["threshold"], reference["threshold"])
    assert with_empty.obs[["qc_umi", "qc_genes", "artifact"]][:30].all(axis=None)
    assert not with_empty.obs[["qc_mito", "qc_ribo", "qc_haemo"]][:30].any(axis=None)
    assert (with_empty.obs["qc_pct_mito"][:30] == 0).all()
    # Also where the threshold is below any count.
    annotate(with_empty, n_mads=1000)
    assert with_empty.obs["artifact"].tolist() == [True] * 30 + [False] * 60

    with_empty.obs["lane"] = ["empty"] * 30 + ["full"] * 60
    report = annotate(with_empty, batch_key="lane").set_index(["criterion", "batch"])
    assert report.loc[("umi", "empty"), "n_failing"] == 30
    assert report.loc[("mito", "empty"), "reason"] == "no cell has counts"
    assert report.loc[("mito", "full"), "status"] == "assessed"
    with pytest.raises(DataError, match="no cell of X has a count"):
        annotate(with_empty[:30].copy())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    storage=st.sampled_from(["csr", "csc", "dense", "int64", "explicit zeros"]),
    n_mads=st.floats(0.5, 6),
)
def test_storage_and_order_of_cells_and_genes_do_not_matter(seed: int, storage: str, n_mads: float) -> None:
    rng = np.random.default_rng(seed)
    adata = make(60, seed)
    batch = rng.permutation(np.repeat(["x", "y"], 30))
    adata.obs["batch"] = batch
    cells, genes = rng.permutation(60), rng.permutation(adata.n_vars)
    dense = adata.X.toarray()[cells][:, genes]
    if storage == "explicit zeros":
        rows, columns = np.indices(dense.shape)
        matrix = sp.csr_matrix((dense.ravel(), (rows.ravel(), columns.ravel())), dense.shape)
        assert matrix.nnz == dense.size
    else:
        convert = {
            "csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray, "int64": np.int64,
        }  # fmt: skip
        matrix = convert[storage](dense)
    other = ad.AnnData(matrix, obs=adata.obs.iloc[cells], var=adata.var.iloc[genes])
    report = annotate(adata, n_mads=n_mads, batch_key="batch")
    pd.testing.assert_frame_equal(report, annotate(other, n_mads=n_mads, batch_key="batch"))
    pd.testing.assert_frame_equal(adata.obs.iloc[cells], other.obs)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_backed_file_and_round_trip(tmp_path: Path, storage: str) -> None:
    adata = make()
    adata.X = {"csr": adata.X, "csc": adata.X.tocsc(), "dense": adata.X.toarray()}[storage]
    adata.layers["raw"] = adata.X.copy()
    adata.obs["lane"] = np.repeat(["1", "2"], 30)
    adata.write_h5ad(tmp_path / "raw.h5ad")
    report = annotate(adata, batch_key="lane", layer="raw")
    backed = ad.read_h5ad(tmp_path / "raw.h5ad", backed="r")
    with pytest.warns(UserWarning, match="stored by genes") if storage == "csc" else nullcontext():
        found = annotate(backed, batch_key="lane")
    pd.testing.assert_frame_equal(found, report)
    np.testing.assert_array_equal(backed.obs["artifact"], adata.obs["artifact"])
    backed.file.close()

    adata.write_h5ad(tmp_path / "annotated.h5ad")
    again = ad.read_h5ad(tmp_path / "annotated.h5ad")
    pd.testing.assert_frame_equal(qc_table(again.uns[QC_KEY]), report)
    assert again.uns[QC_KEY]["layer"] == "raw"
    assert again.uns[QC_KEY]["gene_symbols"] == ""
    pd.testing.assert_frame_equal(judge(again, again.uns[QC_KEY]), judge(adata, adata.uns[QC_KEY]))


def test_rerun_replaces_what_the_first_run_wrote() -> None:
    adata, once = make(), make()
    annotate(adata)
    annotate(adata, criteria=("umi", "mito"), n_mads=4)  # no warning: the column is its own
    annotate(once, criteria=("umi", "mito"), n_mads=4)
    pd.testing.assert_frame_equal(adata.obs, once.obs)
    assert {"qc_umi", "qc_mito"} == {c for c in adata.obs if adata.obs[c].dtype == bool} - {"artifact"}

    adata.obs["mine"] = True
    with pytest.warns(UserWarning, match=r"obs\['mine'\] held other values"):
        annotate(adata, key_added="mine")


@pytest.mark.parametrize("column", ["qc_umi", "qc_doublet", "qc_total_counts", "qc_n_genes", "qc_doublet_score"])
def test_the_result_takes_no_column_of_quality_control_itself(column: str) -> None:
    adata = make()
    with pytest.raises(DataError, match=f"key_added is '{column}', a column that quality control writes itself"):
        annotate(adata, key_added=column)
    assert not len(adata.obs.columns)
    annotate(adata)
    with pytest.raises(DataError, match="writes itself"):
        annotate(adata, key_added=column)
    adata.obs["lane"] = True
    with pytest.raises(DataError, match="key_added and batch_key are both 'lane'"):
        annotate(adata, key_added="lane", batch_key="lane")


@pytest.mark.parametrize("values", ["label", 3.5, 1, pd.Categorical(["A", "B"] * 30), [True, "A"] * 30])
def test_the_result_replaces_no_column_of_other_values(values: object) -> None:
    adata = make()
    adata.obs["perturbation"] = values
    before = adata.obs.copy()
    with pytest.raises(DataError, match=r"obs\['perturbation'\] holds other values than true and false, e\.g\. "):
        annotate(adata, key_added="perturbation")
    pd.testing.assert_frame_equal(adata.obs, before)


@pytest.mark.parametrize("dtype", [bool, "boolean", object, "category"])
def test_the_result_replaces_booleans_with_a_warning(dtype: object) -> None:
    adata = make()
    adata.obs["failed"] = pd.Series([True, False] * 30, index=adata.obs_names).astype(dtype)
    with pytest.warns(UserWarning, match=r"obs\['failed'\] held other values"):
        annotate(adata, key_added="failed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criteria": ("umi", "mt")}, "unknown QC criteria: mt; .*umi, genes, mito"),
        ({"criteria": ()}, "no QC criteria are given"),
        ({"n_mads": 0}, "n_mads must be a positive number"),
        ({"n_mads": float("nan")}, "n_mads must be a positive number"),
        ({"max_fail_share": 20}, "max_fail_share must lie between 0 and 1"),
        ({"batch_key": "lane"}, "obs has no column 'lane'.*'well'"),
        ({"batch_key": "well"}, "'well'.*missing for 59 cells"),
        ({"layer": "counts"}, "layer 'counts' is not"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(options: dict[str, object], message: str) -> None:
    adata = make()
    adata.obs["well"] = [None] * 59 + ["w"]
    with pytest.raises(DataError, match=message):
        annotate(adata, **options)
    assert list(adata.obs) == ["well"]
    assert QC_KEY not in adata.uns


def test_normalised_counts_are_refused() -> None:
    adata = make()
    adata.X = adata.X.log1p()
    with pytest.raises(DataError, match="log-normalised"):
        annotate(adata)


# Judging generated cells


def test_judge_gives_real_cells_the_verdict_of_the_annotation() -> None:
    adata = make()
    for n_mads in (3.0, 4.0, 5.0):
        annotate(adata, n_mads=n_mads)
        expected = adata.obs[[f"qc_{criterion}" for criterion in WITHOUT_DOUBLETS]]
        for verdict in (
            judge(adata, adata.uns[QC_KEY]),
            judge(adata[:, ::-1].copy(), adata.uns[QC_KEY]),
            judge(adata.X, adata.uns[QC_KEY], gene_names=GENES),
        ):
            assert list(verdict) == list(WITHOUT_DOUBLETS)  # no column for what was not assessed
            np.testing.assert_array_equal(verdict, expected)
    annotate(adata, n_mads=1.0)
    qc = adata.uns[QC_KEY]
    annotate(adata, n_mads=4.0)
    np.testing.assert_array_equal(
        judge(adata, qc, n_mads=4.0), adata.obs[[f"qc_{criterion}" for criterion in WITHOUT_DOUBLETS]]
    )


def test_judge_takes_the_median_over_batches_or_the_batch_that_is_named() -> None:
    real = ad.concat([make(40, 1), make(40, 2, rate=6.0), make(40, 3, rate=9.0)], index_unique="-")
    real.obs["lane"] = np.repeat(["a", "b", "c"], 40)
    report = annotate(real, batch_key="lane", criteria=("umi", "mito")).set_index(["criterion", "batch"])["threshold"]
    qc = real.uns[QC_KEY]
    umi = np.median(report["umi"])
    assert umi == report["umi", "b"]
    generated = np.zeros((2, real.n_vars), dtype=np.float32)
    generated[:, -1] = np.ceil(umi) - 1, np.ceil(umi)
    verdict = judge(sp.csr_matrix(generated), qc, gene_names=GENES)
    assert verdict["umi"].tolist() == [True, False]
    assert not verdict["mito"].any()
    named = judge(sp.csr_matrix(generated), qc, gene_names=GENES, batch=["a", "c"])
    assert named["umi"].tolist() == [False, True]
    np.testing.assert_array_equal(judge(real, qc, batch=real.obs["lane"])["umi"], real.obs["qc_umi"])
    with pytest.raises(DataError, match="batch 'd' has no QC thresholds; the batches are 'a', 'b', 'c'"):
        judge(sp.csr_matrix(generated), qc, gene_names=GENES, batch=["a", "d"])


def test_judge_refuses_other_genes() -> None:
    adata = make()
    annotate(adata)
    qc = adata.uns[QC_KEY]
    with pytest.raises(DataError, match="learned on 31 genes, the cells have 30"):
        judge(adata[:, 1:].copy(), qc)
    renamed = adata.copy()
    renamed.var_names = ["X", *GENES[1:]]
    with pytest.raises(DataError, match="only 2 of the 3 mitochondrial genes"):
        judge(renamed, qc)
    with pytest.raises(DataError, match="needs as many gene_names=, but none are"):
        judge(adata.X, qc)
    with pytest.raises(DataError, match="run annotate_qc first"):
        doublet_reference(make())


# Doublets


def two_types(n_cells: int, n_doublets: int, seed: int) -> ad.AnnData:
    """Cells of two very different types, and at the end doublets of the one with the other."""
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(99).gamma(0.1, 1.0, (2, 300))
    profile /= profile.sum(1, keepdims=True) / 800
    type_ = np.arange(n_cells) % 2
    singles = rng.poisson(profile[type_])
    both = rng.poisson(profile[np.zeros(n_doublets, dtype=int)]) + rng.poisson(profile[np.ones(n_doublets, dtype=int)])
    adata = ad.AnnData(sp.csr_matrix(np.vstack([singles, both]).astype(np.float32)))
    adata.obs["doublet"] = np.arange(adata.n_obs) >= n_cells
    return adata


def assert_nearly_equal(called: pd.Series, true: pd.Series) -> None:
    called, true = called.to_numpy(), true.to_numpy()
    assert called[true].mean() > 0.9
    assert called[~true].mean() < 0.06


def test_doublets_are_found_and_generated_ones_judged_against_the_real_cells() -> None:
    real = two_types(1000, 40, seed=0)
    real.obs["lane"] = np.where(np.arange(real.n_obs) < 30, "small", "large")
    report = annotate_qc(real, criteria=("umi", "doublet"), n_mads=10).set_index("criterion")
    assert report.loc["doublet", "status"] == "assessed"
    assert_nearly_equal(real.obs["qc_doublet"], real.obs["doublet"])
    np.testing.assert_array_equal(
        real.obs["qc_doublet"], real.obs["qc_doublet_score"] > report.loc["doublet", "threshold"]
    )

    qc = real.uns[QC_KEY]
    reference = doublet_reference(real)
    assert reference is not None
    assert reference.threshold == report.loc["doublet", "threshold"]
    np.testing.assert_array_equal(reference.scores, real.obs["qc_doublet_score"])
    # Most of these cells are doublets: among themselves they would pass for single cells.
    generated = two_types(100, 400, seed=1)
    among_themselves = fit_doublets(generated.X)
    assert (among_themselves.scores > among_themselves.threshold)[generated.obs["doublet"]].mean() < 0.5
    verdict = judge(generated, qc, doublets=reference)
    assert_nearly_equal(verdict["doublet"], generated.obs["doublet"])
    assert "doublet" not in judge(generated, qc)
    np.testing.assert_array_equal(
        verdict, judge(generated.X, qc, gene_names=list(generated.var_names), doublets=reference)
    )
    # A copy of a real cell has that cell for its farthest neighbour: at most one simulated neighbour less.
    _, neighbours = reference.loadings.shape, reference.n_neighbors
    share = (np.arange(neighbours + 1) + 1) / (neighbours + 2)
    by_number = share * 0.025 / (0.95 - share * (0.95 - 0.025))  # Scrublet at rate 0.05, two simulated per cell
    number_real, number_copy = (
        np.abs(scores[:, None] - by_number).argmin(1) for scores in (reference.scores, reference.score(real.X))
    )
    np.testing.assert_allclose(by_number[number_real], reference.scores, rtol=1e-9)
    assert set(np.unique(number_real - number_copy)) <= {0, 1}
    with pytest.raises(DataError, match="the new cells have 299 genes"):
        reference.score(generated.X[:, 1:])

    # A batch that is too small is not assessed; the pool of all batches is the yardstick for generated cells.
    report = annotate_qc(real, criteria=("umi", "doublet"), n_mads=10, batch_key="lane")
    report = report.set_index(["criterion", "batch"])
    assert "30 cells with at least three genes; scrublet needs 100" in report.loc[("doublet", "small"), "reason"]
    assert pd.isna(report.loc[("doublet", "small"), "n_failing"])
    assert_nearly_equal(real.obs["qc_doublet"], real.obs["doublet"])
    assert real.obs["qc_doublet_score"].isna().sum() == 30
    pooled = judge(generated, real.uns[QC_KEY], doublets=doublet_reference(real))
    assert_nearly_equal(pooled["doublet"], generated.obs["doublet"])


def test_cells_beyond_the_limit_are_scored_against_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    real = two_types(1000, 40, seed=0)
    monkeypatch.setattr("cradlevae.data.qc.doublets.MAX_CELLS", 700)
    annotate_qc(real, criteria=("doublet",))
    assert real.obs["qc_doublet_score"].notna().all()
    assert_nearly_equal(real.obs["qc_doublet"], real.obs["doublet"])
    reference = doublet_reference(real)
    assert reference is not None
    assert reference.n_real == 700
    np.testing.assert_array_equal(reference.scores, real.obs["qc_doublet_score"])


def test_doublets_that_cannot_be_assessed_say_why() -> None:
    adata = make()
    report = annotate_qc(adata, max_fail_share=1.0).set_index("criterion")
    assert report.loc["doublet", "status"] == "not assessed"
    assert report.loc["doublet", "reason"] == "60 cells with at least three genes; scrublet needs 100"
    assert not {"qc_doublet", "qc_doublet_score"} & set(adata.obs)
    assert doublet_reference(adata) is None
    with pytest.raises(DoubletsNotAssessable, match="highly variable genes; scrublet needs 20"):
        fit_doublets(make(150, genes=[f"G{i}" for i in range(15)]).X)


# Real cells


def test_real_blood_cells() -> None:
    path = DATA / "pbmc1k_v2.h5ad"
    if not path.exists():
        pytest.skip(f"{path} is absent (CRADLEVAE_DATA)")
    adata = ad.read_h5ad(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = annotate_qc(adata).set_index("criterion")
    assert (report["status"].drop("haemo") == "assessed").all()
    assert (
        "at least half of the cells have the value 0" in report.loc["haemo", "reason"]
    )  # traces: one count is no damage
    assert len(adata.uns[QC_KEY]["criteria"]["mito"]["genes"]) == 13
    assert 85 < len(adata.uns[QC_KEY]["criteria"]["ribo"]["genes"]) < 110
    assert (adata.obs["qc_pct_haemo"] > 0).mean() == pytest.approx(0.012, abs=0.001)
    assert adata.obs["qc_pct_mito"].max() == pytest.approx(36.8, abs=0.1)
    share = report["share_failing"]
    assert 0.05 < share["mito"] < 0.12
    assert 0.02 < share["umi"] < 0.06
    assert 0 < share["doublet"] < 0.03
    assert 0.08 < share["any"] < 0.15
    np.testing.assert_array_equal(
        judge(adata, adata.uns[QC_KEY]).any(axis=1),
        adata.obs[[f"qc_{criterion}" for criterion in WITHOUT_DOUBLETS if criterion != "haemo"]].any(axis=1),
    )
