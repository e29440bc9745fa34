"""Effects shrunk together: against dense posteriors, in calibration, at low rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.nn import multivariate
from cradlevae.nn.multivariate import multivariate_shrink

Table = np.ndarray


def drawn(
    seed: int, n_conditions: int = 12, n_genes: int = 400, size: float = 1.0
) -> tuple[Table, Table, Table, float, Table]:
    """True effects of three pathways, measured; with numbers of cells, of controls, and variances of genes."""
    random = np.random.default_rng(seed)
    loading = np.eye(3)[np.arange(n_conditions) % 3] + 0.2 * random.standard_normal((n_conditions, 3))
    spread = np.exp(random.normal(0, 0.5, n_genes))
    truth = size * 0.2 * loading @ random.standard_normal((3, n_genes)) * spread
    n_cells, n_controls = random.integers(20, 200, n_conditions).astype(float), 150.0
    within = np.exp(random.normal(0, 0.3, n_genes))
    noise = random.standard_normal(truth.shape) / np.sqrt(n_cells)[:, None] + random.standard_normal(n_genes) / np.sqrt(
        n_controls
    )
    return truth, truth + noise * np.sqrt(within), n_cells, n_controls, within


def test_conditions_tell_of_each_other() -> None:
    truth, measured, n_cells, n_controls, within = drawn(0)
    mean, variance = multivariate_shrink(measured, n_cells, n_controls, within)
    noise = within / n_cells[:, None] + within / n_controls
    spread = np.maximum((measured**2 - noise).mean(axis=0), 0)
    alone = measured * spread / (spread + noise)
    assert ((mean - truth) ** 2).mean() < 0.8 * ((alone - truth) ** 2).mean()
    z = (mean - truth) / np.sqrt(variance)
    assert z.std() == pytest.approx(1, abs=0.15)
    assert (np.abs(z) < 1.645).mean() == pytest.approx(0.9, abs=0.05)


def test_it_is_the_posterior_of_its_own_covariance() -> None:
    """With one gene scale and many genes, K is that of the truth, and so is the posterior, from a dense formula."""
    random = np.random.default_rng(1)
    factor = random.standard_normal((4, 4)) * 0.3
    covariance = factor @ factor.T
    n_cells, n_controls, n_genes = np.array([20.0, 50, 80, 30]), 60.0, 20_000
    error = np.diag(1 / n_cells) + 1 / n_controls
    truth = factor @ random.standard_normal((4, n_genes))
    measured = truth + np.linalg.cholesky(error) @ random.standard_normal((4, n_genes))
    mean, variance = multivariate_shrink(measured, n_cells, n_controls, np.ones(n_genes))
    gain = covariance @ np.linalg.inv(covariance + error)
    exact = gain @ measured
    assert ((mean - truth) ** 2).mean() == pytest.approx(((exact - truth) ** 2).mean(), rel=0.2)
    np.testing.assert_allclose(variance.mean(axis=1), np.diag(covariance - gain @ covariance), rtol=0.5)


def test_nothing_is_shrunk_to_nothing() -> None:
    _, measured, n_cells, n_controls, within = drawn(2, size=0.0)
    mean, _ = multivariate_shrink(measured, n_cells, n_controls, within)
    assert np.abs(mean).mean() < 0.2 * np.abs(measured).mean()


def test_low_rank_is_near_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, measured, n_cells, n_controls, within = drawn(3, n_conditions=60)
    whole = multivariate_shrink(measured, n_cells, n_controls, within)[0]
    monkeypatch.setattr(multivariate, "FULL", 20)
    monkeypatch.setattr(multivariate, "RANK", 10)
    mean, variance = multivariate_shrink(measured, n_cells, n_controls, within)
    assert ((mean - truth) ** 2).mean() < 1.15 * ((whole - truth) ** 2).mean()
    assert ((mean - truth) / np.sqrt(variance)).std() == pytest.approx(1, abs=0.3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_order_and_units_mean_nothing(seed: int) -> None:
    _, measured, n_cells, n_controls, within = drawn(seed, 6, 80)
    random = np.random.default_rng(seed)
    rows, genes = random.permutation(6), random.permutation(80)
    mean, variance = multivariate_shrink(measured, n_cells, n_controls, within)
    other = multivariate_shrink(measured[rows][:, genes], n_cells[rows], n_controls, within[genes])
    np.testing.assert_allclose(other[0], mean[rows][:, genes], atol=1e-6)
    scaled = multivariate_shrink(3 * measured, n_cells, n_controls, 9 * within)
    np.testing.assert_allclose(scaled[0], 3 * mean, atol=1e-6)
    np.testing.assert_allclose(scaled[1], 9 * variance, atol=1e-6)


def test_genes_without_variance_have_no_effect() -> None:
    _, measured, n_cells, n_controls, within = drawn(4)
    within[:3] = 0
    measured[:, :3] = 0
    mean, variance = multivariate_shrink(measured, n_cells, n_controls, within)
    assert not mean[:, :3].any()
    assert np.isfinite(mean).all()
    assert (variance >= 0).all()
    empty = multivariate_shrink(measured[:0], n_cells[:0], n_controls, within)
    assert empty[0].shape == (0, measured.shape[1])
