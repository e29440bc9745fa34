from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, mannwhitneyu, norm, rankdata

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


def slow_van_elteren(
    treated: np.ndarray, control: np.ndarray, treated_strata: np.ndarray, control_strata: np.ndarray
) -> float:
    """Van Elteren's z of one gene, stratum by stratum, from ranks."""
    total, variance = 0.0, 0.0
    for stratum in np.unique(np.r_[treated_strata, control_strata]):
        first, second = treated[treated_strata == stratum], control[control_strata == stratum]
        n, m = len(first), len(second)
        if not n or not m:
            continue
        ranks = rankdata(np.r_[first, second])
        _, sizes = np.unique(ranks, return_counts=True)
        of_sum = n * m / 12 * (n + m + 1 - (sizes**3 - sizes).sum() / ((n + m) * (n + m - 1)))
        total += (ranks[:n].sum() - n * (n + m + 1) / 2) / (n + m + 1)
        variance += of_sum / (n + m + 1) ** 2
    return total / np.sqrt(variance) if variance > 1e-12 else 0.0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_strata_are_combined_as_by_van_elteren(seed, n_strata):
    counts, codes = simulated(seed)
    strata = np.random.default_rng(seed).integers(0, n_strata, len(codes))
    found = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES, strata=strata)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row in range(2):
        for gene in range(counts.shape[1]):
            expected = slow_van_elteren(
                shares[codes == row, gene], shares[codes == 2, gene], strata[codes == row], strata[codes == 2]
            )
            assert found.z[row, gene] == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(found.p_value, 2 * norm.sf(np.abs(found.z)), rtol=1e-9)
    np.testing.assert_array_equal(found.q_value[0], false_discovery_control(found.p_value[0]))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_invariants_of_strata(seed):
    counts, codes = simulated(seed)
    random = np.random.default_rng(seed)
    strata = random.integers(0, 3, len(codes))
    base = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES, strata=strata)
    order, labels = random.permutation(len(codes)), random.permutation([-4, 7, 100])
    other = rank_sum_tests(sp.csr_matrix(counts[order]), codes[order], NAMES, strata=labels[strata[order]])
    np.testing.assert_allclose(other.z, base.z, atol=1e-12)
    # Cells in a stratum without controls, and controls in a stratum of their own, tell nothing.
    more = np.r_[codes, 0, 0, 2, 2]
    alone = rank_sum_tests(sp.csr_matrix(np.r_[counts, counts[:4]]), more, NAMES, strata=np.r_[strata, 8, 8, 9, 9])
    np.testing.assert_allclose(alone.z, base.z, atol=1e-12)


def test_one_stratum_gives_the_tests_without_strata_to_the_last_digit():
    counts, codes = simulated(3)
    codes[:5] = -1
    plain = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES)
    one = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES, strata=np.where(codes < 0, 2, 6))
    np.testing.assert_array_equal(one.z, plain.z)
    np.testing.assert_array_equal(one.q_value, plain.q_value)


def test_shifts_of_strata_are_no_differential_expression():
    """All cells of a stratum are exchangeable, but strata differ, and so do the shares of treated cells in them."""
    random = np.random.default_rng(0)
    strata = np.repeat(np.arange(4), 300)
    codes = np.where(random.random(1200) < np.array([0.1, 0.3, 0.6, 0.8])[strata], 0, 2)
    rate = random.gamma(2.0, 1.0, 600) * 2 ** random.normal(0, 0.5, (4, 600))
    counts = random.poisson(rate[strata])
    within = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES, strata=strata)
    assert (within.p_value[0] < 0.05).mean() == pytest.approx(0.05, abs=0.025)
    assert within.z[0].std() == pytest.approx(1.0, abs=0.08)
    assert within.significant()[0].sum() <= 1
    pooled = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES)
    assert pooled.significant()[0].mean() > 0.5
    # A true change is found all the same.
    counts[codes == 0, :5] = random.poisson(2.0 * rate[strata[codes == 0], :5])
    assert rank_sum_tests(sp.csr_matrix(counts), codes, NAMES, strata=strata).significant()[0, :5].all()


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
    with pytest.raises(DataError, match=r"\(89,\) strata and \(90,\) condition codes"):
        rank_sum_tests(sp.csr_matrix(counts), codes, NAMES, strata=np.zeros(89, dtype=int))
    found = rank_sum_tests(sp.csr_matrix(counts), codes, NAMES)
    other = dataclasses.replace(found, names=("B", "A", "empty"))
    with pytest.raises(DataError, match="same perturbations and genes"):
        de_overlap(found, other)
