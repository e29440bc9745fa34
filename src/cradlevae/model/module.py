"""The generative model and its guide: tensors in, distributions out (model.md: Decode, Networks, Guide).

Shapes: P particles, N cells of a batch, G genes, T perturbations, C artifact classes, K latents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cradlevae.data.batch import Batch
from cradlevae.model.config import ModelConfig
from cradlevae.nn.bernoulli import logistic_noise, straight_through
from cradlevae.nn.gene_product import gene_product
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

    def of(self, members: Tensor) -> GlobalNoise:
        """That of these perturbations only, (members,) int64."""
        return GlobalNoise(self.mask.index_select(1, members), self.embedding.index_select(1, members), self.artifact)


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
            self.embedding_encoder = GaussianMLP((k, n_perturbations), config.width, config.embedding_layers, k)
        else:
            self.embedding_loc = nn.Parameter(torch.zeros(n_perturbations, k))
            self.embedding_log_scale = nn.Parameter(torch.zeros(n_perturbations, k))
        n_artifact_inputs = k if n_classes == 1 else n_classes
        self.artifact_encoder = GaussianMLP((n_artifact_inputs,), config.width, config.embedding_layers, k)
        self.basal_encoder = GaussianMLP((n_genes, k, k), config.basal_width, config.basal_layers, k)
        n_decoded = (k, k, k) if config.decode == "concat" else (k,)
        self.decoder = MLP(n_decoded, config.width, config.decoder_layers)
        self.gene_linear = nn.Linear(config.width + (sum(n_decoded) if config.linear_path else 0), n_genes)
        if config.cell_artifact:
            self.cell_artifact_head = GaussianHead(config.basal_width, k)
        self.log_concentration = nn.Parameter(torch.zeros(n_genes))

    # -- the guide ---------------------------------------------------------------------------------------------

    def draw_noise(self, n_particles: int, members: Tensor | None = None) -> GlobalNoise:
        """Fresh random numbers for :meth:`sample_globals`, of all perturbations or of some."""
        t, k = self.mask_logits.shape
        shape = (n_particles, t if members is None else len(members), k)
        normal = self.mask_logits.new_empty
        return GlobalNoise(
            logistic_noise(shape, self.mask_logits),
            normal(shape).normal_(),
            normal(n_particles, self.n_classes, k).normal_(),
        )

    def sample_globals(self, noise: GlobalNoise, members: Tensor | None = None) -> Globals:
        """Draw M, E and A, one of each per particle.

        Parameters
        ----------
        noise
            Random numbers, of as many perturbations as are drawn.
        members
            The perturbations to draw M and E of, (members,) int64; ``None`` draws those of all.
        """
        logits = self.mask_logits if members is None else self.mask_logits.index_select(0, members)
        mask = straight_through(logits, noise.mask)
        q_embedding = self._embedding_posterior(mask, members)
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

    def _embedding_posterior(self, mask: Tensor, members: Tensor | None) -> Gaussian:
        def chosen(table: Tensor) -> Tensor:
            return table if members is None else table.index_select(0, members)

        if self.config.guide == "mean-field":
            shape = mask.shape
            return Gaussian(
                chosen(self.embedding_loc).expand(shape), chosen(self.embedding_log_scale).exp().expand(shape)
            )
        encoder = self.embedding_encoder
        first = encoder.mlp.first  # acts on [M_t, one-hot t]: the one-hot part picks a row
        posterior: Gaussian = encoder.head(
            encoder.mlp.rest(first.part(0, mask) + chosen(first.weights[1]) + first.bias)
        )
        return posterior

    def _artifact_posterior(self) -> Gaussian:
        like = self.mask_logits
        if self.n_classes == 1:
            return self.artifact_encoder(like.new_ones(1, self.n_latent))  # type: ignore[no-any-return]
        return self.artifact_encoder(torch.eye(self.n_classes, device=like.device, dtype=like.dtype))  # type: ignore[no-any-return]

    def encode_counts(self, counts: SparseCounts, profiles: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The gene part of the basal encoder's first layer, bias included; the same for every particle.

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
        first = self.basal_encoder.mlp.first
        inverse = torch.where(self.log_std > 0, 1 / self.log_std, 0.0)
        scaled = replace(counts, values=counts.values.log1p() * inverse.index_select(0, counts.genes))
        dense = inverse.new_zeros(0, len(inverse)) if profiles is None else profiles.log1p().mul_(inverse)
        cells, rest = gene_product(scaled, dense, first.weights[0], self.log_mean * inverse)
        return cells + first.bias, rest + first.bias

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
        hidden = self.basal_encoder.mlp.rest(encoded + first.part(1, perturbation) + first.part(2, artifact))
        return self.basal_encoder.head(hidden), self.cell_artifact_head(hidden) if self.config.cell_artifact else None

    # -- the generative model ----------------------------------------------------------------------------------

    def decode_hidden(self, basal: Tensor, perturbation: Tensor, artifact: Tensor) -> Tensor:
        """What the gene Linear acts on: the last hidden layer and, on a linear path, the latents, (P, N, ·)."""
        latents: tuple[Tensor, ...] = (basal, perturbation, artifact)
        if self.config.decode == "sum":
            latents = (basal + perturbation + artifact,)
        hidden: Tensor = self.decoder(*latents)
        return torch.cat([hidden, *latents], dim=-1) if self.config.linear_path else hidden

    def decode_batch(self, basal: Tensor, shift: Tensor, artifact: Tensor, own: Tensor | None, batch: Batch) -> Tensor:
        """:meth:`decode_hidden` of a batch, whose parts go through the first layer once where cells share them.

        Parameters
        ----------
        basal
            z^b, (P, N, K).
        shift
            z^p of the batch's conditions, (P, conditions, K).
        artifact
            A, (P, C, K).
        own
            Artifact states of the batch's failed cells, (P, failed, K).
        batch
            The cells.
        """
        first = self.decoder.first
        concat = self.config.decode == "concat"
        of_shift, of_artifact = (1, 2) if concat else (0, 0)
        hidden = first.part(0, basal) + first.bias
        hidden = hidden + first.part(of_shift, shift).index_select(1, batch.condition)
        hidden = hidden + batch.artifact @ first.part(of_artifact, artifact)
        if own is not None:
            hidden = hidden.index_add(1, batch.failed, first.part(of_artifact, own))
        hidden = self.decoder.rest(hidden)
        if not self.config.linear_path:
            return hidden
        perturbation, state = shift.index_select(1, batch.condition), batch.artifact @ artifact
        if own is not None:
            state = state.index_add(1, batch.failed, own)
        latents: tuple[Tensor, ...] = (basal, perturbation, state) if concat else (basal + perturbation + state,)
        return torch.cat([hidden, *latents], dim=-1)

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
