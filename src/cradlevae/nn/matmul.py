"""Which arithmetic matrix products use.

Torch multiplies float32 matrices on a processor with MKL, which on processors of other makers than Intel leaves half
of their speed unused; oneDNN does not, but torch asks it only where reduced precision is allowed. Where oneDNN has no
reduced precision to use (no AMX), it multiplies in float32 all the same: there the permission is harmless, and given.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

Precision = Literal["float32", "bf16"]
"""Precision of matrix products; sums, and all that is done value by value, are in float32 always."""

_reduced = False


def reduced() -> bool:
    """Whether matrix products may be of bfloat16 values."""
    return _reduced


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Matrix products of this precision, as fast as the machine can; torch's settings are put back afterwards.

    Parameters
    ----------
    precision
        ``"float32"``, or ``"bf16"``: the products with the genes × width matrix of bfloat16 values; the others too
        where the processor does that (AMX), or in TF32 on a GPU.
    """
    global _reduced
    before = _reduced, _setting(torch.backends.mkldnn), _setting(torch.backends.cuda)
    _reduced = precision == "bf16"
    _set(torch.backends.mkldnn, "bf16" if _reduced or onednn_is_float32() else "ieee")
    _set(torch.backends.cuda, "tf32" if _reduced else "ieee")
    try:
        yield
    finally:
        _reduced = before[0]
        _set(torch.backends.mkldnn, before[1])
        _set(torch.backends.cuda, before[2])


@cache
def onednn_is_float32() -> bool:
    """Whether oneDNN, allowed to reduce the precision, is used to advantage and multiplies in float32 all the same."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or _setting(torch.backends.mkldnn) is None or _is_intel():
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 256, 256, generator=generator)
    before = _setting(torch.backends.mkldnn)
    _set(torch.backends.mkldnn, "bf16")
    try:
        errors = [
            (one @ two).double() - one.double() @ two.double()
            for one, two in ((left, right), (left, right.T), (left.T, right))
        ]
    finally:
        _set(torch.backends.mkldnn, before)
    return max(float(error.abs().max()) for error in errors) < 1e-3  # bfloat16 would be off by 0.1


def _is_intel() -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "Intel" in platform.processor()


def _setting(backend: Any) -> str | None:
    """Torch's precision of float32 products on a backend; ``None`` where this torch has no such setting."""
    value: str | None = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    return value


def _set(backend: Any, value: str | None) -> None:
    if value is not None and _setting(backend) is not None:
        backend.matmul.fp32_precision = value


BF16_FLAGS = "avx512_bf16", "amx_bf16", "bf16"
"""What /proc/cpuinfo says of processors (x86 and ARM) that multiply bfloat16 values."""


def has_bf16_arithmetic() -> bool:
    """Whether this machine's processor multiplies bfloat16 values itself; True where the system does not say."""
    flags = _processor_flags()
    return not flags or any(flag in flags for flag in BF16_FLAGS)


def _processor_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    listed = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(listed, ()))
