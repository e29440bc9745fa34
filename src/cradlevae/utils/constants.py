"""Constants that several parts of the package share."""

from __future__ import annotations

TARGET_SUM = 1e4
"""Total count that a cell is scaled to before the logarithm is taken: log2(1 + 1e4·x/Σx)."""

BLOCK_VALUES = 2_000_000
"""Number of values of a cells × genes (or conditions × genes) array that are processed together: 16 MB in float64."""

ENCODED_CELLS = 512
"""Number of cells that go through a model's networks together, outside of training."""

CACHED_VALUES = 1 << 16
"""Number of values that are worked on together where many operations follow each other: they stay in the cache."""

MADE_MARK = "cradlevae_made"
"""Key of ``uns`` that marks cells that a model made."""
