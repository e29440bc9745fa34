"""How far a benchmark has come: finished, failed, of how many, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

from cradlevae.benchmarking.jobs import Cell
from cradlevae.benchmarking.store import Store


class Progress:
    """A bar on a terminal, a line per cell elsewhere; on stderr."""

    def __init__(self, cells: Sequence[Cell], store: Store, workers: int) -> None:
        self.store = store
        self.workers = workers
        self.total = len(cells)
        states = [store.state(cell) for cell in cells]
        self.done, self.failed = states.count("done"), states.count("failed")
        self.open = {cell.hash: cell for cell, state in zip(cells, states, strict=True) if state == "open"}
        self.seconds: dict[str, list[float]] = {}
        for cell, state in zip(cells, states, strict=True):
            if state == "done":
                self._learn(cell)
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

    def finished(self, cell: Cell) -> None:
        """A cell is done or failed."""
        del self.open[cell.hash]
        failed = self.store.state(cell) == "failed"
        self.failed += failed
        self.done += not failed
        if not failed:
            self._learn(cell)
        if self.bar is not None:
            self.bar.update(self.task, description=self._text(), completed=self.done + self.failed)
        else:
            how = "failed" if failed else f"{self._took(cell):.0f} s"
            self.console.print(f"{self._text()}: {cell}, {how}", highlight=False, soft_wrap=True, markup=False)

    def _learn(self, cell: Cell) -> None:
        self.seconds.setdefault(cell.label, []).append(self._took(cell))

    def _took(self, cell: Cell) -> float:
        return float(sum(value for name, value in self.store.read(cell)["seconds"].items() if name != "training_cpu"))

    def _text(self) -> str:
        left = self.remaining()
        said = f"{self.done} finished, {self.failed} failed of {self.total} cells"
        return said if left is None else f"{said}, about {_time(left)} left"

    def remaining(self) -> float | None:
        """Seconds that the open cells will take, by what cells of their model (else of any) took; ``None`` unknown."""
        known = [value for values in self.seconds.values() for value in values]
        if not known or not self.open:
            return None
        mean = sum(known) / len(known)
        means = {label: sum(values) / len(values) for label, values in self.seconds.items()}
        return sum(means.get(cell.label, mean) for cell in self.open.values()) / self.workers


def _time(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) if seconds < 86400 else f"{seconds / 86400:.1f} days"
