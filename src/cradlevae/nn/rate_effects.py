"""Empirical Bayes of effects on log rates, from sums of counts alone: where training of gene effects starts.

The log rate of gene g under condition t is base_g + V_tg with V_tg ~ Normal(0, σ_t² τ_g²); the base is shared by all
conditions, so those that do nothing serve as controls, too. A sweep takes a Newton step for every V and the base, and
then the most probable σ and τ. Tables are genes × conditions here and go through a sweep some genes at a time, so that
what is worked on stays in the processor's cache: thousands of conditions make it a matter of memory otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cradlevae.nn.hierarchy import SOME_VALUES, ScaleFit, gene_blocks
from cradlevae.utils.types import BoolArray, Float32Array, FloatArray

FIRST_STEPS = 3
"""Newton steps of the first sweep; one each afterwards."""

TOLERANCE = 1e-2
"""Of large tables, sweeps end when the variances of effects move less than this share of their mean."""


@dataclass(frozen=True)
class RateEffects:
    """Effects on log rates.

    Attributes
    ----------
    value
        V, (conditions, genes); 0 for controls and conditions without cells.
    spread, strength
        τ of genes and σ of conditions.
    """

    value: Float32Array
    spread: FloatArray
    strength: FloatArray


def rate_effects(
    total: FloatArray,
    library: FloatArray,
    dispersion: FloatArray,
    n_controls: int,
    spread_prior: tuple[float, float],
    sweeps: Iterable[object],
) -> RateEffects:
    """Estimate effects of conditions on log rates.

    Parameters
    ----------
    total
        Counts, (conditions, genes); the controls come first.
    library
        Sum of the library sizes of their cells, (conditions,); 0 where there are none.
    dispersion
        Variance of the counts in units of their mean, (genes,).
    n_controls
        How many conditions are controls.
    spread_prior
        Median of τ a priori, and standard deviation of its logarithm.
    sweeps
        An item for each sweep that is allowed.
    """
    n_conditions, n_genes = total.shape
    informative = (np.arange(n_conditions) >= n_controls) & (library > 0)
    scales = ScaleFit(informative, n_genes, smallest=1e-6, spread_prior=spread_prior)
    pooled = total.sum(axis=0) + 0.5
    base = np.log(pooled / pooled.sum())
    counts = np.ascontiguousarray(total.T, dtype=np.float32)
    value = np.zeros((n_genes, n_conditions), dtype=np.float32)
    log_library = np.log(np.maximum(library, 1e-30)).astype(np.float32)
    parts = gene_blocks(n_conditions, n_genes)
    if informative.any():
        for sweep, _ in enumerate(sweeps):
            for part in parts:
                block = _Block(counts[part], log_library, dispersion[part, None].astype(np.float32), informative)
                prior = (scales.spread[part, None] * scales.strength + 1e-10).astype(np.float32)
                for _ in range(FIRST_STEPS if sweep == 0 else 1):
                    base[part], square = block.step(value[part], base[part], prior)
                scales.take(part, square.T)
            scales.end_sweep()
            if total.size > SOME_VALUES and scales.change < TOLERANCE:
                break
    return RateEffects(np.ascontiguousarray(value.T), np.sqrt(scales.spread), np.sqrt(scales.strength))


@dataclass(frozen=True)
class _Block:
    """Some genes, (genes, conditions)."""

    counts: Float32Array
    log_library: Float32Array
    dispersion: Float32Array
    informative: BoolArray

    def step(self, value: Float32Array, base: FloatArray, prior: Float32Array) -> tuple[FloatArray, Float32Array]:
        """Move effects, in place, and give the base and the expected squares of the effects."""
        expected = np.exp(value + base[:, None].astype(np.float32) + self.log_library)
        left = self.counts - expected
        moved = prior * expected / self.dispersion  # information beside that of the prior
        shrinkage = moved / (1 + moved)
        # about the base, a condition tells what is left when its own V may be anything that the prior allows
        weight = expected / (self.dispersion * (1 + moved))
        residual = np.clip(left / np.maximum(expected, 1e-9) + value, -2, 2)
        of_base = np.maximum(weight.sum(axis=1, dtype=np.float64), 1e-9)
        base = base + np.clip(np.einsum("gc,gc->g", weight, residual) / of_base, -0.5, 0.5)
        pull = self.dispersion / prior
        value += np.clip((left - value * pull) / (expected + pull), -1, 1)
        np.clip(value, -8, 8, out=value)
        value[:, ~self.informative] = 0
        return base, value**2 + prior * (1 - shrinkage) + shrinkage**2 / of_base[:, None].astype(np.float32)
