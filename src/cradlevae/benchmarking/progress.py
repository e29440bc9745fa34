"""Progress of a benchmark: how many jobs are finished, how many failed, and how long the others will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

from cradlevae.benchmarking.jobs import Job
from cradlevae.benchmarking.store import Store


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
