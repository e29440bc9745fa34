"""Progress of long work, on stderr: a bar on a terminal and in a notebook, and plain lines everywhere else.

A bar of :func:`track_slow` appears only where work takes longer than a few seconds. One bar is shown at a time: that of
a part of the work stays away.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds after which the bar appears."""

LINE_EVERY = 30.0
"""Seconds between the lines that stand for such a bar where there is no terminal."""

REDRAW_EVERY = 0.2
"""Seconds between two states of a bar in a notebook."""


def track_slow(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yield ``items``; after :data:`PATIENCE` seconds, show a bar of ``total`` steps on stderr."""
    yield from _tracked(items, 0, total, description, lambda item: 1, ())


def track_bytes(chunks: Iterable[bytes], start: int, total: int | None, description: str) -> Iterator[bytes]:
    """Do the same as :func:`track_slow` for a download: ``total`` bytes, of which ``start`` were received earlier."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    yield from _tracked(chunks, start, total, description, len, (DownloadColumn(), TransferSpeedColumn()))


def _tracked(
    items: Iterable[T],
    done: int,
    total: int | None,
    description: str,
    size: Callable[[T], int],
    columns: tuple[Any, ...],
) -> Iterator[T]:
    """Yield ``items``; each advances the bar by its ``size``, from ``done`` to ``total``."""
    start = time.monotonic()
    bar: ProgressBar | None = None
    complete = True
    try:
        for item in items:
            if bar is None and time.monotonic() - start > PATIENCE:
                bar = ProgressBar(description, total, done, columns=columns, line_every=LINE_EVERY, transient=True)
            yield item
            done += size(item)
            if bar is not None:
                bar.show(done)
    except GeneratorExit:  # the work was done before its last step, as where an estimate has converged
        raise
    except BaseException:
        complete = False
        raise
    finally:
        if bar is not None:
            bar.close(complete=complete)


class ProgressBar:
    """A bar from now on until it is closed.

    Parameters
    ----------
    description
        What is done, in a word or two.
    total
        Number of steps; ``None`` where it is not known.
    done
        Steps that were done earlier.
    columns
        What rich shows on a terminal after its own columns.
    line_every
        Seconds between two lines where there is neither a terminal nor a notebook; 0 prints a line for each step.
    transient
        Whether a terminal forgets the bar when it is closed.
    """

    _shown = False

    def __init__(
        self,
        description: str,
        total: int | None,
        done: int = 0,
        *,
        columns: tuple[Any, ...] = (),
        line_every: float = 0.0,
        transient: bool = False,
    ) -> None:
        self.description, self.total, self.first, self.done = description, total, done, done
        self.text = ""
        self._start = time.monotonic()
        self._view: _Terminal | _Notebook | _Lines | None = None
        if ProgressBar._shown:
            return
        ProgressBar._shown = True
        if in_notebook():
            self._view = _Notebook(self)
        elif on_terminal():
            self._view = _Terminal(self, columns, transient)
        else:
            self._view = _Lines(self, line_every)

    def show(self, done: int, text: str = "") -> None:
        """Show that so many steps are done, and a text beside the bar."""
        self.done, self.text = done, text
        if self._view is not None:
            self._view.show()

    def close(self, *, complete: bool = True) -> None:
        """Leave the bar: full where the work is complete, whatever number of steps it took; else as it stands."""
        if self._view is not None:
            if complete:
                self.total = self.done
            self._view.close(complete)
            self._view, ProgressBar._shown = None, False

    @property
    def left(self) -> str:
        """Time left, at the pace so far; empty where nothing is known of it."""
        steps = self.done - self.first
        if self.total is None or steps < 1:
            return ""
        return clock((time.monotonic() - self._start) / steps * (self.total - self.done))

    @property
    def state(self) -> str:
        """How far the work is, in a line."""
        of_total = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        left = f"{self.left} left" if self.left and self.done != self.total else ""
        return ", ".join(part for part in (f"{self.description} {of_total}", self.text, left) if part)


class _Terminal:
    """A bar of rich on a terminal."""

    def __init__(self, bar: ProgressBar, columns: tuple[Any, ...], transient: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = bar
        steps = columns or (MofNCompleteColumn(),)
        self._progress = Progress(
            TextColumn(bar.description), BarColumn(), *steps, TimeRemainingColumn(), TextColumn("{task.description}"),
            console=Console(stderr=True), transient=transient,
        )  # fmt: skip
        self._progress.start()
        self._task = self._progress.add_task("", total=bar.total, completed=bar.done)

    def show(self) -> None:
        self._progress.update(self._task, completed=self._bar.done, total=self._bar.total, description=self._bar.text)

    def close(self, complete: bool) -> None:
        self.show()
        self._progress.stop()


class _Notebook:
    """A bar of plain HTML in a notebook, which needs no widgets."""

    def __init__(self, bar: ProgressBar) -> None:
        from IPython.display import display

        self._bar, self._start = bar, time.monotonic()
        self._handle: Any = display(self._bundle(bar.state), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        self._drawn = 0.0

    def show(self) -> None:
        if time.monotonic() - self._drawn > REDRAW_EVERY:
            self._draw(self._bar.state)

    def close(self, complete: bool) -> None:
        took = clock(time.monotonic() - self._start)
        self._draw(f"{self._bar.state}, {'took' if complete else 'stopped after'} {took}")

    def _draw(self, text: str) -> None:
        self._drawn = time.monotonic()
        self._handle.update(self._bundle(text), raw=True)

    def _bundle(self, text: str) -> dict[str, str]:
        value = "" if self._bar.total is None else f' value="{self._bar.done}" max="{self._bar.total}"'
        return {"text/plain": text, "text/html": f"<div><progress{value}></progress> {html.escape(text)}</div>"}


class _Lines:
    """A plain line now and then, for files and pipes."""

    def __init__(self, bar: ProgressBar, every: float) -> None:
        self._bar, self._every, self._printed = bar, every, time.monotonic()

    def show(self) -> None:
        if time.monotonic() - self._printed >= self._every:
            self._printed = time.monotonic()
            sys.stderr.write(f"{self._bar.state}\n")
            sys.stderr.flush()

    def close(self, complete: bool) -> None:
        pass


def clock(seconds: float) -> str:
    """A duration as h:mm:ss, or m:ss."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this, so that HTML can be shown."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def on_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal
