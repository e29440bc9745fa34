"""Padding of minibatches, so that their numbers of rows are multiples of 32.

The libraries of matrix products prepare a plan for every size that they meet, and store it. Sizes that change from
minibatch to minibatch would cost time and memory at every step. So rows are repeated; the added rows are ignored.
"""

from __future__ import annotations

import numpy as np

from cradlevae.utils.types import IntArray

ROUND = 32
"""The numbers of rows are multiples of this."""


def rounded_up(rows: IntArray) -> IntArray:
    """Repeat rows until their number is a multiple of :data:`ROUND`; an empty array stays empty."""
    return np.resize(rows, -(-len(rows) // ROUND) * ROUND)
