"""The files that `cell-eval` reads, and that it finds in them what we find."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.moments import condition_moments, measured_effects
from cradlevae.evaluation.metrics.de import rank_sum_tests
from cradlevae.evaluation.metrics.effects import effect_scores

LN2 = np.log(2.0)
"""Their scale is the natural logarithm."""


@pytest.fixture(scope="module")
def files(model: cv.CradleVAE, simulated: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return cv.to_cell_eval(model, simulated, tmp_path_factory.mktemp("pair") / "new")


def test_both_files_hold_the_same_conditions_and_genes(
    files: tuple[Path, Path], model: cv.CradleVAE, simulated: ad.AnnData
) -> None:
    predicted, real = map(ad.read_h5ad, files)
    assert [path.name for path in files] == ["predicted.h5ad", "real.h5ad"]
    assert list(predicted.var_names) == list(real.var_names) == list(simulated.var_names)
    numbers = [cells.obs["perturbation"].value_counts().sort_index() for cells in (predicted, real)]
    assert numbers[0].to_dict() == numbers[1].to_dict()
    assert "control" in numbers[0]
    assert not simulated[real.obs_names].obs["artifact"].any()
    assert not set(real.obs_names) & set(model.split.cells("train"))
    counts = simulated[real.obs_names].X.toarray()
    np.testing.assert_allclose(real.X.toarray(), np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)), rtol=1e-5)
    for cells in (predicted, real):
        assert sp.issparse(cells.X)
        assert cells.X.dtype == np.float32


def test_files_that_are_there_are_kept(files: tuple[Path, Path], model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    with pytest.raises(cv.DataError, match=r"predicted\.h5ad exists already"):
        cv.to_cell_eval(model, simulated, files[0].parent)
    before = ad.read_h5ad(files[0]).X.toarray()
    cv.to_cell_eval(model, simulated, files[0].parent, overwrite=True)
    np.testing.assert_array_equal(ad.read_h5ad(files[0]).X.toarray(), before)


def test_nothing_to_write_is_refused(model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path) -> None:
    failed = simulated.copy()
    failed.obs.loc[model.split.cells("test"), "artifact"] = True
    with pytest.raises(cv.DataError, match="no condition has two passing reference cells"):
        cv.to_cell_eval(model, failed, tmp_path)


@pytest.mark.filterwarnings("ignore")  # what another package warns of is its own affair
def test_cell_eval_scores_as_we_do(model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path) -> None:
    cell_eval = pytest.importorskip("cell_eval", reason="cell-eval is not installed (extra 'eval')")
    files = cv.to_cell_eval(model, simulated, tmp_path, reference="all")  # of all conditions
    evaluator = cell_eval.MetricsEvaluator(
        adata_pred=str(files[0]), adata_real=str(files[1]), control_pert="control", pert_col="perturbation",
        num_threads=1, outdir=str(tmp_path / "theirs"),
    )  # fmt: skip
    skipped = ["clustering_agreement", "pearson_edistance"]
    table, _ = evaluator.compute(skip_metrics=skipped, write_csv=False, break_on_error=True)
    theirs = table.to_pandas().set_index("perturbation")
    predicted, real = map(ad.read_h5ad, files)
    names = ["control", *theirs.index]
    # What the files hold are shares of each cell's counts: a factor per cell changes none of our scores.
    counts = [sp.csr_matrix(cells.X.expm1()) for cells in (real, predicted)]
    codes = [np.array([names.index(name) for name in cells.obs["perturbation"]]) for cells in (real, predicted)]
    moments = [condition_moments(*cells, names) for cells in zip(counts, codes, strict=True)]
    ours = effect_scores(
        *(measured_effects(found).value for found in moments), perturbations=names[1:], genes=list(real.var_names)
    )
    error = LN2 * (moments[0].mean - moments[1].mean)[1:]
    for name, expected in {
        "pearson_delta": ours["pearson_delta"],
        "mse_delta": ours["mse_delta"] * LN2**2,
        "mae_delta": ours["mae_delta"] * LN2,
        "mse": (error**2).mean(),
        "mae": np.abs(error).mean(),
        "discrimination_score_l1": ours["discrimination_l1"],
        "discrimination_score_l2": ours["discrimination_l2"],
        "discrimination_score_cosine": ours["discrimination_cosine"],
    }.items():
        assert theirs[name].mean() == pytest.approx(expected, rel=1e-4), name
    for place, theirs_de in enumerate((evaluator.de_comparison.real, evaluator.de_comparison.pred)):
        p_value = theirs_de.data.to_pandas().pivot(index="target", columns="feature", values="p_value")
        tests = rank_sum_tests(counts[place], codes[place], names)
        found = p_value.loc[list(tests.names), list(real.var_names)].to_numpy()
        np.testing.assert_allclose(found, tests.p_value, atol=0.05)  # they correct for continuity
