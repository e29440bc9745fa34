"""What a benchmark folder holds: a file for every finished cell, one for every failed one, claims of those under way.

A cell is claimed by whichever process comes first, of any number of them on any number of machines that share the
folder. A claim names process and machine and is touched while the process lives; one whose process is gone is taken
over.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cradlevae.benchmarking.jobs import Cell
from cradlevae.utils.atomic import make_folder, write_text

STALE = 600.0
"""Seconds after which a claim that nobody touched is taken over."""


class Store:
    """The cells of a benchmark folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.cells = make_folder(self.folder / "cells")

    def path(self, cell: Cell) -> Path:
        """Where a finished cell lies."""
        return self.cells / f"{cell.hash}.json"

    def failure(self, cell: Cell) -> Path:
        """Where it is recorded that a cell failed."""
        return self.cells / f"{cell.hash}.failed.json"

    def claim_path(self, cell: Cell) -> Path:
        """Where it is written who computes a cell."""
        return self.cells / f"{cell.hash}.claim"

    def state(self, cell: Cell) -> str:
        """``done``, ``failed`` or ``open``."""
        if self.path(cell).exists():
            return "done"
        return "failed" if self.failure(cell).exists() else "open"

    def read(self, cell: Cell) -> dict[str, Any]:
        """What was computed."""
        found: dict[str, Any] = json.loads(self.path(cell).read_text())
        return found

    def read_failure(self, cell: Cell) -> dict[str, Any]:
        """Why it failed."""
        found: dict[str, Any] = json.loads(self.failure(cell).read_text())
        return found

    def write(self, cell: Cell, result: dict[str, Any]) -> None:
        """Write a finished cell, whole or not at all."""
        write_text(self.path(cell), json.dumps({"key": cell.key, **result}))
        self.failure(cell).unlink(missing_ok=True)

    def write_failure(self, cell: Cell, error: str, trace: str = "") -> None:
        """Record that a cell failed, and why."""
        write_text(self.failure(cell), json.dumps({"cell": str(cell), "error": error, "trace": trace, "key": cell.key}))

    def forget_failure(self, cell: Cell) -> None:
        """Let a failed cell be computed again."""
        self.failure(cell).unlink(missing_ok=True)

    def claim(self, cell: Cell) -> bool:
        """Claim a cell for this process; false where it is done, failed or claimed by a live one."""
        from filelock import FileLock

        with FileLock(self.cells / ".lock"):
            if self.state(cell) != "open" or not self._free(cell):
                return False
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "cell": str(cell)}
            write_text(self.claim_path(cell), json.dumps(owner))
            return True

    def touch(self, cell: Cell) -> None:
        """Say that this process is still at it."""
        with suppress(FileNotFoundError):
            os.utime(self.claim_path(cell))

    def release(self, cell: Cell) -> None:
        """Give a claim back."""
        self.claim_path(cell).unlink(missing_ok=True)

    def owner(self, cell: Cell) -> tuple[str, int] | None:
        """Machine and process that claimed a cell."""
        try:
            claim = json.loads(self.claim_path(cell).read_text())
            return str(claim["host"]), int(claim["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _free(self, cell: Cell) -> bool:
        """Whether nobody who lives has claimed the cell."""
        try:
            age = time.time() - self.claim_path(cell).stat().st_mtime
        except FileNotFoundError:
            return True
        owner = self.owner(cell)
        if owner is None or age > STALE:
            return True
        return owner[0] == socket.gethostname() and not _lives(owner[1])


def _lives(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
