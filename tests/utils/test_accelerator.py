"""Torch's modules of devices are asked for what they have, and the rest of the package asks none of them."""

from __future__ import annotations

import doctest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import cradlevae
from cradlevae.utils import accelerator
from cradlevae.utils.accelerator import accelerator_count, forked_random, free_memory

SOURCE = Path(cradlevae.__file__).parent


class Devices:
    """A module of devices such as ``torch.xpu``, with random states that are numbers."""

    def __init__(self, count: int) -> None:
        self.states = list(range(count))

    def is_available(self) -> bool:
        return bool(self.states)

    def device_count(self) -> int:
        return len(self.states)

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return 70, 100

    def get_rng_state(self, index: int) -> int:
        return self.states[index]

    def set_rng_state(self, state: int, index: int) -> None:
        self.states[index] = state


class OneDevice:
    """A module such as ``torch.mps``: one device, which has no number and no memory of its own."""

    def __init__(self) -> None:
        self.state = 0

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def get_rng_state(self) -> int:
        return self.state

    def set_rng_state(self, state: int) -> None:
        self.state = state


def machine_with(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    monkeypatch.setattr(accelerator, "_devices", modules.get)


def test_devices_are_counted_by_their_type(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, cuda=Devices(0), xpu=Devices(3), mps=OneDevice())
    assert accelerator_count() == 3
    assert accelerator_count("mps") == 1
    assert accelerator_count("cuda") == accelerator_count("cpu") == 0


def test_only_devices_with_memory_of_their_own_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, xpu=Devices(1), mps=OneDevice())
    assert free_memory(SimpleNamespace(type="xpu")) == 70  # type: ignore[arg-type]
    assert free_memory(SimpleNamespace(type="mps")) is None  # type: ignore[arg-type]


def test_random_states_of_all_devices_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    two, one, host = Devices(2), OneDevice(), torch.get_rng_state()
    machine_with(monkeypatch, cuda=two, mps=one)
    with forked_random():
        two.states[:], one.state = [8, 9], 7
        torch.rand(2)
    assert two.states == [0, 1]
    assert one.state == 0
    assert (torch.get_rng_state() == host).all()


def test_the_examples_run() -> None:
    assert doctest.testmod(accelerator).failed == 0


def test_nothing_else_in_the_package_speaks_of_one_makers_devices() -> None:
    files = {path for path in SOURCE.rglob("*.py") if "torch.cuda" in path.read_text()}
    assert files <= {SOURCE / "utils" / "accelerator.py"}
