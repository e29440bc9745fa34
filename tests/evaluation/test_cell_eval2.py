"""Raw counts for `cell-eval2`, whose preset of the Virtual Cell Challenge finds in them what we find."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.evaluation.metrics.registry import metrics_of

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.fixture(scope="module")
def targeted() -> ad.AnnData:
    """Deep cells of six perturbations, five of which are named as the gene that they target, and of two pairs."""
    made = cv.simulate(
        n_cells=1600, n_genes=80, n_perturbations=6, n_combinations=2, n_interacting=0, n_latent=6, effect_size=3.0,
        library_size=(12_000, 0.3), seed=1,
    )  # fmt: skip
    genes = [*"ABCDE", *made.var_names[5:]]
    obs = pd.DataFrame({"perturbation": made.obs["perturbation"].astype(str), "artifact": made.obs["true_artifact"]})
    return ad.AnnData(sp.csr_matrix(made.X), obs=obs, var=pd.DataFrame(index=genes))


@pytest.fixture(scope="module")
def floor(targeted: ad.AnnData) -> cv.FloorModel:
    floor = cv.FloorModel("shrunk_mean", targeted, split=cv.split(targeted, "cells", seed=0))
    floor.train()
    return floor


def written(model: Any, adata: ad.AnnData, folder: Path, **options: Any) -> list[ad.AnnData]:
    """Predicted and real cells."""
    return [ad.read_h5ad(path) for path in cv.to_cell_eval(model, adata, folder, counts=True, **options)]


def test_files_hold_raw_counts_real_controls_and_targets(
    floor: cv.FloorModel, targeted: ad.AnnData, tmp_path: Path
) -> None:
    predicted, real = written(floor, targeted, tmp_path / "pair", targets={"F": "G0009"})
    for cells in (predicted, real):
        assert sp.isspmatrix_csr(cells.X)
        assert cells.X.dtype == np.int32
        assert list(cells.var_names) == list(targeted.var_names)
        labels = cells.obs.drop_duplicates().set_index("perturbation")["target"].astype(str)
        assert labels["control"] == "non-targeting"
        assert (labels["A"], labels["F"]) == ("A", "G0009")
        assert all(labels[name] == name for name in labels.index if "+" in name)
    sizes = [cells.obs["target"].value_counts().to_dict() for cells in (predicted, real)]
    assert sizes[0] == sizes[1]
    np.testing.assert_array_equal(real.X.toarray(), targeted[real.obs_names].X.toarray())
    controls = [cells[cells.obs["perturbation"] == "control"] for cells in (predicted, real)]
    assert list(controls[0].obs_names) == list(controls[1].obs_names)
    np.testing.assert_array_equal(controls[0].X.toarray(), controls[1].X.toarray())
    others = predicted.obs_names[predicted.obs["perturbation"] != "control"]
    assert others.str.startswith("predicted").all()


def test_targets_that_do_not_fit_are_refused(floor: cv.FloorModel, targeted: ad.AnnData, tmp_path: Path) -> None:
    for targets, message in (
        ({"nonsense": "A"}, "'nonsense', which is none of the conditions"),
        ({"F": "nonsense"}, "'nonsense', which is no gene of the data"),
        ({"F": "A"}, "'A', 'F' would both be called 'A'"),
    ):
        with pytest.raises(cv.DataError, match=message):
            cv.to_cell_eval(floor, targeted, tmp_path, counts=True, targets=targets)
    with pytest.raises(cv.DataError, match="leave them out, or set counts=True"):
        cv.to_cell_eval(floor, targeted, tmp_path, targets={"F": "G0009"})
    assert not list(tmp_path.iterdir())


def test_where_no_target_is_a_gene_a_warning_says_so(
    model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=r"run cell-eval2 with --no-target-genes"):
        predicted, _ = written(model, simulated, tmp_path / "pair")
    assert "non-targeting" in set(predicted.obs["target"])


def command(name: str) -> list[str]:
    """The command of a scorer, as the page has it."""
    (line,) = re.findall(rf"^{name} run .*$", PAGE.read_text(), re.MULTILINE)
    return line.split()[1:]


@pytest.mark.skipif(importlib.util.find_spec("cell_eval2") is None, reason="cell-eval2 is not installed (extra 'eval')")
@pytest.mark.parametrize("genes", [True, False])
def test_the_preset_finds_what_we_find(
    genes: bool, floor: cv.FloorModel, targeted: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cell_eval2.cli import main

    renamed = targeted.copy()
    if not genes:
        renamed.var_names = [f"gene{place}" for place in range(renamed.n_vars)]
        floor = cv.FloorModel("shrunk_mean", renamed, split=floor.trained.split)
        floor.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what another package warns of is its own affair
        cv.to_cell_eval(floor, renamed, tmp_path / "pair", counts=True)
        monkeypatch.chdir(tmp_path)
        main([*command("cell-eval2"), *([] if genes else ["--no-target-genes"])])
    theirs = pd.read_csv(tmp_path / "cell-eval2-outdir" / "agg_results.csv", index_col="statistic").loc["mean"]
    scores = cv.evaluate(floor, renamed, truth=False).set_index(["metric", "predictor"])["value"]
    ours = {entry.name: scores[entry.name, "model"] for entry in metrics_of("counts")}
    assert len(ours) == 6
    assert np.isfinite(list(ours.values())).all()
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], rel=1e-6), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("cell_eval") is None, reason="cell-eval is not installed (extra 'eval')")
def test_the_command_of_the_page_runs(
    floor: cv.FloorModel, targeted: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cell_eval.__main__ import main

    cv.to_cell_eval(floor, targeted, tmp_path / "pair")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["cell-eval", *command("cell-eval")])
    main()
    assert list(tmp_path.rglob("*agg_results.csv"))
