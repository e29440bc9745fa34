"""Comparison of two groups of cells within strata: one 2 × 2 table of failures for each stratum.

A stratum without cells of one of the groups tells nothing and has no weight. With one informative stratum the test is
Fisher's, and odds ratio and interval are those of a single table.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from cradlevae.utils.types import AnyIntArray, BoolArray, FloatArray

HALDANE = 0.5
"""What is added to each of the four counts of a table, in all strata together, so that the log odds ratio is finite."""

SAME = 1e-7
"""Relative difference up to which two probabilities are taken for equal (as in R)."""


def informative(first: AnyIntArray, second: AnyIntArray) -> BoolArray:
    """Which strata have cells of both groups, (strata,); groups are (failed and passed, strata)."""
    return np.asarray((first.sum(axis=0) > 0) & (second.sum(axis=0) > 0))


def exact_p_value(first: AnyIntArray, second: AnyIntArray) -> float:
    """Two-sided p of equal odds of failing in every stratum: the exact Cochran–Mantel–Haenszel test.

    The statistic is the number of failing cells of the first group in all informative strata together. Given the sizes
    and failures of each stratum, its distribution under the null hypothesis is the convolution of hypergeometric ones;
    p is the probability of all outcomes that are no more probable than the observed one. So p is right however sparse
    the strata are, and neither χ² approximation nor continuity correction is needed.

    Parameters
    ----------
    first, second
        Numbers of failed and of passed cells of the two groups, (2, strata).

    Returns
    -------
    float
        NaN where no stratum has cells of both groups; 1 where no such stratum has both failed and passed cells.

    References
    ----------
    Mantel and Haenszel 1959; Mehta, Patel and Gray 1985 (exact distribution of 2 × 2 × K tables).
    """
    chosen = informative(first, second)
    if not chosen.any():
        return float("nan")
    first, second = first[:, chosen], second[:, chosen]
    n_failed, n_passed = first + second
    probability, observed = np.ones(1), 0
    for stratum in np.flatnonzero((n_failed > 0) & (n_passed > 0)):
        size, failed, passed = int(first[:, stratum].sum()), int(n_failed[stratum]), int(n_passed[stratum])
        lowest = max(0, size - passed)
        outcomes = np.arange(lowest, min(size, failed) + 1, dtype=np.float64)
        log_weight = _log_choose(failed, outcomes) + _log_choose(passed, size - outcomes)
        weight = np.exp(log_weight - log_weight.max())
        probability = np.convolve(probability, weight / weight.sum())
        observed += int(first[0, stratum]) - lowest
    return float(min(1.0, probability[probability <= probability[observed] * (1.0 + SAME)].sum()))


def common_log_odds(first: AnyIntArray, second: AnyIntArray) -> tuple[float, float]:
    """Log of the Mantel–Haenszel odds ratio common to all strata, natural log, and its standard error.

    The variance is that of Robins, Breslow and Greenland (1986), which holds for few large strata and for many small
    ones. To stay finite, ½ is added to each of the four counts (Haldane), shared among the informative strata by their
    weights n₁n₂/(n₁ + n₂): ½ in *every* stratum would draw sparse ones towards no difference.

    Parameters
    ----------
    first, second
        Numbers of failed and of passed cells of the two groups, (2, strata).

    Returns
    -------
    log_odds, error
        Both NaN where no stratum has cells of both groups.
    """
    chosen = informative(first, second)
    if not chosen.any():
        return float("nan"), float("nan")
    n_first, n_second = first[:, chosen].sum(axis=0), second[:, chosen].sum(axis=0)
    weight = n_first * n_second / (n_first + n_second)
    added = HALDANE * weight / weight.sum()
    (a, b), (c, d) = first[:, chosen] + added, second[:, chosen] + added
    n = a + b + c + d
    p, q, r, s = (a + d) / n, (b + c) / n, a * d / n, b * c / n
    total_r, total_s = r.sum(), s.sum()
    variance = (
        (p * r).sum() / (2 * total_r**2)
        + (p * s + q * r).sum() / (2 * total_r * total_s)
        + (q * s).sum() / (2 * total_s**2)
    )
    return float(np.log(total_r / total_s)), float(np.sqrt(variance))


def _log_choose(n: int, k: FloatArray) -> FloatArray:
    """Natural log of the binomial coefficients, the shape of ``k``."""
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0))
