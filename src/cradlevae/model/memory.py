"""How the process takes and returns memory while it trains.

A step makes gradients as large as the weights. glibc by default learns to keep arrays of that size on its heap, where
they leave holes (a fifth of the peak at 20,000 genes), and hands out others page by page, each of which faults.
"""

from __future__ import annotations

import ctypes
import sys

LARGE = 4 << 20
"""Bytes from which an array gets pages of its own, which go back when it is freed."""

M_MMAP_THRESHOLD = -3  # of malloc.h


def return_large_arrays() -> None:
    """Have large arrays returned to the system as soon as they are freed (glibc; elsewhere nothing happens)."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
