"""What the guide of damage makes of a cell: own, foreign and lost counts, against closed forms."""

from __future__ import annotations

import numpy as np
import torch

from cradlevae.model.damage.guide import Damaged, DamageGuide
from cradlevae.nn.known_likelihoods import likelihood_of
from cradlevae.nn.mlp import Gaussian

N, G = 3, 7


def told(foreign: float, lost: float, profile: torch.Tensor) -> Damaged:
    zero = torch.zeros(N, 2)
    return Damaged(
        Gaussian(zero, zero + 1),
        torch.full((N, 1), foreign),
        profile,
        torch.full((N, 1), lost),
        (zero[:, 0], zero[:, 0]),
        zero,
    )


def standard(n: int) -> Gaussian:
    return Gaussian(torch.zeros(n, 5), torch.ones(n, 5))


def test_without_foreign_counts_a_cell_keeps_all_of_its_own() -> None:
    counts, share = torch.poisson(torch.full((N, G), 3.0)), torch.softmax(torch.randn(1, N, G), -1)
    likelihood = likelihood_of("gamma-poisson")(G)
    own, lost = told(0.0, 50.0, share[0]).undamaged(counts, share, likelihood)
    torch.testing.assert_close(own[0], counts)
    torch.testing.assert_close(lost.sum(-1), torch.full((1, N), 50.0))


def test_two_alike_sources_share_the_counts() -> None:
    counts, share = torch.poisson(torch.full((N, G), 3.0)), torch.softmax(torch.randn(1, N, G), -1)
    likelihood = likelihood_of("gamma-poisson")(G)
    own, _ = told(0.25, 0.0, share[0]).undamaged(counts, share, likelihood)
    torch.testing.assert_close(own[0], 0.75 * counts)


def test_lost_counts_are_the_posterior_mean_of_gamma_factors() -> None:
    torch.manual_seed(0)
    counts, share = torch.poisson(torch.full((N, G), 3.0)), torch.softmax(torch.randn(1, N, G), -1)
    likelihood = likelihood_of("gamma-poisson")(G)
    with torch.no_grad():
        likelihood.log_concentration.copy_(torch.linspace(-1, 3, G))
        _, lost = told(0.0, 10.0, share[0]).undamaged(counts, share, likelihood)
    theta = np.exp(np.linspace(-1, 3, G))
    expected = share[0].numpy().astype(float) * counts.sum(-1, keepdim=True).numpy()
    factor = (theta + counts.numpy()) / (theta + expected)
    rates = share[0].numpy() * factor
    np.testing.assert_allclose(lost[0].numpy(), 10 * rates / rates.sum(1, keepdims=True), rtol=1e-4)


def test_gradients_flow_through_all_of_it() -> None:
    torch.manual_seed(0)
    guide = DamageGuide(G, 4, 5, 3, 2, 1)
    guide.pools.copy_(torch.full((1, G), 1 / G))
    likelihood = likelihood_of("gamma-poisson")(G)
    counts = torch.poisson(torch.full((N, G), 3.0))
    evidence = guide(counts.log1p(), torch.ones(N, 4), counts.sum(-1), standard(N))
    answer = guide.of_kind(evidence, torch.tensor([0, 1, 2]))
    share = torch.softmax(answer.q_basal.loc @ torch.randn(5, G), -1).unsqueeze(0)
    own, lost = answer.undamaged(counts, share, likelihood)
    total = (
        own.square().sum()
        + lost.square().sum()
        + answer.q_basal.scale.sum()
        + evidence.kind.sum()
        + answer.parent.sum()
    )
    total = total + evidence.kind.sum() + answer.parent.sum()
    (total + answer.severity[0].sum() + answer.severity[1].sum()).backward()
    for name, parameter in guide.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_cells_do_not_depend_on_each_other_but_on_the_kind() -> None:
    torch.manual_seed(0)
    guide = DamageGuide(G, 4, 5, 3, 2, 0)
    counts = torch.poisson(torch.full((N, G), 3.0))
    both = guide(counts.log1p(), torch.zeros(N, 4), counts.sum(-1), standard(N))
    one = guide(counts[1:2].log1p(), torch.zeros(1, 4), counts[1:2].sum(-1), standard(1))
    first, second = (guide.of_kind(told, torch.ones(len(told.hidden), dtype=torch.int64)) for told in (both, one))
    torch.testing.assert_close(first.profile[1:2], second.profile)
    torch.testing.assert_close(first.lost[1:2], second.lost)
    assert not torch.allclose(guide.of_kind(one, torch.tensor([2])).lost, second.lost)
