"""Computing a plan: in processes here (:func:`benchmark`), or as a Slurm array (:func:`write_slurm`)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cradlevae.benchmarking.jobs import Job, expand
from cradlevae.benchmarking.plan import Plan, load_plan, plan_of
from cradlevae.benchmarking.pool import compute_jobs
from cradlevae.benchmarking.record import Benchmark
from cradlevae.benchmarking.results import collect, write_results
from cradlevae.benchmarking.store import Store
from cradlevae.errors import DataError
from cradlevae.utils.atomic import need_parquet, write_text
from cradlevae.utils.checks import check_at_least, flag, optional_text, output_folder, path_of, whole_number

SCRIPT = """#!/bin/bash
#SBATCH --job-name=cradlevae-benchmark
#SBATCH --array=1-{tasks}
#SBATCH --cpus-per-task={workers}
#SBATCH --output={log}
# Add what your cluster asks for: --partition, --time, --mem, --gres=gpu:1.
# A part that was cut off goes on when the array is submitted again. When all have ended, the tables are made by
#   {command}
# or at once by: sbatch --dependency=afterany:JOB --wrap {wrapped}
set -euo pipefail
{command} --workers {workers} --part "${{SLURM_ARRAY_TASK_ID}}/{tasks}"
"""
"""A Slurm array, each task of which computes a part of the jobs."""


def benchmark(
    plan: Plan | str | Path | dict[str, Any],
    output: str | Path,
    *,
    workers: int = 1,
    retry: bool = False,
    part: str | None = None,
) -> Benchmark | None:
    """Compute every job of a plan that is not there yet, then write the tables.

    Called again with the same folder, it goes on where it was stopped, at whatever moment. Several calls at once share
    the work, on one machine or on several that share the folder. A job that fails is recorded, and the others go on.

    Parameters
    ----------
    plan
        A :class:`cradlevae.Plan`, a YAML file, or a mapping with the content of such a file.
    output
        Folder of the jobs and of the tables. Plans may share a folder: jobs that they have in common are computed once.
    workers
        Number of processes; each has cores / workers threads.
    retry
        Whether jobs that failed are computed again.
    part
        ``"i/n"`` computes only the i-th of n parts of the jobs (from 1), without the tables; a call without ``part``
        writes them.

    Returns
    -------
    The results; ``None`` for a part.

    Raises
    ------
    DataError
        If the plan contradicts itself, or the folder cannot be written.
    CradleError
        If workers cannot be started, or no job gave a score.

    Examples
    --------
    The floors alone, on a small simulated experiment and one split:

    >>> import tempfile
    >>> import cradlevae as cv
    >>> data = {"simulate": {"n_cells": 300, "n_genes": 60, "seed": 0}, "qc": {"criteria": ["umi", "mito"]}}
    >>> plan = cv.Plan([data], ["zero"], split_seeds=[0], scoring={"generated": False, "truth": False})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = cv.benchmark(plan, folder).results
    >>> results.query("metric == 'ate_rho' and model == 'additive'")[["kind", "split_seed"]].to_numpy().tolist()
    [['floor', 0]]
    """
    workers, retry, part = whole_number("workers", workers, 1), flag("retry", retry), optional_text("part", part)
    output = output_folder("output", output)
    checked = as_plan(plan)
    need_parquet("the results of a benchmark")
    store = Store(output)
    jobs = expand(checked)
    mine = jobs if part is None else _part(jobs, part)
    if retry:
        for job in mine:
            store.forget_failure(job)
    compute_jobs(store, mine, checked, workers)
    if part is not None:
        return None
    results = collect(store, jobs, checked)
    write_results(results, store.folder)
    return results


def as_plan(plan: Plan | str | Path | dict[str, Any]) -> Plan:
    """A plan, however given."""
    if isinstance(plan, Plan):
        return plan
    return plan_of(plan, folder=Path()) if isinstance(plan, dict) else load_plan(path_of("plan", plan))


def _part(jobs: Sequence[Job], part: str) -> list[Job]:
    """The i-th of n parts, by turns, so that all have their share of every model."""
    try:
        number, parts = map(int, part.split("/"))
        if not 1 <= number <= parts:
            raise ValueError
    except ValueError:
        raise DataError(f"part is {part!r}; it must be i/n with i from 1 to n, e.g. 1/8") from None
    return list(jobs[number - 1 :: parts])


def write_slurm(plan: Path, output: Path, script: Path, *, tasks: int, workers: int = 1) -> None:
    """Write a Slurm array script that computes a plan in ``tasks`` parts.

    Parameters
    ----------
    plan
        YAML file of the plan; it is read and checked.
    output
        Folder of the jobs, on a disk that all machines share.
    script
        File to write.
    tasks
        Number of tasks of the array.
    workers
        Number of processes, and of cores, of each task.

    Raises
    ------
    DataError
        If the plan contradicts itself, or the script cannot be written.
    """
    check_at_least(1, tasks=tasks, workers=workers)
    load_plan(plan)
    words = [sys.executable, "-m", "cradlevae.cli", "benchmark", str(plan.resolve()), "--output", str(output.resolve())]
    command = shlex.join(words)
    log = output.resolve() / "slurm-%A_%a.log"
    filled = SCRIPT.format(tasks=tasks, workers=workers, log=log, command=command, wrapped=shlex.quote(command))
    output.mkdir(parents=True, exist_ok=True)  # Slurm does not make the folder of its log
    write_text(script, filled)
