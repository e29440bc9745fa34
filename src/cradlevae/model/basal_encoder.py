"""The guide of the basal state: what a cell's counts, its perturbation and its damage say of z^b."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cradlevae.model.config import ModelConfig
from cradlevae.nn.counts import SparseCounts
from cradlevae.nn.gene_product import gene_product
from cradlevae.nn.mlp import Gaussian, GaussianMLP


class BasalEncoder(GaussianMLP):
    """q(z^b | x, z^p, z^a): an MLP with a Gaussian head, whose first layer is applied in parts.

    What repeats (the counts over particles, z^p over the cells of a condition, z^a over those of a class) goes through
    its part of the first layer once. Shapes: P particles, N cells, G genes, K latents, W width of z^p.

    Parameters
    ----------
    config
        A resolved configuration.
    n_genes
        G.
    effect_width
        W.
    has_artifact
        Whether it sees z^a.
    """

    log_mean: Tensor
    log_std: Tensor

    def __init__(self, config: ModelConfig, n_genes: int, effect_width: int, has_artifact: bool) -> None:
        assert config.n_latent is not None
        assert config.basal_width is not None
        k = config.n_latent
        self.sees_effect = config.declaration.encoder == "effect"
        """Whether it sees z^p."""
        inputs = (n_genes, *((effect_width,) if self.sees_effect else ()), *((k,) if has_artifact else ()))
        super().__init__(inputs, config.basal_width, config.basal_layers, k)
        self.shifted = config.declaration.prior == "shifted"
        self.register_buffer("log_mean", torch.zeros(n_genes))
        self.register_buffer("log_std", torch.ones(n_genes))

    def of_counts(
        self,
        counts: SparseCounts,
        profiles: Tensor | None = None,
        taken_out: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The part of the first layer that acts on genes, bias included; it is the same for every particle.

        It acts on log(1 + counts), standardised per gene by the training cells; a gene of std 0 gives 0.

        Parameters
        ----------
        counts
            Counts of N cells.
        profiles
            Dense profiles of counts to encode with them, (R, G).

        Returns
        -------
        tuple
            (N, width) and (R, width).
        """
        first = self.mlp.first
        inverse = torch.where(self.log_std > 0, 1 / self.log_std, 0.0)
        scaled = replace(counts, values=counts.values.log1p() * inverse.index_select(0, counts.genes))
        dense = inverse.new_zeros(0, len(inverse)) if profiles is None else profiles.log1p().mul_(inverse)
        cells, rest = gene_product(scaled, dense, first.weights[0], self.log_mean * inverse, taken_out)
        return cells + first.bias, rest + first.bias

    def standardised(self, counts: Tensor) -> Tensor:
        """log(1 + counts), standardised per gene by the training cells, (N, G); a gene of std 0 gives 0."""
        inverse = torch.where(self.log_std > 0, 1 / self.log_std, 0.0)
        return (counts.log1p() - self.log_mean) * inverse

    def of_standardised(self, standardised: Tensor) -> Tensor:
        """:meth:`of_counts` of what :meth:`standardised` gives, (N, G) → (N, width)."""
        first = self.mlp.first
        return first.part(0, standardised) + first.bias

    def of_effect(self, perturbation: Tensor) -> Tensor:
        """What z^p adds to the first layer, (..., W) → (..., width)."""
        return self.mlp.first.part(1, perturbation)

    def of_artifact(self, artifact: Tensor) -> Tensor:
        """What z^a adds to the first layer, (..., K) → (..., width)."""
        return self.mlp.first.part(2 if self.sees_effect else 1, artifact)

    def without_effects(self, offset: Tensor, expected_log: Tensor) -> Tensor:
        """What gene effects add to the first layer, (..., G) → (..., width).

        They are taken out of the counts again, so that the encoder sees the cell as it would be without them, and need
        not learn to tell them from the basal state.

        Parameters
        ----------
        offset
            What gene effects add to the log rates, (..., G).
        expected_log
            How far a change of a gene's log rate moves its log(1 + count), on average, (G,).
        """
        return -self.mlp.first.part(0, self.moved(offset, expected_log))

    def moved(self, offset: Tensor, expected_log: Tensor) -> Tensor:
        """How far a change of log rates, (..., G), moves the standardised counts, on average; without gradient."""
        return offset.detach() * torch.where(self.log_std > 0, expected_log / self.log_std, 0.0)

    def posterior(self, hidden: Tensor, perturbation: Tensor | None) -> Gaussian:
        """q(z^b) from the last hidden layer; of a shifted prior, the head gives that of z = z^b + z^p."""
        posterior: Gaussian = self.head(hidden)
        if perturbation is None or not self.shifted:
            return posterior
        return Gaussian(posterior.loc - perturbation, posterior.scale)
