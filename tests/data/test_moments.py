from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data import moments as measured
from cradlevae.data.moments import condition_moments, measured_effects, pooled_variance, steadied_variance
from cradlevae.errors import DataError

NAMES = ("A", "A+B", "control")


def simulated(seed: int, n_cells: int = 60, n_genes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Dense counts and condition codes; every condition has at least five cells."""
    random = np.random.default_rng(seed)
    counts = random.poisson(random.gamma(1.0, 1.0, n_genes), size=(n_cells, n_genes))
    codes = random.permutation(np.r_[np.repeat([0, 1, 2], 5), random.integers(0, 3, n_cells - 15)])
    return counts, codes


def oracle(counts: np.ndarray, scale: str) -> np.ndarray:
    if scale == "mean":
        return counts.astype(float)
    library_size = counts.sum(axis=1, keepdims=True)
    return np.log2(1 + 1e4 * counts / np.maximum(library_size, 1))


@pytest.mark.parametrize("scale", ["perturbseq", "mean"])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_moments_equal_a_dense_oracle(monkeypatch, scale, dtype):
    monkeypatch.setattr(measured, "EXPRESSION_CELLS", 7)  # several blocks, the last one short
    counts, codes = simulated(0)
    counts[3] = 0  # a cell without counts contributes 0 everywhere
    moments = condition_moments(sp.csr_matrix(counts.astype(dtype)), codes, NAMES, scale=scale)
    values = oracle(counts, scale)
    for row in range(3):
        np.testing.assert_allclose(moments.mean[row], values[codes == row].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(moments.variance[row], values[codes == row].var(axis=0, ddof=1), atol=1e-12)
    np.testing.assert_array_equal(moments.n_cells, np.bincount(codes))
    assert moments.mean.dtype == moments.variance.dtype == np.float64


def test_effects_and_their_standard_errors():
    counts, codes = simulated(1)
    effects = measured_effects(condition_moments(sp.csr_matrix(counts), codes, NAMES))
    values = oracle(counts, "perturbseq")
    assert effects.names == ("A", "A+B")
    control = values[codes == 2]
    for row in range(2):
        cells = values[codes == row]
        np.testing.assert_allclose(effects.value[row], cells.mean(axis=0) - control.mean(axis=0), atol=1e-12)
        squared = cells.var(axis=0, ddof=1) / len(cells) + control.var(axis=0, ddof=1) / len(control)
        np.testing.assert_allclose(effects.standard_error[row] ** 2, squared, atol=1e-12)


def test_standard_error_is_the_spread_of_the_effect_over_repeated_experiments():
    random = np.random.default_rng(0)
    codes = np.repeat([0, 1], [30, 50])
    runs = [
        measured_effects(
            condition_moments(sp.csr_matrix(random.poisson(3.0, (80, 6))), codes, ["A", "control"], scale="mean")
        )
        for _ in range(400)
    ]
    spread = np.std([run.value for run in runs])
    expected = np.sqrt(3 / 30 + 3 / 50)
    assert spread == pytest.approx(expected, rel=0.05)
    assert np.sqrt(np.mean([run.standard_error**2 for run in runs])) == pytest.approx(expected, rel=0.05)


def test_empty_and_single_cell_conditions():
    counts, codes = simulated(2)
    keep = np.r_[np.flatnonzero(codes == 2), np.flatnonzero(codes == 0)[:1]]  # one cell of A, none of A+B
    moments = condition_moments(sp.csr_matrix(counts[keep]), codes[keep], NAMES)
    assert np.isnan(moments.mean[1]).all()
    assert np.isnan(moments.variance[:2]).all()
    effects = measured_effects(moments)
    assert np.isfinite(effects.value[0]).all()
    n_control = moments.n_cells[2]
    np.testing.assert_allclose(effects.standard_error[0] ** 2, moments.variance[2] * (1 + 1 / n_control))
    assert np.isnan(effects.value[1]).all()
    assert np.isnan(effects.standard_error[1]).all()


def test_negative_codes_leave_cells_out():
    counts, codes = simulated(3)
    some = np.where(np.arange(len(codes)) % 4 == 0, -1, codes)
    left = condition_moments(sp.csr_matrix(counts), some, NAMES)
    right = condition_moments(sp.csr_matrix(counts[some >= 0]), codes[some >= 0], NAMES)
    np.testing.assert_allclose(left.mean, right.mean)
    np.testing.assert_array_equal(left.n_cells, right.n_cells)


def test_duplicate_entries_are_one_count():
    twice = sp.csr_matrix((np.array([1.0, 2.0, 5.0]), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 2))
    moments = condition_moments(twice, np.array([0]), ["control"])
    np.testing.assert_allclose(moments.mean[0], np.log2(1 + 1e4 * np.array([3, 5]) / 8))
    assert twice.nnz == 3  # the caller's matrix is untouched


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_invariants(seed, factor):
    counts, codes = simulated(seed)
    base = measured_effects(condition_moments(sp.csr_matrix(counts), codes, NAMES))
    random = np.random.default_rng(seed + 1)
    cells, genes = random.permutation(counts.shape[0]), random.permutation(counts.shape[1])
    shuffled = measured_effects(condition_moments(sp.csr_matrix(counts[cells][:, genes]), codes[cells], NAMES))
    np.testing.assert_allclose(shuffled.value, base.value[:, genes], atol=1e-12)
    np.testing.assert_allclose(shuffled.standard_error, base.standard_error[:, genes], atol=1e-9)
    # Expression depends on shares of the library only.
    deeper = counts * random.integers(1, factor + 1, size=(len(codes), 1))
    scaled = measured_effects(condition_moments(sp.csr_matrix(deeper), codes, NAMES))
    np.testing.assert_allclose(scaled.value, base.value, atol=1e-12)
    dense = measured_effects(condition_moments(np.asarray(counts), codes, NAMES))
    np.testing.assert_array_equal(dense.value, base.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"condition": np.zeros(3, dtype=int)}, "one code per cell"),
        ({"condition": np.zeros(60)}, "integer"),
        ({"condition": np.full(60, 3)}, "only 3 names"),
        ({"names": ("A", "A", "control")}, "'A' is named twice"),
        ({"genes": ("g",)}, "one name per gene"),
        ({"scale": "log"}, "unknown scale 'log'"),
    ],
)
def test_bad_input_is_named(change, message):
    counts, codes = simulated(0)
    arguments = {"counts": sp.csr_matrix(counts), "condition": codes, "names": NAMES} | change
    with pytest.raises(DataError, match=message):
        condition_moments(**arguments)


def test_effects_need_controls():
    counts, codes = simulated(0)
    without = condition_moments(sp.csr_matrix(counts), codes, ("A", "A+B", "C"))
    with pytest.raises(DataError, match="no condition is named 'control'"):
        measured_effects(without)
    one = condition_moments(sp.csr_matrix(counts[:2]), np.array([0, 1]), ("A", "control"))
    with pytest.raises(DataError, match="at least two control cells"):
        measured_effects(one)


def test_the_variance_of_few_cells_is_steadied_by_similar_genes() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.geomspace(1, 20, 60), (6, 60))
    counts[:, 30] = 4  # six cells that agree by chance
    counts[:, 31] = 0
    moments = condition_moments(
        sp.csr_matrix(counts), np.array([0, 0, 1, 1, 2, 2]), ("control", "A", "B"), scale="mean"
    )
    raw, steadied = pooled_variance(moments), steadied_variance(moments)
    truth = np.geomspace(1, 20, 60)
    assert raw[30] == 0
    assert 0.5 * truth[30] < steadied[30] < 2 * truth[30]
    assert steadied[31] == 0  # a gene without counts has none
    assert np.square(steadied / truth - 1).mean() < 0.6 * np.square(raw / truth - 1).mean()


def test_many_cells_outweigh_similar_genes() -> None:
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(np.geomspace(1, 20, 30), (4000, 30)))
    moments = condition_moments(counts, rng.integers(0, 2, 4000), ("control", "A"), scale="mean")
    np.testing.assert_allclose(steadied_variance(moments), pooled_variance(moments), rtol=0.05)
