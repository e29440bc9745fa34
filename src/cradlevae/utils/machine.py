"""The memory of the machine."""

from __future__ import annotations

import os
from pathlib import Path

CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files in which Linux gives the memory limit of a container, by version of its control groups."""

ASSUMED_MEMORY = 16 << 30
"""Bytes of memory to assume where the system does not report them."""


def machine_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's where that is less."""
    return min([_physical_memory(), *(limit for limit in map(_limit, CONTAINER_LIMITS) if limit)])


def _physical_memory() -> int:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has none of it
        return ASSUMED_MEMORY
    return size if size > 0 else ASSUMED_MEMORY


def _limit(file: Path) -> int | None:
    """Read the number in a file; ``None`` where there is no limit ("max"), or no such file."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
