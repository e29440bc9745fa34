"""The command line, as a user runs it: in subprocesses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.cli import main
from cradlevae.cli.options import options_of
from cradlevae.commands.registry import COMMANDS, Command
from cradlevae.model.family import FAMILY
from cradlevae.query.effects_table import COLUMNS

TINY = ["--n_latent", "8", "--width", "24", "--basal_width", "16", "--max_epochs", "2", "--progress", "false"]


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line; it never shows a traceback."""
    command = [sys.executable, "-m", "cradlevae.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    """A small annotated experiment; one perturbation hides in a layer-only copy of the counts."""
    path = folder / "data.h5ad"
    adata = cv.simulate(n_cells=500, n_genes=80, n_perturbations=5, n_combinations=6, n_interacting=1, seed=3)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path, data: Path) -> Path:
    run("train", data, "--output", folder / "run", *TINY)
    return folder / "run"


def test_overview_and_hints_are_those_of_the_registry() -> None:
    overview = run("--help").stdout
    listed = re.findall(r"^  (\w+) +(.+)$", overview, re.MULTILINE)
    assert listed == [(command.name, command.summary) for command in COMMANDS.values()]
    assert list(COMMANDS) == [
        "assign", "guides", "qc", "split", "train", "predict", "effects", "contrast", "interactions",
        "expression", "clean", "diagnose", "evaluate", "download", "simulate", "benchmark", "sweep", "reproduce",
        "demo",
    ]  # fmt: skip
    assert "did you mean 'train'" in run("trian", status=2).stderr
    assert run(status=2).stdout == overview


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_help_of_every_command_describes_every_option_in_plain_words(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command.name, "--help"]) == 0
    shown = capsys.readouterr().out
    texts = re.split(r"\n  (?=\S)", shown.split("\n\n", 2)[2])
    for option in options_of(command.function()).values():
        [text] = [text for text in texts if re.match(rf"{re.escape(option.shown)}(?![\w-])", text)]
        words = re.sub(r"^\S+(, --\S+)?( \S+| WORD \.\.\.)?\s", "", text).split(" (default")[0].split()
        assert len(words) > 1, f"{option.shown} is not described: {text}"
    assert "``" not in shown
    assert ":func:" not in shown
    assert ":class:" not in shown
    assert "<class" not in shown
    assert "[A+B,C]" not in shown


def test_models_of_the_family_are_named_where_one_is_chosen() -> None:
    shown = run("train", "--help").stdout
    assert all(key in shown for key in FAMILY)


def test_overview_imports_nothing_heavy() -> None:
    code = (
        "import sys, cradlevae.cli as c; c.main(['--help']); "
        "print([m for m in ('torch', 'lightning', 'scanpy', 'anndata', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_simulate_then_qc_writes_annotation_picture_and_settings(folder: Path) -> None:
    raw, annotated, figure = folder / "raw.h5ad", folder / "annotated.h5ad", folder / "qc.png"
    run("simulate", "--output", raw, "--n_cells", 300, "--n_genes", 80, "--n_perturbations", 3, "--n_combinations", 2)
    shown = run("qc", "--criteria", "umi", "genes", "mito", raw, "--output", annotated, "--figure", figure).stdout
    assert "mito" in shown
    assert ad.read_h5ad(annotated).obs["artifact"].dtype == bool
    assert figure.stat().st_size > 10_000
    raw_scale = folder / "raw-scale.h5ad"
    run("qc", raw, "--criteria", "umi", "--scale", "raw", "--output", raw_scale)
    assert ad.read_h5ad(raw_scale).uns["cradlevae_qc"]["scale"] == "raw"
    assert ad.read_h5ad(annotated).uns["cradlevae_qc"]["scale"] == "auto"
    assert "n_mads: 3.0" in (folder / "annotated.h5ad.settings.yaml").read_text()


def test_run_holds_model_curves_checkpoints_and_settings(model: Path) -> None:
    names = {path.name for path in model.iterdir()}
    assert {"model.json", "history.csv", "split.json", "training.png", "settings.yaml", "checkpoints"} <= names
    assert {path.name for path in (model / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert cv.CradleVAE.load(model).split.recipe == "combinations"


def test_predict_effects_and_clean_write_what_they_say(folder: Path, data: Path, model: Path) -> None:
    pair = next(iter(cv.CradleVAE.load(model).split.parts.index))
    assert isinstance(pair, str)
    run("predict", model, "A", "B+A", "--output", folder / "predicted.h5ad", "--n_cells", 7)
    predicted = ad.read_h5ad(folder / "predicted.h5ad")
    assert predicted.shape == (14, 80)
    assert list(predicted.obs["perturbation"].unique()) == ["A", "B+A"]
    run("effects", "--perturbations", "A", "B", model, "--output", folder / "effects.csv", "--error", 0.05)
    table = pd.read_csv(folder / "effects.csv")
    assert tuple(table.columns) == COLUMNS
    assert (table["low"] <= table["high"]).all()
    assert set(table["perturbation"]) == {"A", "B"}
    assert list(table["rank"]) == list(range(1, len(table) + 1))
    run("clean", model, data, "--output", folder / "clean.h5ad", "--cells", "failed", "--n_draws", 2)
    cleaned = ad.read_h5ad(folder / "clean.h5ad").obs
    assert cleaned["failed_qc"].all()
    run("diagnose", model, data, "--output", folder / "damage.csv")
    found = pd.read_csv(folder / "damage.csv", index_col="cell")
    assert list(found["damage"]) == list(cleaned.loc[found.index, "damage"])


def test_all_effects_contrasts_interactions_and_expression_are_written(folder: Path, model: Path) -> None:
    pytest.importorskip("pyarrow")
    loaded = cv.load(model)
    run("effects", model, "--output", folder / "all.parquet", "--error", 1, "--sort-by", "gene")
    table = pd.read_parquet(folder / "all.parquet")
    assert set(table["perturbation"]) == set(loaded.effects(error=1).obs_names)
    assert table["gene"].is_monotonic_increasing
    run("contrast", model, "A", "B", "--output", folder / "contrast.csv", "--error", 1)
    assert set(pd.read_csv(folder / "contrast.csv")["perturbation"]) == {"A − B"}
    pairs = [folder / "pairs.h5ad", folder / "pairs.csv"]
    shown = run("interactions", model, "--output", pairs[0], "--summary", pairs[1], "--error", 1).stdout
    assert "magnitude" in shown
    assert list(pd.read_csv(pairs[1])["pair"]) == list(ad.read_h5ad(pairs[0]).obs_names)
    gene = loaded.trained.genes[0]
    run("expression", model, gene, "--output", folder / "gene.csv", "--perturbations", "B", "--error", 1)
    assert list(pd.read_csv(folder / "gene.csv")["perturbation"]) == ["control", "B"]
    for words in (["effects"], ["expression", gene], ["contrast", "A", "B"], ["interactions"]):
        shown = run(words[0], model, *words[1:], "--output", folder / "x.txt", status=1).stderr
        assert ".csv" in shown


def test_evaluate_writes_scores_figures_and_page(folder: Path, data: Path, model: Path) -> None:
    shown = run("evaluate", model, data, "--output", folder / "scores", "--n_cells", 5).stdout
    assert "ate_rho" in shown
    scores = pd.read_csv(folder / "scores" / "scores.csv")
    assert {"model", "additive", "zero", "denoiser"} <= set(scores["predictor"])
    assert (folder / "scores" / "report.html").stat().st_size > 10_000


def test_options_come_from_a_yaml_file_and_an_interrupted_run_resumes(folder: Path, data: Path) -> None:
    config = folder / "run.yaml"
    config.write_text("n_latent: 8\nwidth: 24\nbasal_width: 16\nmax_epochs: 1\nprogress: false\n")
    output = folder / "resumed"
    run("train", data, "--output", output, "--config", config)
    assert "already holds a run" in run("train", data, "--output", output, "--config", config, status=1).stderr
    (output / "model.json").unlink()  # as if it had been killed before the end
    run("train", data, "--output", output, "--resume", "--max-epochs", 2, "--config", config)
    assert len(pd.read_csv(output / "history.csv")) == 2


def test_the_settings_of_a_run_can_be_given_back(folder: Path, model: Path) -> None:
    settings = (model / "settings.yaml").read_text()
    (folder / "again.yaml").write_text(settings.replace(f"output: {model}", f"output: {folder / 'again'}"))
    run("train", "--config", folder / "again.yaml")
    assert (folder / "again" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    shown = run("train", "--config", folder / "again.yaml", "--print_config", "--n_latent", 9).stdout
    assert "n_latent: 9" in shown


def test_labels_and_columns_are_given_as_words(folder: Path, data: Path) -> None:
    adata = ad.read_h5ad(data)
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = labels.where(labels != "control", np.where(np.arange(len(labels)) % 2, "NT", "sg_ctrl"))
    kind = adata.obs["true_artifact_kind"].astype(str)
    adata.obs["low_umi"], adata.obs["other"] = kind == "low_umi", ~kind.isin(["low_umi", "none"])
    adata.write_h5ad(folder / "labels.h5ad")
    given = ["--control_labels", "NT", "sg_ctrl", "--artifact_key=low_umi,other", folder / "labels.h5ad"]
    brief = ["--split", "cells", "--no-progress", "--max-epochs", 1, *TINY[:6]]
    run("train", *given, "--output", folder / "labels", *brief)
    trained = cv.CradleVAE.load(folder / "labels").trained
    assert trained.criteria == ("low_umi", "other")
    assert trained.fields.control_labels == ("NT", "sg_ctrl")


def _damaged(folder: Path, data: Path) -> Path:
    path = folder / "truncated.h5ad"
    path.write_bytes(data.read_bytes()[:5000])
    return path


def _normalised(folder: Path, data: Path) -> Path:
    path = folder / "normalised.h5ad"
    adata = ad.read_h5ad(data)
    adata.X = adata.X.log1p()
    adata.write_h5ad(path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder, data: folder / "absent.h5ad", "no file"),
        (_damaged, "cannot be read as an AnnData file"),
        (_normalised, "looks log-normalised"),
    ],
)
def test_bad_data_is_refused_in_one_line_and_leaves_nothing(folder: Path, data: Path, make, message: str) -> None:
    output = folder / f"refused-{message[:6].strip()}"
    error = run("train", make(folder, data), "--output", output, *TINY, status=1).stderr
    assert message in error
    assert not (output / "model.json").exists()
    assert not (output / "checkpoints").exists()


def test_other_mistakes_are_refused_in_one_line(folder: Path, data: Path, model: Path) -> None:
    predicted = folder / "never.h5ad"
    assert "did you mean" in run("predict", model, "a", "--output", predicted, status=1).stderr
    assert "no model in" in run("predict", folder, "A", "--output", predicted, status=1).stderr
    for arguments, message in (
        ((model, "A"), "--output is missing"),
        ((model, "A", "--output", predicted, "--n_cell", 3), "unknown option --n_cell; did you mean 'n_cells'"),
        ((model, "A", "--output", predicted, "--n_cells", "few"), "--n_cells is 'few'; it must be a whole number"),
    ):
        refused = run("predict", *arguments, status=2).stderr
        assert message in refused
        assert refused.count("\n") == 1
    existing = folder / "data.h5ad"
    assert "exists already" in run("predict", model, "A", "--output", existing, status=1).stderr
    assert "cannot write into" in run("predict", model, "A", "--output", "/proc/x/y.h5ad", status=1).stderr
    assert not predicted.exists()


def test_predictions_do_not_depend_on_the_process(folder: Path, model: Path) -> None:
    for name in ("one", "two"):
        run("predict", model, "A", "--output", folder / f"{name}.h5ad", "--n_cells", 3)
    one, two = (ad.read_h5ad(folder / f"{name}.h5ad").X.toarray() for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def test_a_project_whose_counts_stay_on_disk(folder: Path, data: Path) -> None:
    adata = ad.read_h5ad(data)
    (folder / "cells").mkdir()
    adata[:200].copy().write_h5ad(folder / "cells" / "a.h5ad")
    adata[200:].copy().write_h5ad(folder / "cells" / "b.h5ad")
    annotated, cleaned = folder / "annotated", folder / "cleaned-from-disk.h5ad"
    run("qc", folder / "cells", "--output", annotated, "--criteria", "umi", "genes", "--key_added", "failed")
    options = ["--artifact_key", "failed", "--backed", "true"]
    shown = run("train", annotated, "--output", folder / "run-from-disk", *options, *TINY).stdout
    assert "counts stay on disk" in shown
    run("clean", folder / "run-from-disk", annotated, "--output", cleaned, "--cells", "failed")
    failed = cv.open_cells(annotated).obs["failed"]
    assert set(ad.read_h5ad(cleaned).obs_names) <= set(failed.index[failed])


def test_counts_by_genes_are_said_to_be_read_whole(folder: Path, data: Path) -> None:
    adata = ad.read_h5ad(data)
    adata.X = adata.X.tocsc()
    adata.write_h5ad(folder / "by-genes.h5ad")
    shown = run("train", folder / "by-genes.h5ad", "--output", folder / "by-genes", "--backed", "true", *TINY).stdout
    assert "counts are stored by genes (CSC), so they are read whole" in shown
    assert "stay on disk (" not in shown


def test_a_published_file_at_hand_is_converted(folder: Path) -> None:
    pairs = ["CBL_CNN1", "NegCtrl0_NegCtrl0", "CBL_NegCtrl0"]
    obs = pd.DataFrame(
        {"guide_identity": [f"{pair}__{pair}" for pair in pairs], "number_of_cells": [1, 1, 2]}, index=["a", "b", "c"]
    )
    ad.AnnData(np.ones((3, 4), dtype=np.float32), obs=obs).write_h5ad(folder / "norman_2019_raw.h5ad")
    output = folder / "norman.h5ad"
    shown = run("download", "norman", "--path", folder / "norman_2019_raw.h5ad", "--output", output).stdout
    assert "Norman et al., Science" in shown
    assert "several cells in one droplet" in shown
    assert ad.read_h5ad(output).obs["perturbation"].tolist() == ["CBL+CNN1", "control"]
    refused = run("download", "dixit", "--path", output, "--output", folder / "dixit.h5ad", status=1).stderr
    assert "which dixit does not" in refused


def test_a_sibling_is_trained_and_scored(folder: Path, data: Path) -> None:
    output = folder / "sams"
    run("train", data, "--output", output, "--model", "sams_vae", "--train_on", "all", *TINY)
    assert isinstance(cv.load(output), cv.SAMSVAE)
    run("evaluate", output, data, "--output", folder / "sams_scores", "--n_cells", "5", "--no-denoiser")
    assert "denoiser" not in set(pd.read_csv(folder / "sams_scores" / "scores.csv")["predictor"])
    assert (folder / "sams_scores" / "report.html").exists()
    assert not (folder / "sams_scores" / "artifact_signature.png").exists()
    refused = run("clean", output, data, "--output", folder / "never.h5ad", status=1)
    assert "SAMSVAE has no artifact latent, so it cannot clean cells" in refused.stderr
    unknown = run("train", data, "--output", folder / "other", "--model", "sams", *TINY, status=1)
    assert "did you mean 'sams_vae'" in unknown.stderr
