"""Counts of guide RNAs go through the command line: 10x files, 10x folders and MuData files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv

TINY = ["--n_latent", "8", "--width", "24", "--basal_width", "16", "--max_epochs", "1", "--progress", "false"]
FORMS = ("h5", "folder", "h5mu")


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line; it never shows a traceback."""
    command = [sys.executable, "-m", "cradlevae", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module", params=FORMS)
def data(
    request: pytest.FixtureRequest,
    guide_screen: Any,
    written: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    return written(guide_screen, request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = data.parent / "run"
    return folder, run("train", data, "--output", folder, *TINY)


def test_train_assigns_guide_rnas_and_says_so(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = trained
    assert "no obs['perturbation']: perturbations by guide RNAs (mixture; present from" in done.stdout
    assert "400 of 400 cells assigned (40 controls, 165 with one target, 195 with several)" in done.stdout
    assert "13 guide RNAs of 6 targets: A_1 → A, B_1 → B, C_1 → C, NT_1 → control, …" in done.stdout
    assert "the targets of 13 guide RNAs are read from their names" in done.stderr
    model = cv.load(folder)
    assert model.perturbations == tuple("ABCDE")


def test_the_other_commands_read_the_same_labels(trained: tuple[Path, Any], data: Path, tmp_path: Path) -> None:
    if data.is_file():
        pytest.skip("a folder stands for all three forms, which give the same cells")
    folder, _ = trained
    run("split", data, "--output", tmp_path / "split.json", "--recipe", "combinations")
    splits = [json.loads(path.read_text()) for path in (tmp_path / "split.json", folder / "split.json")]
    assert splits[0]["hash"] == splits[1]["hash"]
    run("evaluate", folder, data, "--output", tmp_path / "scores")
    assert np.isfinite(pd.read_csv(tmp_path / "scores" / "scores.csv")["value"]).any()
    run("clean", folder, data, "--output", tmp_path / "clean.h5ad", "--n_draws", 2)
    assert ad.read_h5ad(tmp_path / "clean.h5ad").n_obs == 400
    assert "must end in .h5ad" in run("qc", data, "--output", tmp_path / "qc", status=1).stderr
    run("qc", data, "--output", tmp_path / "qc.h5ad")
    assert "artifact" in ad.read_h5ad(tmp_path / "qc.h5ad").obs
    run("split", tmp_path / "qc.h5ad", "--output", tmp_path / "again.json", "--recipe", "combinations")
    assert json.loads((tmp_path / "again.json").read_text())["hash"] == splits[0]["hash"]


def test_assign_writes_labels_report_and_picture(
    guide_screen: Any, written: Callable[..., Path], tmp_path: Path
) -> None:
    data = written(guide_screen, "h5", tmp_path)
    targets = tmp_path / "targets.csv"
    pd.Series(guide_screen.targets, name="target").to_csv(targets, index_label="guide")
    options = "--guide-targets", targets, "--method", "umi", "--figure", tmp_path / "guides.png"
    done = run("assign", data, "--output", tmp_path / "assigned.h5ad", *options)
    assert "umi ≥ 5" in done.stdout
    assert not done.stderr
    assert (tmp_path / "guides.png").stat().st_size > 1000
    adata = ad.read_h5ad(tmp_path / "assigned.h5ad")
    assert (adata.obs["perturbation"].astype(str).to_numpy() == guide_screen.labels.to_numpy()).mean() > 0.99
    assert adata.uns["cradlevae_guides"]["report"]["used"].sum() == 1
    again = run("assign", tmp_path / "assigned.h5ad", "--output", tmp_path / "again.h5ad", "--max-targets", 1)
    assert "of more than one gene" in again.stderr
    relabelled = ad.read_h5ad(tmp_path / "again.h5ad").obs["perturbation"].astype(str)
    assert set(relabelled) == {"control", "unassigned", *"ABCDE"}
    refused = run(
        "split", tmp_path / "again.h5ad", "--output", tmp_path / "s.json", "--guide-targets", targets, status=1
    )
    assert "has obs['perturbation'] already" in refused.stderr
    split = run("split", tmp_path / "again.h5ad", "--output", tmp_path / "s.json")
    assert "unused 195" in split.stdout
    settings = tmp_path / "again.h5ad.settings.yaml"
    run("assign", "--config", settings, "--overwrite")


def test_guides_writes_a_table_or_effects(guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    data = written(guide_screen, "h5", tmp_path)
    done = run("guides", data, "--output", tmp_path / "guides.csv", "--min-cells", 5)
    assert "perturbations by guide RNAs (mixture" in done.stdout
    assert "no obs['artifact']: all cells count as passing" in done.stdout
    table = pd.read_csv(tmp_path / "guides.csv").set_index("guide")
    assert f"{len(table)} guide RNAs of" in done.stdout
    assert list(table.columns) == ["target", "n_cells", "n_siblings", "deviation", "p_value", "q_value", "flagged"]
    run("assign", data, "--output", tmp_path / "assigned.h5ad")
    adata = ad.read_h5ad(tmp_path / "assigned.h5ad")
    adata.obs["lane"] = np.arange(adata.n_obs) % 2
    adata.write_h5ad(tmp_path / "lanes.h5ad")
    options = "--batch-key", "lane", "--min-cells", 5
    run("guides", tmp_path / "lanes.h5ad", "--output", tmp_path / "guides.h5ad", *options)
    effects = ad.read_h5ad(tmp_path / "guides.h5ad")
    assert list(effects.obs_names) == list(table.index)
    assert effects.obs["flagged"].dtype == bool
    expected = cv.guide_effects(adata, batch_key="lane", min_cells=5)
    np.testing.assert_allclose(effects.X, expected.X, atol=1e-5)
    np.testing.assert_allclose(effects.obs["p_value"], expected.obs["p_value"], rtol=1e-3)
    run("guides", "--config", tmp_path / "guides.h5ad.settings.yaml", "--overwrite")
    assert "already" in run("guides", data, "--output", tmp_path / "guides.csv", status=1).stderr
    assert "written as .csv or .h5ad" in run("guides", data, "--output", tmp_path / "guides.txt", status=1).stderr
    missing = run("guides", tmp_path / "lanes.h5ad", "--output", tmp_path / "x.csv", "--batch-key", "day", status=1)
    assert "no column 'day' in obs" in missing.stderr


def test_damaged_files_are_refused_in_one_line(guide_screen: Any, written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(guide_screen, "folder", tmp_path)
    (path / "barcodes.tsv.gz").unlink()
    error = run("train", path, "--output", tmp_path / "run", *TINY, status=1).stderr
    assert error.strip().endswith("copy the folder as Cell Ranger wrote it")
    assert not (tmp_path / "run").exists()
    other = tmp_path / "kinds"
    other.mkdir()
    genes = run("train", written(guide_screen, "h5", other, kinds=None), "--output", tmp_path / "run", *TINY, status=1)
    assert "no column 'perturbation' in obs" in genes.stderr
    path = written(guide_screen, "folder", other)
    for output in (path, path / "run"):
        assert run("train", path, "--output", output, *TINY, status=1).stderr


def test_a_folder_of_anndata_files_still_is_one(guide_screen: Any, tmp_path: Path) -> None:
    folder = tmp_path / "lanes"
    folder.mkdir()
    for lane in (1, 2):
        part = guide_screen.genes.copy()
        part.obs_names = [f"{name}-{lane}" for name in part.obs_names]
        part.obsm["guides"], part.uns["guides"] = guide_screen.guides, pd.DataFrame({"target": guide_screen.targets})
        part.write_h5ad(folder / f"lane{lane}.h5ad")
    done = run("split", folder, "--output", tmp_path / "split.json")
    assert "800 of 800 cells assigned" in done.stdout
    run("assign", folder, "--output", tmp_path / "assigned")
    cells = cv.open_cells(tmp_path / "assigned")
    assert cells.obs["perturbation"].astype(str).tolist() == [*guide_screen.labels] * 2
