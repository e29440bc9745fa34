"""Wiring of the networks, and Gaussians against torch.distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from cradlevae.nn.mlp import MLP, Gaussian, GaussianHead, GaussianMLP, JointLinear, gaussian_kl, standard_log_prob

pytestmark = pytest.mark.numeric


def numpy_mlp(mlp: MLP, x: np.ndarray) -> np.ndarray:
    """out = act(W in), then out = act(W in) + in, with act(v) = max(v, 0.01 v)."""

    def act(value: np.ndarray) -> np.ndarray:
        return np.maximum(value, 0.01 * value)

    first = np.concatenate([weight.detach().numpy() for weight in mlp.first.weights])
    hidden = act(x @ first + mlp.first.bias.detach().numpy())
    for weight, bias in [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in mlp.layers]:
        hidden = act(hidden @ weight.T + bias) + hidden
    return hidden


@pytest.mark.parametrize("n_hidden", [1, 2, 4])
def test_later_layers_are_residual(n_hidden: int) -> None:
    mlp = MLP((5,), 7, n_hidden).double()
    x = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = mlp(x).detach().numpy()
    assert found.shape == (3, 2, 7)
    assert len(mlp.layers) == n_hidden - 1
    np.testing.assert_allclose(found, numpy_mlp(mlp, x.numpy()), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(mlp.rest(mlp.first(x)).detach(), found)


def test_a_gaussian_head_is_two_linears_on_the_last_hidden_layer() -> None:
    network = GaussianMLP((5,), 7, 2, 3).double()
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hidden = numpy_mlp(network.mlp, x.numpy())
    linear = network.head.linear
    loc, log_variance = np.split(hidden @ linear.weight.detach().numpy().T + linear.bias.detach().numpy(), 2, axis=1)
    posterior = network(x)
    np.testing.assert_allclose(posterior.loc.detach(), loc, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(posterior.scale.detach() ** 2, np.exp(log_variance) + 1e-4, rtol=1e-12)


def test_a_gaussian_head_cannot_become_so_wide_that_draws_overflow_and_finds_its_way_back() -> None:
    head = GaussianHead(4, 3)
    with torch.no_grad():
        head.linear.bias[3:] = torch.tensor([1.0, 2.0, 200.0])
        head.linear.weight.zero_()
    posterior = head(torch.ones(2, 4))
    torch.testing.assert_close(posterior.scale[0].square(), torch.tensor([1.0, 2.0, 6.0]).exp() + 1e-4)
    posterior.kl_to_standard().sum().backward()
    slopes = head.linear.bias.grad
    assert slopes is not None
    assert (slopes[3:] > 0).all()  # towards the prior, past the bound as well


def test_a_joint_linear_is_a_linear_on_its_inputs_side_by_side() -> None:
    torch.manual_seed(0)
    joint = JointLinear((5, 2, 3), 7).double()
    parts = [torch.randn(4, n, dtype=torch.float64) for n in (5, 2, 3)]
    expected = torch.nn.functional.linear(torch.cat(parts, dim=1), torch.cat(list(joint.weights)).T, joint.bias)
    np.testing.assert_allclose(joint(*parts).detach(), expected.detach(), rtol=1e-12)
    start = torch.nn.Linear(1000, 50).weight.detach().std().item()
    assert torch.cat(list(JointLinear((900, 100), 50).weights)).detach().std().item() == pytest.approx(start, rel=0.02)


@pytest.fixture
def gaussians() -> tuple[Gaussian, Gaussian, Tensor]:
    generator = torch.Generator().manual_seed(1)
    loc_1, scale_1, loc_2, scale_2, value = torch.randn(5, 3, 4, dtype=torch.float64, generator=generator)
    return Gaussian(loc_1, scale_1.exp()), Gaussian(loc_2, scale_2.exp()), value


def test_closed_forms_are_those_of_torch(gaussians: tuple[Gaussian, Gaussian, Tensor]) -> None:
    first, second, value = gaussians
    p, q = Normal(first.loc, first.scale), Normal(second.loc, second.scale)
    standard = Normal(torch.zeros(()), torch.ones(()))
    np.testing.assert_allclose(gaussian_kl(first, second), kl_divergence(p, q), rtol=1e-12)
    np.testing.assert_allclose(first.kl_to_standard(), kl_divergence(p, standard), rtol=1e-12)
    np.testing.assert_allclose(first.log_prob(value), p.log_prob(value), rtol=1e-12)
    np.testing.assert_allclose(standard_log_prob(value), standard.log_prob(value), rtol=1e-12)
    np.testing.assert_allclose(gaussian_kl(first, first), 0, atol=1e-15)


def test_draws_are_reparametrised(gaussians: tuple[Gaussian, Gaussian, Tensor]) -> None:
    gaussian, _, noise = gaussians
    assert torch.equal(gaussian.sample(noise), gaussian.loc + gaussian.scale * noise)
    torch.manual_seed(0)
    wide = Gaussian(gaussian.loc.expand(50_000, 3, 4), gaussian.scale.expand(50_000, 3, 4))
    drawn = wide.sample()
    assert ((drawn.mean(0) - gaussian.loc).abs() < 5 * gaussian.scale / 50_000**0.5).all()
    np.testing.assert_allclose(drawn.std(0), gaussian.scale, rtol=0.03)
