"""Training in several processes of one machine, one per device.

Each process is a fresh interpreter (``python -m cradlevae.model.training.processes``): unlike a forked one it can use
CUDA and OpenMP whatever its parent did before, and unlike a spawned one it does not run the caller's script again, so
that scripts need no ``if __name__ == "__main__"``, and notebooks work. The run reaches them through a temporary folder,
where all arrays lie in one file that the processes map: the counts are in memory once, however many processes there
are.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from cradlevae.data.loading.shard import Shard
from cradlevae.errors import CradleError, TrainingError
from cradlevae.model.training.trainer import TrainingRun

ALIGNMENT = 64
"""Bytes; arrays start at multiples of it."""

GRACE = 5.0
"""Seconds that a process has to stop by itself."""


def train_in_processes(run: TrainingRun) -> None:
    """Train in ``run.config.n_devices`` processes; what they leave is in the run's folder.

    Raises
    ------
    CradleError
        What a process raised.
    TrainingError
        If a process failed otherwise; the message holds its last words.
    """
    n = run.config.n_devices
    with tempfile.TemporaryDirectory(prefix="cradlevae-run-") as temporary:
        folder = Path(temporary)
        write_shared(run, folder)
        port = _free_port()
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(n):
                command = [sys.executable, "-m", "cradlevae.model.training.processes", temporary]
                processes.append(subprocess.Popen(
                    command, env=_environment(rank, n, port), stdin=subprocess.PIPE, start_new_session=True
                ))  # fmt: skip
            first = [process.poll() for process in processes]
            while None in first and not any(first):
                time.sleep(0.02)
                first = [process.poll() for process in processes]  # before the others are stopped
        finally:
            _stop(processes)
        if any(first):
            _raise(folder, first)


def write_shared(value: Any, folder: Path) -> None:
    """Write an object so that processes can read it and share its arrays; see :func:`read_shared`."""
    spans = []
    with (folder / "arrays").open("wb") as arrays:

        def keep(buffer: pickle.PickleBuffer) -> None:
            arrays.write(bytes(-arrays.tell() % ALIGNMENT))
            spans.append((arrays.tell(), arrays.write(buffer.raw())))

        frozen = pickle.dumps(value, protocol=5, buffer_callback=keep)
        arrays.write(bytes(1))  # a file of no bytes cannot be mapped
    (folder / "run").write_bytes(pickle.dumps((spans, frozen)))


def read_shared(folder: Path) -> Any:
    """The object; its arrays are mapped, and a page is copied only if the process writes to it."""
    spans, frozen = pickle.loads((folder / "run").read_bytes())  # our parent's own, a moment ago
    arrays = np.memmap(folder / "arrays", mode="c")
    return pickle.loads(frozen, buffers=[arrays[first : first + n] for first, n in spans])


def _environment(rank: int, n: int, port: int) -> dict[str, str]:
    """Environment of a process: its place among the others, our modules, and its part of the threads."""
    import torch

    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // n)),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the processes, which notice that we let go of them."""
    for process in processes:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
    for process in processes:
        try:
            process.wait(2 * GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _raise(folder: Path, codes: Sequence[int | None]) -> NoReturn:
    """Raise what made the run fail.

    That is an error of ours if there is one; else what a process died of without a word, like a signal; else what was
    reported first: the others lose their connection to a process that failed, and say only that.
    """
    failures: list[_Failure] = sorted(
        (_Failure(*pickle.loads(path.read_bytes())) for path in folder.glob("error-*")),
        key=lambda failure: failure.time,
    )
    failures = [
        last for last in failures if codes[last.rank] or not isinstance(last.error, KeyboardInterrupt)
    ]  # by _stop
    for last in failures:
        if last.error is not None:
            raise last.error
    silent = {rank for rank, code in enumerate(codes) if code} - {last.rank for last in failures}
    if silent or not failures:
        rank = min(silent, key=lambda rank: codes[rank] or 0)  # signals are negative
        raise TrainingError(
            f"process {rank} of {len(codes)} failed: its exit status is {codes[rank]}; it may have run out of memory"
        )
    raise TrainingError(f"process {failures[0].rank} of {len(codes)} failed: {failures[0].words}")


class _Failure(NamedTuple):
    """What a process says before it ends."""

    time: float
    rank: int
    error: BaseException | None
    words: str


def main(folder: Path) -> int:
    """Train as one of the processes; returns the exit status."""
    rank, n = (int(os.environ[name]) for name in ("LOCAL_RANK", "WORLD_SIZE"))
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        run: TrainingRun = read_shared(folder)
        run.train(Shard(rank, n))
    except BaseException as error:
        known = error if isinstance(error, CradleError | KeyboardInterrupt) else None
        with suppress(OSError):  # the parent may be gone, and the folder with it
            words = traceback.format_exc()
            (folder / f"error-{rank}").write_bytes(pickle.dumps((time.time(), rank, known, words)))  # see _Failure
        return 1
    return 0


def _follow_parent() -> NoReturn:
    """Stop when the parent stops or dies: then its end of our standard input is closed."""
    import _thread

    sys.stdin.buffer.read()
    _thread.interrupt_main()
    time.sleep(GRACE)  # it may wait in vain for processes that have stopped already
    os._exit(130)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: the other processes may be gone, and torch would wait for them
