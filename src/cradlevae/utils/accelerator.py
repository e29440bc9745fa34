"""What there is of accelerators, asked of torch in one place: CUDA, Apple's MPS, Intel's XPU, or none.

Torch's modules of devices (``torch.cuda``, ``torch.mps``, ...) do not all have the same functions, so each is asked for
only where it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

KINDS = "cuda", "xpu", "mps"
"""Types of the devices that are looked for."""


def accelerator_count(kind: str | None = None) -> int:
    """Number of accelerators of this machine.

    Parameters
    ----------
    kind
        Type of the devices, e.g. ``"cuda"``; ``None`` is the first type of which there are any.

    Examples
    --------
    >>> accelerator_count("mps") in (0, 1)
    True
    """
    for one in KINDS if kind is None else (kind,):
        devices = _devices(one)
        if devices is not None and devices.is_available():
            return int(devices.device_count())
    return 0


def free_memory(device: torch.device) -> int | None:
    """Free memory of a device of its own, in bytes; ``None`` where it has none, or does not tell.

    Examples
    --------
    >>> import torch
    >>> free_memory(torch.device("cpu")) is None
    True
    """
    ask = getattr(_devices(device.type), "mem_get_info", None)
    return None if ask is None else int(ask(device)[0])


def copies_overlap(device: torch.device) -> bool:
    """Whether a copy to a device may go on while the host does other things, the array's memory included.

    Elsewhere than on CUDA, torch may read the array after it was freed.

    Examples
    --------
    >>> import torch
    >>> copies_overlap(torch.device("mps"))
    False
    """
    return device.type == "cuda"


def usable_by_threads(device: torch.device) -> bool:
    """Whether two threads of the host may give work to a device at the same time, as they may not on MPS.

    Examples
    --------
    >>> import torch
    >>> usable_by_threads(torch.device("cpu"))
    True
    """
    return device.type in ("cpu", "cuda")


@contextmanager
def forked_random() -> Iterator[None]:
    """Put torch's random states back afterwards, the host's and those of all accelerators.

    Examples
    --------
    >>> import torch
    >>> before = torch.get_rng_state()
    >>> with forked_random():
    ...     _ = torch.rand(3)
    >>> bool((torch.get_rng_state() == before).all())
    True
    """
    import torch

    states: list[tuple[Any, Any]] = []
    for kind in KINDS:
        devices = _devices(kind)
        if devices is None or not devices.is_available():
            continue
        if kind == "mps":  # which has one device, and does not take its number
            states.append((devices.set_rng_state, (devices.get_rng_state(),)))
        else:
            indices = range(devices.device_count())
            states += [(devices.set_rng_state, (devices.get_rng_state(index), index)) for index in indices]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for put_back, state in states:
                put_back(*state)


def _devices(kind: str) -> Any:
    """Torch's module of a type of device; ``None`` where it has none."""
    import torch

    return getattr(torch, kind, None)
