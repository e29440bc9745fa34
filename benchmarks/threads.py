"""A training step with 1, 2, ... threads, on an idle machine and on a busy one.

    python benchmarks/threads.py run                   # → benchmarks/threads.json
    python benchmarks/threads.py run --threads 1 2 4 8 --genes 2000 --rounds 5

Torch takes a thread for each core, and its threads wait for one another at the end of each operation: where one of them
shares its core with another process, all of them wait. So the best number on an idle machine may be the worst one on a
busy machine. Here a step of the default model, as users have it (counterfactual pairs, minibatches of 256 cells, one
particle), runs with each number of threads, in turn and in a process of each, first alone and then beside competitors:
a Python loop for each core, as many as there are (``--competitors`` takes other numbers).

CPU time tells what more threads cost, wall time what they gain. ``wall_ratio`` is the wall time with one thread by the
wall time with so many, under the same load, medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from processes import CAPABILITIES, Worker, machine, serve
from steps import Stepper

from cradlevae.nn.matmul import matmul_precision

RESULTS = Path(__file__).parent / "threads.json"
LOOP = "while True: sum(range(10_000))"


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def competitors(n: int) -> Iterator[None]:
    """So many processes that keep a core busy each."""
    processes = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(options: argparse.Namespace) -> None:
    """Measure each load, and write after each of them."""
    numbers = sorted({1, *(options.threads or range(1, cores() + 1))})
    loads = options.competitors or [0, cores()]
    rows: list[dict[str, Any]] = []
    for genes in options.genes:
        settings = {"genes": genes, **{name: getattr(options, name) for name in ("cells", "perturbations", "batch")}}
        workers = {
            n: Worker(__file__, options.capability, environment(n, options), threads=n, **settings) for n in numbers
        }
        where = {n: worker.ask("machine") for n, worker in workers.items()}
        steps = {n: max(1, round(options.seconds / worker.ask("run", 3)["wall"])) for n, worker in workers.items()}
        for load in loads:
            with competitors(load):
                rounds = [{n: worker.ask("run", steps[n]) for n, worker in workers.items()}
                          for _ in range(options.rounds)]  # fmt: skip
            rows += [row(genes, load, n, where[n]["threads"], rounds) for n in numbers]
            record = {
                "machine": machine()
                | {"cores": cores(), "capability": where[1]["capability"], "passive": options.passive},
                "rows": rows,
            }
            options.output.write_text(json.dumps(record, indent=1) + "\n")
        for worker in workers.values():
            worker.close()
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format))


def environment(threads: int, options: argparse.Namespace) -> dict[str, str]:
    """What tells the libraries of a process how many threads to take, and how these wait."""
    told = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return told | ({"OMP_WAIT_POLICY": "PASSIVE"} if options.passive else {})


def row(genes: int, load: int, n: int, threads: int, rounds: list[dict[int, dict[str, float]]]) -> dict[str, Any]:
    """What a number of threads takes under a load."""
    return {
        "genes": genes, "competitors": load, "threads": threads, "rounds": len(rounds),
        "wall_ms": 1e3 * float(np.median([one[n]["wall"] for one in rounds])),
        "cpu_ms": 1e3 * float(np.median([one[n]["cpu"] for one in rounds])),
        "wall_ratio": float(np.median([one[1]["wall"] / one[n]["wall"] for one in rounds])),
        "cpu_ratio": float(np.median([one[1]["cpu"] / one[n]["cpu"] for one in rounds])),
        "slowest_wall_ms": 1e3 * max(one[n]["wall"] for one in rounds),
    }  # fmt: skip


def work(options: argparse.Namespace) -> None:
    """Obey the driver, with one number of threads."""
    torch.set_num_threads(options.threads)
    options.formulation, options.model, options.particles = "package", "pairs", 1
    with matmul_precision("float32"):
        serve(Stepper(options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    driver, worker = tasks.add_parser("run"), tasks.add_parser("work")
    driver.add_argument("--threads", type=int, nargs="+", help="by default 1 to the number of cores")
    driver.add_argument("--competitors", type=int, nargs="+", help="by default none, and one for each core")
    driver.add_argument("--genes", type=int, nargs="+", default=[300, 2000, 8563])
    driver.add_argument("--rounds", type=int, default=5)
    driver.add_argument("--seconds", type=float, default=2.0, help="of a number of threads in a round, when idle")
    driver.add_argument(
        "--passive", action="store_true", help="threads sleep while they wait (OMP_WAIT_POLICY=PASSIVE)"
    )
    driver.add_argument("--capability", choices=list(CAPABILITIES), default="native")
    driver.add_argument("--output", type=Path, default=RESULTS, help="JSON of the results")
    worker.add_argument("--threads", type=int)
    worker.add_argument("--genes", type=int)
    for task in (driver, worker):
        task.add_argument("--cells", type=int, default=2000, help="64 %% of them train")
        task.add_argument("--perturbations", type=int, default=100)
        task.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    {"run": run, "work": work}[options.task](options)


if __name__ == "__main__":
    main()
