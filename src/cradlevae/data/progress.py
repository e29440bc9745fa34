"""A progress bar that appears only where the wait is long enough to need one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds after which a bar is shown."""


def track_slow(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yield ``items``; after :data:`PATIENCE` seconds of it, show a bar of ``total`` steps on stderr."""
    start = time.monotonic()
    bar = None
    try:
        for done, item in enumerate(items):
            if bar is None and time.monotonic() - start > PATIENCE:
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                task = bar.add_task(description, total=total)
                bar.start()
            if bar is not None:
                bar.update(task, completed=done)
            yield item
    finally:
        if bar is not None:
            bar.stop()
