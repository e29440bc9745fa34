"""Which part of every minibatch a process computes, where several processes train."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Which part of every minibatch a process computes: the ``rank``-th of ``n``.

    Attributes
    ----------
    rank
        Number of the process, from 0.
    n
        Number of processes.
    """

    rank: int = 0
    n: int = 1

    def cells(self, n_cells: int) -> slice:
        """Return the process's part of a minibatch of ``n_cells``."""
        return slice(n_cells * self.rank // self.n, n_cells * (self.rank + 1) // self.n)

    def computed(self, n_cells: int) -> slice:
        """Return the cells that the process computes: its part, or the first cell where its part is empty.

        Every process must take part in every step.
        """
        own = self.cells(n_cells)
        return own if own.start < own.stop else slice(0, 1)
