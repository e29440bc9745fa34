"""Scores that need to know what the artifact did."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.evaluation.truth import leakage, mask_f1, poisson_deviance


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


def test_leakage_is_a_half_for_noise_and_one_for_the_label_itself() -> None:
    rng = np.random.default_rng(0)
    failed = rng.random(400) < 0.25
    noise = rng.normal(size=(3, 400, 4))
    assert leakage(noise, failed) == pytest.approx(0.5, abs=0.06)
    telling = noise.copy()
    telling[..., 0] += 6 * failed
    assert leakage(telling, failed) > 0.98
    assert np.isnan(leakage(noise[:, :10], np.zeros(10, dtype=bool)))


@given(st.integers(0, 10_000))
def test_mask_f1_does_not_depend_on_the_order_of_latents(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, probability = rng.random((4, 3)) < 0.4, rng.random((4, 5))
    order = rng.permutation(5)
    assert mask_f1(truth, probability) == mask_f1(truth, probability[:, order])
    extended = np.concatenate([truth, np.zeros((4, 2))], axis=1)
    assert mask_f1(truth, extended) == 1.0
