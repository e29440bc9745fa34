"""Whether a guide RNA does the same as the others of its target: a test over all genes, and outliers by it.

The deviation of guide RNA i from its siblings is d_ig = x̄_ig − x̄_Sg, where S are the cells of all others. The statistic
is that of Chen and Qin (Annals of Statistics 2010), each gene divided by its variance v_g between the cells of the
target: T_i = Σ_g (d_ig² − s²_ig/n_i − s²_Sg/n_S) / v_g, whose mean is 0 if all do the same, whatever their variances.
(v is that of all cells of the target: within guide RNAs it would be small where d is large.) T_i is then a mixture
Σ_k λ_k (χ²_1 − 1) whose weights are the eigenvalues of the correlation of genes between cells, R; as genes are
correlated, a χ² with a degree of freedom for each gene would not do. The traces of R² and R³ are estimated without bias
from products of cells of different groups (a U statistic), and the mixture's tail is that of a shifted χ² with the same
variance and skewness (Hall, Buckley and Eagleson).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import chi2, false_discovery_control

from cradlevae.data.moments import PRIOR_CELLS, expression_blocks
from cradlevae.data.storage.stored_matrix import CountMatrix, subset_rows
from cradlevae.utils.types import AnyIntArray, Float32Array, FloatArray, IndexArray, IntArray

SAMPLED_CELLS = 240
"""Number of cells of a target from which the correlation of its genes is estimated."""

DETECTED_SHARE = 0.05
"""Genes detected in a smaller share of these cells are not tested: their means are far from normal."""

TRACE_CELLS = 100.0
"""Weight, in cells, of the correlation in all targets in that of one."""


@dataclass(frozen=True)
class GuideMeans:
    """Means of the cells of each guide RNA.

    Attributes
    ----------
    value
        Mean expression, from whatever common base, (guide RNAs, genes).
    variance
        Unbiased variance between cells, (guide RNAs, genes).
    n_cells
        (guide RNAs,).
    typical
        Variance between cells of all guide RNAs together, (genes,).
    """

    value: FloatArray
    variance: FloatArray
    n_cells: IntArray
    typical: FloatArray


@dataclass(frozen=True)
class TargetNoise:
    """How the deviations of the guide RNAs of one target vary by chance.

    Attributes
    ----------
    guides
        Positions of its guide RNAs.
    genes
        Positions of the genes that are tested.
    variance
        v of these genes, (tested genes,).
    trace
        Trace of R: about the number of tested genes.
    square, cube
        Traces of R² and R³, relative to the second and third power of that of R.
    n_sampled
        Number of cells they are estimated from.
    """

    guides: IndexArray
    genes: IndexArray
    variance: FloatArray
    trace: float
    square: float
    cube: float
    n_sampled: int


def guide_deviations(
    counts: CountMatrix, code: AnyIntArray, cells: pd.Index[str], target: AnyIntArray, means: GuideMeans, fdr: float
) -> pd.DataFrame:
    """Compare every guide RNA with its siblings.

    A guide RNA that deviates spoils the comparison of the others. So the one with the smallest p value is set aside if
    it deviates, the others of its target are compared again without it, and so on until none deviates. The last two
    of a target cannot be told apart: both are flagged where they differ.

    Parameters
    ----------
    counts
        Raw counts, (cells, genes).
    code
        Position of each cell's guide RNA; −1 for none, (cells,).
    cells
        Names of the cells, by which those are chosen that correlations are estimated from.
    target
        Number of each guide RNA's target, (guide RNAs,).
    means
        Means of the guide RNAs.
    fdr
        Share of false ones among those flagged (Benjamini–Hochberg over guide RNAs).

    Returns
    -------
    pandas.DataFrame
        A row for each guide RNA: ``n_siblings`` (guide RNAs it is compared with), ``deviation`` (T over what
        d² would be by chance; 0 where there is nothing but noise), ``p_value``, ``q_value``, ``flagged``; missing where
        it has no siblings.
    """
    deviation, p_value = np.full((2, len(target)), np.nan)
    n_siblings = np.bincount(target)[target] - 1
    noises = _shared([_noise(counts, code, rows, guides, means) for guides, rows in _groups(code, cells, target)])
    active = n_siblings > 0

    def compare(noise: TargetNoise) -> None:
        guides = noise.guides[active[noise.guides]]
        deviation[guides], p_value[guides] = _compare(noise, guides, means)
        n_siblings[guides] = len(guides) - 1

    for noise in noises:
        compare(noise)
    noise_of = {int(guide): noise for noise in noises for guide in noise.guides}
    while True:
        q_value = _q_values(p_value)
        candidates = np.flatnonzero(active & (n_siblings > 1) & (np.nan_to_num(q_value, nan=1.0) < fdr))
        if not len(candidates):
            break
        worst = int(candidates[np.lexsort((-deviation[candidates], p_value[candidates]))[0]])
        active[worst] = False
        compare(noise_of[worst])
    flagged = (np.nan_to_num(q_value, nan=1.0) < fdr) & (~active | (n_siblings == 1))
    return pd.DataFrame(
        {"n_siblings": n_siblings, "deviation": deviation, "p_value": p_value, "q_value": q_value, "flagged": flagged}
    )


def _q_values(p_value: FloatArray) -> FloatArray:
    q_value = np.full_like(p_value, np.nan)
    tested = ~np.isnan(p_value)
    if tested.any():
        q_value[tested] = false_discovery_control(p_value[tested])
    return q_value


def _compare(noise: TargetNoise, guides: IndexArray, means: GuideMeans) -> tuple[FloatArray, FloatArray]:
    """Deviation and p value of some guide RNAs of a target, each against the others of them."""
    n_own = means.n_cells[guides].astype(np.float64)
    value = means.value[np.ix_(guides, noise.genes)]
    n_others = n_own.sum() - n_own
    siblings = (n_own @ value - n_own[:, None] * value) / n_others[:, None]
    spread = (means.variance[np.ix_(guides, noise.genes)] / noise.variance).sum(axis=1)
    by_chance = spread / n_own + (n_own @ spread - n_own * spread) / n_others**2
    both = 1 / n_own + 1 / n_others
    statistic = (((value - siblings) ** 2 / noise.variance).sum(axis=1) - by_chance) / both
    relative = statistic / max(noise.trace, 1e-12)
    pairs = 1 / (n_own * (n_own - 1)) + 1 / (n_others * (n_others - 1)) + 2 / (n_own * n_others)
    sd = np.sqrt(2 * noise.square * pairs) / both
    freedom = noise.square**3 / noise.cube**2
    p_value = chi2.sf(freedom + np.sqrt(2 * freedom) * relative / sd, freedom)
    return relative, np.maximum(p_value, np.finfo(np.float64).tiny)


def _groups(code: AnyIntArray, cells: pd.Index[str], target: AnyIntArray) -> list[tuple[IndexArray, IndexArray]]:
    """For each target of several guide RNAs: these, and the cells from which its correlations are estimated.

    The cells are chosen by their names, so that their order does not matter, about as many of each guide RNA.
    """
    rows = np.flatnonzero(code >= 0)
    key = pd.util.hash_array(np.asarray(cells[rows], dtype=object))
    rows = rows[np.lexsort((key, code[rows]))]
    starts = np.searchsorted(code[rows], np.arange(len(target) + 1))
    groups = []
    for number in range(int(target.max(initial=-1)) + 1):
        guides = np.flatnonzero(target == number)
        if len(guides) > 1:
            most = max(4, -(-SAMPLED_CELLS // len(guides)))
            chosen = [rows[starts[guide] : min(starts[guide + 1], starts[guide] + most)] for guide in guides]
            groups.append((guides, np.concatenate(chosen)))
    return groups


def _noise(
    counts: CountMatrix, code: AnyIntArray, rows: IndexArray, guides: IndexArray, means: GuideMeans
) -> TargetNoise:
    """Variance and correlation of genes between the cells of a target's guide RNAs."""
    order = np.argsort(rows, kind="stable")
    sample = np.empty((len(rows), counts.shape[1]), dtype=np.float32)
    for part, block in expression_blocks(subset_rows(counts, rows[order])):
        sample[order[part]] = block.toarray()
    n_cells = means.n_cells[guides].astype(np.float64)
    within = (n_cells - 1) @ means.variance[guides]
    centre = n_cells @ means.value[guides] / n_cells.sum()
    between = n_cells @ (means.value[guides] - centre) ** 2
    free = n_cells.sum() - 1
    variance = (within + between + PRIOR_CELLS * means.typical) / (free + PRIOR_CELLS)
    genes = np.flatnonzero(((sample > 0).mean(axis=0) >= DETECTED_SHARE) & (variance > 0))
    if not len(genes):
        genes = np.flatnonzero(variance > 0)
    trace = float(((within + between)[genes] / free / variance[genes]).sum())
    square, cube = _traces(sample[:, genes] / np.sqrt(variance[genes], dtype=np.float32), code[rows])
    least = 1 / max(len(genes), 1)
    square = float(np.clip(square / max(trace, 1e-12) ** 2, least, 1.0))
    return TargetNoise(guides, genes, variance[genes], trace, square, cube / max(trace, 1e-12) ** 3, len(rows))


