"""Every script of ``benchmarks/`` runs, with arguments so small that it takes seconds, and writes where it is told."""

from __future__ import annotations

import json
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
IMPORTED = {"direct.py", "processes.py", "rows.py", "steps.py"}
"""Scripts that others import and nobody runs."""

ELSEWHERE = {"same_numbers.py"}
"""Scripts with tests of their own."""

SMALL = ("--cells", "300", "--genes", "60")
ONE_THREAD = ("--threads", "1")
SPEED = ("--cells", "200", "--genes", "60", "--perturbations", "4", "--particles", "2", "--batch", "32", *ONE_THREAD)
RUNS: dict[str, list[tuple[str, ...]]] = {
    "answers": [("answers.py", "--cells", "500", "--genes", "40", "--perturbations", "4", "--pairs", "4", "--epochs",
                 "1", *ONE_THREAD, "--output", "answers.csv")],
    "batch_step": [("batch_step.py", "--batches", "3", "--cells", "300", "--genes", "40", "--perturbations", "3",
                    "--pairs", "2", *ONE_THREAD)],
    "batches": [("batches.py", "--cells", "600", "--genes", "40", "--models", "hierarchical_mean", "CradleVAE",
                 "--epochs", "1", *ONE_THREAD, "--output", "batches.csv")],
    "contexts": [("contexts.py", "--cells", "600", "--genes", "40", "--models", "other_contexts_mean", "CradleVAE",
                  "--without", "--held-out", "context1", "--epochs", "1", *ONE_THREAD, "--output", "contexts.csv")],
    "effects": [("effects.py", "effects.json", "--cells", "200", "--genes", "60", "--perturbations", "4",
                 "--conditions", "2", "--sampled", "1", "--particles", "100", "--runs", "2")],
    "epoch": [("memory.py", "simulate", "cells.h5ad", *SMALL),
              ("epoch.py", "cells.h5ad", *ONE_THREAD, "--batch-size", "64", "--rounds", "1", "--output", "epoch.json"),
              ("epoch.py", "cells.h5ad", *ONE_THREAD, "--backed", "--batch-size", "64", "--rounds", "1")],
    "gpu": [("gpu.py", "--device", "cpu", "--genes", "60", "--cells", "200", "--perturbations", "4", "--particles", "2",
             "--batch", "32", "--epoch-cells", "400", "--epoch-genes", "60", "--drawn-cells", "300", "--skip-tests",
             "--output", "gpu.json")],
    "held_out": [("held_out.py", "combinations", *SMALL, *ONE_THREAD, "--epochs", "2", "--output", "held_out.csv")],
    "memory": [("memory.py", "simulate", "files", "--files", "2", *SMALL),
               ("memory.py", "train", "files", "--backed", "--option", "batch_size=64"),
               ("memory.py", "qc", "files")],
    "mixing": [("memory.py", "simulate", "cells.h5ad", "--cells", "4000", "--genes", "40"),
               ("mixing.py", "cells.h5ad", "--conditions", "control", "A", "B", "--components", "5", "--draws", "1",
                "--epochs", "1", *ONE_THREAD, "--output", "mixing.csv")],
    "overhead": [("overhead.py", "--cells", "200", "--genes", "60", "--repeats", "1")],
    "pairs": [("memory.py", "simulate", "cells.h5ad", "--cells", "900", "--genes", "40"),
              ("pairs.py", "cells.h5ad", "--damage", "other", "--epochs", "1", "--no-denoiser", *ONE_THREAD, "--output",
               "pairs.csv"),
              ("pairs.py", "cells.h5ad", "--damage", "other", "--epochs", "1", "--quick", "--settings",
               "reference=mean", *ONE_THREAD, "--output", "pairs.csv")],
    "peers": [("peers.py", "run", "--genes", "60", "--density", "0.3", "--cells", "200", "--perturbations", "4",
               "--rounds", "1", "--batch", "64", "--width", "16", "--latent", "8", *ONE_THREAD, "--output",
               "peers.json")],
    "picture": [("memory.py", "simulate", "cells.h5ad", "--cells", "900", "--genes", "40"),
                ("picture.py", "cells.h5ad", "--condition", "A", "--basis", "pca", "--epochs", "1", *ONE_THREAD,
                 "--output", "picture.png")],
    "responders": [("responders.py", "simulated", *SMALL, "--perturbations", "3", "--pairs", "1", "--escaping", "0.5",
                    "--epochs", "1", *ONE_THREAD, "--output", "simulated.csv"),
                   ("memory.py", "simulate", "cells.h5ad", "--cells", "900", "--genes", "40"),
                   ("responders.py", "halves", "cells.h5ad", "--epochs", "1", *ONE_THREAD, "--output", "halves.csv")],
    "scores": [("scores.py", "simulated", *SMALL, *ONE_THREAD, "--epochs", "2", "--output", "scores.csv"),
               ("table.py", "scores.csv")],
    "screen": [("screen.py", "simulate", "screen.h5ad", "--fraction", "0.0016", "--perturbations", "8", "--genes",
                "40", "--lanes", "3"),
               ("screen.py", "run", "screen.h5ad", "--option", "width=16", "--option", "n_latent=8", "--batches",
                "--no-denoiser", "--conditions", "3", "--output", "screen")],
    "speed": [("speed.py", "run", *SPEED, "--precision", "float32", "--model", "default", "--pairs", "1",
               "--capability", "avx2", "--output", "results.json"),
              ("speed.py", "profile", *SPEED)],
    "threads": [("threads.py", "run", "--threads", "1", "--competitors", "0", "1", "--genes", "60", "--cells", "200",
                 "--perturbations", "4", "--batch", "32", "--rounds", "1", "--seconds", "0.1", "--output",
                 "threads.json")],
    "tiny": [("tiny.py", "--models", "CradleVAE", "shrunk_mean", "--cells", "4", "--conditions", "2", "--noise",
              "gamma", "--seeds", "0", "--genes", "30", "--epochs", "2", *ONE_THREAD, "--output", "tiny.csv")],
    "worth": [("memory.py", "simulate", "cells.h5ad", "--cells", "900", "--genes", "40"),
              ("worth.py", "cells.h5ad", "--shares", "0.3", "--repeats", "1", "--output", "worth.csv")],
}  # fmt: skip
"""Command lines that belong together, one after the other in one folder."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script in an empty folder, as the command line would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()

    def run(script: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # so few cells are warned about
                runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        finally:
            torch.set_num_threads(threads)

    return run


def test_every_script_is_run_by_a_test() -> None:
    scripts = {path.name for path in BENCHMARKS.glob("*.py")}
    assert {script for runs in RUNS.values() for script, *_ in runs} == scripts - IMPORTED - ELSEWHERE


@pytest.mark.parametrize("name", list(RUNS))
def test_it_runs(name: str, run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for script, *arguments in RUNS[name]:
        run(script, *arguments)
        assert capsys.readouterr().out.strip()
        written = [tmp_path / text for text in arguments if text.endswith((".json", ".csv", ".h5ad"))]
        assert all(path.stat().st_size > 0 for path in written)


@pytest.mark.parametrize("name", sorted({(script, *verb[:1]) for runs in RUNS.values() for script, *verb in runs}))
def test_its_help_is_shown(name: tuple[str, ...], run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    script, *verb = name
    with pytest.raises(SystemExit) as ended:
        run(script, *(word for word in verb if word.isidentifier()), "--help")
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_the_report_of_speed_fills_in_the_page_that_it_is_given(run: Callable[..., None], tmp_path: Path) -> None:
    record = json.loads((BENCHMARKS / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps(record))
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- speed: written by make bench -->\nold\n<!-- speed ends -->\nAfter.\n")
    run("speed.py", "report", "--output", "results.json", "--page", "page.md", "--picture", "speed.png")
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert "old" not in text
    problems = pd.DataFrame(record["rows"]).query("model == 'published'").groupby(["genes", "particles"]).ngroups
    assert sum(line.startswith("| ") and line[2].isdigit() for line in text.splitlines()) == problems
    assert (tmp_path / "speed.png").stat().st_size > 0
