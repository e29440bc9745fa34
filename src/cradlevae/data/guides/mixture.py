"""The count from which a guide RNA counts as present, by a mixture of ambient and real counts for each guide RNA.

Of the cells with at least one count x of a guide RNA, some hold ambient RNA, x ~ Poisson(λ) given x ≥ 1, and the others
hold the guide RNA, log2 x ~ Normal(μ, s²), rounded to whole counts. λ, μ, s and the share of the latter are fitted to
each guide RNA by expectation maximisation, with a prior from a fit to all guide RNAs together that weighs
as much as :data:`PRIOR_CELLS` cells, so that a guide RNA of few cells takes the parameters of the others. Nothing is
drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import expit, gammaln, logit, ndtr

from cradlevae.errors import DataError
from cradlevae.utils.types import FloatArray, IndexArray, IntArray

PRIOR_CELLS = 10.0
"""Weight, in cells, of the fit to all guide RNAs in the fit to one."""

AMBIENT_MEAN = 1.05
"""Mean of ambient counts among cells that have one, a priori, for the fit to all guide RNAs."""

ITERATIONS = 200
"""Largest number of steps of expectation maximisation."""

TOLERANCE = 1e-4
"""Largest change of a share or mean in the last step."""

SMALLEST_SD = 0.3
"""Smallest s, so that a few equal counts are not taken for a class of their own."""

LARGEST_SD = 1.5
"""Largest s, so that real counts do not take in the ambient ones that a Poisson distribution does not expect."""

LARGEST_THRESHOLD = 1024
"""No threshold is higher."""

_RATES = np.geomspace(1e-4, 1e4, 4000)
_MEANS = _RATES / -np.expm1(-_RATES)


@dataclass(frozen=True)
class Mixture:
    """Parameters of one mixture or several, (mixtures,) each.

    Attributes
    ----------
    share
        Share of real counts among the cells with a count.
    rate
        λ of ambient counts.
    mean, sd
        μ and s of real counts, log2.
    """

    share: FloatArray
    rate: FloatArray
    mean: FloatArray
    sd: FloatArray

    def real(self, value: FloatArray, which: IndexArray) -> FloatArray:
        """Probability that counts are real, given the mixture of each; it does not fall with the count."""
        rate, mean, sd, share = (part[which] for part in (self.rate, self.mean, self.sd, self.share))
        ambient = value * np.log(rate) - rate - gammaln(value + 1) - np.log(-np.expm1(-rate))
        upper, lower = (np.log2(value + step) for step in (0.5, -0.5))
        mass = ndtr((upper - mean) / sd) - ndtr((lower - mean) / sd)
        above = np.maximum(1 - ndtr((-1.0 - mean) / sd), 1e-12)
        odds = np.log(np.maximum(mass / above, 1e-300)) - ambient
        return np.where(value > 2**mean, 1.0, expit(logit(share) + odds))


def mixture_thresholds(counts: sp.csr_matrix, min_count: int) -> IntArray:
    """Return the smallest count of each guide RNA that is more likely real than ambient, (guide RNAs,).

    Parameters
    ----------
    counts
        Counts of guide RNAs, (cells, guide RNAs).
    min_count
        Smallest threshold.

    Raises
    ------
    DataError
        If there are no counts, or no real counts that differ from ambient ones.
    """
    guide, value, n_cells = _histogram(counts)
    if not len(value):
        raise DataError("no cell has a count of a guide RNA")
    n_guides = counts.shape[1]
    common = _fit(guide, value, n_cells, _start(guide, value, n_cells, n_guides), common=True)
    low, high = float(np.median(np.interp(common.rate, _RATES, _MEANS))), float(2 ** common.mean[0])
    if high < 2 * low:
        raise DataError(
            "ambient and real counts of guide RNAs cannot be told apart (the fit has means of "
            f"{low:.1f} and {high:.1f}); use method='umi' with a threshold of your own (min_count=)"
        )
    own = _fit(guide, value, n_cells, common, common=False)
    grid = np.arange(1, LARGEST_THRESHOLD + 1, dtype=np.float64)
    thresholds = np.full(n_guides, min_count, dtype=np.int64)
    for index in range(n_guides):
        likely = own.real(grid, np.full(len(grid), index)) >= 0.5
        ambient = np.flatnonzero(~likely)
        thresholds[index] = max(min_count, int(ambient[-1]) + 2 if len(ambient) else 1)
    return thresholds


def _histogram(counts: sp.csr_matrix) -> tuple[IndexArray, FloatArray, FloatArray]:
    """Return, for each count of a guide RNA that occurs, the guide RNA, the count, and in how many cells it occurs."""
    kept = counts.data > 0
    value = counts.data[kept].astype(np.int64)
    span = int(value.max(initial=0)) + 1
    unique, n_cells = np.unique(counts.indices[kept].astype(np.int64) * span + value, return_counts=True)
    return (unique // span).astype(np.intp), (unique % span).astype(np.float64), n_cells.astype(np.float64)


def _start(guide: IndexArray, value: FloatArray, n_cells: FloatArray, n_guides: int) -> Mixture:
    """Where the fit starts: ambient counts from the cells with counts of 1 and 2, real counts from higher ones."""
    ones, twos = (np.bincount(guide, weights=n_cells * (value == count), minlength=n_guides) for count in (1, 2))
    overall = 2 * twos.sum() / (ones.sum() + 1)
    rate = np.clip((2 * twos + PRIOR_CELLS * overall) / (ones + PRIOR_CELLS), 0.01, None)
    high = value > 3 * (1 + rate[guide])
    level, weight = (np.log2(value[high]), n_cells[high]) if high.any() else (np.log2(value), n_cells)
    mean = float(np.average(level, weights=weight))
    share = float(np.clip(n_cells[high].sum() / n_cells.sum(), 0.05, 0.95))
    ones_of = np.ones(n_guides)
    return Mixture(share * ones_of, rate, mean * ones_of, ones_of)


def _fit(guide: IndexArray, value: FloatArray, n_cells: FloatArray, first: Mixture, *, common: bool) -> Mixture:
    """Fit a mixture to each guide RNA from the histograms of all.

    Parameters
    ----------
    guide, value, n_cells
        As :func:`_histogram` gives them.
    first
        Where the fit starts; where it is not ``common``, it is the prior as well.
    common
        Whether all guide RNAs have the same mean and standard deviation of real counts.
    """
    n_guides = len(first.share)
    ambient_mean = AMBIENT_MEAN if common else np.interp(first.rate, _RATES, _MEANS)
    level = np.log2(value)

    def total(weight: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(guide, weights=weight, minlength=n_guides), dtype=np.float64)

    everyone = total(n_cells)
    typical = float(first.share.mean())
    now = first
    for _ in range(ITERATIONS):
        real = n_cells * now.real(value, guide)
        ambient = n_cells - real
        n_real = total(real)
        share = (n_real + PRIOR_CELLS * typical) / (everyone + PRIOR_CELLS)
        if common:
            typical = float(n_real.sum() / everyone.sum())
        pool = (lambda values: np.full(n_guides, values.sum())) if common else (lambda values: values)
        weight = pool(n_real) + PRIOR_CELLS
        mean = (pool(total(real * level)) + PRIOR_CELLS * first.mean) / weight
        square = pool(total(real * (level - mean[guide]) ** 2)) + PRIOR_CELLS * (first.sd**2 + (mean - first.mean) ** 2)
        sd = np.clip(np.sqrt(square / weight), SMALLEST_SD, LARGEST_SD)
        observed = (total(ambient * value) + PRIOR_CELLS * ambient_mean) / (total(ambient) + PRIOR_CELLS)
        rate = np.interp(observed, _MEANS, _RATES)
        moved = max(float(np.abs(share - now.share).max()), float(np.abs(mean - now.mean).max()))
        now = Mixture(share, rate, mean, sd)
        if moved < TOLERANCE:
            break
    return now
