"""Rows of a table of scores that are kept in a CSV file as they are made, so that a run can be taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd


def is_there(path: Path, key: dict[str, Any]) -> bool:
    """Whether a file has a row with these values."""
    if not path.exists():
        return False
    done = pd.read_csv(path)
    return bool((done[list(key)] == pd.Series(key)).all(axis=1).any())


def add_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a file, which is made where it is missing."""
    new = pd.DataFrame([row])
    table = pd.concat([pd.read_csv(path), new]) if path.exists() else new
    table.to_csv(path, index=False, float_format="%.4f")
