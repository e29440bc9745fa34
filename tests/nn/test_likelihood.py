"""What every likelihood has by default."""

from __future__ import annotations

import numpy as np
import torch

from cradlevae.nn.gamma_poisson import GammaPoisson


def test_the_distribution_of_some_genes_is_theirs() -> None:
    likelihood = GammaPoisson(5)
    with torch.no_grad():
        likelihood.log_concentration.copy_(torch.linspace(-1, 1, 5))
    genes = torch.tensor([3, 0])
    some = likelihood.of_genes(genes)
    counts, mean = torch.tensor([[2.0, 0, 1, 5, 0]]), torch.rand(1, 5) * 4
    np.testing.assert_allclose(
        some.log_prob(counts[:, genes], mean[:, genes]), likelihood.log_prob(counts, mean)[:, genes].detach(), rtol=1e-6
    )
    assert some.n_genes == 2
    assert not any(parameter.requires_grad for parameter in some.parameters())
    assert likelihood.log_concentration.requires_grad
    assert likelihood.n_genes == 5
