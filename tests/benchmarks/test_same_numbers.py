"""The comparison of two checkouts: a checkout equals itself, and what differs is named."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "same_numbers.py"


@pytest.fixture(scope="module")
def same_numbers() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("same_numbers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


def test_a_checkout_equals_itself() -> None:
    command = [sys.executable, str(SCRIPT), str(ROOT), str(ROOT), "--small"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("effects", "predict", "clean", "evaluate", "training"):
        assert any(what in line.split() and "equal (" in line for line in done.stdout.splitlines()), done.stdout
    assert "not equal" not in done.stdout


def test_a_difference_is_named(same_numbers: ModuleType, tmp_path: Path) -> None:
    values = np.array([1.0, np.nan, 4.0], dtype=np.float32)
    before = {
        "planted/SAMSVAE/effects/X": values,
        "planted/SAMSVAE/effects/index": np.array(["A", "B", "C"]),
        "planted/SAMSVAE/predict/X": values,
        "planted/SAMSVAE/clean/X": values,
        "planted/SAMSVAE/latents/X": values,
        "planted/SAMSVAE/evaluate/note": np.array(["", "shrunk"]),
        "planted/SAMSVAE/evaluate/value": np.array([1.0, np.nan]),
    }
    after = before | {
        "planted/SAMSVAE/effects/X": values + np.float32(0.5),
        "planted/SAMSVAE/predict/X": values.astype(np.float64),
        "planted/SAMSVAE/latents/X": values[:2],
        "planted/SAMSVAE/evaluate/note": np.array(["", "low rank"]),
        "planted/SAMSVAE/evaluate/value": np.array([1.0, 2.0]),
        "planted/SAMSVAE/mask_probabilities/error": np.array("AttributeError: no such name"),
    }
    del after["planted/SAMSVAE/clean/X"]
    np.savez(tmp_path / "before.npz", **before)
    np.savez(tmp_path / "after.npz", **after)

    same = same_numbers.compare_files(tmp_path / "before.npz", tmp_path / "before.npz")
    assert all(one.equal for one in same)
    found = {one.what: one for one in same_numbers.compare_files(tmp_path / "before.npz", tmp_path / "after.npz")}
    assert not any(one.equal for one in found.values())
    assert found["effects"].text == "X: 2 of 3 values differ, by 0.5 at most (relative 0.333)"
    assert found["predict"].text == "X: type float32 before, float64 after"
    assert found["clean"].text == "absent after"
    assert found["latents"].text == "X: shape (3,) before, (2,) after"
    assert found["evaluate"].text.splitlines() == [
        "note: 1 of 2 values differ, first 'shrunk' before, 'low rank' after",
        "value: 1 of 2 values differ, by inf at most (relative inf)",
    ]
    assert found["mask_probabilities"].text == "absent before; no answer after: AttributeError: no such name"
    assert "planted  SAMSVAE  clean               absent after" in same_numbers.table(list(found.values()))


def test_what_neither_side_answers_is_not_equal(same_numbers: ModuleType) -> None:
    failed = {"simulated/CPAVAE/effects/error": np.array("TypeError: unknown option")}
    (found,) = same_numbers.compare(failed, failed)
    assert not found.equal
    assert "no answer before: TypeError" in found.text


def test_scalars_compare(same_numbers: ModuleType) -> None:
    assert same_numbers.difference(np.array("a"), np.array("b")) == "1 of 1 values differ, first 'a' before, 'b' after"
    assert same_numbers.difference(np.array(2), np.array(1)) == "1 of 1 values differ, by 1 at most (relative 0.5)"
    assert same_numbers.difference(np.array(True), np.array(True)) == ""
