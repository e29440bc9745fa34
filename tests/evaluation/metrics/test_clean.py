"""Deviance of true counts under a predicted profile."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cradlevae.evaluation.metrics.clean import poisson_deviance


def test_deviance_is_that_of_the_poisson_distribution() -> None:
    from scipy.stats import poisson

    rng = np.random.default_rng(0)
    counts, profile = rng.poisson(2.0, (5, 7)).astype(float), rng.random((5, 7)) + 0.1
    mean = profile / profile.sum(axis=1, keepdims=True) * counts.sum(axis=1, keepdims=True)
    saturated = poisson.logpmf(counts, np.where(counts > 0, counts, 1e-300))
    expected = 2 * (saturated - poisson.logpmf(counts, mean)).sum(axis=1)
    np.testing.assert_allclose(poisson_deviance(sp.csr_matrix(counts), profile), expected)
    one = profile[:1]
    np.testing.assert_allclose(
        poisson_deviance(sp.csr_matrix(counts), one), poisson_deviance(sp.csr_matrix(counts), np.tile(one, (5, 1)))
    )
