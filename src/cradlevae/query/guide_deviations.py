"""Whether a guide RNA does the same as the others of its target: a test over all genes, and outliers by it.

The deviation of guide RNA i from its siblings is d_ig = Σ_b w_ib (x̄_ibg − x̄_Sbg), where S are the cells of all others,
and b are strata (batches, contexts): cells are compared within strata only, so that it is no deviation where one guide
RNA has more cells in a stratum. The weights w_ib ∝ n_ib n_Sb / (n_ib + n_Sb) are those of smallest variance, and sum to
1. The statistic is that of Chen and Qin (Annals of Statistics 2010), each gene divided by its variance v_g between the
cells of the target: T_i = Σ_g (d_ig² − Σ_b w_ib² (s²_ibg/n_ib + s²_Sbg/n_Sb)) / v_g, whose mean is 0 if all do the
same, whatever their variances.
(v is that of all cells of the target in a stratum: within guide RNAs it would be small where d is large.) T_i is then a
mixture Σ_k λ_k (χ²_1 − 1) whose weights are the eigenvalues of the correlation of genes between cells, R; as genes are
correlated, a χ² with a degree of freedom for each gene would not do. The traces of R² and R³ are estimated without bias
from products of cells of different groups (a U statistic), and the mixture's tail is that of a shifted χ² with the same
variance and skewness (Hall, Buckley and Eagleson).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import chi2, false_discovery_control

from cradlevae.data.storage.stored_matrix import CountMatrix
from cradlevae.query.guide_noise import GuideMeans, TargetNoise, shared_noise, target_cells, target_noise
from cradlevae.utils.types import AnyIntArray, FloatArray, IndexArray, IntArray


def guide_deviations(
    counts: CountMatrix,
    code: AnyIntArray,
    cells: pd.Index[str],
    target: AnyIntArray,
    means: GuideMeans,
    fdr: float,
    strata: AnyIntArray | None = None,
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
    strata
        Stratum of each cell, (cells,); ``None`` where there is one.

    Returns
    -------
    pandas.DataFrame
        A row for each guide RNA: ``n_siblings`` (guide RNAs it is compared with), ``deviation`` (T over what
        d² would be by chance; 0 where there is nothing but noise), ``p_value``, ``q_value``, ``flagged``; missing where
        it has no siblings in its strata.
    """
    deviation, p_value = np.full((2, len(target)), np.nan)
    n_siblings = np.bincount(target)[target] - 1
    noises = shared_noise([target_noise(counts, code, own, means, strata) for own in target_cells(code, cells, target)])
    active = n_siblings > 0

    def compare(noise: TargetNoise) -> None:
        guides = noise.guides[active[noise.guides]]
        deviation[guides], p_value[guides], n_siblings[guides] = _compare(noise, guides)

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


def _compare(noise: TargetNoise, guides: IndexArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Deviation, p value and number of siblings of some guide RNAs of a target, each against the others of them."""
    place = np.searchsorted(noise.guides, guides)
    own = noise.n_cells[:, place]
    others = own.sum(axis=1, keepdims=True) - own
    told = (own > 0) & (others > 0)
    n, m = np.where(told, own, 1.0), np.where(told, others, 1.0)
    both = 1 / n + 1 / m
    share = np.where(told, 1 / both, 0.0)
    comparable = told.any(axis=0)
    share = share / np.where(comparable, share.sum(axis=0), 1.0)
    difference = np.zeros((len(guides), len(noise.variance)))
    by_chance = np.zeros(len(guides))
    for stratum, weight in enumerate(share):
        value, spread = noise.value[stratum][place], noise.spread[stratum][place]
        n_own, n_others = own[stratum], m[stratum]
        siblings = (n_own @ value - n_own[:, None] * value) / n_others[:, None]
        difference += weight[:, None] * (value - siblings)
        by_chance += weight**2 * (spread / n[stratum] + (n_own @ spread - n_own * spread) / n_others**2)
    width = share**2 * both  # squared error of each stratum's part, relative to the variance between cells
    total = np.where(comparable, width.sum(axis=0), 1.0)
    statistic = ((difference**2 / noise.variance).sum(axis=1) - by_chance) / total
    relative = statistic / max(noise.trace, 1e-12)
    pairs = 1 / (n * np.maximum(n - 1, 1)) + 1 / (m * np.maximum(m - 1, 1)) + 2 / (n * m)
    across = total**2 - (width**2).sum(axis=0)
    sd = np.sqrt(2 * noise.square * ((share**4 * pairs).sum(axis=0) + np.maximum(across, 0.0))) / total
    freedom = noise.square**3 / noise.cube**2
    p_value = chi2.sf(freedom + np.sqrt(2 * freedom) * relative / np.where(comparable, sd, 1.0), freedom)
    p_value = np.maximum(p_value, np.finfo(np.float64).tiny)
    present = (own > 0).astype(np.int64)
    n_siblings = (present.T @ present > 0).sum(axis=1) - 1
    return np.where(comparable, relative, np.nan), np.where(comparable, p_value, np.nan), n_siblings
