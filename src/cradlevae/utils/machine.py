"""What the machine has."""

from __future__ import annotations

import os
from pathlib import Path

CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says how much memory a container may take, by version of its control groups."""

ASSUMED_MEMORY = 16 << 30
"""Bytes; of a machine that does not say."""


def machine_memory() -> int:
    """Bytes of memory that this process may take: the machine's, or its container's where that is less."""
    return min([_physical_memory(), *(limit for limit in map(_limit, CONTAINER_LIMITS) if limit)])


def _physical_memory() -> int:
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has none of it
        return ASSUMED_MEMORY
    return found if found > 0 else ASSUMED_MEMORY


def _limit(file: Path) -> int | None:
    """The number in a file; ``None`` where there is no limit ("max"), or no such file."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
