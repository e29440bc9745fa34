"""A process that computes cells: ``python -m cradlevae.benchmarking.worker``, told by its standard input what to do.

It claims one open cell after another until none is left, in whatever process. It ends when the process that started it
does: its standard input is closed then.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cradlevae.benchmarking.jobs import Cell
    from cradlevae.benchmarking.plan import DataSource
    from cradlevae.benchmarking.store import Store

PAUSE = 0.5
"""Seconds between looks at cells that others are at."""

TOUCH = 30.0
"""Seconds between touches of a claim."""


def work(store: Store, cells: Sequence[Cell], sources: dict[str, DataSource]) -> None:
    """Compute all open cells that nobody else computes; wait for those of others, which may die."""
    waiting = list(cells)
    while waiting:
        waiting = [cell for cell in waiting if store.state(cell) == "open"]
        claimed = next((cell for cell in waiting if store.claim(cell)), None)
        if claimed is None:
            time.sleep(PAUSE)
            continue
        with _alive(store, claimed):
            compute_cell(store, claimed, sources[claimed.data])


def compute_cell(store: Store, cell: Cell, source: DataSource) -> None:
    """Compute a claimed cell and write it, or that it failed."""
    from cradlevae.benchmarking.compute import compute
    from cradlevae.errors import CradleError

    try:
        store.write(cell, compute(cell, source))
    except CradleError as error:
        store.write_failure(cell, str(error))
    except Exception as error:  # whatever it is: the other cells go on
        store.write_failure(cell, f"{type(error).__name__}: {error}", traceback.format_exc())
    finally:
        store.release(cell)


@contextmanager
def _alive(store: Store, cell: Cell) -> Iterator[None]:
    """Touch the claim of a cell while it is computed."""
    done = threading.Event()

    def touch() -> None:
        while not done.wait(TOUCH):
            store.touch(cell)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def job(store: Store, cells: Sequence[Cell], sources: dict[str, DataSource], threads: int, modules: Any) -> bytes:
    """What a worker is told."""
    told = {
        "folder": str(store.folder),
        "cells": [asdict(cell) for cell in cells],
        "sources": {name: asdict(source) for name, source in sources.items()},
        "threads": threads,
        "modules": list(modules),
    }
    return json.dumps(told).encode() + b"\n"


def main() -> None:
    """Read a job and do it."""
    told = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import logging
    from importlib import import_module

    import torch

    from cradlevae.benchmarking.jobs import Cell
    from cradlevae.benchmarking.plan import source_of
    from cradlevae.benchmarking.store import Store

    torch.set_num_threads(told["threads"])
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for module in told["modules"]:
        import_module(module)
    cells = [Cell(**cell) for cell in told["cells"]]
    sources = {name: source_of(source) for name, source in told["sources"].items()}
    work(Store(Path(told["folder"])), cells, sources)


def _leave_with_parent() -> None:
    """End the process when its standard input does."""
    while os.read(0, 1024):  # not through sys.stdin, whose lock a thread must not hold when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
