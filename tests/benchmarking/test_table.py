"""The table of a benchmark, its tests and its figure, on numbers made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cradlevae.benchmarking.figure import benchmark_figure
from cradlevae.benchmarking.plan import plan_of
from cradlevae.benchmarking.record import Benchmark
from cradlevae.benchmarking.table import markdown, summary


def rows(model: str, kind: str, values: list[float], metric: str = "ate_rho", init_seeds: Any = (0,)) -> pd.DataFrame:
    """Scores of split seeds 0, 1, … for each init seed."""
    seeds = [(split, init) for split in range(len(values) // len(init_seeds)) for init in init_seeds]
    return pd.DataFrame(
        {
            "data": "screen", "recipe": "cells", "qc": "MAD 3", "model": model, "kind": kind,
            "split_seed": [split for split, _ in seeds],
            "init_seed": pd.array([init for _, init in seeds], dtype="Int64"),
            "reference": "held-out passing cells", "metric": metric, "predictor": model, "value": values,
            "ceiling": 0.8 if metric == "ate_rho" else np.nan, "unanswered": 0,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    return pd.concat(
        [
            rows("zero", "floor", [0.0] * 5, init_seeds=[None]),
            rows("mean", "floor", [0.40, 0.45, 0.35, 0.42, 0.38], init_seeds=[None]),
            rows("good", "model", [0.50, 0.55, 0.45, 0.52, 0.48]),
            rows("poor", "model", [0.45, 0.40, 0.34]),
            rows("twice", "model", [0.6, 0.5, 0.6, 0.4], init_seeds=[0, 1]),
            rows("good", "model", [0.2, 0.1, 0.2, 0.1, 0.3], metric="mae_delta"),
            rows("mean", "floor", [0.4, 0.2, 0.3, 0.2, 0.5], metric="mae_delta", init_seeds=[None]),
        ],
        ignore_index=True,
    )


def test_means_fraction_and_paired_tests(results: pd.DataFrame) -> None:
    table = summary(results).set_index(["metric", "model"])
    good = table.loc[("ate_rho", "good")]
    assert good["n"] == 5
    assert good["mean"] == pytest.approx(0.5)
    assert good["sd"] == pytest.approx(np.std([0.50, 0.55, 0.45, 0.52, 0.48], ddof=1))
    assert good["best_floor"] == "mean"
    assert good["fraction"] == pytest.approx((0.5 - 0.4) / (0.8 - 0.4))
    assert good["baseline"] == "mean"
    assert good["difference"] == pytest.approx(0.1)
    assert good["p"] == good["smallest_p"] == 2**-5
    poor = table.loc[("ate_rho", "poor")]
    assert poor["pairs"] == 3
    assert poor["smallest_p"] == 2**-3
    assert poor["p"] == pytest.approx(0.75)  # differences .05, -.05, -.01: six of eight sign flips reach their sum
    assert pd.isna(table.loc[("ate_rho", "zero"), "p"])


def test_a_floor_is_paired_with_every_init_seed_of_its_split(results: pd.DataFrame) -> None:
    twice = summary(results).set_index(["metric", "model"]).loc[("ate_rho", "twice")]
    assert twice["pairs"] == 4
    assert twice["difference"] == pytest.approx(np.mean([0.2, 0.1, 0.15, -0.05]))


def test_less_is_better_where_it_is(results: pd.DataFrame) -> None:
    table = summary(results).set_index(["metric", "model"])
    assert table.loc[("mae_delta", "good"), "p"] == 2**-5
    assert table.loc[("mae_delta", "good"), "difference"] < 0


def test_the_best_model_is_tested_against_the_others(results: pd.DataFrame) -> None:
    table = summary(results, baseline="poor").set_index(["metric", "model"])
    assert table.loc[("ate_rho", "good"), "baseline"] == "poor"
    assert table.loc[("ate_rho", "good"), "best_model"] == "twice"
    assert table.loc[("ate_rho", "good"), "pairs_best"] == 2
    assert pd.isna(table.loc[("ate_rho", "twice"), "best_model"])
    assert table.loc[("ate_rho", "zero"), "pairs_best"] == 4


def test_markdown_says_what_p_can_be_had_and_what_failed(results: pd.DataFrame) -> None:
    failures = pd.DataFrame(
        {"data": ["screen"], "recipe": "cells", "qc": "MAD 3", "split_seed": 0, "init_seed": 0, "model": "svae_plus",
         "error": ["cannot | answer"]}
    )  # fmt: skip
    plan = plan_of({"data": [{"path": "screen.h5ad"}], "models": ["cpa_vae"], "note": "Said first."})
    text = markdown(summary(results), Benchmark(plan, results, pd.DataFrame(), failures))
    assert "**Said first.**" in text
    assert "Smallest p: 0.0312" in text
    assert "| good | 0.500 ± 0.038 · 25% · p 0.031 |" in text
    assert "| floor: mean | 0.400 ± 0.038 |" in text
    assert "| twice | **0.525 ± 0.096** · 31% · p 0.125 |" in text
    assert "| *ceiling* | 0.800 |" in text
    assert "| screen, svae_plus (1 ×) | cannot \\| answer |" in text


def test_figure_has_a_dot_a_run_and_lines_for_floors_and_ceiling(results: pd.DataFrame) -> None:
    figure = benchmark_figure(results, summary(results))
    figure.canvas.draw()
    rho = figure.axes[0]
    dots = [line for line in rho.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [5, 3, 4]
    solid = [line.get_xdata()[0] for line in rho.lines if line.get_marker() != "o" and line.get_linestyle() == "-"]
    assert sorted(solid) == pytest.approx([0.4, 0.8])
    assert [label.get_text() for label in rho.get_yticklabels()] == ["good", "poor", "twice"]
