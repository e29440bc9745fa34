"""The metrics of the Virtual Cell Challenge on groups made by hand; tests/evaluation/test_cell_eval2.py holds them
against the package that defines them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from cradlevae.evaluation.metrics import vcc2026 as metrics
from cradlevae.evaluation.metrics.vcc2026 import CountGroups
from cradlevae.evaluation.scorers.count_groups import TOTAL, _jackknife, own_columns

N = 12


def groups(n: int = 2, **changes: np.ndarray) -> CountGroups:
    """Perturbations without any effect on twelve genes."""
    plain = CountGroups(
        expression=np.ones((1 + n, N)),
        variance=np.zeros(1 + n),
        own=np.full(n, -1),
        tested=np.ones(N, dtype=bool),
        log2_fold_change=np.zeros((n, N)),
        p_value=np.ones((n, N)),
        q_value=np.ones((n, N)),
        name_order=np.arange(N),
    )
    return replace(plain, **changes)


def called(signs: list[list[float]]) -> CountGroups:
    """Genes that are called have a fold change."""
    fold = np.zeros((len(signs), N))
    for row, values in enumerate(signs):
        fold[row, : len(values)] = values
    q_value = np.where(fold != 0, 0.01, 1.0)
    return groups(len(signs), log2_fold_change=fold, q_value=q_value, p_value=q_value)


def test_discrimination_ranks_the_own_effect() -> None:
    effects = np.random.default_rng(0).normal(size=(3, N))
    real = groups(3, expression=np.vstack([np.zeros(N), effects]))
    assert metrics.pds_cosine(real, real) == 1.0
    assert metrics.pds_cosine(real, groups(3, expression=np.zeros((4, N)))) == 0.5  # no direction: all are as far
    turned = replace(real, expression=np.vstack([np.zeros(N), -effects]))
    assert metrics.pds_cosine(real, turned) == 0.0
    assert metrics.pds_cosine(replace(real, own=np.array([0, 1, 2])), real) == 1.0


def test_expression_error_is_relative_to_that_of_the_controls() -> None:
    truth = np.vstack([np.zeros(N), np.ones((1, N)), -np.ones((1, N))])
    real = groups(expression=truth)
    assert metrics.expression_error(real, real) == 0.0
    assert metrics.expression_error(real, groups(expression=np.zeros((3, N)))) == 1.0
    half = replace(real, expression=truth / 2)
    assert metrics.expression_error(real, half) == pytest.approx(0.25)
    noisy = replace(half, variance=np.array([0.0, 1.0, 1.0]))
    assert metrics.expression_error(real, noisy) == pytest.approx(0.25)  # no more than the real cells have
    real_noise = replace(real, variance=np.array([0.0, 1.0, 1.0]))
    expected = (N / 4 - 1 - 1) / (N - 1)
    assert metrics.expression_error(real_noise, noisy) == pytest.approx(expected)
    alike = replace(noisy, expression=np.zeros((3, N)))  # predictions do not differ, so they have no noise
    assert metrics.expression_error(real_noise, alike) == pytest.approx((N - 1) / (N - 1))
    assert np.isnan(metrics.expression_error(groups(), groups()))


def test_agreement_of_calls_and_directions() -> None:
    real = called([[1, 1, -1, -1], []])
    predicted = called([[1, -1, -1, 0, 1], []])
    assert metrics.de_jaccard(real, predicted) == (3 / 5 + 1) / 2
    assert metrics.direction_fidelity(real, predicted) == 2 / 4  # the fifth has no real direction
    assert metrics.direction_fidelity(real, called([[1, 1, -1, -1], [1]])) == 1.0
    assert np.isnan(metrics.direction_fidelity(called([[]]), called([[]])))
    own = np.array([1, -1])
    assert metrics.direction_fidelity(replace(real, own=own), replace(predicted, own=own)) == 2 / 3


def test_reach_is_the_deepest_place_with_right_directions() -> None:
    real = called([[1] * 10])
    q_value = np.ones((1, N))
    q_value[0, :10] = np.arange(10) / 1000
    for wrong, reached in ((9, 1.0), (0, 1.0), (None, 1.0)):
        fold = np.ones((1, N))
        if wrong is not None:
            fold[0, wrong] = -1.0
        predicted = groups(1, log2_fold_change=fold, q_value=q_value, p_value=q_value)
        assert metrics.direction_reach(real, predicted) == reached  # nine of ten are enough
    fold = np.where(np.arange(N) < 3, 1.0, -1.0)[None]
    predicted = groups(1, log2_fold_change=fold, q_value=q_value, p_value=q_value)
    assert metrics.direction_reach(real, predicted) == 3 / 10
    assert np.isnan(metrics.direction_reach(called([[]]), predicted))


def test_error_of_fold_changes_needs_ten_genes() -> None:
    real = called([[2.0] * 10, [1.0] * 9])
    predicted = called([[1.0] * 10, [9.0] * 9])
    assert metrics.fold_change_error(real, predicted) == 0.5
    assert metrics.fold_change_error(real, called([[], []])) == 1.0
    assert np.isnan(metrics.fold_change_error(called([[1.0] * 9]), called([[1.0] * 9])))


def test_the_jackknife_leaves_out_cell_by_cell() -> None:
    random = np.random.default_rng(0)
    cells = random.poisson(2.0, size=(70, 9)).astype(float)
    cells[3] = 0.0
    left = [np.delete(cells, row, axis=0).sum(axis=0) for row in range(len(cells))]
    without = np.array([np.log1p(TOTAL * total / total.sum()) for total in left])
    expected = (len(cells) - 1) / len(cells) * ((without - without.mean(axis=0)) ** 2).sum()
    whole, variance = _jackknife(sp.csr_matrix(cells), cells.sum(axis=1))
    assert variance == pytest.approx(expected)
    np.testing.assert_allclose(whole, np.log1p(TOTAL * cells.sum(axis=0) / cells.sum()))
    assert _jackknife(sp.csr_matrix(cells[:1]), cells[:1].sum(axis=1))[1] == 0.0
    assert _jackknife(sp.csr_matrix((2, 3)), np.zeros(2))[1] == 0.0


def test_single_perturbations_alone_have_an_own_gene() -> None:
    assert own_columns(["B", "A+B", "C"], ["A", "B"], None).tolist() == [1, -1, -1]
    assert own_columns(["B"], ["id1", "id2"], ["A", "B"]).tolist() == [1]
