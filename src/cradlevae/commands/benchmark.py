"""The commands that train and score many models: benchmark, sweep and reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cradlevae.commands.files import check_outputs, wrote
from cradlevae.errors import DataError
from cradlevae.reporting.tables import show

if TYPE_CHECKING:
    from cradlevae.benchmarking.record import Benchmark

TASKS = 16
"""Tasks of a Slurm array by default."""

TABLES = ".md", ".csv", ".parquet", ".png"
"""Endings of the files that a benchmark leaves in its folder for a reader."""


def benchmark(
    plan: Path,
    *,
    output: Path = Path("benchmark"),
    workers: int = 1,
    retry: bool = False,
    part: str | None = None,
    slurm: Path | None = None,
    tasks: int = TASKS,
    overwrite: bool = False,
) -> None:
    """Compute what a plan asks for (data sets × models × seeds) and is not there yet, and write its tables.

    Parameters
    ----------
    plan
        YAML file: data, models, training, split_seeds, init_seeds, baseline, scoring (see docs/benchmark.md).
    output
        Folder of the jobs and tables. Call again with it to go on, or beside another call to share the work.
    slurm
        Write a Slurm array script with one part for each task instead of computing.
    tasks
        Tasks of that array.
    overwrite
        Replace a script that is there already. (The folder is never emptied: what it lacks is computed.)
    """
    from cradlevae.benchmarking.benchmark import benchmark as compute

    if slurm is None and tasks != TASKS:
        raise DataError("tasks means nothing without slurm; leave it out, or name the script to write")
    if slurm is not None:
        if retry or part is not None:
            raise DataError("slurm computes nothing, so retry and part mean nothing; leave them out")
        from cradlevae.benchmarking.benchmark import write_slurm

        check_outputs(slurm, overwrite=overwrite, inputs=[plan])
        write_slurm(plan, output, slurm, tasks=tasks, workers=workers)
        wrote(slurm)
        return
    results = compute(plan, output, workers=workers, retry=retry, part=part)
    if results is None:
        print(f"part {part} is computed; call without --part for the tables")
        return
    _print_results(results, output)


def sweep(plan: Path, *, output: Path, trials: int = 30, workers: int = 1) -> None:
    """Search hyper-parameters of a model by its scores on validation cells (extra sweep).

    Parameters
    ----------
    plan
        YAML file of a benchmark with one model, and sweep: with ranges of its settings and training.
    output
        Folder of the trials; call again with it to go on.
    workers
        Processes; each has cores / workers threads.
    """
    from cradlevae.benchmarking.sweep import sweep as search

    show(search(plan, output, trials=trials, workers=workers).head(10), "best trials (validation cells)")
    wrote(output / "trials.csv")


def reproduce(
    dataset: Literal["norman", "dixit", "adamson", "replogle"],
    *,
    output: Path,
    budget: Literal["full", "small"] = "full",
    path: Path | None = None,
    workers: int = 1,
    retry: bool = False,
) -> None:
    """Run the published settings on a published data set: the paper's metrics, the honest ones and the floors.

    Parameters
    ----------
    dataset
        Name of the data set.
    output
        Folder of the jobs and tables; call again with it to go on.
    budget
        "full" is the published setting; "small" fits a laptop, and is not the published one.
    path
        The published file, where it is here already; nothing is downloaded then.
    """
    from cradlevae.benchmarking.reproduce import NOT_PUBLISHED
    from cradlevae.benchmarking.reproduce import reproduce as run_published

    if budget == "small":
        print(NOT_PUBLISHED)
    _print_results(run_published(dataset, output, budget=budget, path=path, workers=workers, retry=retry), output)


def _print_results(results: Benchmark, output: Path) -> None:
    """Print how many runs have scores, and where the tables are."""
    print(f"{len(results.timings)} runs have scores, {len(results.failures)} have none")
    for row in results.failures.drop_duplicates(["model", "error"]).itertuples():
        print(f"  no score: {row.model} on {row.data}: {row.error}")
    wrote(*sorted(path for path in output.iterdir() if path.suffix in TABLES))
