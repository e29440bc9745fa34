"""Numbers that several parts share, each defined once."""

from __future__ import annotations

TARGET_SUM = 1e4
"""Total count to which a cell is brought before logarithms are taken: log2(1 + 1e4·x/Σx)."""

BLOCK_VALUES = 2_000_000
"""Values of a cells × genes (or conditions × genes) array that are worked on at a time: 16 MB in float64."""

ENCODED_CELLS = 512
"""Cells that go through a model's networks at a time, outside of training."""
