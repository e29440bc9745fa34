"""The processes that compute the jobs of a plan, their progress, and what to do with a process that dies."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, Self

from cradlevae.benchmarking.jobs import Job
from cradlevae.benchmarking.plan import Plan
from cradlevae.benchmarking.store import Store
from cradlevae.benchmarking.worker import instructions
from cradlevae.errors import CradleError

PAUSE = 0.2
"""Seconds between looks at the workers."""

GRACE = 5.0
"""Seconds that a worker has to stop by itself."""

LOG = "workers.log"
"""File of what the workers print."""


def compute_jobs(store: Store, jobs: Sequence[Job], plan: Plan, workers: int) -> None:
    """Compute those of some jobs that are open, in so many processes."""
    unique = list({job.hash: job for job in jobs}.values())
    todo: list[Job] = []
    for job in unique:
        if store.state(job) == "open":
            todo.append(job)
        else:
            store.release(job)  # of a process that was killed between its last two steps
    if not todo:
        return
    sources = {source.name: source for source in plan.data}
    threads = max(1, _cores() // workers)  # however few jobs are left: scores depend on it by rounding
    content = instructions(store, todo, sources, threads, plan.modules)
    with (store.folder / LOG).open("ab") as log:
        _wait([_Worker(content, threads, log) for _ in range(min(workers, len(todo)))], store, unique, todo)


class _Worker:
    """A process that computes jobs; it can be started again."""

    def __init__(self, content: bytes, threads: int, log: IO[bytes]) -> None:
        self.content = content
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
            process.stdin.write(self.content)
            process.stdin.flush()
        return process

    def restart(self) -> None:
        self.close()
        self.process = self._start()

    def close(self) -> None:
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()


def _wait(workers: list[_Worker], store: Store, jobs: Sequence[Job], todo: Sequence[Job]) -> None:
    """Wait until no job is open; replace workers that die."""
    waiting = list(todo)
    try:
        with Progress(jobs, store, len(workers)) as progress:
            while waiting:
                time.sleep(PAUSE)
                for job in [job for job in waiting if store.state(job) != "open"]:
                    waiting.remove(job)
                    progress.finished(job)
                for worker in workers if waiting else ():
                    if worker.process.poll() not in (None, 0):
                        _bury(worker.process, store, waiting)
                        worker.restart()
    finally:
        _stop(workers, store, waiting)


def _bury(process: subprocess.Popen[bytes], store: Store, waiting: Sequence[Job]) -> None:
    """Record the job that a worker died of; :class:`CradleError` if it died before it had one."""
    claimed = [job for job in waiting if store.owner(job) == (socket.gethostname(), process.pid)]
    if not claimed:
        log = (store.folder / LOG).read_text(errors="replace").strip()[-1000:]
        raise CradleError(f"a worker ended with status {process.returncode} before it could compute anything:\n{log}")
    for job in claimed:
        if store.state(job) == "open":
            store.write_failure(job, f"the process died (status {process.returncode}); was there too little memory?")
        store.release(job)


def _stop(workers: Sequence[_Worker], store: Store, waiting: Sequence[Job]) -> None:
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
    for job in waiting:
        if store.owner(job) in mine:
            store.release(job)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Progress:
    """A bar on a terminal, a line per job elsewhere; on stderr."""

    def __init__(self, jobs: Sequence[Job], store: Store, workers: int) -> None:
        self.store = store
        self.workers = workers
        self.total = len(jobs)
        states = [store.state(job) for job in jobs]
        self.done, self.failed = states.count("done"), states.count("failed")
        self.open = {job.hash: job for job, state in zip(jobs, states, strict=True) if state == "open"}
        self.seconds: dict[str, list[float]] = {}
        for job, state in zip(jobs, states, strict=True):
            if state == "done":
                self._record(job)
        self.bar: Any = None

    def __enter__(self) -> Self:
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_terminal:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(TextColumn("{task.description}"), BarColumn(), console=console)
            self.task = self.bar.add_task(self._text(), total=self.total, completed=self.done + self.failed)
            self.bar.start()
        else:
            console.print(self._text(), highlight=False, soft_wrap=True)
        self.console = console
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def finished(self, job: Job) -> None:
        """Count a job that is done or failed, and show it."""
        del self.open[job.hash]
        failed = self.store.state(job) == "failed"
        self.failed += failed
        self.done += not failed
        if not failed:
            self._record(job)
        if self.bar is not None:
            self.bar.update(self.task, description=self._text(), completed=self.done + self.failed)
        else:
            how = "failed" if failed else f"{self._took(job):.0f} s"
            self.console.print(f"{self._text()}: {job}, {how}", highlight=False, soft_wrap=True, markup=False)

    def _record(self, job: Job) -> None:
        self.seconds.setdefault(job.label, []).append(self._took(job))

    def _took(self, job: Job) -> float:
        return float(sum(value for name, value in self.store.read(job)["seconds"].items() if name != "training_cpu"))

    def _text(self) -> str:
        left = self.remaining()
        text = f"{self.done} finished, {self.failed} failed of {self.total} jobs"
        return text if left is None else f"{text}, about {_time(left)} left"

    def remaining(self) -> float | None:
        """Seconds that the open jobs will take, judged by finished ones of their model or of any; ``None`` at first."""
        known = [value for values in self.seconds.values() for value in values]
        if not known or not self.open:
            return None
        mean = sum(known) / len(known)
        means = {label: sum(values) / len(values) for label, values in self.seconds.items()}
        return sum(means.get(job.label, mean) for job in self.open.values()) / self.workers


def _time(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) if seconds < 86400 else f"{seconds / 86400:.1f} days"
