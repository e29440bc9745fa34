"""A process that computes jobs: ``python -m cradlevae.benchmarking.worker``; its standard input says which.

It claims one open job after another until none is left in any process. It ends when the process that started it
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cradlevae.benchmarking.data_source import DataSource
    from cradlevae.benchmarking.jobs import Job
    from cradlevae.benchmarking.store import Store

PAUSE = 0.5
"""Seconds between looks at jobs that other processes compute."""

TOUCH = 30.0
"""Seconds between touches of a claim."""


def work(store: Store, jobs: Sequence[Job], sources: dict[str, DataSource]) -> None:
    """Compute all open jobs that no other process computes, and wait for the others, whose processes may die."""
    waiting = list(jobs)
    while waiting:
        waiting = [job for job in waiting if store.state(job) == "open"]
        claimed = next((job for job in waiting if store.claim(job)), None)
        if claimed is None:
            time.sleep(PAUSE)
            continue
        with _alive(store, claimed):
            compute_job(store, claimed, sources[claimed.data])


def compute_job(store: Store, job: Job, source: DataSource) -> None:
    """Compute a claimed job and write it, or that it failed."""
    from cradlevae.benchmarking.compute import compute
    from cradlevae.errors import CradleError

    try:
        store.write(job, compute(job, source))
    except CradleError as error:
        store.write_failure(job, str(error))
    except Exception as error:  # whatever it is: the other jobs go on
        store.write_failure(job, f"{type(error).__name__}: {error}", traceback.format_exc())
    finally:
        store.release(job)


@contextmanager
def _alive(store: Store, job: Job) -> Iterator[None]:
    """Touch the claim of a job while it is computed."""
    done = threading.Event()

    def touch() -> None:
        while not done.wait(TOUCH):
            store.touch(job)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def instructions(
    store: Store, jobs: Sequence[Job], sources: dict[str, DataSource], threads: int, modules: Sequence[str]
) -> bytes:
    """The line that a worker reads from its standard input."""
    content = {
        "folder": str(store.folder),
        "jobs": [asdict(job) for job in jobs],
        "sources": {name: asdict(source) for name, source in sources.items()},
        "threads": threads,
        "modules": list(modules),
    }
    return json.dumps(content).encode() + b"\n"


def main() -> None:
    """Read the instructions, and compute the jobs that they name."""
    content = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import logging
    from importlib import import_module

    import torch

    from cradlevae.benchmarking.data_source import source_of
    from cradlevae.benchmarking.jobs import Job
    from cradlevae.benchmarking.store import Store

    torch.set_num_threads(content["threads"])
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for module in content["modules"]:
        import_module(module)
    jobs = [Job(**job) for job in content["jobs"]]
    sources = {name: source_of(source) for name, source in content["sources"].items()}
    work(Store(Path(content["folder"])), jobs, sources)


def _leave_with_parent() -> None:
    """End the process when its standard input does."""
    while os.read(0, 1024):  # not through sys.stdin, whose lock a thread must not hold when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
