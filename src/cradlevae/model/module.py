"""The generative model and its guide: tensors in, distributions out (model.md: Decode, Networks, Guide).

Shapes: P particles, N cells of a batch, G genes, T perturbations, C artifact classes, K latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cradlevae.data.batches import Batch
from cradlevae.model.config import ModelConfig
from cradlevae.nn.bernoulli import logistic_noise, straight_through
from cradlevae.nn.likelihood import SparseCounts, decoded_share
from cradlevae.nn.mlp import MLP, Gaussian, GaussianHead, GaussianMLP


@dataclass(frozen=True)
class GlobalNoise:
    """The random numbers behind a draw of the global variables.

    Attributes
    ----------
    mask
        Standard logistic, (P, T, K).
    embedding
        Standard normal, (P, T, K).
    artifact
        Standard normal, (P, C, K).
    """

    mask: Tensor
    embedding: Tensor
    artifact: Tensor


@dataclass(frozen=True)
class Globals:
    """A draw of the global variables from the guide, with the posteriors that it came from.

    Attributes
    ----------
    mask, embedding
        M and E, (P, T, K).
    artifact
        A, (P, C, K).
    q_embedding, q_artifact
        Their posteriors, of the same shapes.
    """

    mask: Tensor
    embedding: Tensor
    artifact: Tensor
    q_embedding: Gaussian
    q_artifact: Gaussian

    @property
    def shift(self) -> Tensor:
        """Latent shift of each perturbation, M∘E, (P, T, K)."""
        return self.mask * self.embedding


class CradleModule(nn.Module):
    """CRADLE-VAE: basal state + sparse perturbation effect + artifact, decoded to Gamma-Poisson counts.

    Parameters
    ----------
    config
        A resolved configuration.
    n_genes, n_perturbations, n_classes
        G, T, C.
    """

    log_mean: Tensor
    log_std: Tensor

    def __init__(self, config: ModelConfig, n_genes: int, n_perturbations: int, n_classes: int) -> None:
        super().__init__()
        assert config.n_latent is not None
        assert config.basal_width is not None
        k = config.n_latent
        self.config = config
        self.n_latent = k
        self.n_classes = n_classes
        self.register_buffer("log_mean", torch.zeros(n_genes))
        self.register_buffer("log_std", torch.ones(n_genes))
        self.mask_logits = nn.Parameter(torch.zeros(n_perturbations, k))
        if config.guide == "correlated":
            self.embedding_encoder = GaussianMLP(k + n_perturbations, config.width, config.embedding_layers, k)
        else:
            self.embedding_loc = nn.Parameter(torch.zeros(n_perturbations, k))
            self.embedding_log_scale = nn.Parameter(torch.zeros(n_perturbations, k))
        n_artifact_inputs = k if n_classes == 1 else n_classes
        self.artifact_encoder = GaussianMLP(n_artifact_inputs, config.width, config.embedding_layers, k)
        self.basal_encoder = GaussianMLP(n_genes + 2 * k, config.basal_width, config.basal_layers, k)
        n_decoded = 3 * k if config.decode == "concat" else k
        self.decoder = MLP(n_decoded, config.width, config.decoder_layers)
        self.gene_linear = nn.Linear(config.width + (n_decoded if config.linear_path else 0), n_genes)
        if config.cell_artifact:
            self.cell_artifact_head = GaussianHead(config.basal_width, k)
        self.log_concentration = nn.Parameter(torch.zeros(n_genes))

    # -- the guide ---------------------------------------------------------------------------------------------

    def draw_noise(self, n_particles: int) -> GlobalNoise:
        """Fresh random numbers for :meth:`sample_globals`."""
        t, k = self.mask_logits.shape
        normal = self.mask_logits.new_empty
        return GlobalNoise(
            logistic_noise((n_particles, t, k), self.mask_logits),
            normal(n_particles, t, k).normal_(),
            normal(n_particles, self.n_classes, k).normal_(),
        )

    def sample_globals(self, noise: GlobalNoise) -> Globals:
        """Draw M, E and A, one of each per particle."""
        mask = straight_through(self.mask_logits, noise.mask)
        q_embedding = self._embedding_posterior(mask)
        q_artifact = self._artifact_posterior()
        p = len(mask)
        q_artifact = Gaussian(q_artifact.loc.expand(p, -1, -1), q_artifact.scale.expand(p, -1, -1))
        return Globals(
            mask,
            q_embedding.sample(noise.embedding),
            q_artifact.sample(noise.artifact),
            q_embedding,
            q_artifact,
        )

    def _embedding_posterior(self, mask: Tensor) -> Gaussian:
        if self.config.guide == "mean-field":
            shape = mask.shape
            return Gaussian(self.embedding_loc.expand(shape), self.embedding_log_scale.exp().expand(shape))
        encoder = self.embedding_encoder
        weight = encoder.mlp.first.weight  # acts on [M_t, one-hot t]: the one-hot part picks a column
        first = F.linear(mask, weight[:, : self.n_latent], encoder.mlp.first.bias) + weight[:, self.n_latent :].T
        posterior: Gaussian = encoder.head(encoder.mlp.rest(first))
        return posterior

    def _artifact_posterior(self) -> Gaussian:
        like = self.mask_logits
        if self.n_classes == 1:
            return self.artifact_encoder(like.new_ones(1, self.n_latent))  # type: ignore[no-any-return]
        return self.artifact_encoder(torch.eye(self.n_classes, device=like.device, dtype=like.dtype))  # type: ignore[no-any-return]

    def normalise(self, counts: Tensor) -> Tensor:
        """log(1 + counts), standardised per gene by the training cells; a gene of std 0 gives 0."""
        inverse = torch.where(self.log_std > 0, 1 / self.log_std, 0.0)
        return (counts.log1p() - self.log_mean) * inverse

    def encode_counts(self, counts: Tensor) -> Tensor:
        """The counts' part of the basal encoder's first layer, (N, G) → (N, width); the same for every particle."""
        first = self.basal_encoder.mlp.first
        return F.linear(self.normalise(counts), first.weight[:, : counts.shape[1]], first.bias)

    def encode_basal(self, encoded: Tensor, perturbation: Tensor, artifact: Tensor) -> Gaussian:
        """q(z^b | x, z^p, z^a) of cells; arguments as for :meth:`encode`."""
        return self.encode(encoded, perturbation, artifact)[0]

    def encode(self, encoded: Tensor, perturbation: Tensor, artifact: Tensor) -> tuple[Gaussian, Gaussian | None]:
        """Posteriors of the basal state and, where the model has one, of the cell's own artifact state.

        Parameters
        ----------
        encoded
            From :meth:`encode_counts`, (N, width).
        perturbation, artifact
            z^p and the shared part of z^a, (P, N, K).
        """
        first = self.basal_encoder.mlp.first
        k = self.n_latent
        hidden = self.basal_encoder.mlp.rest(
            encoded + F.linear(perturbation, first.weight[:, -2 * k : -k]) + F.linear(artifact, first.weight[:, -k:])
        )
        return self.basal_encoder.head(hidden), self.cell_artifact_head(hidden) if self.config.cell_artifact else None

    # -- the generative model ----------------------------------------------------------------------------------

    def decode_hidden(self, basal: Tensor, perturbation: Tensor, artifact: Tensor) -> Tensor:
        """What the gene Linear acts on: the last hidden layer and, on a linear path, the latents, (P, N, ·)."""
        if self.config.decode == "sum":
            latent = basal + perturbation + artifact
        else:
            latent = torch.cat([basal, perturbation, artifact], dim=-1)
        hidden: Tensor = self.decoder(latent)
        return torch.cat([hidden, latent], dim=-1) if self.config.linear_path else hidden

    def decode_share(self, basal: Tensor, perturbation: Tensor, artifact: Tensor) -> Tensor:
        """Expected share of each gene in the counts, ρ, (P, N, G)."""
        hidden = self.decode_hidden(basal, perturbation, artifact)
        return decoded_share(hidden, self.gene_linear.weight, self.gene_linear.bias)

    @property
    def concentration(self) -> Tensor:
        """θ, (G,)."""
        return self.log_concentration.exp()


def sparse_counts(batch: Batch) -> SparseCounts:
    """The counts of a batch, for the likelihood."""
    return SparseCounts(batch.values, batch.genes, batch.starts, batch.n_genes)


def perturbation_state(draw: Globals, dosage: Tensor, condition: Tensor) -> Tensor:
    """z^p of cells: (conditions, T) dosages and the condition of each of N cells → (P, N, K)."""
    return (dosage @ draw.shift).index_select(1, condition)


def artifact_state(draw: Globals, artifact: Tensor) -> Tensor:
    """z^a of cells: artifact indicators (N, C) → (P, N, K)."""
    return artifact @ draw.artifact


def failed_cells(artifact: Tensor) -> Tensor:
    """1 for cells with any artifact, (N, C) → (N,)."""
    return (artifact != 0).any(dim=1).to(artifact.dtype)


def own_artifact(posterior: Gaussian | None, artifact: Tensor, noise: Tensor | None = None) -> Tensor | float:
    """What a cell's own artifact state adds to z^a: a draw for failed cells, nothing for the others, (P, N, K)."""
    return 0.0 if posterior is None else failed_cells(artifact).unsqueeze(1) * posterior.sample(noise)
