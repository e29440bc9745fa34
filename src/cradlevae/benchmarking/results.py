"""Collecting the scores of a plan's jobs into tidy tables, and writing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cradlevae.benchmarking.jobs import FLOORS, Job
from cradlevae.benchmarking.plan import Plan, plan_dict
from cradlevae.benchmarking.record import JOB, RESULTS, Benchmark
from cradlevae.benchmarking.store import Store
from cradlevae.benchmarking.table import markdown, summary
from cradlevae.errors import CradleError
from cradlevae.utils.atomic import write_csv, write_parquet, write_text


def collect(store: Store, jobs: Sequence[Job], plan: Plan) -> Benchmark:
    """The results of the jobs of a plan.

    Raises
    ------
    CradleError
        If no job gave a score.
    """
    tables, timings, failures = [], [], []
    for job in jobs:
        place = {name: getattr(job, name) for name in JOB}
        state = store.state(job)
        if state == "done":
            result = store.read(job)
            table = _table(job, result, plan.floor_labels).assign(**place)
            tables.append(table.astype({"init_seed": "Int64"}))
            timings.append(
                {**place, "model": job.label, "epochs": result["facts"].get("epochs"), **_named(result["seconds"])}
            )
        elif state == "failed":
            failures.append({**place, "model": job.label, "error": store.read_failure(job)["error"]})
    if not tables:
        raise CradleError(f"no job gave a score; the first failed with: {failures[0]['error'] if failures else '?'}")
    results = pd.concat(tables, ignore_index=True).reindex(columns=list(RESULTS))
    results["note"] = results["note"].fillna("")
    results.loc[results["kind"] != "model", "init_seed"] = pd.NA
    once = ["data", "recipe", "qc", "split_seed", "reference", "metric", "predictor"]
    repeated = (results["kind"] != "model") & results.duplicated(once)  # every model scores the real cells again
    failed = pd.DataFrame(failures, columns=[*JOB, "model", "error"]).astype({"init_seed": "Int64"})
    return Benchmark(
        plan, results[~repeated].reset_index(drop=True), pd.DataFrame(timings).astype({"init_seed": "Int64"}), failed
    )


def _named(seconds: dict[str, float]) -> dict[str, float]:
    return {f"{name}_s": round(value, 3) for name, value in seconds.items()}


def _table(job: Job, result: dict[str, Any], floor_labels: dict[str, str]) -> pd.DataFrame:
    """Rows of a job under the names of its plan."""
    from cradlevae.evaluation.floors.registry import FLOORS as FLOOR_NAMES
    from cradlevae.evaluation.score_table import COLUMNS, MODEL

    table = pd.DataFrame(result["scores"], columns=list(COLUMNS)).assign(unanswered=result["facts"]["unanswered"])
    own = table["predictor"].str.startswith(MODEL)  # "model", "model (published protocol)"
    floors = table["predictor"].isin(list(FLOOR_NAMES)) | (table["metric"] == "clean_deviance")
    table["kind"] = "reference"
    table.loc[floors, "kind"] = "floor"
    table.loc[own, "kind"] = "floor" if job.kind == "floor" else "model"
    label = job.label + table["predictor"].str.removeprefix(MODEL)
    table["predictor"] = table["predictor"].replace(floor_labels)
    table["model"] = table["predictor"].where(~own, label)
    if job.kind == "floor":
        table["predictor"] = table["model"]
    table["best_floor"] = table["best_floor"].replace(floor_labels)
    if job.kind != FLOORS:
        table.loc[table["kind"] == "reference", "unanswered"] = 0
    return table


def write_results(benchmark: Benchmark, folder: Path) -> None:
    """Write ``results.parquet``, ``timings.csv``, ``failures.csv``, the plan, the tables and the figure."""
    from cradlevae.benchmarking.figure import benchmark_figure
    from cradlevae.reporting.save import save_figure

    write_text(folder / "plan.resolved.yaml", _yaml(plan_dict(benchmark.plan)))
    write_parquet(benchmark.results, folder / "results.parquet")
    write_csv(benchmark.timings, folder / "timings.csv")
    write_csv(benchmark.failures, folder / "failures.csv")
    table = summary(benchmark.results, benchmark.plan.baseline_label)
    write_csv(table, folder / "table.csv")
    write_text(folder / "table.md", markdown(table, benchmark))
    save_figure(benchmark_figure(benchmark.results, table), folder / "benchmark.png")


def _yaml(content: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text
