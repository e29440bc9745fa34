from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, mannwhitneyu

from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.de import DETest, de_direction, de_overlap, rank_sum_tests

NAMES = ("A", "B", "control", "empty")


def simulated(seed: int, n_cells: int = 90, n_genes: int = 9) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    codes = random.permutation(np.r_[np.repeat([0, 1, 2], 6), random.integers(0, 3, n_cells - 18)])
    rate = random.gamma(0.7, 1.5, n_genes) * np.where(codes == 0, 2.0, 1.0)[:, None] ** np.arange(n_genes)
    counts = random.poisson(np.minimum(rate, 20))
    counts[:, 0] = 0  # a gene nobody expresses
    return counts, codes


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_equals_mannwhitneyu(seed):
    counts, codes = simulated(seed)
    found = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES)
    assert found.names == ("A", "B", "empty")
    expression = np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    for row in range(2):
        for gene in range(1, counts.shape[1]):
            a, b = expression[codes == row, gene], expression[codes == 2, gene]
            if np.ptp(np.r_[a, b]) == 0:
                continue
            expected = mannwhitneyu(a, b, method="asymptotic", use_continuity=False)
            assert found.p_value[row, gene] == pytest.approx(expected.pvalue, rel=1e-9)
            assert np.sign(found.z[row, gene]) == np.sign(round(expected.statistic - len(a) * len(b) / 2, 9))
        np.testing.assert_array_equal(found.q_value[row], false_discovery_control(found.p_value[row]))
    # Nothing to tell: no expression anywhere, or no cells.
    assert (found.p_value[:, 0] == 1).all()
    assert (found.p_value[2] == 1).all()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_invariants(seed):
    counts, codes = simulated(seed)
    base = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES)
    random = np.random.default_rng(seed)
    cells, genes = random.permutation(len(codes)), random.permutation(counts.shape[1])
    shuffled = rank_sum_tests(sp.csr_matrix(counts[cells][:, genes]), codes[cells], NAMES)
    np.testing.assert_allclose(shuffled.z, base.z[:, genes], atol=1e-12)
    deeper = rank_sum_tests(sp.csr_matrix(counts * random.integers(1, 8, (len(codes), 1))), codes, NAMES)
    np.testing.assert_allclose(deeper.z, base.z, atol=1e-12)
    explicit = sp.csr_matrix(np.ones_like(counts, dtype=float))
    explicit.data = counts.astype(float).ravel()  # zeros stored as entries are zeros all the same
    np.testing.assert_array_equal(rank_sum_tests(explicit, codes, NAMES).z, base.z)
    # Swapping perturbation and control turns the sign.
    swapped = rank_sum_tests(sp.csr_matrix(counts), codes, ("control", "B", "A", "empty"))
    np.testing.assert_allclose(swapped.z[swapped.names.index("A")], -base.z[0], atol=1e-12)


def test_false_discoveries_are_held():
    random = np.random.default_rng(0)
    counts = random.poisson(1.0, (600, 400))
    codes = np.repeat([0, 1, 2], 200)
    counts[:200, :10] = random.poisson(3.0, (200, 10))
    counts[:200, 10:30] = random.poisson(0.1, (200, 20))  # keeps the library size, hence all other shares
    found = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES).significant()
    assert found[0, :30].all()
    assert found[0, 30:].mean() < 0.02
    assert found[1].sum() <= 1


def table(z: list[list[float]], q: list[list[float]]) -> DETest:
    values = np.array(z, dtype=float)
    names = tuple(f"p{row}" for row in range(len(values)))
    return DETest(names, values, np.array(q, dtype=float), np.array(q, dtype=float))


def test_overlap_and_direction_by_hand():
    real = table([[5, -4, 3, 0.1], [0, 0, 0, 0]], [[0.01, 0.01, 0.01, 0.9], [1, 1, 1, 1]])
    some = table([[4, 4, -0.2, 9], [1, 2, 3, 4]], [[0.01, 0.02, 0.9, 0.001], [0, 0, 0, 0]])
    assert de_overlap(real, real) == de_direction(real, real) == 1.0
    assert de_overlap(real, some) == pytest.approx(2 / 3)
    assert de_direction(real, some) == pytest.approx(1 / 3)
    # Calling every gene: only the three strongest calls count.
    every = table([[1, 4, 5, 9], [1, 1, 1, 1]], [[0, 0, 0, 0], [0, 0, 0, 0]])
    assert de_overlap(real, every) == pytest.approx(2 / 3)
    nothing = table([[0, 0, 0, 0]] * 2, [[1, 1, 1, 1]] * 2)
    assert de_overlap(real, nothing) == de_direction(real, nothing) == 0.0
    assert np.isnan(de_overlap(nothing, real))
    assert np.isnan(de_direction(nothing, real))


def test_bad_input_is_named():
    counts, codes = simulated(0)
    with pytest.raises(DataError, match="no 'control' cells"):
        rank_sum_tests(sp.csr_matrix(counts), codes, ("A", "B", "C"))
    with pytest.raises(DataError, match="no 'empty' cells"):
        rank_sum_tests(sp.csr_matrix(counts), codes, NAMES, control="empty")
    found = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES)
    other = dataclasses.replace(found, names=("B", "A", "empty"))
    with pytest.raises(DataError, match="same perturbations and genes"):
        de_overlap(found, other)
