"""The generative model and its guide: tensors in, distributions out (model.md: Decode, Networks, Guide).

One module for the whole family; its parts are those that a model declares (:mod:`cradlevae.model.family`).

Shapes: P particles, N cells of a minibatch, G genes, T treatments (perturbations, or conditions where a model takes
each for a treatment of its own), C artifact classes (0 where a model has no artifact), K latents, W width of z^p (K, or
T where it is the dosage).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cradlevae.data.loading.minibatch import Minibatch
from cradlevae.model.artifact import make_artifact
from cradlevae.model.basal_encoder import BasalEncoder
from cradlevae.model.config import ModelConfig
from cradlevae.model.damage.guide import DamageGuide, Evidence
from cradlevae.model.decoder import Decoder
from cradlevae.model.effect import make_embedding, make_mask
from cradlevae.model.gene_effects import GeneEffects
from cradlevae.model.globals import GlobalNoise, Globals
from cradlevae.model.level_effects import LevelEffects, membership
from cradlevae.nn.counts import AddedRates, SparseCounts, decoded_share
from cradlevae.nn.known_likelihoods import likelihood_of
from cradlevae.nn.mlp import Gaussian, GaussianHead
from cradlevae.nn.rows import rows_of


class CradleModule(nn.Module):
    """A model of the family: basal state, perturbation effect and artifact, decoded to counts.

    Parameters
    ----------
    config
        A resolved configuration; its declaration says which parts there are.
    n_genes, n_treatments, n_classes
        G, T, C (of the data).
    n_levels
        Number of levels of each column that cells differ in (batch, covariates, context); L is their sum.
    n_strata
        Combinations of levels that occur.
    paired
        Treatment of each pair of a treatment and a context; the pairs are the last treatments.
    n_conditions
        Conditions of the data, whatever their context.
    n_pools
        Profiles of ambient RNA that the failed cells of the data show.

    Attributes
    ----------
    mask, embedding
        What a treatment adds to z^p (:mod:`cradlevae.model.effect`).
    artifact
        What damage adds (:mod:`cradlevae.model.artifact`); ``None`` where there is no artifact latent.
    basal_encoder, decoder
        The guide of z^b, and the decoder.
    own_artifact_head
        Posterior of failed cells' own artifact states, on the basal encoder's hidden layer; ``None`` without such
        states.
    gene_effects
        What a treatment adds to the log rates of the genes directly; ``None`` where there are no such effects.
    level_effects
        What the levels of a cell add to the log rates of the genes; ``None`` where cells do not differ in any.
    shown_head
        See :meth:`shown`; ``None`` where there are no gene effects or no artifact latent.
    damage_guide
        What the counts of a failed cell say of its damage and of the undamaged cell; ``None`` without counterfactual
        pairs.
    likelihood
        Distribution of a count given its mean.
    """

    def __init__(
        self,
        config: ModelConfig,
        n_genes: int,
        n_treatments: int,
        n_classes: int,
        n_levels: Sequence[int] = (),
        n_strata: int = 1,
        paired: Sequence[int] = (),
        n_conditions: int = 1,
        n_pools: int = 0,
    ) -> None:
        super().__init__()
        assert config.n_latent is not None
        self.config = config
        self.declaration = config.declaration
        self.n_latent = config.n_latent
        self.n_treatments = n_treatments
        self.likelihood = likelihood_of(config.likelihood)(n_genes)
        # weights are drawn in this order, so that a seed gives the same ones whatever is made of them
        self.mask = make_mask(config, n_treatments)
        self.embedding = make_embedding(config, n_treatments)
        self.artifact = make_artifact(config, n_classes)
        has_artifact = self.artifact is not None
        self.basal_encoder = BasalEncoder(config, n_genes, self.embedding.width, has_artifact)
        self.decoder = Decoder(config, n_genes, self.embedding.width, has_artifact)
        assert config.basal_width is not None
        self.own_artifact_head = GaussianHead(config.basal_width, config.n_latent) if self.has_own_artifact else None
        self.gene_effects = GeneEffects(n_treatments, n_genes, n_strata, paired) if config.gene_effects else None
        self.level_effects = None
        if len(n_levels) and config.objective != "released":  # the published model knows no batches
            self.level_effects = LevelEffects(n_levels, n_genes, config.basal_width, n_strata)
        self.shown_head = _shown_head(config.n_latent) if config.gene_effects and has_artifact else None
        self.damage_guide = None
        if config.pair_share:
            assert config.damages is not None
            self.damage_guide = DamageGuide(
                n_genes, self.embedding.width, config.n_latent, len(config.damages), n_conditions, n_pools
            )

    @property
    def n_classes(self) -> int:
        """Number of artifact classes; 0 where there is no artifact latent."""
        return 0 if self.artifact is None else self.artifact.n_classes

    @property
    def has_own_artifact(self) -> bool:
        """Whether a failed cell has an artifact state of its own."""
        return self.artifact is not None and self.artifact.has_own

    def tables(self) -> list[nn.Parameter]:
        """Parameters with a row for each treatment, (T, ·), of which a minibatch needs those of its treatments."""
        mask = [] if self.mask is None else [self.mask.logits]
        effects = [] if self.gene_effects is None else [self.gene_effects.value]
        return [*mask, *self.embedding.tables(), *effects]

    # -- the guide ---------------------------------------------------------------------------------------------

    def draw_noise(self, n_particles: int, treatments: Tensor | None = None) -> GlobalNoise:
        """Fresh random numbers for :meth:`sample_globals`, of all treatments or of some."""
        n = self.n_treatments if treatments is None else len(treatments)
        normal, k = self.basal_encoder.log_mean.new_empty, self.n_latent
        return GlobalNoise(
            None if self.mask is None else self.mask.noise(n_particles, n),
            normal(n_particles, n, k).normal_() if self.embedding.random else None,
            None if self.artifact is None else normal(n_particles, self.n_classes, k).normal_(),
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
        if self.artifact is None:
            return Globals(mask, embedding, None, q_embedding, None)
        assert noise.artifact is not None
        artifact, q_artifact = self.artifact.draw(noise.artifact)
        return Globals(mask, embedding, artifact, q_embedding, q_artifact)

    def encode_counts(
        self,
        counts: SparseCounts,
        profiles: Tensor | None = None,
        offset: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The part of the basal encoder's first layer that acts on genes; see :meth:`.BasalEncoder.of_counts`.

        With the gene effects of conditions, (conditions, G), and the condition of each cell, (N,), these are taken out
        of the cells.
        """
        taken_out = None
        if offset is not None and condition is not None:
            assert self.gene_effects is not None
            taken_out = self.basal_encoder.moved(offset, self.gene_effects.expected_log()), condition
        return self.basal_encoder.of_counts(counts, profiles, taken_out)

    def encode(
        self,
        encoded: Tensor,
        perturbation: Tensor | None = None,
        artifact: Tensor | None = None,
        offset: Tensor | None = None,
        levels: Tensor | None = None,
    ) -> tuple[Gaussian, Gaussian | None]:
        """Posteriors of the basal state and, where the model has one, of the cell's own artifact state.

        Parameters
        ----------
        encoded
            From :meth:`encode_counts`, (N, width).
        perturbation, artifact
            z^p, (P, N, W), and the shared part of z^a that the encoder sees, (P, N, K); ``None`` is none.
        offset
            What gene effects add to the log rates, (N, G); ``None`` is nothing.
        levels
            Levels of the cells, (N, columns); ``None``, or no columns, is none.

        Returns
        -------
        tuple
            (P, N, K) each; P is 1 where no particle differs.
        """
        encoder = self.basal_encoder
        placed = encoded.unsqueeze(0)
        if perturbation is not None and encoder.sees_effect:
            placed = placed + encoder.of_effect(perturbation)
        if artifact is not None:
            placed = placed + encoder.of_artifact(artifact)
        if offset is not None:
            placed = placed + self.encoded_offset(offset)
        if self.level_effects is not None and levels is not None:
            placed = placed + membership(levels, len(self.level_effects.value)) @ self.encoded_levels()
        hidden = encoder.mlp.rest(placed)
        own = None if self.own_artifact_head is None else self.own_artifact_head(hidden)
        return encoder.posterior(hidden, perturbation), own

    def standardised(self, counts: Tensor, offset: Tensor | None, levels: Tensor | None) -> Tensor:
        """Log counts of cells, standardised, without the effects of treatments and levels, (N, G).

        Parameters
        ----------
        counts
            Counts of the cells, (N, G).
        offset
            What gene effects add to the log rates, (N, G); ``None`` is nothing.
        levels
            Levels of the cells, (N, columns); ``None`` is none.
        """
        encoder, standardised = self.basal_encoder, self.basal_encoder.standardised(counts)
        if offset is not None:
            assert self.gene_effects is not None
            standardised = standardised - encoder.moved(offset, self.gene_effects.expected_log())
        if self.level_effects is not None and levels is not None:
            of_levels = self.level_effects.of_cells(levels)
            standardised = standardised - encoder.moved(of_levels, self.level_effects.expected_log())
        return standardised

    def encode_dense(self, standardised: Tensor, effect: Tensor, levels: Tensor | None) -> Gaussian:
        """Posterior of the basal states of passing cells, (N, K), of what :meth:`standardised` gives.

        ``effect`` is their z^p, (N, W), and ``levels`` their levels, (N, columns); ``None`` is none.
        """
        encoded = self.basal_encoder.of_standardised(standardised)
        if self.level_effects is not None and levels is not None:
            encoded = encoded + membership(levels, len(self.level_effects.value)) @ self.level_effects.encoded
        posterior, _ = self.encode(encoded, effect.unsqueeze(0))
        return Gaussian(posterior.loc[0], posterior.scale[0])

    def damage_evidence(self, counts: Tensor, effect: Tensor, offset: Tensor | None, levels: Tensor | None) -> Evidence:
        """What counts of failed cells say before the kind of damage is known; see :meth:`.DamageGuide.forward`.

        Parameters
        ----------
        counts
            Counts of the cells, (N, G).
        effect
            z^p, (N, W).
        offset
            What gene effects add to the log rates of the undamaged cells, (N, G); ``None`` is nothing.
        levels
            Levels of the cells, (N, columns); ``None`` is none.
        """
        guide = self.damage_guide
        assert guide is not None
        standardised = self.standardised(counts, offset, levels)
        with torch.no_grad():
            before = self.encode_dense(standardised, effect, levels)
        answer: Evidence = guide(standardised, effect.detach(), counts.sum(-1), before)
        return answer

    def encoded_offset(self, offset: Tensor) -> Tensor:
        """What gene effects add to the first layer of the basal encoder; see :meth:`.BasalEncoder.without_effects`."""
        assert self.gene_effects is not None
        return self.basal_encoder.without_effects(offset, self.gene_effects.expected_log())

    def encoded_levels(self, levels: Tensor | None = None) -> Tensor:
        """What levels (int64; ``None`` is all of them) add to the first layer of the basal encoder, (levels, width)."""
        effects = self.level_effects
        assert effects is not None
        taken_out = self.basal_encoder.without_effects(rows_of(effects.value, levels), effects.expected_log())
        return taken_out + rows_of(effects.encoded, levels)

    # -- the generative model ----------------------------------------------------------------------------------

    def offset(self, dosage: Tensor, treatments: Tensor | None = None) -> Tensor | None:
        """What gene effects of conditions add to the log rates, (conditions, treatments or T) → (conditions, G)."""
        return None if self.gene_effects is None else self.gene_effects.of_conditions(dosage, treatments)

    def offset_of_cells(self, dosage: Tensor, condition: Tensor) -> Tensor | None:
        """:meth:`offset` of cells with these conditions, (N,) → (N, G)."""
        offset = self.offset(dosage)
        return None if offset is None else offset.index_select(0, condition)

    def of_levels(self, levels: Tensor | None) -> Tensor | None:
        """What cells of these levels have added to their log rates, (..., columns) → (..., G); ``None`` is nothing."""
        if self.level_effects is None or levels is None:
            return None
        return self.level_effects.of_cells(levels)

    def decode_share(
        self,
        basal: Tensor,
        perturbation: Tensor | None = None,
        artifact: Tensor | None = None,
        offset: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """Expected share of each gene in the counts, ρ, (P, N, G).

        Arguments as of :meth:`.Decoder.hidden`; ``offset`` is what gene effects add to the log rates, (..., G), and
        ``level`` what the levels of the cells do (:meth:`of_levels`).
        """
        hidden = self.decoder.hidden(basal, perturbation, artifact)
        if offset is not None and artifact is not None:
            offset = offset * self.shown(artifact)
        if level is not None:
            offset = level if offset is None else offset + level
        gene_linear = self.decoder.gene_linear
        return decoded_share(hidden, gene_linear.weight, gene_linear.bias, offset)

    def shown(self, artifact: Tensor) -> Tensor:
        """Share of its gene effects that a cell still shows, from its z^a, (..., K) → (..., 1); 1 without damage.

        A doublet or a cell full of ambient counts shows them diluted.
        """
        assert self.shown_head is not None
        damaged = (artifact != 0).any(dim=-1, keepdim=True)
        return torch.where(damaged, torch.sigmoid(self.shown_head(artifact)), 1.0)

    def with_effects(
        self,
        hidden: Tensor,
        weight: Tensor,
        offset: Tensor | None,
        condition: Tensor,
        artifact: Tensor | None,
        of_level: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, AddedRates | None]:
        """What the gene Linear acts on, its weights, and the effects of conditions, which are added to the log rates.

        Hidden layer and weights have a column more for each level, whose weights are its effects.

        Parameters
        ----------
        hidden, weight
            What the gene Linear acts on, (P, N, ·), and its weights, (G, ·).
        offset
            Gene effects of the conditions, (conditions, G); ``None`` leaves them out.
        condition
            Condition of each cell, (N,).
        artifact
            z^a, (P, N, K).
        of_level
            Which levels each cell has, (N, levels), and their effects, (levels, G); ``None`` leaves them out.
        """
        added = None
        if offset is not None:
            shown = hidden.new_ones(1, len(condition)) if artifact is None else self.shown(artifact).squeeze(-1)
            added = AddedRates(offset, condition, shown)
        if of_level is not None:
            hidden = torch.cat([hidden, of_level[0].expand(len(hidden), -1, -1)], dim=-1)
            weight = torch.cat([weight, of_level[1].T], dim=1)
        return hidden, weight, added


def _shown_head(n_latent: int) -> nn.Linear:
    head = nn.Linear(n_latent, 1)
    nn.init.zeros_(head.weight)
    nn.init.ones_(head.bias)
    return head


def sparse_counts(minibatch: Minibatch) -> SparseCounts:
    """The counts of a minibatch, for the likelihood."""
    return SparseCounts(minibatch.values, minibatch.genes, minibatch.starts, minibatch.n_genes)


def failed_cells(artifact: Tensor) -> Tensor:
    """1 for cells with any artifact, (N, C) → (N,)."""
    return (artifact != 0).any(dim=1).to(artifact.dtype)
