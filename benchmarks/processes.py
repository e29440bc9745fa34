"""Formulations in processes of their own, which a driver asks in turn, and what the results say about the machine."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

CAPABILITIES: dict[str, dict[str, str]] = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}
"""What a process's environment says of the instructions that torch and its libraries may use."""

PACKAGES = "cradlevae", "torch", "lightning", "numpy", "scipy", "scvi-tools"
"""Packages whose versions the results state, where they are installed."""


class Worker:
    """A process that runs one formulation.

    Parameters
    ----------
    script
        The script that is run, with the task ``work``; it calls :func:`serve`.
    capability
        Key of :data:`CAPABILITIES`.
    environment
        More variables of the process.
    **settings
        Options of the task.
    """

    def __init__(
        self, script: str, capability: str = "native", environment: dict[str, str] | None = None, **settings: Any
    ) -> None:
        arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        self.process = subprocess.Popen(
            [sys.executable, script, "work", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **CAPABILITIES[capability], **(environment or {})},
        )  # fmt: skip

    def ask(self, command: str, *arguments: Any) -> dict[str, Any]:
        """The answer of the process to a command."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command} {json.dumps(arguments)}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that was asked to {command} ended; what it wrote stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def serve(formulation: Any) -> None:
    """Obey the driver: a line of input is a command and its arguments, a line of output the answer.

    A command is a method of ``formulation``, or ``machine``, which asks for :func:`machine` of this process.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        command, arguments = line.split(maxsplit=1)
        call = machine if command == "machine" else getattr(formulation, command)
        answer = call(*json.loads(arguments))
        answer["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps(answer), file=answers, flush=True)


def code() -> str:
    """The commit that is measured, ``-dirty`` with changes that are not committed."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """The processor, the instructions that torch uses of it in this process, threads, versions and the commit."""
    return {
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "code": code(),
    }


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those of these packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def is_installed(package: str) -> bool:
    """Whether a package is installed."""
    return bool(versions([package]))
