"""How the process takes and returns memory while it trains.

A step makes gradients as large as the weights. glibc by default learns to keep arrays of that size on its heap, where
they leave holes (a fifth of the peak at 20,000 genes), and hands out others page by page, each of which faults.
"""

from __future__ import annotations

import ctypes
import sys

LARGE = 2 << 20
"""Bytes from which an array gets pages of its own, which go back when it is freed."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def return_large_arrays() -> None:
    """Have large arrays returned to the system as soon as they are freed (glibc; elsewhere nothing happens)."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, LARGE)
        libc.malloc_trim(0)
