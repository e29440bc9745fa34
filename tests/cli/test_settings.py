"""Settings of a run reach every command, and what cannot work is refused before any long work."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import cradlevae as cv
from cradlevae.cli import main
from cradlevae.commands import train as training
from cradlevae.commands.files import LABELS_FILE

TINY = ["--n_latent", "4", "--width", "8", "--max_epochs", "1", "--progress", "false", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose counts are in a layer, without an artifact column; one cell is called ``NA``."""
    path = tmp_path_factory.mktemp("layered") / "data.h5ad"
    adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=3, n_combinations=2, seed=3)
    adata.obs_names = ["NA", "nan", "None", "1e5", *adata.obs_names[4:]]
    del adata.layers["clean"]
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray()) + np.random.default_rng(0).random(adata.shape)
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def run(layered: Path) -> Path:
    """A model that is trained on the layer."""
    assert main(["train", str(layered), "--output", str(layered.parent / "run"), "--layer", "counts", *TINY]) == 0
    return layered.parent / "run"


def test_cells_are_judged_by_the_layer_of_the_run(
    layered: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["clean", str(run), str(layered), "--output", str(tmp_path / "as_trained.h5ad"), "--n_draws", "2"])
    assert "artifact labels of 300 cells as in training" in capsys.readouterr().out  # NA and nan are names of cells
    lane = ad.read_h5ad(layered)[::2].copy()
    lane.obs_names = [f"lane2-{cell}" for cell in lane.obs_names]
    lane.write_h5ad(tmp_path / "lane.h5ad")
    main(["clean", str(run), str(tmp_path / "lane.h5ad"), "--output", str(tmp_path / "clean.h5ad"), "--n_draws", "2"])
    assert "by the QC thresholds" in capsys.readouterr().out
    judged = ad.read_h5ad(tmp_path / "clean.h5ad").obs["failed_qc"]
    expected = ad.read_h5ad(layered)[::2].copy()
    cv.annotate_qc(whole := ad.read_h5ad(layered), layer="counts", criteria=("umi", "genes", "mito", "ribo", "haemo"))
    np.testing.assert_array_equal(judged.to_numpy(), whole.obs["artifact"][expected.obs_names].to_numpy())
    assert 0 < judged.mean() < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--perturbation_key", "gene"], "no column 'gene'"),
        (["--control_labels", "NT", "--perturbation_key", "treated"], "no control cells"),
        (["--layer", "umis"], "layer 'umis'"),
        (["--artifact_key", "bad"], "no column 'bad'"),
        (["--split", "combination"], "unknown split recipe 'combination'"),
        (["--split", "nowhere.json"], "no split manifest"),
        (["--split_seed", "-1"], "seed is -1"),
        (["--n_latent", "0"], "n_latent is 0"),
        (["--objective", "released", "--devices", "2"], "objective 'released'"),
        (["--output", "FILE"], "cannot write into"),
    ],
)
def test_what_cannot_work_is_refused_before_quality_control(
    options: list[str], message: str, layered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def too_late(*_: object) -> None:
        raise AssertionError("quality control has begun")

    monkeypatch.setattr(training, "_annotate", too_late)
    adata = ad.read_h5ad(layered)
    adata.obs["treated"] = "A"
    adata.write_h5ad(tmp_path / "data.h5ad")
    (tmp_path / "file").write_text("")
    options = [str(tmp_path / "file") if option == "FILE" else option for option in options]
    output = [] if "--output" in options else ["--output", str(tmp_path / "run")]
    layer = [] if "--layer" in options else ["--layer", "counts"]
    assert main(["train", str(tmp_path / "data.h5ad"), *output, *layer, *options, "--progress", "false"]) > 0
    assert not (tmp_path / "run").exists()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "DATA", "--output", "OUT", "--split", "SPLIT", "--split_seed", "1"], "leave split_seed out"),
        (["benchmark", "PLAN", "--output", "OUT", "--tasks", "3"], "tasks means nothing without slurm"),
        (["benchmark", "PLAN", "--output", "OUT", "--slurm", "OUT.sh", "--retry"], "retry and part mean nothing"),
        (["download", "norman", "--output", "OUT.h5ad", "--path", "DATA", "--mirror", "http://x"], "leave cache and"),
        (["split", "DATA", "--output", "OUT.json", "--n_shared", "1"], "'cells' has no n_shared"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    words: list[str], message: str, layered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv.split(ad.read_h5ad(layered)).save(tmp_path / "split.json")
    (tmp_path / "plan.yaml").write_text("data: [{simulate: {n_cells: 100}}]\nmodels: [zero]\n")
    places = {"DATA": layered, "SPLIT": tmp_path / "split.json", "PLAN": tmp_path / "plan.yaml"}
    filled = [str(places.get(word, tmp_path / word if word.startswith("OUT") else word)) for word in words]
    assert main(filled) > 0
    assert message in capsys.readouterr().err


def test_labels_of_a_run_are_written_by_name(run: Path) -> None:
    assert (run / LABELS_FILE).read_text().splitlines()[1].startswith("NA,")
