"""True effects of the conditions of a simulated experiment, on the scale on which data show them.

The effect of a condition on a gene is E[log2(1 + 1e4 x/Σx)] over its cells minus the same over controls.
The mean over Poisson counts is exact given Σx, read from a table per cell; only the cell-to-cell
differences (basal state, library size, batch, Gamma factor) are drawn, the same for all conditions, so that little
noise is left in the difference.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import gammaln, xlogy

from cradlevae.data.simulation.ground_truth import GroundTruth
from cradlevae.data.simulation.sampling import block_cells
from cradlevae.data.simulation.strata import Strata, StrataEffects
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.types import Float32Array, FloatArray

DRAWS = 1_000
"""Cells drawn per condition."""

GRID = np.arange(-14.0, 14.0, 0.05)
"""Log of the Poisson means at which the expectation is tabulated."""

EXACT_BELOW = 300.0
"""Poisson mean from which a second-order expansion replaces the sum over counts (error < 1e-4)."""


def true_effects(
    truth: GroundTruth,
    library: Float32Array,
    seed: np.random.SeedSequence,
    *,
    strata: Strata,
    strata_effects: StrataEffects,
) -> Iterator[FloatArray]:
    """Yield the effects in parts, one per block of drawn cells; the sum of the parts is the effects.

    Parameters
    ----------
    truth
        The ground truth; ``conditions[0]`` is the control.
    library
        Library sizes of real controls, from which those of the drawn cells are taken, (controls,).
    seed
        Seed of the drawn cells.
    strata
        Batch and context of these controls: a drawn cell takes them from the control that it has its library size from.
    strata_effects
        What batches and contexts do to log rates.

    Yields
    ------
    FloatArray
        Parts of the effects of ``truth.conditions[1:]``, (conditions − 1, genes), log2 units.
    """
    step = block_cells(len(truth.genes))
    starts = range(0, DRAWS, step)
    table = PoissonLogTable()
    shifts = truth.shifts
    for start, block_seed in zip(starts, seed.spawn(len(starts)), strict=True):
        rng = np.random.default_rng(block_seed)
        n_cells = min(step, DRAWS - start)
        z_basal = rng.standard_normal((n_cells, truth.n_latent), dtype=np.float32)
        factor = truth.gamma(n_cells, rng)
        control = rng.choice(len(library), n_cells)
        factor *= library[control, None]
        drawn = Strata(strata.batch[control], strata.context[control])
        log_shifts = (
            strata_effects.log_shift(np.full(n_cells, condition), drawn) for condition in range(len(truth.conditions))
        )
        logs = (
            table.mean(factor * truth.expression(z_basal, shift[None], log_shift))
            for shift, log_shift in zip(shifts, log_shifts, strict=True)
        )
        means = np.stack([log.sum(axis=0, dtype=np.float64) for log in logs])
        yield (means[1:] - means[0]) / DRAWS


class PoissonLogTable:
    """A table of E[log2(1 + 1e4 x/S)] for x ~ Poisson(λ), where S is the cell's expected total."""

    def __init__(self) -> None:
        small = np.exp(GRID[np.exp(GRID) < EXACT_BELOW])
        self._counts = np.arange(int(EXACT_BELOW + 12.0 * np.sqrt(EXACT_BELOW)), dtype=np.float64)
        log_pmf = xlogy(self._counts, small[:, None]) - small[:, None] - gammaln(self._counts + 1.0)
        self._pmf = np.exp(log_pmf)  # (grid, counts)
        self._large = np.exp(GRID[len(small) :])

    def mean(self, rate: Float32Array) -> Float32Array:
        """Return the expectation for Poisson means ``rate``, (cells, genes); S is their sum over genes."""
        scale = TARGET_SUM / rate.sum(axis=1, dtype=np.float64)[:, None]
        exact = np.log2(1.0 + scale * self._counts) @ self._pmf.T
        moment = scale * self._large
        # f(λ) + f''(λ) λ/2 for f = log2(1 + scale·x)
        expanded = np.log2(1.0 + moment) - scale * moment / (2.0 * np.log(2.0) * (1.0 + moment) ** 2)
        table = np.hstack([exact, expanded]).astype(np.float32)  # (cells, grid)
        place = np.log(np.maximum(rate, np.float32(1e-12)))
        place -= np.float32(GRID[0])
        place /= np.float32(GRID[1] - GRID[0])
        np.clip(place, 0.0, len(GRID) - 1.001, out=place)
        below = place.astype(np.int32)
        place -= below
        below += (np.arange(len(rate), dtype=np.int32) * len(GRID))[:, None]
        flat = table.ravel()
        low = flat[below]
        place *= flat[below + 1] - low
        place += low
        return place
