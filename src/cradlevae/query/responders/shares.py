"""The share of each perturbation's cells that respond, and the probability of each cell, from the cells' log odds.

A perturbation's cells are a mixture: each responds with probability w, which is the perturbation's share. How far its
responders' effect exceeds the effect of all its cells is one of a few factors, whose probabilities are estimated along
with w. Shares of perturbations are alike: w ~ Beta, whose parameters all perturbations tell of together (empirical
Bayes), by their likelihood on a grid of means and concentrations. Everything is a sum over grids; nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import expit, log_softmax, logsumexp, softmax
from scipy.stats import beta

from cradlevae.utils.types import FloatArray

SHARES = (np.arange(100) + 0.5) / 100
"""Grid of shares, (W,)."""

PRIORS = [(mean, size) for mean in np.arange(0.05, 1, 0.1) for size in (2.0, 5.0, 12.0, 30.0)]
"""Means and concentrations of the Beta distribution of shares, all equally likely beforehand."""


@dataclass(frozen=True)
class ShareFit:
    """What the cells of a perturbation say.

    Attributes
    ----------
    share, low, high
        Posterior mean of the share of responders, and an interval.
    factor
        Posterior mean of the factor.
    log_odds
        Log odds of each cell, mean over factors, (cells,).
    responding
        Probability of each cell that it responds, (cells,).
    """

    share: float
    low: float
    high: float
    factor: float
    log_odds: FloatArray
    responding: FloatArray


def fit_shares(log_odds: Mapping[str, FloatArray], factors: FloatArray, *, credible: float) -> dict[str, ShareFit]:
    """Estimate shares of perturbations and probabilities of cells.

    Parameters
    ----------
    log_odds
        By perturbation, log probability of each cell's counts if it responds minus that if it does not, for each
        factor, (cells, F).
    factors
        The factors, (F,).
    credible
        Probability of the intervals.
    """
    likelihood = {name: _likelihood(odds) for name, odds in log_odds.items()}  # (W, F) each
    log_prior = _log_prior([logsumexp(table, axis=1) for table in likelihood.values()])
    fits = {}
    for name, table in likelihood.items():
        posterior = softmax(table + log_prior[:, None])
        of_share, of_factor = posterior.sum(axis=1), posterior.sum(axis=0)
        low, high = _interval(of_share, credible)
        odds, responding = log_odds[name], np.zeros(len(log_odds[name]))
        for share, weights in zip(SHARES, posterior, strict=True):
            responding += expit(odds + np.log(share / (1 - share))) @ weights
        responding = np.minimum(responding, 1.0)  # a sum may round up
        factor = float(of_factor @ factors)
        fits[name] = ShareFit(float(of_share @ SHARES), low, high, factor, odds @ of_factor, responding)
    return fits


def _likelihood(log_odds: FloatArray) -> FloatArray:
    """Log likelihood of each share and factor, (W, F)."""
    return np.stack([np.logaddexp(np.log1p(-share), np.log(share) + log_odds).sum(axis=0) for share in SHARES])


def _log_prior(log_likelihood: list[FloatArray]) -> FloatArray:
    """Log prior of the shares on the grid, (W,), from the likelihoods of all perturbations, (W,) each."""
    priors = _beta_priors()
    evidence = np.sum([logsumexp(priors + table, axis=1) for table in log_likelihood], axis=0)
    weights = np.asarray(log_softmax(evidence))
    return np.asarray(logsumexp(priors + weights[:, None], axis=0))


@cache
def _beta_priors() -> FloatArray:
    """Log probability of each share on the grid under each of the priors, (priors, W)."""
    densities = np.stack([beta.logpdf(SHARES, mean * size, (1 - mean) * size) for mean, size in PRIORS])
    return np.asarray(densities - logsumexp(densities, axis=1, keepdims=True))


def _interval(probability: FloatArray, credible: float) -> tuple[float, float]:
    """Equal-tailed interval of a distribution over the shares, linear within a step of the grid."""
    edges, reached = np.linspace(0, 1, len(SHARES) + 1), np.concatenate([[0], np.cumsum(probability)])
    below = (1 - credible) / 2
    low, high = np.interp([below, 1 - below], reached / reached[-1], edges)
    return float(low), float(high)
