"""The same plan on a cluster: a Slurm array, each task of which computes a part of the jobs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from cradlevae.benchmarking.plan import load_plan
from cradlevae.utils.atomic import write_text
from cradlevae.utils.checks import check_at_least

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
