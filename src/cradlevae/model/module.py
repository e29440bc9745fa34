"""The generative model and its guide: tensors in, distributions out (model.md: Decode, Networks, Guide).

One module for the whole family; its parts are those that a member declares (:mod:`cradlevae.model.family`).

Shapes: P particles, N cells of a minibatch, G genes, T treatments (perturbations, or conditions where a member takes
each for a treatment of its own), C artifact classes (0 where a member has no artifact), K latents, W width of z^p (K,
or T where it is the dosage).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from cradlevae.data.loading.minibatch import Minibatch
from cradlevae.model.config import ModelConfig
from cradlevae.model.effect import make_embedding, make_mask
from cradlevae.model.gene_effects import GeneEffects
from cradlevae.model.globals import GlobalNoise, Globals
from cradlevae.nn.gene_product import gene_product
from cradlevae.nn.likelihood import SparseCounts, decoded_share
from cradlevae.nn.mlp import MLP, Gaussian, GaussianHead, GaussianMLP


class CradleModule(nn.Module):
    """A model of the family: basal state, perturbation effect and artifact, decoded to Gamma-Poisson counts.

    Parameters
    ----------
    config
        A resolved configuration; its member says which parts there are.
    n_genes, n_perturbations, n_classes
        G, T, C (of the data).
    """

    log_mean: Tensor
    log_std: Tensor

    def __init__(self, config: ModelConfig, n_genes: int, n_perturbations: int, n_classes: int) -> None:
        super().__init__()
        assert config.n_latent is not None
        assert config.basal_width is not None
        k = config.n_latent
        self.config = config
        self.declaration = config.declaration
        self.n_latent = k
        self.n_classes = n_classes if self.declaration.artifact else 0
        self.register_buffer("log_mean", torch.zeros(n_genes))
        self.register_buffer("log_std", torch.ones(n_genes))
        self.mask = make_mask(config, n_perturbations)
        self.embedding = make_embedding(config, n_perturbations)
        self.n_treatments = n_perturbations
        of_effect = (self.embedding.width,)
        of_artifact = (k,) if self.declaration.artifact else ()
        if self.declaration.artifact:
            n_artifact_inputs = k if n_classes == 1 else n_classes
            self.artifact_encoder = GaussianMLP((n_artifact_inputs,), config.width, config.embedding_layers, k)
        encoded = (n_genes, *(of_effect if self.sees_effect else ()), *of_artifact)
        self.basal_encoder = GaussianMLP(encoded, config.basal_width, config.basal_layers, k)
        decoded = (k, *of_effect, *of_artifact) if config.decode == "concat" else (k,)
        self.decoder = MLP(decoded, config.width, config.decoder_layers)
        self.gene_linear = nn.Linear(config.width + (sum(decoded) if config.linear_path else 0), n_genes)
        if config.cell_artifact:
            self.cell_artifact_head = GaussianHead(config.basal_width, k)
        self.gene_effects = GeneEffects(n_perturbations, n_genes) if config.gene_effects else None
        if config.gene_effects and self.declaration.artifact:
            self.kept_head = nn.Linear(k, 1)
            nn.init.zeros_(self.kept_head.weight)
            nn.init.ones_(self.kept_head.bias)
        self.log_concentration = nn.Parameter(torch.zeros(n_genes))

    @property
    def sees_effect(self) -> bool:
        """Whether the basal encoder sees z^p."""
        return self.declaration.encoder == "effect"

    # -- the guide ---------------------------------------------------------------------------------------------

    def draw_noise(self, n_particles: int, treatments: Tensor | None = None) -> GlobalNoise:
        """Fresh random numbers for :meth:`sample_globals`, of all treatments or of some."""
        n = self.n_treatments if treatments is None else len(treatments)
        normal, k = self.log_mean.new_empty, self.n_latent
        return GlobalNoise(
            None if self.mask is None else self.mask.noise(n_particles, n),
            normal(n_particles, n, k).normal_() if self.embedding.random else None,
            normal(n_particles, self.n_classes, k).normal_() if self.declaration.artifact else None,
        )

    def sample_globals(self, noise: GlobalNoise, treatments: Tensor | None = None) -> Globals:
        """Draw M, E and A, one of each per particle.

        Parameters
        ----------
        noise
            Random numbers, of as many treatments as are drawn.
        treatments
            The treatments to draw M and E of, (treatments,) int64; ``None`` draws those of all.
        """
        mask = None
        if self.mask is not None:
            assert noise.mask is not None
            mask = self.mask.draw(noise.mask, treatments)
        embedding, q_embedding = self.embedding.draw(noise.embedding, mask, treatments)
        if not self.declaration.artifact:
            return Globals(mask, embedding, None, q_embedding, None)
        assert noise.artifact is not None
        q_artifact, p = self._artifact_posterior(), len(noise.artifact)
        q_artifact = Gaussian(q_artifact.loc.expand(p, -1, -1), q_artifact.scale.expand(p, -1, -1))
        return Globals(mask, embedding, q_artifact.sample(noise.artifact), q_embedding, q_artifact)

    def _artifact_posterior(self) -> Gaussian:
        like = self.log_mean
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

    def encode(
        self,
        encoded: Tensor,
        perturbation: Tensor | None = None,
        artifact: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> tuple[Gaussian, Gaussian | None]:
        """Posteriors of the basal state and, where the model has one, of the cell's own artifact state.

        Parameters
        ----------
        encoded
            From :meth:`encode_counts`, (N, width).
        perturbation, artifact
            z^p, (P, N, W), and the shared part of z^a, (P, N, K); ``None`` is none.
        offset
            What gene effects add to the log rates, (N, G); ``None`` is nothing.

        Returns
        -------
        tuple
            (P, N, K) each; P is 1 where no particle differs.
        """
        placed = encoded.unsqueeze(0)
        if perturbation is not None and self.sees_effect:
            placed = placed + self.encoder_part("perturbation", perturbation)
        if artifact is not None:
            placed = placed + self.encoder_part("artifact", artifact)
        if offset is not None:
            placed = placed + self.offset_part(offset)
        hidden = self.basal_encoder.mlp.rest(placed)
        own = self.cell_artifact_head(hidden) if self.config.cell_artifact else None
        return self.centred(self.basal_encoder.head(hidden), perturbation), own

    def encoder_part(self, what: str, value: Tensor) -> Tensor:
        """What z^p (``perturbation``) or z^a (``artifact``) adds to the first layer of the basal encoder."""
        index = 1 if what == "perturbation" or not self.sees_effect else 2
        return self.basal_encoder.mlp.first.part(index, value)

    def offset_part(self, offset: Tensor) -> Tensor:
        """What gene effects add to the first layer of the basal encoder, (..., G) → (..., width).

        They are taken out of the counts again, so that the encoder sees the cell as it would be without them, and need
        not learn to tell them from the basal state.
        """
        assert self.gene_effects is not None
        standardised = torch.where(self.log_std > 0, self.gene_effects.expected_log() / self.log_std, 0.0)
        return -self.basal_encoder.mlp.first.part(0, offset.detach() * standardised)

    def centred(self, posterior: Gaussian, perturbation: Tensor | None) -> Gaussian:
        """The posterior of z^b from what the encoder gives: of a shifted prior, that is of z = z^b + z^p."""
        if perturbation is None or self.declaration.prior == "standard":
            return posterior
        return Gaussian(posterior.loc - perturbation, posterior.scale)

    # -- the generative model ----------------------------------------------------------------------------------

    def decode_hidden(
        self, basal: Tensor, perturbation: Tensor | None = None, artifact: Tensor | None = None
    ) -> Tensor:
        """What the gene Linear acts on: the last hidden layer and, on a linear path, the latents, (P, N, ·).

        Parameters
        ----------
        basal
            z^b, (P, N, K).
        perturbation, artifact
            z^p, (P, N, W), and z^a, (P, N, K); ``None`` is none. Leading sizes broadcast.
        """
        latents = self._latents(basal, perturbation, artifact)
        return self._beside(self.decoder(*latents), latents)

    def _latents(self, basal: Tensor, perturbation: Tensor | None, artifact: Tensor | None) -> tuple[Tensor, ...]:
        """What the decoder takes side by side."""
        if self.config.decode == "sum":
            for added in (perturbation, artifact):
                basal = basal if added is None else basal + added
            return (basal,)
        none = basal.new_zeros(())
        effect = none.expand(*basal.shape[:-1], self.embedding.width) if perturbation is None else perturbation
        if not self.declaration.artifact:
            return basal, effect
        return basal, effect, none.expand(basal.shape) if artifact is None else artifact

    def _beside(self, hidden: Tensor, latents: tuple[Tensor, ...]) -> Tensor:
        """The hidden layer and, on a linear path, the latents beside it."""
        if not self.config.linear_path:
            return hidden
        shape = hidden.shape[:-1]
        return torch.cat([hidden, *(latent.expand(*shape, -1) for latent in latents)], dim=-1)

    def decode_batch(
        self, basal: Tensor, shift: Tensor, artifact: Tensor | None, own: Tensor | None, minibatch: Minibatch
    ) -> tuple[Tensor, Tensor | None]:
        """:meth:`decode_hidden` of a minibatch, whose parts go through the first layer once where cells share them.

        Parameters
        ----------
        basal
            z^b, (P, N, K).
        shift
            z^p of the minibatch's conditions, (P, conditions, W).
        artifact
            A, (P, C, K); ``None`` where there is none.
        own
            Artifact states of the minibatch's failed cells, (P, failed, K).
        minibatch
            The cells.

        Returns
        -------
        The hidden layer, (P, N, ·), and z^a of the cells, (P, N, K), where the gene Linear or gene effects need it.
        """
        first = self.decoder.first
        of_shift, of_artifact = (1, 2) if self.config.decode == "concat" else (0, 0)
        hidden = first.part(0, basal) + first.bias
        hidden = hidden + first.part(of_shift, shift).index_select(1, minibatch.condition)
        if artifact is not None:
            hidden = hidden + minibatch.artifact @ first.part(of_artifact, artifact)
        if own is not None:
            hidden = hidden.index_add(1, minibatch.failed, first.part(of_artifact, own))
        hidden = self.decoder.rest(hidden)
        if not self.config.linear_path and self.gene_effects is None:
            return hidden, None
        state = None if artifact is None else minibatch.artifact @ artifact
        if state is not None and own is not None:
            state = state.index_add(1, minibatch.failed, own)
        return self._beside(hidden, self._latents(basal, shift.index_select(1, minibatch.condition), state)), state

    def offset(self, dosage: Tensor, treatments: Tensor | None = None) -> Tensor | None:
        """What the gene effects of conditions add to the log rates, (conditions, treatments or T) → (conditions, G)."""
        return None if self.gene_effects is None else self.gene_effects.of(dosage, treatments)

    def offset_of_cells(self, dosage: Tensor, condition: Tensor) -> Tensor | None:
        """:meth:`offset` of cells with these conditions, (N,) → (N, G)."""
        offset = self.offset(dosage)
        return None if offset is None else offset.index_select(0, condition)

    def kept(self, artifact: Tensor) -> Tensor:
        """Share of its gene effects that a cell still shows, from its z^a, (..., K) → (..., 1); 1 without damage.

        A doublet or a cell full of ambient counts shows them diluted.
        """
        damaged = (artifact != 0).any(dim=-1, keepdim=True)
        return torch.where(damaged, torch.sigmoid(self.kept_head(artifact)), 1.0)

    def with_offset(
        self, hidden: Tensor, weight: Tensor, offset: Tensor | None, condition: Tensor, artifact: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Hidden layer and gene weights with a column more for each condition, whose weights are its gene effects.

        Parameters
        ----------
        hidden, weight
            What the gene Linear acts on, (P, N, ·), and its weights, (G, ·).
        offset
            Of the conditions, (conditions, G); ``None`` leaves both as they are.
        condition
            Of each cell, (N,).
        artifact
            z^a, (P, N, K).
        """
        if offset is None:
            return hidden, weight
        chosen = nn.functional.one_hot(condition, len(offset)).to(hidden.dtype)
        chosen = chosen.unsqueeze(0) if artifact is None else chosen * self.kept(artifact)
        return torch.cat([hidden, chosen.expand(len(hidden), -1, -1)], dim=-1), torch.cat([weight, offset.T], dim=1)

    def decode_share(
        self,
        basal: Tensor,
        perturbation: Tensor | None = None,
        artifact: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> Tensor:
        """Expected share of each gene in the counts, ρ, (P, N, G).

        Arguments as of :meth:`decode_hidden`; ``offset`` is what gene effects add to the log rates, (..., G).
        """
        hidden = self.decode_hidden(basal, perturbation, artifact)
        if offset is not None and artifact is not None:
            offset = offset * self.kept(artifact)
        return decoded_share(hidden, self.gene_linear.weight, self.gene_linear.bias, offset)

    @property
    def concentration(self) -> Tensor:
        """θ, (G,)."""
        return self.log_concentration.exp()


def sparse_counts(minibatch: Minibatch) -> SparseCounts:
    """The counts of a minibatch, for the likelihood."""
    return SparseCounts(minibatch.values, minibatch.genes, minibatch.starts, minibatch.n_genes)


def failed_cells(artifact: Tensor) -> Tensor:
    """1 for cells with any artifact, (N, C) → (N,)."""
    return (artifact != 0).any(dim=1).to(artifact.dtype)
