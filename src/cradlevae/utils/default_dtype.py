"""Torch's default dtype: models hold and compute float32, whatever the caller's default is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def float32_default() -> Iterator[None]:
    """Let torch make float32 arrays inside the block; the caller's default comes back."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
