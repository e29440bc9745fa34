"""The folder of a benchmark: a file for every finished job, one for every failed job, and claims of jobs under way.

A job is claimed by whichever process comes first, of any number of them on any number of machines that share the
folder. A claim names the process and its machine, and is touched while the process lives; the claim of a process that
is gone is taken over.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cradlevae.benchmarking.jobs import Job
from cradlevae.utils.atomic import make_folder, write_text

STALE = 600.0
"""Seconds after which a claim that nobody touched is taken over."""

SUBFOLDER = "cells"
"""Where the jobs' files lie; folders of earlier versions have them there."""


class Store:
    """The jobs of a benchmark folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.jobs = make_folder(self.folder / SUBFOLDER)

    def path(self, job: Job) -> Path:
        """File of a finished job."""
        return self.jobs / f"{job.hash}.json"

    def failure(self, job: Job) -> Path:
        """File that records that a job failed, and why."""
        return self.jobs / f"{job.hash}.failed.json"

    def claim_path(self, job: Job) -> Path:
        """File that says which process computes a job."""
        return self.jobs / f"{job.hash}.claim"

    def state(self, job: Job) -> str:
        """``done``, ``failed`` or ``open``."""
        if self.path(job).exists():
            return "done"
        return "failed" if self.failure(job).exists() else "open"

    def read(self, job: Job) -> dict[str, Any]:
        """Scores, facts and seconds of a finished job."""
        result: dict[str, Any] = json.loads(self.path(job).read_text())
        return result

    def read_failure(self, job: Job) -> dict[str, Any]:
        """Error of a failed job."""
        failure: dict[str, Any] = json.loads(self.failure(job).read_text())
        return failure

    def write(self, job: Job, result: dict[str, Any]) -> None:
        """Write a finished job, whole or not at all."""
        write_text(self.path(job), json.dumps({"key": job.key, **result}))
        self.failure(job).unlink(missing_ok=True)

    def write_failure(self, job: Job, error: str, trace: str = "") -> None:
        """Record that a job failed, and why."""
        write_text(self.failure(job), json.dumps({"job": str(job), "error": error, "trace": trace, "key": job.key}))

    def forget_failure(self, job: Job) -> None:
        """Let a failed job be computed again."""
        self.failure(job).unlink(missing_ok=True)

    def claim(self, job: Job) -> bool:
        """Claim a job for this process; false where it is done, failed or claimed by a live one."""
        from filelock import FileLock

        with FileLock(self.jobs / ".lock"):
            if self.state(job) != "open" or not self._free(job):
                return False
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "job": str(job)}
            write_text(self.claim_path(job), json.dumps(owner))
            return True

    def touch(self, job: Job) -> None:
        """Say that this process still computes a job."""
        with suppress(FileNotFoundError):
            os.utime(self.claim_path(job))

    def release(self, job: Job) -> None:
        """Give the claim of a job back."""
        self.claim_path(job).unlink(missing_ok=True)

    def owner(self, job: Job) -> tuple[str, int] | None:
        """Machine and process that claimed a job."""
        try:
            claim = json.loads(self.claim_path(job).read_text())
            return str(claim["host"]), int(claim["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _free(self, job: Job) -> bool:
        """Whether no living process has claimed the job."""
        try:
            age = time.time() - self.claim_path(job).stat().st_mtime
        except FileNotFoundError:
            return True
        owner = self.owner(job)
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
