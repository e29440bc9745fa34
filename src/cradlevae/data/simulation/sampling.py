"""Counts of simulated cells, drawn in blocks so that little is dense in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp

from cradlevae.data.simulation.ground_truth import GroundTruth
from cradlevae.utils.types import AnyIntArray, Float32Array

DRAWN_VALUES = 2_000_000
"""Number of values (cells × genes) that are dense in memory at a time; the random numbers depend on it."""


def sample_counts(
    truth: GroundTruth,
    z_basal: Float32Array,
    z_perturbation: Float32Array,
    library: Float32Array,
    seed: np.random.SeedSequence,
    log_shift: Callable[[slice], Float32Array | None] = lambda _: None,
) -> Iterator[tuple[sp.csr_matrix, Float32Array]]:
    """Draw counts in blocks of consecutive cells: yields CSR float32 counts and their expected expression.

    ``log_shift`` gives what batch and context add to the log rates of a block's cells (see
    :meth:`GroundTruth.expression`).
    """
    step = block_cells(len(truth.genes))
    starts = range(0, len(library), step)
    for start, block_seed in zip(starts, seed.spawn(len(starts)), strict=True):
        rng = np.random.default_rng(block_seed)
        part = slice(start, min(start + step, len(library)))
        expression = truth.expression(z_basal[part], z_perturbation[part], log_shift(part))
        rate = truth.gamma(len(expression), rng)
        rate *= expression
        rate *= library[part, None]
        yield _sparse(rng.poisson(rate)), expression


def block_cells(n_genes: int) -> int:
    """Return the number of cells whose counts are dense in memory at a time."""
    return max(1, DRAWN_VALUES // n_genes)


def _sparse(dense: AnyIntArray) -> sp.csr_matrix:
    """Convert a dense block of counts to CSR float32."""
    rows, genes = np.nonzero(dense)
    indptr = np.searchsorted(rows, np.arange(len(dense) + 1)).astype(np.int32)
    values = dense[rows, genes].astype(np.float32)
    return sp.csr_matrix((values, genes.astype(np.int32), indptr), shape=dense.shape)
