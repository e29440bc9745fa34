from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cradlevae.data.moments import condition_moments, measured_effects
from cradlevae.errors import DataError
from cradlevae.evaluation.ceiling import ceiling, split_half_effects, split_half_scores
from cradlevae.evaluation.metrics.effects import ate_rho

N_PERTURBATIONS = 40
NAMES = [*(f"p{row}" for row in range(N_PERTURBATIONS)), "control"]
CODES = np.r_[np.repeat(np.arange(N_PERTURBATIONS), 40), np.repeat(N_PERTURBATIONS, 1000)]


def simulated(seed: int, strength: float = 1.0) -> tuple[sp.csr_matrix, np.ndarray]:
    """Counts on the raw scale and the true effects: Poisson means that perturbations shift."""
    random = np.random.default_rng(seed)
    true = np.vstack([strength * random.normal(0, 0.4, (N_PERTURBATIONS, 60)), np.zeros((1, 60))])
    counts = random.poisson(np.maximum(6.0 + true[CODES], 0))
    return sp.csr_matrix(counts), true[:-1]


def test_truth_attains_the_attainable():
    for seed, strength in ((0, 1.0), (1, 0.5)):
        counts, true = simulated(seed, strength)
        found = ceiling(counts, CODES, NAMES, scale="mean")
        reference = measured_effects(condition_moments(counts, CODES, NAMES, scale="mean")).value
        assert ate_rho(reference, true) == pytest.approx(found.attainable_rho, abs=0.02)
        assert found.low < found.attainable_rho < found.high
        assert found.reliability == pytest.approx(2 * found.split_half_rho / (1 + found.split_half_rho))
        assert found.attainable_rho == pytest.approx(np.sqrt(found.reliability))


def test_closed_form():
    # Reliability is τ²/(τ² + se²): signal .4², noise 6/40 + 6/1000.
    counts, _ = simulated(2)
    expected = 0.16 / (0.16 + 6 / 40 + 6 / 1000)
    assert ceiling(counts, CODES, NAMES, scale="mean").reliability == pytest.approx(expected, abs=0.04)


def test_noise_alone_attains_nothing():
    counts, _ = simulated(3, strength=0.0)
    found = ceiling(counts, CODES, NAMES, scale="mean")
    assert abs(found.split_half_rho) < 0.1
    assert found.attainable_rho < 0.4
    assert found.low == 0.0


def test_interval_covers_over_repeated_experiments():
    spread, width = [], []
    for seed in range(12):
        counts, _ = simulated(seed)
        found = ceiling(counts, CODES, NAMES, scale="mean", n_splits=10, n_bootstrap=200)
        spread.append(found.attainable_rho)
        width.append(found.high - found.low)
    assert 0.5 < np.mean(width) / (2 * 1.96 * np.std(spread, ddof=1)) < 2.0


def test_halves_are_disjoint_equal_and_complete():
    # One gene per cell: a half's mean tells which cells are in it.
    codes = np.r_[np.repeat(0, 5), np.repeat(1, 6)]
    counts = sp.csr_matrix(np.eye(11))
    for first, second in split_half_effects(counts, codes, ["A", "control"], n_splits=5, scale="mean"):
        in_first, in_second = first[0] != 0, second[0] != 0
        assert (in_first ^ in_second).all()
        assert sorted([in_first[:5].sum(), in_second[:5].sum()]) == [2, 3]
        assert in_first[5:].sum() == in_second[5:].sum() == 3


def test_seeds_and_order():
    counts, _ = simulated(4)
    first = ceiling(counts, CODES, NAMES, seed=1)
    assert first == ceiling(counts, CODES, NAMES, seed=1)
    assert first != ceiling(counts, CODES, NAMES, seed=2)
    order = np.random.default_rng(0).permutation(len(CODES))
    again = ceiling(counts[order], CODES[order], NAMES, seed=1)
    assert again.attainable_rho == pytest.approx(first.attainable_rho, abs=0.02)
    genes = np.random.default_rng(1).permutation(60)
    assert ceiling(counts[:, genes], CODES, NAMES, seed=1).split_half_rho == pytest.approx(first.split_half_rho)


def test_any_metric_half_against_half():
    counts, _ = simulated(5)
    genes = [f"g{column}" for column in range(60)]
    scores = split_half_scores(counts, CODES, NAMES, genes, "ate_rho", n_splits=6)
    assert scores.shape == (6,)
    assert scores.mean() == pytest.approx(ceiling(counts, CODES, NAMES, n_splits=6).split_half_rho)
    assert split_half_scores(counts, CODES, NAMES, genes, "discrimination_l1", n_splits=2).min() > 0.5


def test_conditions_too_small_to_halve():
    counts, _ = simulated(6)
    keep = np.r_[0, np.arange(40, len(CODES))]  # one cell of p0
    halves = next(split_half_effects(counts[keep], CODES[keep], NAMES, n_splits=1))
    assert halves[0].shape == (N_PERTURBATIONS - 1, 60)
    one = ceiling(counts[keep], np.where(np.isin(CODES[keep], [1, 40]), CODES[keep], -1), NAMES)
    assert one.low == one.attainable_rho == one.high
    with pytest.raises(DataError, match="fewer than two 'control' cells"):
        ceiling(counts[:1600], CODES[:1600], NAMES)
    with pytest.raises(DataError, match="nothing to halve"):
        ceiling(counts[1600:], CODES[1600:], NAMES)
