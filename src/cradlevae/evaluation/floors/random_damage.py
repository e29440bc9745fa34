"""Random damage of counts, harsh and of every kind: what a denoiser learns to undo.

No constant here is one of a data set or of :func:`cradlevae.plant_artifacts`: severities are drawn from wide ranges.
"""

from __future__ import annotations

import numpy as np

from cradlevae.data.damage.operators import thinned
from cradlevae.utils.types import Float32Array, FloatArray

KEPT = 0.05, 0.6
"""Least and greatest share of its counts that a thinned cell keeps."""

REPLACED = 0.2, 0.9
"""Least and greatest share of its counts that a cell loses to a pool of ambient RNA."""

POOL_SD = 0.5, 2.5
"""Least and greatest standard deviation of the logarithms of a random pool about those of the mean profile, which are
flattened at random."""


def randomly_damaged(
    whole: Float32Array, others: Float32Array, log_mean: FloatArray, rng: np.random.Generator
) -> Float32Array:
    """Damaged copies of cells: a third thinned, a third mixed with another cell, a third mixed with ambient RNA.

    Parameters
    ----------
    whole
        Counts of the cells, (cells, genes).
    others
        Counts of as many random cells, (cells, genes).
    log_mean
        Logarithm of the mean profile of all cells, (genes,). A pool of ambient RNA is a power of that profile, between
        0 and 1, with random weights, and new for each cell.
    rng
        Draws kinds and severities.
    """
    kind = rng.integers(0, 3, len(whole))
    few, doublet, ambient = (np.flatnonzero(kind == code) for code in range(3))
    damaged = whole.copy()
    damaged[few] = thinned(whole[few], rng.uniform(*KEPT, (len(few), 1)), rng)
    damaged[doublet] += others[doublet]
    replaced = rng.uniform(*REPLACED, len(ambient))
    sd = rng.uniform(*POOL_SD, (len(ambient), 1)).astype(np.float32)
    power = rng.uniform(0, 1, (len(ambient), 1)).astype(np.float32)
    pool = np.exp(
        power * log_mean.astype(np.float32) + sd * rng.standard_normal((len(ambient), len(log_mean)), dtype=np.float32)
    )
    pool *= (replaced * whole[ambient].sum(axis=1) / pool.sum(axis=1))[:, None]
    damaged[ambient] = thinned(whole[ambient], 1 - replaced[:, None], rng) + rng.poisson(pool)
    return damaged
