"""Random streams: the same random numbers for a cell, or a condition, in whatever company it is asked for.

Torch's own random state is used only inside :func:`seeded`, which gives it back as it was; CUDA's is never touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.fingerprint import cell_keys, gene_keys
from cradlevae.nn.matmul import matmul_precision
from cradlevae.utils.checks import check_at_least
from cradlevae.utils.types import IndexArray


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with torch's random numbers at ``seed``, without gradients; the caller's random state stays as it is."""
    check_at_least(0, seed=seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), matmul_precision("float32"):
        reseed(seed)
        yield


def reseed(seed: int, name: str = "") -> None:
    """Start torch's random numbers on the CPU anew, for what bears a name; to be called inside :func:`seeded`."""
    torch.default_generator.manual_seed(stream_seed(seed, name))


def stream_seed(seed: int, name: str = "") -> int:
    """The seed of the stream of what bears a name; without a name, the seed itself."""
    if not name:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest(), "little")


class CellStreams:
    """A random stream for each of some cells, which depends on the cell's name and counts and on a seed alone.

    To be used inside :func:`seeded`.

    Parameters
    ----------
    data
        The experiment.
    rows
        The cells, (cells,).
    seed
        Seed of all streams.
    """

    def __init__(self, data: Experiment, rows: IndexArray, seed: int) -> None:
        keys = cell_keys(data.counts[rows], gene_keys(list(data.genes)), list(data.cells[rows]), seed)
        self._keys: list[int] = (keys >> np.uint64(1)).tolist()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (shape[0], cells, shape[1], …)."""
        return torch.stack([torch.randn(*shape) for _ in self.each(0)], dim=1)

    def below(self, most: int) -> Tensor:
        """A whole number below ``most`` for each cell, (cells,)."""
        return torch.cat([torch.randint(most, (1,)) for _ in self.each(1)])

    def spread(self, n: int, purpose: int) -> Tensor:
        """Numbers between 0 and 1 for each cell, one in each n-th part of this range, in random order, (n, cells)."""
        return torch.stack([(torch.randperm(n) + torch.rand(n)) / n for _ in self.each(purpose)], dim=1)

    def each(self, purpose: int) -> Iterator[int]:
        """Go through the cells; while it is at one, torch's random numbers are those of its stream for a purpose."""
        for row, key in enumerate(self._keys):
            torch.default_generator.manual_seed(key ^ purpose)
            yield row


def padding(n: int, size: int) -> IndexArray:
    """Positions 0, …, n − 1, repeated until there are ``size`` of them.

    Products round by the number of their rows: with one number for all blocks, a cell gets the same value in whichever
    block it stands.
    """
    return np.resize(np.arange(n), size)
