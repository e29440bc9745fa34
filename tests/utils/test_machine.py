"""Memory is the machine's, or the container's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cradlevae.utils import machine
from cradlevae.utils.machine import ASSUMED_MEMORY, machine_memory


@pytest.mark.parametrize(("limit", "expected"), [("2048\n", 2048), ("max\n", 40960), ("9223372036854771712", 40960)])
def test_the_lesser_of_machine_and_container(
    limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(machine, "CONTAINER_LIMITS", (tmp_path / "none", tmp_path / "memory.max"))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}.__getitem__, raising=False)
    assert machine_memory() == expected


def test_a_machine_that_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CONTAINER_LIMITS", ())
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert machine_memory() == ASSUMED_MEMORY
