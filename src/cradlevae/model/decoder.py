"""The decoder: latent states in, the expected share of each gene in the counts out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cradlevae.data.loading.minibatch import Minibatch
from cradlevae.model.config import ModelConfig
from cradlevae.nn.mlp import MLP


class Decoder(nn.Module):
    """An MLP of the latents, and the gene Linear on its last hidden layer and, on a linear path, the latents again.

    Shapes: P particles, N cells, G genes, K latents, W width of z^p.

    Parameters
    ----------
    config
        A resolved configuration.
    n_genes
        G.
    effect_width
        W.
    has_artifact
        Whether there is z^a.
    """

    def __init__(self, config: ModelConfig, n_genes: int, effect_width: int, has_artifact: bool) -> None:
        super().__init__()
        assert config.n_latent is not None
        k = config.n_latent
        self.concat = config.decode == "concat"
        self.linear_path = config.linear_path
        self.effect_width = effect_width
        self.has_artifact = has_artifact
        inputs = (k, effect_width, *((k,) if has_artifact else ())) if self.concat else (k,)
        self.mlp = MLP(inputs, config.width, config.decoder_layers)
        self.width = config.width
        self.gene_linear = nn.Linear(config.width + (sum(inputs) if config.linear_path else 0), n_genes)

    def hidden(self, basal: Tensor, perturbation: Tensor | None = None, artifact: Tensor | None = None) -> Tensor:
        """What the gene Linear acts on: the last hidden layer and, on a linear path, the latents, (P, N, ·).

        Parameters
        ----------
        basal
            z^b, (P, N, K).
        perturbation, artifact
            z^p, (P, N, W), and z^a, (P, N, K); ``None`` is none. Leading sizes broadcast.
        """
        latents = self._latents(basal, perturbation, artifact)
        return self._beside(self.mlp(*latents), latents)

    def rates_of_basal(self, basal: Tensor) -> Tensor:
        """What basal states alone add to the log rates, whatever the perturbation, (..., K) → (..., G)."""
        linear = self.gene_linear
        if not self.linear_path:
            return linear.bias.expand(*basal.shape[:-1], -1)
        return nn.functional.linear(basal, linear.weight[:, self.width : self.width + basal.shape[-1]], linear.bias)

    def rates(self, basal: Tensor, perturbation: Tensor | None, of_basal: Tensor) -> Tensor:
        """Log rates, up to a constant, of undamaged cells of which :meth:`rates_of_basal` is known, (P, N, G)."""
        weight = self.gene_linear.weight
        hidden = self.mlp(*self._latents(basal, perturbation, None))
        rates = of_basal + nn.functional.linear(hidden, weight[:, : self.width])
        if self.linear_path and perturbation is not None:
            first = self.width + (basal.shape[-1] if self.concat else 0)
            rates += nn.functional.linear(perturbation, weight[:, first : first + perturbation.shape[-1]])
        return rates

    def hidden_of_minibatch(
        self,
        basal: Tensor,
        shift: Tensor,
        artifact: Tensor | None,
        own: Tensor | None,
        minibatch: Minibatch,
        *,
        with_state: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """:meth:`hidden` of a minibatch, whose parts go through the first layer once where cells share them.

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
        with_state
            Whether z^a of the cells is asked for.

        Returns
        -------
        The hidden layer, (P, N, ·), and z^a of the cells, (P, N, K), where the gene Linear needs it or it is asked for.
        """
        first = self.mlp.first
        of_shift, of_artifact = (1, 2) if self.concat else (0, 0)
        hidden = first.part(0, basal) + first.bias
        hidden = hidden + first.part(of_shift, shift).index_select(1, minibatch.condition)
        if artifact is not None:
            hidden = hidden + minibatch.artifact @ first.part(of_artifact, artifact)
        if own is not None:
            hidden = hidden.index_add(1, minibatch.failed, first.part(of_artifact, own))
        hidden = self.mlp.rest(hidden)
        if not self.linear_path and not with_state:
            return hidden, None
        state = None if artifact is None else minibatch.artifact @ artifact
        if state is not None and own is not None:
            state = state.index_add(1, minibatch.failed, own)
        return self._beside(hidden, self._latents(basal, shift.index_select(1, minibatch.condition), state)), state

    def _latents(self, basal: Tensor, perturbation: Tensor | None, artifact: Tensor | None) -> tuple[Tensor, ...]:
        """What the MLP takes side by side."""
        if not self.concat:
            for added in (perturbation, artifact):
                basal = basal if added is None else basal + added
            return (basal,)
        none = basal.new_zeros(())
        effect = none.expand(*basal.shape[:-1], self.effect_width) if perturbation is None else perturbation
        if not self.has_artifact:
            return basal, effect
        return basal, effect, none.expand(basal.shape) if artifact is None else artifact

    def _beside(self, hidden: Tensor, latents: tuple[Tensor, ...]) -> Tensor:
        """The hidden layer and, on a linear path, the latents beside it."""
        if not self.linear_path:
            return hidden
        shape = hidden.shape[:-1]
        return torch.cat([hidden, *(latent.expand(*shape, -1) for latent in latents)], dim=-1)