def _traces(sample: Float32Array, code: AnyIntArray) -> tuple[float, float]:
    """Traces of R² and R³, from cells, (cells, genes), that are centred in two halves of each guide RNA's cells."""
    half = np.empty(len(code), dtype=np.int64)
    for guide in np.unique(code):
        own = np.flatnonzero(code == guide)
        half[own] = np.arange(len(own)) % 2
    group = pd.factorize(pd.MultiIndex.from_arrays([code, half]))[0]
    size = np.bincount(group)
    used = size[group] > 1
    sample, group = sample[used], group[used]
    sums = np.zeros((len(size), sample.shape[1]), dtype=np.float64)
    np.add.at(sums, group, sample)
    own_size = size[group][:, None]
    residual = (sample - sums[group] / own_size) * np.sqrt(own_size / (own_size - 1))
    product = residual @ residual.T
    apart = group[:, None] != group
    product[~apart] = 0.0
    kinds = apart.astype(np.float64)
    triples = float(np.einsum("ij,ji->", kinds @ kinds, kinds))
    square = float((product**2).sum() / max(kinds.sum(), 1.0))
    return square, float(np.einsum("ij,ji->", product @ product, product) / max(triples, 1.0))


def _shared(noises: list[TargetNoise]) -> list[TargetNoise]:
    """Average the correlations of each target with those of all, by the numbers of cells."""
    if not noises:
        return []
    weight = np.array([noise.n_sampled for noise in noises], dtype=np.float64)
    square, cube = (np.array([getattr(noise, name) for noise in noises]) for name in ("square", "cube"))
    shared = []
    for noise, own in zip(noises, weight, strict=True):
        both = [
            float((own * value + TRACE_CELLS * np.average(all_values, weights=weight)) / (own + TRACE_CELLS))
            for value, all_values in ((noise.square, square), (noise.cube, cube))
        ]
        both[1] = float(np.clip(both[1], both[0] ** 2, both[0] ** 1.5))
        shared.append(replace(noise, square=both[0], cube=both[1]))
    return shared
