"""How the process takes and returns memory while it trains.

A step makes and frees arrays of cells × genes and gradients as large as the weights, tens of times. By default glibc
returns such memory to the system and takes it anew, page by page, each of which faults: with 8,563 genes a third of a
step. So it is kept on the heap, but for the largest arrays, which would leave holes there.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LARGE, LARGE_AFTERWARDS = 16 << 20, 2 << 20
"""Bytes from which an array gets pages of its own, which go back when it is freed; while training, and afterwards."""

KEPT = 64 << 20
"""Bytes at the end of the heap that are kept when they are free."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within, freed memory is kept for the next arrays, the largest excepted; afterwards it goes back to the system.

    Arrays are then given back as they are freed. This is glibc's; elsewhere nothing happens.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
    try:
        yield
    finally:
        if libc is not None:
            libc.mallopt(M_MMAP_THRESHOLD, LARGE_AFTERWARDS)
            libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
