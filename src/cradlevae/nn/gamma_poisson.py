"""The Gamma-Poisson likelihood of counts, the one of the published model.

Counts are Gamma-Poisson (negative binomial) with concentration θ per gene and rate θ / (μ + 1e-4), floored at 1e-6;
μ = library size × softmax over genes. Training computes it in :mod:`cradlevae.nn.fused`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from cradlevae.nn.constants import MEAN_OFFSET, MIN_RATE
from cradlevae.nn.counts import AddedRates, SparseCounts
from cradlevae.nn.fused import linear_gamma_poisson
from cradlevae.nn.likelihood import GeneratingFunction, Likelihood, register_likelihood


def gamma_poisson_rate(mean: Tensor, concentration: Tensor) -> Tensor:
    """Rate of the Gamma-Poisson with this mean: θ / (μ + 1e-4), floored at 1e-6."""
    return (concentration / (mean + MEAN_OFFSET)).clamp_min(MIN_RATE)


def gamma_poisson_log_prob(counts: Tensor, concentration: Tensor, rate: Tensor) -> Tensor:
    """Log probability of counts, element by element (the direct formulation)."""
    return (
        concentration * (rate.log() - rate.log1p())
        - counts * rate.log1p()
        + torch.lgamma(concentration + counts)
        - torch.lgamma(concentration)
        - torch.lgamma(counts + 1)
    )


def sample_gamma_poisson(mean: Tensor, concentration: Tensor) -> Tensor:
    """Draw counts with these means, (..., genes)."""
    rate = gamma_poisson_rate(mean, concentration)
    gamma = torch._standard_gamma(concentration.expand_as(mean).contiguous())
    return torch.poisson(gamma / rate)


@register_likelihood
class GammaPoisson(Likelihood):
    """x ~ Gamma-Poisson(θ, θ/μ): a cell's own Gamma factors move its genes about the mean; θ_g is learned."""

    key: ClassVar[str] = "gamma-poisson"
    description: ClassVar[str] = "negative binomial, with a concentration for each gene"

    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        self.log_concentration = nn.Parameter(torch.zeros(n_genes))

    @property
    def concentration(self) -> Tensor:
        """θ, (G,)."""
        return self.log_concentration.exp()

    def start(self, concentration: Tensor) -> None:
        """Start at the concentrations that the counts of the training cells show."""
        with torch.no_grad():
            self.log_concentration.copy_(concentration.log().float())

    def log_prob(self, counts: Tensor, mean: Tensor) -> Tensor:
        """The direct formulation, element by element."""
        concentration = self.concentration
        return gamma_poisson_log_prob(counts, concentration, gamma_poisson_rate(mean, concentration))

    def linear_log_prob(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        counts: SparseCounts,
        library_size: Tensor,
        cell_weight: Tensor | None = None,
        added: AddedRates | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Value and gradient in one pass (:func:`cradlevae.nn.fused.linear_gamma_poisson`)."""
        return linear_gamma_poisson(
            hidden, weight, bias, self.log_concentration, counts, library_size, cell_weight, added
        )

    def sample(self, mean: Tensor) -> Tensor:
        """Draw a Gamma factor for each count, and then the count."""
        return sample_gamma_poisson(mean, self.concentration)

    def generating(self, mean: Tensor) -> GeneratingFunction:
        """G(1 − d) = (1 + m d / θ)⁻ᶿ."""
        concentration = self.concentration
        mean = torch.minimum(mean + MEAN_OFFSET, concentration / MIN_RATE)  # the rate's floor is the mean's ceiling
        ratio = mean / concentration

        def log(decay: Tensor, out: Tensor) -> Tensor:
            torch.mul(ratio, decay, out=out)
            return out.log1p_().mul_(concentration).neg_()

        return GeneratingFunction(float((ratio + mean).max()), log)

    def information(self, mean: Tensor) -> Tensor:
        """M θ / (m + θ)."""
        concentration = self.concentration.detach()
        return mean * concentration / (mean + concentration)

    def own_factors(self, counts: Tensor, mean: Tensor) -> Tensor:
        """Posterior means of the Gamma factors, (θ + x) / (θ + μ)."""
        concentration = self.concentration
        if torch.is_grad_enabled():
            return (concentration + counts) / (concentration + mean)
        return mean.add_(concentration).reciprocal_().mul_(concentration + counts)

    def sample_twin(self, mean: Tensor, counts: Tensor) -> Tensor:
        """Counts of a twin whose Gamma factors are drawn from their posterior, Gamma(θ + x, ·)."""
        return sample_gamma_poisson(mean, self.concentration + counts)
