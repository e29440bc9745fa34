"""Cells of a floor: real controls whose genes are moved by an effect, with the counting noise of a sequencer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from cradlevae.data.factors import Factor
from cradlevae.model.estimation.streams import stream_seed
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.types import Float32Array, FloatArray, IndexArray

FACTORS = np.concatenate([[0.0], 2.0 ** np.arange(-8, 8.5, 0.5)])
"""Factors on a gene's counts at which its mean expression is tabulated."""


@dataclass(frozen=True)
class ControlCells:
    """Real control cells that cells of other conditions are made of.

    Attributes
    ----------
    counts
        Counts of passing training controls, (cells, genes).
    factors
        Their batches and contexts.
    """

    counts: sp.csr_matrix
    factors: tuple[Factor, ...] = ()
    _of_contexts: dict[str, ControlCells] = field(default_factory=dict, repr=False)

    def of_context(self, context: str | None) -> ControlCells:
        """The controls of a context; all for none, and where the context has none."""
        factor = next((factor for factor in self.factors if factor.role == "context"), None)
        if context is None or factor is None:
            return self
        if context not in self._of_contexts:
            rows = np.flatnonzero(factor.codes == factor.levels.index(context))
            own = ControlCells(self.counts[rows], tuple(factor.of(rows) for factor in self.factors))
            self._of_contexts[context] = own if len(rows) else self
        return self._of_contexts[context]

    def of_batch(self, batch: str) -> IndexArray:
        """Positions of the controls of a batch."""
        factor = next(factor for factor in self.factors if factor.role == "batch")
        return np.flatnonzero(factor.codes == factor.levels.index(batch))

    def drawn(self, n_cells: int, batches: Sequence[str] | None, rng: np.random.Generator) -> IndexArray:
        """Positions of controls drawn at random, of the batches that are given, (n_cells,).

        Where a batch has no controls among these, those of the other batches stand in.
        """
        if batches is None:
            return rng.integers(self.counts.shape[0], size=n_cells)
        chosen = rng.integers(self.counts.shape[0], size=n_cells)
        wanted = np.array(batches, dtype=object)
        for batch in sorted(set(batches)):
            rows, cells = self.of_batch(batch), np.flatnonzero(wanted == batch)
            if len(rows):
                chosen[cells] = rng.choice(rows, len(cells))
        return chosen

    def moved(
        self,
        names: Sequence[str],
        effects: FloatArray,
        n_cells: int,
        library_size: Float32Array | None,
        seed: int,
        batches: Sequence[Sequence[str]] | None = None,
        contexts: Sequence[str | None] | None = None,
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
        batches
            Batch of the control that each cell is made of, (conditions, n_cells); ``None`` for any.
        contexts
            Context of the controls that each condition is made of, (conditions,); ``None`` for any.

        Returns
        -------
        Counts, (conditions · n_cells, genes), float32, and the library size of each cell.
        """
        blocks, sizes = [], []
        pools = [self.of_context(context) for context in contexts or [None] * len(names)]
        factors = _factors(pools, effects)
        for row, (name, own, factor) in enumerate(zip(names, pools, factors, strict=True)):
            rng = np.random.default_rng([seed, stream_seed(seed, name)])
            chosen = own.counts[own.drawn(n_cells, None if batches is None else batches[row], rng)]
            library = np.asarray(chosen.sum(axis=1)).ravel() if library_size is None else library_size[row]
            rate = sp.csr_matrix(chosen.multiply(factor), dtype=np.float64)
            total = np.asarray(rate.sum(axis=1)).ravel()
            scale = np.divide(library, total, out=np.zeros_like(total), where=total > 0)
            rate.data = rng.poisson(rate.data * np.repeat(scale, np.diff(rate.indptr))).astype(np.float32)
            rate.eliminate_zeros()
            blocks.append(rate)
            sizes.append(library)
        return sp.csr_matrix(sp.vstack(blocks, format="csr"), dtype=np.float32), np.concatenate(sizes)

    def factors_of(self, effects: FloatArray) -> FloatArray:
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


def _factors(pools: Sequence[ControlCells], effects: FloatArray) -> FloatArray:
    """Factors of every condition on the genes of its own controls, (conditions, genes)."""
    factors = np.ones_like(effects)
    for pool in {id(pool): pool for pool in pools}.values():
        rows = [row for row, own in enumerate(pools) if own is pool]
        factors[rows] = pool.factors_of(effects[rows])
    return factors
