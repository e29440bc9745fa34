"""The Gamma-Poisson likelihood against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import nbinom
from torch import Tensor

from cradlevae.nn.counts import SparseCounts, decoded_share
from cradlevae.nn.gamma_poisson import gamma_poisson_log_prob, gamma_poisson_rate, sample_gamma_poisson

pytestmark = pytest.mark.numeric


def sparse(dense: Tensor) -> SparseCounts:
    cells, genes = dense.nonzero(as_tuple=True)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), (dense > 0).sum(1).cumsum(0)])
    return SparseCounts(dense[cells, genes], genes, starts, dense.shape[1])


@pytest.mark.parametrize("mean", [1e-6, 0.03, 1.0, 50.0, 2e4])
@pytest.mark.parametrize("theta", [1e-2, 0.5, 1.0, 20.0, 1e4])
def test_log_prob_is_scipys(mean: float, theta: float) -> None:
    counts = torch.tensor([0.0, 1, 2, 7, 100, 5000], dtype=torch.float64)
    concentration = torch.tensor(theta, dtype=torch.float64)
    rate = gamma_poisson_rate(torch.tensor(mean, dtype=torch.float64), concentration)
    assert float(rate) == max(theta / (mean + 1e-4), 1e-6)
    found = gamma_poisson_log_prob(counts, concentration, rate)
    expected = nbinom.logpmf(counts.numpy(), theta, float(rate) / (1 + float(rate)))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_the_rate_has_a_floor() -> None:
    rate = gamma_poisson_rate(torch.tensor([1e5, 1e9]), torch.tensor(1e-2))
    np.testing.assert_allclose(rate, [1e-6, 1e-6], rtol=1.1)
    assert (rate >= 1e-6 * (1 - 1e-6)).all()


def test_sparse_counts_go_to_dense_and_know_their_cells() -> None:
    dense = torch.tensor([[0.0, 2, 0], [0, 0, 0], [1, 0, 3]])
    counts = sparse(dense)
    assert counts.n_cells == 3
    assert counts.cells().tolist() == [0, 2, 2]
    assert torch.equal(counts.dense(), dense)
    assert counts.to("cpu").values.tolist() == [2, 1, 3]


# -- shares and draws ------------------------------------------------------------------------------------------


def test_shares_sum_to_one() -> None:
    share = decoded_share(*(torch.randn(*shape, dtype=torch.float64) for shape in ((3, 9, 4), (6, 4), (6,))))
    assert share.shape == (3, 9, 6)
    np.testing.assert_allclose(share.sum(-1), 1, rtol=1e-12)


def test_draws_have_the_moments_of_the_distribution() -> None:
    torch.manual_seed(0)
    mean = torch.tensor([0.2, 3.0, 40.0])
    concentration = torch.tensor([0.5, 2.0, 10.0])
    n = 100_000
    drawn = sample_gamma_poisson(mean.expand(n, 3), concentration)
    assert torch.equal(drawn, drawn.round())
    variance = mean + mean**2 / concentration
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * float((variance / n).sqrt().max()), rtol=0.02)
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.05)
