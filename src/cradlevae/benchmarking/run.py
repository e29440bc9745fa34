"""Running a plan: workers, progress, and what to do with a worker that dies."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from cradlevae.benchmarking.jobs import Cell, expand
from cradlevae.benchmarking.plan import Plan, load_plan, plan_of
from cradlevae.benchmarking.progress import Progress
from cradlevae.benchmarking.results import Benchmark, collect, need_parquet, write_results
from cradlevae.benchmarking.store import Store
from cradlevae.benchmarking.worker import job
from cradlevae.errors import CradleError, DataError
from cradlevae.utils.checks import check_at_least

PAUSE = 0.2
"""Seconds between looks at the workers."""

GRACE = 5.0
"""Seconds that a worker has to stop by itself."""

LOG = "workers.log"
"""What the workers print."""


def benchmark(
    plan: Plan | str | Path | dict[str, Any],
    output: str | Path,
    *,
    workers: int = 1,
    retry: bool = False,
    part: str | None = None,
) -> Benchmark | None:
    """Compute every cell of a plan that is not there yet, then write the tables.

    Called again with the same folder it goes on where it was stopped, at whatever moment; several calls at once, on one
    machine or on several that share the folder, share the work. A cell that fails is recorded and the others go on.

    Parameters
    ----------
    plan
        A :class:`~cradlevae.benchmarking.plan.Plan`, a YAML file, or what such a file holds.
    output
        Folder of the cells and of the tables. Plans may share a folder: cells that they have in common are computed
        once.
    workers
        Processes; each has cores / workers threads.
    retry
        Compute cells that failed again.
    part
        ``"i/n"``: only the i-th of n parts of the cells (from 1), without the tables; a call without ``part`` makes
        them.

    Returns
    -------
    The results; ``None`` for a part.

    Raises
    ------
    DataError
        If the plan does not hold, or the folder cannot be written.
    CradleError
        If workers cannot be started, or no cell gave a score.
    """
    check_at_least(1, workers=workers)
    made = as_plan(plan)
    need_parquet()
    store = Store(output)
    cells = expand(made)
    mine = cells if part is None else _part(cells, part)
    if retry:
        for cell in mine:
            store.forget_failure(cell)
    compute_cells(store, mine, made, workers)
    if part is not None:
        return None
    found = collect(store, cells, made)
    write_results(found, store.folder)
    return found


def as_plan(plan: Plan | str | Path | dict[str, Any]) -> Plan:
    """A plan, however given."""
    if isinstance(plan, Plan):
        return plan
    return plan_of(plan, folder=Path()) if isinstance(plan, dict) else load_plan(plan)


def compute_cells(store: Store, cells: Sequence[Cell], plan: Plan, workers: int) -> None:
    """Compute the open ones of some cells in so many processes."""
    unique = list({cell.hash: cell for cell in cells}.values())
    todo = []
    for cell in unique:
        if store.state(cell) == "open":
            todo.append(cell)
        else:
            store.release(cell)  # of a process that was killed between its last two steps
    if not todo:
        return
    sources = {source.name: source for source in plan.data}
    threads = max(1, _cores() // workers)  # however few cells are left: scores depend on it by rounding
    told = job(store, todo, sources, threads, plan.modules)
    with (store.folder / LOG).open("ab") as log:
        _run([_Worker(told, threads, log) for _ in range(min(workers, len(todo)))], store, unique, todo)


class _Worker:
    """A process that computes cells; it can be started again."""

    def __init__(self, told: bytes, threads: int, log: IO[bytes]) -> None:
        self.told = told
        self.threads = threads
        self.log = log
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, str(self.threads))}
        process = subprocess.Popen(
            [sys.executable, "-m", "cradlevae.benchmarking.worker"], env=environment, stdin=subprocess.PIPE,
            stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(self.told)
            process.stdin.flush()
        return process

    def restart(self) -> None:
        self.close()
        self.process = self._start()

    def close(self) -> None:
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()


def _run(workers: list[_Worker], store: Store, cells: Sequence[Cell], todo: Sequence[Cell]) -> None:
    """Wait until no cell is open."""
    waiting = list(todo)
    try:
        with Progress(cells, store, len(workers)) as progress:
            while waiting:
                time.sleep(PAUSE)
                for cell in [cell for cell in waiting if store.state(cell) != "open"]:
                    waiting.remove(cell)
                    progress.finished(cell)
                for worker in workers if waiting else ():
                    if worker.process.poll() not in (None, 0):
                        _bury(worker.process, store, waiting)
                        worker.restart()
    finally:
        _stop(workers, store, waiting)


def _bury(process: subprocess.Popen[bytes], store: Store, waiting: Sequence[Cell]) -> None:
    """Record the cell that a worker died of; :class:`CradleError` if it died before it had one."""
    cells = [cell for cell in waiting if store.owner(cell) == (socket.gethostname(), process.pid)]
    if not cells:
        log = (store.folder / LOG).read_text(errors="replace").strip()[-1000:]
        raise CradleError(f"a worker ended with status {process.returncode} before it could compute anything:\n{log}")
    for cell in cells:
        if store.state(cell) == "open":
            store.write_failure(cell, f"the process died (status {process.returncode}); was there too little memory?")
        store.release(cell)


def _stop(workers: Sequence[_Worker], store: Store, waiting: Sequence[Cell]) -> None:
    """End the workers, and give their claims back."""
    for worker in workers:
        worker.close()
    until = time.monotonic() + GRACE
    for worker in workers:
        try:
            worker.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    mine = {(socket.gethostname(), worker.process.pid) for worker in workers}
    for cell in waiting:
        if store.owner(cell) in mine:
            store.release(cell)


def _part(cells: Sequence[Cell], part: str) -> list[Cell]:
    """The i-th of n parts, by turns, so that all have their share of every model."""
    try:
        number, parts = map(int, part.split("/"))
        if not 1 <= number <= parts:
            raise ValueError
    except ValueError:
        raise DataError(f"part is {part!r}; it must be i/n with i from 1 to n, e.g. 1/8") from None
    return list(cells[number - 1 :: parts])


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
