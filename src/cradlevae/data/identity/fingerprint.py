"""Fingerprints of cells by their counts, so that a training cell is recognised under another name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cradlevae.data.storage.stored_matrix import CountMatrix, row_blocks
from cradlevae.utils.types import IndexArray, IntArray

MIN_GENES = 20
"""Cells with fewer detected genes are too similar to be distinguished; they get the fingerprint 0."""


def cell_fingerprints(counts: CountMatrix, genes: Sequence[str], rows: IndexArray) -> IntArray:
    """Compute a number for each cell from its counts and gene names, whatever the order of the genes, (rows,)."""
    keys = gene_keys(genes)
    prints = [block_fingerprints(block, keys) for _, block in row_blocks(counts, rows)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *prints])


def gene_keys(genes: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Compute a number for each gene name, (genes,)."""
    return np.array(
        [int.from_bytes(hashlib.blake2b(str(gene).encode(), digest_size=8).digest(), "little") for gene in genes],
        dtype=np.uint64,
    )


def block_fingerprints(counts: sp.csr_matrix, keys: npt.NDArray[np.uint64]) -> IntArray:
    """Compute the fingerprints of the cells of a block from the keys of its genes, (cells,)."""
    prints = count_sums(counts, keys)
    prints[np.diff(counts.indptr) < MIN_GENES] = 0
    return prints


def count_sums(counts: sp.csr_matrix, keys: npt.NDArray[np.uint64]) -> IntArray:
    """Compute a number for each cell of a block from all of its counts, however few they are, (cells,)."""
    values = counts.data.astype(np.uint64)
    with np.errstate(over="ignore"):  # all arithmetic is modulo 2^64
        mixed = (keys[counts.indices] ^ (values * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(31)
        sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(mixed, dtype=np.uint64)])
        prints = sums[counts.indptr[1:]] - sums[counts.indptr[:-1]]
    signed: IntArray = prints.view(np.int64)
    return signed


def cell_keys(
    counts: sp.csr_matrix, keys: npt.NDArray[np.uint64], names: Sequence[str], seed: int
) -> npt.NDArray[np.uint64]:
    """Compute a number for each cell of a block from a seed, its name and its counts: its own random stream, (cells,).

    Parameters
    ----------
    counts
        Counts of the cells, (cells, genes).
    keys
        From :func:`gene_keys`.
    names
        Names of the cells, (cells,).
    seed
        What else the stream depends on.
    """
    prefix = hashlib.blake2b(str(seed).encode(), digest_size=8)
    mixed = np.empty(len(names), dtype=np.uint64)
    for row, (name, total) in enumerate(zip(names, count_sums(counts, keys).tolist(), strict=True)):
        digest = prefix.copy()
        digest.update(f"{total} {name}".encode())
        mixed[row] = int.from_bytes(digest.digest(), "little")
    return mixed
