"""A random order of cells in which neighbours on disk stay near each other, so that one read gets several of them."""

from __future__ import annotations

import numpy as np

from cradlevae.utils.types import IndexArray

CHUNK = 64
"""Largest number of consecutive cells that are moved together when cells are shuffled."""

CHUNKS = 128
"""Smallest number of chunks, from all over the data, that make up a pool."""


def pooled(rows: IndexArray, pool: int, generator: np.random.Generator) -> IndexArray:
    """Shuffle cells by chunks, then within pools of chunks.

    Chunks of consecutive cells (cut anew each time) are put into a random order. Of this order, every ``pool`` cells
    are shuffled among themselves. So a pool holds cells from at least 128 random places of the data, whatever the order
    of the data, and a minibatch is a random part of a pool.

    Parameters
    ----------
    rows
        Positions of the cells, ascending.
    pool
        Number of cells in a pool, a multiple of the minibatch size; the last pool may be up to half larger or smaller.
        Where one pool holds all cells, the result is a plain permutation, the same as for cells in memory.
    generator
        Source of randomness.

    Returns
    -------
    The same positions in another order, whose consecutive slices of ``pool`` cells are the pools.
    """
    if pool >= len(rows):
        return generator.permutation(rows)
    size = int(min(CHUNK, max(1, pool // CHUNKS)))
    cuts = np.arange(int(generator.integers(size)), len(rows), size)
    chunks = np.split(rows, cuts)
    order = np.concatenate([rows[:0], *(chunks[index] for index in generator.permutation(len(chunks)))])
    starts = np.arange(max(1, round(len(rows) / pool))) * pool
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        order[start:stop] = generator.permutation(order[start:stop])
    return order
