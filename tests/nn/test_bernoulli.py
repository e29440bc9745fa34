"""Straight-through masks: hard values, soft gradients, scores as in torch.distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from cradlevae.nn.bernoulli import bernoulli_kl, bernoulli_score, logistic_noise, straight_through

pytestmark = pytest.mark.numeric


def test_values_are_hard_and_gradients_soft() -> None:
    logits = torch.tensor([-1.0, 0.0, 2.0, 30.0], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([0.5, 0.1, -3.0, 0.0], dtype=torch.float64)
    draw = straight_through(logits, noise)
    np.testing.assert_allclose(draw.detach(), [0, 1, 0, 1], atol=1e-15)
    weight = torch.tensor([1.0, -2.0, 3.0, 1.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((draw * weight).sum(), logits)
    soft = torch.sigmoid(logits.detach() + noise)
    np.testing.assert_allclose(gradient, weight * soft * (1 - soft), rtol=1e-12)


def test_draws_have_the_probability_of_their_logits() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([-3.0, -0.5, 0.0, 1.5])
    n = 40_000
    share = straight_through(logits, logistic_noise((n, 4), logits)).mean(0)
    probability = torch.sigmoid(logits)
    assert ((share - probability).abs() < 5 * (probability * (1 - probability) / n).sqrt()).all()


def test_noise_is_standard_logistic_and_finite() -> None:
    torch.manual_seed(0)
    like = torch.zeros(1)
    noise = logistic_noise((1000, 100), like)
    assert torch.isfinite(noise).all()
    assert noise.dtype == like.dtype
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.std()) == pytest.approx(np.pi / 3**0.5, rel=0.01)


@pytest.mark.parametrize("prior", [0.001, 0.01, 0.5])
def test_score_and_divergence_are_those_of_torch(prior: float) -> None:
    logits = torch.linspace(-12, 12, 25, dtype=torch.float64, requires_grad=True)
    q, p = Bernoulli(logits=logits), Bernoulli(torch.tensor(prior, dtype=torch.float64))
    expected = kl_divergence(q, p)
    found = bernoulli_kl(logits, prior)
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-9, atol=1e-12)
    gradient = torch.autograd.grad(found.sum(), logits)[0]
    np.testing.assert_allclose(gradient, torch.autograd.grad(expected.sum(), logits)[0], rtol=1e-7, atol=1e-10)
    for value in (0.0, 1.0):
        draw = torch.full_like(logits, value)
        np.testing.assert_allclose(
            bernoulli_score(draw, logits, prior).detach(), (p.log_prob(draw) - q.log_prob(draw)).detach(), rtol=1e-9
        )
