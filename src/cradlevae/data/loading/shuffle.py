"""A random order of cells in which neighbours on disk stay near each other, so that they can be read together."""

from __future__ import annotations

import numpy as np

from cradlevae.utils.types import IndexArray

CHUNK = 64
"""At most so many cells that lie together are kept together until they are in a pool."""

CHUNKS = 128
"""At least so many chunks from all over the data make a pool."""


def pooled(rows: IndexArray, pool: int, generator: np.random.Generator) -> IndexArray:
    """Shuffle cells by chunks, then within pools of chunks.

    Chunks of consecutive cells (cut anew each time) are put into random order; of this, every ``pool`` cells are
    shuffled among themselves. A pool so holds cells from 128 random places of the data at least, whatever order the
    data are in, and a minibatch is a random part of a pool.

    Parameters
    ----------
    rows
        The cells, ascending.
    pool
        Cells in a pool, a multiple of the minibatch size; the last pool may be up to half larger or smaller. Where one
        pool holds all cells, this is a plain permutation, the same as of cells in memory.
    generator
        Source of randomness.

    Returns
    -------
    The same cells in another order; the pools are its slices of ``pool``.
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
