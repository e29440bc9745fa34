"""What a perturbation adds to a cell: masks and embeddings, each with its prior and its guide.

A model of the family (:mod:`cradlevae.model.family`) names one of each. Shapes: P particles, T treatments, K latents;
``treatments`` are the treatments that are asked for, (treatments,) int64, or ``None`` for all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from cradlevae.model.config import ModelConfig
from cradlevae.nn.bernoulli import bernoulli_kl, bernoulli_score, logistic_noise, straight_through
from cradlevae.nn.mlp import Gaussian, GaussianMLP
from cradlevae.nn.rows import rows_of

POINT_SCALE = 0.1
"""Standard deviation that learned points start with."""


class BernoulliMask(nn.Module):
    """M ~ Bernoulli(π), q(M) = Bernoulli(sigmoid(logits)), drawn straight-through."""

    def __init__(self, n_treatments: int, n_latent: int, prior: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_treatments, n_latent))
        self.prior = prior

    def noise(self, n_particles: int, n: int) -> Tensor:
        """Standard logistic, (P, n, K)."""
        return logistic_noise((n_particles, n, self.logits.shape[1]), self.logits)

    def draw(self, noise: Tensor, treatments: Tensor | None) -> Tensor:
        """M, (P, treatments, K)."""
        return straight_through(rows_of(self.logits, treatments), noise)

    def expected_score(self, treatments: Tensor) -> Tensor:
        """Log p − log q in expectation, summed over latents, (treatments,)."""
        return -bernoulli_kl(rows_of(self.logits, treatments), self.prior).sum(-1)

    def sampled_score(self, draw: Tensor, treatments: Tensor) -> Tensor:
        """Log p − log q of a draw, summed over latents, mean over particles, (treatments,)."""
        return bernoulli_score(draw, rows_of(self.logits, treatments), self.prior).sum(-1).mean(0)


class BetaBernoulliMask(BernoulliMask):
    """π ~ Beta(1, 2), M ~ Bernoulli(π); q(π) is the point sigmoid(logits), q(M | π) the prior of M."""

    def __init__(self, n_treatments: int, n_latent: int) -> None:
        super().__init__(n_treatments, n_latent, prior=1 / 3)  # the mean of π

    def expected_score(self, treatments: Tensor) -> Tensor:
        """Log p(π): M costs nothing, its guide being its prior."""
        log_rest = nn.functional.logsigmoid(-rows_of(self.logits, treatments))
        return (math.log(2) + log_rest).sum(-1)


class Embedding(nn.Module, ABC):
    """What each treatment adds to z^p, where its mask lets it."""

    width: int
    """Width of z^p."""

    random = False
    """Whether it is drawn from a guide; :class:`GaussianEmbedding`."""

    @abstractmethod
    def draw(
        self, noise: Tensor | None, mask: Tensor | None, treatments: Tensor | None
    ) -> tuple[Tensor, Gaussian | None]:
        """Embeddings and the posterior they were drawn from, (P, treatments, width); P is 1 where nothing is drawn."""

    def tables(self) -> list[nn.Parameter]:
        """Parameters with a row for each treatment, (T, ·)."""
        return []


class GaussianEmbedding(Embedding):
    """E ~ Normal(0, 1) with a Gaussian guide."""

    random = True

    @abstractmethod
    def posterior(self, shape: torch.Size, mask: Tensor | None, treatments: Tensor | None) -> Gaussian:
        """q(E), of the given shape (P, treatments, K)."""

    def draw(
        self, noise: Tensor | None, mask: Tensor | None, treatments: Tensor | None
    ) -> tuple[Tensor, Gaussian | None]:
        """One of each treatment per particle."""
        assert noise is not None
        posterior = self.posterior(noise.shape, mask, treatments)
        return posterior.sample(noise), posterior


class CorrelatedEmbedding(GaussianEmbedding):
    """q(E_t | M_t): a network of [M_t, one-hot t]."""

    def __init__(self, n_treatments: int, n_latent: int, width: int, n_layers: int) -> None:
        super().__init__()
        self.width = n_latent
        self.encoder = GaussianMLP((n_latent, n_treatments), width, n_layers, n_latent)

    def tables(self) -> list[nn.Parameter]:
        """What the one-hot part of the first layer multiplies."""
        return [self.encoder.mlp.first.weights[1]]

    def posterior(self, shape: torch.Size, mask: Tensor | None, treatments: Tensor | None) -> Gaussian:
        """q(E | M)."""
        assert mask is not None
        first = self.encoder.mlp.first  # the one-hot part picks a row
        placed = first.part(0, mask) + rows_of(first.weights[1], treatments) + first.bias
        posterior: Gaussian = self.encoder.head(self.encoder.mlp.rest(placed))
        return posterior


class MeanFieldEmbedding(GaussianEmbedding):
    """q(E_tk): a location and a scale of its own each, 0 and 1 at first."""

    def __init__(self, n_treatments: int, n_latent: int) -> None:
        super().__init__()
        self.width = n_latent
        self.loc = nn.Parameter(torch.zeros(n_treatments, n_latent))
        self.log_scale = nn.Parameter(torch.zeros(n_treatments, n_latent))

    def tables(self) -> list[nn.Parameter]:
        """Locations and scales."""
        return [self.loc, self.log_scale]

    def posterior(self, shape: torch.Size, mask: Tensor | None, treatments: Tensor | None) -> Gaussian:
        """q(E)."""
        return Gaussian(
            rows_of(self.loc, treatments).expand(shape), rows_of(self.log_scale, treatments).exp().expand(shape)
        )


class PointEmbedding(Embedding):
    """Learned points."""

    def __init__(self, n_treatments: int, n_latent: int) -> None:
        super().__init__()
        self.width = n_latent
        self.points = nn.Parameter(POINT_SCALE * torch.randn(n_treatments, n_latent))

    def tables(self) -> list[nn.Parameter]:
        """The points."""
        return [self.points]

    def draw(
        self, noise: Tensor | None, mask: Tensor | None, treatments: Tensor | None
    ) -> tuple[Tensor, Gaussian | None]:
        """The points, (1, treatments, K)."""
        return rows_of(self.points, treatments).unsqueeze(0), None


class OneHotEmbedding(Embedding):
    """Each treatment is its own indicator."""

    indicators: Tensor

    def __init__(self, n_treatments: int) -> None:
        super().__init__()
        self.width = n_treatments
        self.register_buffer("indicators", torch.eye(n_treatments), persistent=False)

    def draw(
        self, noise: Tensor | None, mask: Tensor | None, treatments: Tensor | None
    ) -> tuple[Tensor, Gaussian | None]:
        """The indicators, (1, treatments, T)."""
        return rows_of(self.indicators, treatments).unsqueeze(0), None


def make_mask(config: ModelConfig, n_treatments: int) -> BernoulliMask | None:
    """The mask that a model declares; ``None`` where it has none."""
    assert config.n_latent is not None
    if config.declaration.mask == "beta-bernoulli":
        return BetaBernoulliMask(n_treatments, config.n_latent)
    if config.declaration.mask == "bernoulli":
        assert config.mask_prior is not None
        return BernoulliMask(n_treatments, config.n_latent, config.mask_prior)
    return None


def make_embedding(config: ModelConfig, n_treatments: int) -> Embedding:
    """The embedding that a model declares, with the guide of its settings."""
    assert config.n_latent is not None
    if config.declaration.embedding == "one-hot":
        return OneHotEmbedding(n_treatments)
    if config.declaration.embedding == "points":
        return PointEmbedding(n_treatments, config.n_latent)
    if config.guide == "mean-field":
        return MeanFieldEmbedding(n_treatments, config.n_latent)
    assert config.embedding_layers is not None
    return CorrelatedEmbedding(n_treatments, config.n_latent, config.width, config.embedding_layers)
