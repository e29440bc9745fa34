"""The results of a plan as tidy tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from cradlevae.benchmarking.jobs import FLOORS, Cell
from cradlevae.benchmarking.plan import Plan, plan_dict
from cradlevae.benchmarking.store import Store
from cradlevae.errors import CradleError, DataError
from cradlevae.utils.atomic import atomic_path, write_text

RUN = ("data", "recipe", "qc", "split_seed", "init_seed")
RESULTS = (
    *RUN[:3], "model", "kind", "split_seed", "init_seed", "reference", "metric", "predictor", "value", "low", "high",
    "floor", "best_floor", "ceiling", "fraction", "unanswered", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark found.

    Attributes
    ----------
    plan
        What was run.
    results
        A row per run, reference, metric and predictor; columns :data:`RESULTS`. ``kind`` is ``model``, ``floor``, or
        ``reference`` for what neither is (ceilings, real cells). Floors stand once for each split of the data.
    timings
        Seconds of each run.
    failures
        Runs that failed, and why.
    """

    plan: Plan
    results: pd.DataFrame
    timings: pd.DataFrame
    failures: pd.DataFrame


def need_parquet() -> None:
    """Raise :class:`DataError` where pandas cannot write parquet."""
    if find_spec("pyarrow") is None:
        raise DataError("benchmarks write parquet, which needs pyarrow; pip install 'cradlevae[benchmark]'")


def collect(store: Store, cells: Sequence[Cell], plan: Plan) -> Benchmark:
    """The results of the cells of a plan.

    Raises
    ------
    CradleError
        If no cell gave a score.
    """
    tables, timings, failures = [], [], []
    for cell in cells:
        run = {name: getattr(cell, name) for name in RUN}
        state = store.state(cell)
        if state == "done":
            found = store.read(cell)
            table = _table(cell, found).assign(**run)
            tables.append(table.astype({"init_seed": "Int64"}))
            timings.append(
                {**run, "model": cell.label, "epochs": found["facts"].get("epochs"), **_named(found["seconds"])}
            )
        elif state == "failed":
            failures.append({**run, "model": cell.label, "error": store.read_failure(cell)["error"]})
    if not tables:
        raise CradleError(f"no cell gave a score; the first failed with: {failures[0]['error'] if failures else '?'}")
    results = pd.concat(tables, ignore_index=True).reindex(columns=list(RESULTS))
    results["note"] = results["note"].fillna("")
    results.loc[results["kind"] != "model", "init_seed"] = pd.NA
    once = ["data", "recipe", "qc", "split_seed", "reference", "metric", "predictor"]
    repeated = (results["kind"] != "model") & results.duplicated(once)  # every model scores the real cells again
    failed = pd.DataFrame(failures, columns=[*RUN, "model", "error"]).astype({"init_seed": "Int64"})
    return Benchmark(
        plan, results[~repeated].reset_index(drop=True), pd.DataFrame(timings).astype({"init_seed": "Int64"}), failed
    )


def _named(seconds: dict[str, float]) -> dict[str, float]:
    return {f"{name}_s": round(value, 3) for name, value in seconds.items()}


def _table(cell: Cell, found: dict[str, Any]) -> pd.DataFrame:
    """Rows of a cell under the names of its plan."""
    from cradlevae.evaluation.floors.registry import FLOORS as NAMES
    from cradlevae.evaluation.score_table import COLUMNS, MODEL

    table = pd.DataFrame(found["scores"], columns=list(COLUMNS)).assign(unanswered=found["facts"]["unanswered"])
    if cell.kind == "floor":
        table["predictor"] = table["predictor"].replace(MODEL, cell.label)
    mine = table["predictor"].str.startswith(MODEL)
    floors = table["predictor"].isin([*NAMES, cell.label]) | (table["metric"] == "clean_deviance")
    table["kind"] = "reference"
    table.loc[floors, "kind"] = "floor"
    table.loc[mine, "kind"] = "model"
    published = table["predictor"].str.removeprefix(MODEL)  # " (published protocol)"
    table["model"] = table["predictor"].where(~mine, cell.label + published)
    if cell.kind != FLOORS:
        table.loc[table["kind"] == "reference", "unanswered"] = 0
    return table


def write_results(found: Benchmark, folder: Path) -> None:
    """Write ``results.parquet``, ``timings.csv``, ``failures.csv``, the plan, the tables and the figure."""
    from cradlevae.benchmarking.figure import benchmark_figure
    from cradlevae.benchmarking.table import markdown, summary
    from cradlevae.reporting.save import save_figure
    from cradlevae.utils.atomic import write_csv

    write_text(folder / "plan.resolved.yaml", _yaml(plan_dict(found.plan)))
    with atomic_path(folder / "results.parquet") as temporary:
        found.results.to_parquet(temporary, index=False)
    write_csv(found.timings, folder / "timings.csv")
    write_csv(found.failures, folder / "failures.csv")
    table = summary(found.results, found.plan.baseline)
    write_csv(table, folder / "table.csv")
    write_text(folder / "table.md", markdown(table, found))
    save_figure(benchmark_figure(found.results, table), folder / "benchmark.png")


def _yaml(content: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text
