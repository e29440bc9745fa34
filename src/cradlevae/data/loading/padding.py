"""Numbers of rows in multiples of 32.

Matrix products prepare themselves for every size that they meet and remember it. Sizes that differ from minibatch to
minibatch would cost time and memory at every step; so rows are repeated, and those that are added are not looked at.
"""

from __future__ import annotations

import numpy as np

from cradlevae.utils.types import IntArray

ROUND = 32


def rounded_up(places: IntArray) -> IntArray:
    """Places repeated until their number is a multiple of :data:`ROUND`; none stay none."""
    return np.resize(places, -(-len(places) // ROUND) * ROUND)
