"""Pools of ambient RNA that the failed cells of an experiment show, by expectation maximisation.

A failed cell's counts are taken for Poisson counts of the profile that its perturbation and batch expect, of which a
share of its own is replaced by one of a few pools. Damage that keeps the mean profile (lost molecules, doublets) takes
no share; RNA from outside of the cells, which has one profile in all cells that it reaches, does. A pool that passing
cells seem to hold as often is a state of cells, not damage, and is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cradlevae.utils.types import Float32Array, FloatArray, IntArray

MOST_POOLS = 4
"""Pools that are looked for."""

SWEEPS = 40

CELLS = 2_000
"""At most so many failed cells are looked at, and as many passing ones."""

VALUES = 3e6
"""At most so many positive counts of each are looked at: cells of many counts tell of a pool each."""

FEWEST_CELLS = 20
"""Cells that a pool must be seen in."""

GAIN = 6.0
"""Log odds, a priori, against a pool in a cell."""

PRIOR_SHARE = 0.3, 1.5
"""Counts that a cell is thought to hold of a pool, and in all, before its own are seen."""

APART = 0.1
"""Distance (total variation) that two pools, or a pool and the mean profile, must have."""

MORE_THAN_PASSING = 3.0
"""How much more often failed cells must show a pool than passing ones."""


@dataclass(frozen=True)
class _Cells:
    """Cells as their positive counts: of which cell and gene each is, and what its profile expects there."""

    values: FloatArray
    cell: IntArray
    gene: IntArray
    expected: FloatArray
    size: FloatArray

    @classmethod
    def of(cls, counts: sp.csr_matrix, profiles: Float32Array, profile: IntArray) -> _Cells:
        """Cells whose own profile is one of ``profiles``, (profiles, genes)."""
        coo = counts.tocoo()
        expected = profiles[profile[coo.row], coo.col].astype(np.float64) + 1e-9
        size = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        return cls(coo.data.astype(np.float64), coo.row.astype(np.int64), coo.col.astype(np.int64), expected, size)

    def sum(self, of_counts: FloatArray) -> FloatArray:
        """Sums over the counts of each cell."""
        return np.asarray(np.bincount(self.cell, of_counts, minlength=len(self.size)), dtype=np.float64)

    def by_gene(self, of_counts: FloatArray, n_genes: int) -> FloatArray:
        """Sums over the counts of each gene."""
        return np.asarray(np.bincount(self.gene, of_counts, minlength=n_genes), dtype=np.float64)


def ambient_pools(
    failed: tuple[sp.csr_matrix, IntArray],
    passing: tuple[sp.csr_matrix, IntArray],
    profiles: Float32Array,
) -> Float32Array:
    """Profiles of the ambient RNA that failed cells hold, (pools, genes), each of sum 1; the commonest first.

    Parameters
    ----------
    failed, passing
        Counts of cells, (cells, genes), and which of ``profiles`` they should have, (cells,).
    profiles
        Expected shares of the genes, e.g. by condition, (profiles, genes).
    """
    n_genes = profiles.shape[1]
    none = np.zeros((0, n_genes), dtype=np.float32)
    cells = _Cells.of(failed[0], profiles, failed[1])
    if len(cells.size) < FEWEST_CELLS or not cells.values.size:
        return none
    overall = profiles[failed[1]].mean(axis=0, dtype=np.float64) + 1e-9
    overall /= overall.sum()
    pools = _first_pools(cells, overall)
    shares = np.full((len(pools), len(cells.size)), 0.3)
    for _ in range(SWEEPS):
        pools, shares, held = _sweep(cells, pools, shares, overall)
    others = _Cells.of(passing[0], profiles, passing[1])
    in_passing = _held(others, pools).sum(axis=1) / max(len(others.size), 1)
    kept: list[int] = []
    for pool in np.argsort(-held.sum(axis=1)):
        n_cells = held[pool].sum()
        far = [np.abs(pools[pool] - other).sum() / 2 for other in (overall, *pools[kept])]
        often = n_cells / len(cells.size) > MORE_THAN_PASSING * in_passing[pool]
        if n_cells >= FEWEST_CELLS and often and min(far) > APART:
            kept.append(int(pool))
    return pools[kept].astype(np.float32) if kept else none


def _first_pools(cells: _Cells, overall: FloatArray) -> FloatArray:
    """Candidates, (pools, genes): what cells of each of some clusters have above what is expected."""
    from scipy.cluster.vq import kmeans2

    n_genes = len(overall)
    rows = np.zeros((len(cells.size), n_genes), dtype=np.float32)
    above = cells.values / np.maximum(cells.size[cells.cell], 1) - cells.expected
    weight = 1 / np.sqrt(overall)
    rows[cells.cell, cells.gene] = np.maximum(above, 0) * weight[cells.gene]
    surprise = (rows**2).sum(axis=1) * cells.size
    most = np.argsort(-surprise)[: max(FEWEST_CELLS, len(rows) // 2)]
    chosen = rows[most] / np.maximum(np.linalg.norm(rows[most], axis=1, keepdims=True), 1e-9)
    n_pools = min(MOST_POOLS, len(chosen) // FEWEST_CELLS + 1)
    _, label = kmeans2(chosen, n_pools, minit="++", seed=np.random.default_rng(0), iter=20)
    total = cells.by_gene(cells.values, n_genes) / max(cells.values.sum(), 1)
    first = [np.maximum(total + 1.5 * (total - overall), 1e-9)]  # what failed cells have above others, over all
    first += [(rows[most[label == k]] / weight).sum(axis=0) + 1e-9 for k in range(n_pools) if (label == k).any()]
    pools = np.stack(first[:MOST_POOLS])
    return np.asarray(pools / pools.sum(axis=1, keepdims=True), dtype=np.float64)


def _sweep(
    cells: _Cells, pools: FloatArray, shares: FloatArray, overall: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One sweep of expectation maximisation: pools, the share of each in each cell, and how likely it holds it."""
    foreign = np.empty((len(pools), len(cells.values)))
    log_odds = np.empty((len(pools), len(cells.size)))
    for pool, profile in enumerate(pools):
        share = shares[pool][cells.cell]
        of_pool = share * profile[cells.gene]
        mixed = (1 - share) * cells.expected + of_pool
        foreign[pool] = cells.values * of_pool / mixed
        log_odds[pool] = cells.sum(cells.values * np.log(mixed / cells.expected))
        shares[pool] = np.clip((cells.sum(foreign[pool]) + PRIOR_SHARE[0]) / (cells.size + PRIOR_SHARE[1]), 1e-4, 0.999)
    held = _posterior(log_odds)
    for pool in range(len(pools)):
        profile = cells.by_gene(held[pool][cells.cell] * foreign[pool], len(overall)) + 1e-3 * overall
        pools[pool] = profile / profile.sum()
    return pools, shares, held


def _held(cells: _Cells, pools: FloatArray) -> FloatArray:
    """How likely cells hold each of some pools, (pools, cells)."""
    log_odds = np.empty((len(pools), len(cells.size)))
    for pool, profile in enumerate(pools):
        share = np.full(len(cells.size), 0.3)
        for _ in range(8):
            of_pool = share[cells.cell] * profile[cells.gene]
            mixed = (1 - share[cells.cell]) * cells.expected + of_pool
            taken = cells.sum(cells.values * of_pool / mixed)
            share = np.clip((taken + PRIOR_SHARE[0]) / (cells.size + PRIOR_SHARE[1]), 1e-4, 0.999)
        log_odds[pool] = cells.sum(cells.values * np.log(mixed / cells.expected))
    return _posterior(log_odds)


def _posterior(log_odds: FloatArray) -> FloatArray:
    """Probability of each pool in each cell, beside that of none, (pools, cells)."""
    against = np.concatenate([np.zeros((1, log_odds.shape[1])), log_odds - GAIN])
    against -= against.max(axis=0)
    likely = np.exp(against)
    return np.asarray((likely / likely.sum(axis=0))[1:])
