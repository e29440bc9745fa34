"""Commands: existing outputs, inputs that are never replaced, and labels of cells of the same names."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import cradlevae as cv
from cradlevae.cli.invoke import main

TINY = ["--n_latent", "4", "--width", "8", "--basal_width", "8", "--max_epochs", "1", "--no-progress"]


def run(*arguments: object) -> int:
    """Run the command line in this process; returns its exit status."""
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw file of each of two lanes, whose cells have the same names, and a run of the first."""
    folder = tmp_path_factory.mktemp("outputs")
    for lane in (0, 1):
        adata = cv.simulate(n_cells=200, n_genes=80, n_perturbations=3, n_combinations=0, n_latent=3, seed=lane)
        adata.write_h5ad(folder / f"lane{lane}.h5ad")
    assert run("train", folder / "lane0.h5ad", "--output", folder / "run", *TINY) == 0
    return folder


@pytest.fixture(autouse=True)
def warnings_may_be_shown() -> None:
    """The command line shows warnings as text; they are no errors there."""
    with pytest.MonkeyPatch.context() as patch:
        import warnings

        patch.setattr(warnings, "showwarning", warnings.showwarning)


def test_a_second_lane_gets_labels_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lane in (0, 1):
        assert run("clean", folder / "run", folder / f"lane{lane}.h5ad", "--output", folder / f"clean{lane}.h5ad") == 0
    shown = capsys.readouterr()
    assert "artifact labels of 200 cells as in training" in shown.out
    assert "artifact labels of 200 cells by the QC thresholds" in shown.out
    assert "200 of the 200 cells have the name of a cell of the split but other counts" in shown.err
    first, second = (ad.read_h5ad(folder / f"clean{lane}.h5ad").obs["failed_qc"] for lane in (0, 1))
    assert not np.array_equal(first.to_numpy(), second.to_numpy())


def test_every_output_is_refused_where_it_exists_and_replaced_when_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = folder / "lane0.h5ad", folder / "run"
    commands: dict[str, list[object]] = {
        "qc.h5ad": ["qc", data, "--criteria", "umi"],
        "split.json": ["split", data],
        "predicted.h5ad": ["predict", model, "A", "--n_cells", 2],
        "effects.csv": ["effects", model, "--error", 1],
        "cleaned.h5ad": ["clean", model, data],
        "simulated.h5ad": ["simulate", "--n_cells", 60, "--n_genes", 30, "--n_perturbations", 2, "--n_combinations", 0],
    }
    for name, command in commands.items():
        output = folder / "outputs" / name
        output.parent.mkdir(exist_ok=True)
        output.write_text("precious")
        assert run(*command, "--output", output) == 1
        assert f"{name} exists already" in capsys.readouterr().err
        assert output.read_text() == "precious"
        assert run(*command, "--output", output, "--overwrite") == 0, capsys.readouterr().err
        assert output.stat().st_size > 10


def test_inputs_are_never_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, link = folder / "lane1.h5ad", folder / "link.h5ad"
    link.symlink_to(data)
    before = data.read_bytes()
    for command in (
        ["qc", data, "--output", link],
        ["qc", link, "--output", data],
        ["split", data, "--output", link],
        ["clean", folder / "run", data, "--output", link],
        ["predict", folder / "run", "A", "--output", folder / "run" / "controls.h5ad"],
        ["effects", folder / "run", "--output", folder / "run" / "labels.csv"],
    ):
        assert run(*command, "--overwrite") == 1
        assert "is what is read" in capsys.readouterr().err, command
    assert data.read_bytes() == before


def test_a_run_is_replaced_when_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", folder / "lane1.h5ad", "--output", folder / "again", *TINY]
    assert run(*arguments) == 0
    assert run(*arguments) == 1
    assert "already holds a run" in capsys.readouterr().err
    (folder / "again" / "notes.txt").write_text("mine")
    assert run(*arguments, "--overwrite", "--split_seed", 1) == 0, capsys.readouterr().err
    assert cv.load(folder / "again").split.seed == 1
    assert (folder / "again" / "notes.txt").read_text() == "mine"


def test_scores_are_replaced_when_asked_and_the_truth_can_be_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = folder / "scores"
    scores.mkdir()
    (scores / "report.html").write_text("precious")
    arguments = ["evaluate", folder / "run", folder / "lane0.h5ad", "--output", scores, "--n_cells", 5]
    assert run(*arguments) == 1
    assert "report.html exists already" in capsys.readouterr().err
    assert run(*arguments, "--overwrite", "--truth", "klean") == 1
    assert "layer 'klean' is not in the AnnData" in capsys.readouterr().err
    assert run(*arguments, "--overwrite", "--truth", "clean") == 0, capsys.readouterr().err
    assert "clean counts (truth)" in (scores / "scores.csv").read_text()
