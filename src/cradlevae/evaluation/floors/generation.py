"""Cells of a floor: real controls whose genes are moved by an effect, with the counting noise of a sequencer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from cradlevae.model.estimation.streams import stream_seed
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.types import Float32Array, FloatArray

FACTORS = np.concatenate([[0.0], 2.0 ** np.arange(-8, 8.5, 0.5)])
"""Factors on a gene's counts at which its mean expression is tabulated."""


@dataclass(frozen=True)
class ControlCells:
    """Real control cells that cells of other conditions are made of.

    Attributes
    ----------
    counts
        Counts of passing training controls, (cells, genes).
    """

    counts: sp.csr_matrix

    def moved(
        self,
        names: Sequence[str],
        effects: FloatArray,
        n_cells: int,
        library_size: Float32Array | None,
        seed: int,
    ) -> tuple[sp.csr_matrix, FloatArray]:
        """Controls drawn at random, whose genes are moved by effects.

        Each gene's counts are multiplied by the factor that moves the controls' mean of log2(1 + 1e4·x/Σx) by the
        effect, brought to the library size and drawn anew from a Poisson distribution.

        Parameters
        ----------
        names
            Conditions; each has random numbers of its own, whichever are asked for beside it.
        effects
            Effect of each condition, (conditions, genes).
        n_cells
            Cells for each condition.
        library_size
            Expected total count of each cell, (conditions, n_cells); ``None`` for that of the real control.
        seed
            Seed of the draws.

        Returns
        -------
        Counts, (conditions · n_cells, genes), float32, and the library size of each cell.
        """
        blocks, sizes = [], []
        for row, (name, factor) in enumerate(zip(names, self._factors(effects), strict=True)):
            rng = np.random.default_rng([seed, stream_seed(seed, name)])
            chosen = self.counts[rng.integers(self.counts.shape[0], size=n_cells)]
            library = np.asarray(chosen.sum(axis=1)).ravel() if library_size is None else library_size[row]
            rate = sp.csr_matrix(chosen.multiply(factor), dtype=np.float64)
            total = np.asarray(rate.sum(axis=1)).ravel()
            scale = np.divide(library, total, out=np.zeros_like(total), where=total > 0)
            rate.data = rng.poisson(rate.data * np.repeat(scale, np.diff(rate.indptr))).astype(np.float32)
            rate.eliminate_zeros()
            blocks.append(rate)
            sizes.append(library)
        return sp.csr_matrix(sp.vstack(blocks, format="csr"), dtype=np.float32), np.concatenate(sizes)

    def _factors(self, effects: FloatArray) -> FloatArray:
        """Factor on each gene's counts that moves its mean expression by the effect, (conditions, genes)."""
        factors = np.ones_like(effects)
        curve = self._curve
        unmoved = curve[int(np.flatnonzero(FACTORS == 1.0)[0])]
        for gene in np.flatnonzero(curve[-1] > 0):
            factors[:, gene] = np.interp(unmoved[gene] + effects[:, gene], curve[:, gene], FACTORS)
        return np.where(effects == 0, 1.0, factors)

    @cached_property
    def _curve(self) -> FloatArray:
        """Mean of log2(1 + 1e4·x'/Σx) over the controls, x' ~ Poisson(factor · x), (factors, genes); it rises."""
        rng = np.random.default_rng(0)
        library = np.asarray(self.counts.sum(axis=1), dtype=np.float64).ravel()
        scale = np.repeat(TARGET_SUM / library, np.diff(self.counts.indptr))
        drawn = np.zeros(self.counts.nnz)
        curve = np.zeros((len(FACTORS), self.counts.shape[1]))
        for row, step in enumerate(np.diff(FACTORS), start=1):  # a Poisson count grows by Poisson counts
            drawn += rng.poisson(step * self.counts.data)
            curve[row] = np.bincount(self.counts.indices, np.log2(1 + scale * drawn), minlength=curve.shape[1])
        return curve / len(library)
