"""A progress bar that appears only where work takes longer than a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds after which the bar appears."""


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
    bar = None
    try:
        for item in items:
            if bar is None and time.monotonic() - start > PATIENCE:
                from rich.console import Console
                from rich.progress import Progress

                console = Console(stderr=True)
                bar = Progress(*Progress.get_default_columns(), *columns, console=console, transient=True)
                task = bar.add_task(description, total=total)
                bar.start()
            if bar is not None:
                bar.update(task, completed=done)
            yield item
            done += size(item)
    finally:
        if bar is not None:
            bar.stop()
