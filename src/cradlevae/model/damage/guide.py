"""The guide of damage: what the counts of a failed cell say of its basal state, of foreign counts and of lost ones.

A damaged cell's counts x are its own ones, of which some were lost, and foreign ones. With ρ the share of each gene in
the undamaged cell, φ that in the foreign counts and a the share of these, the undamaged cell is expected to have

    x (1 − a) ρ / ((1 − a) ρ + a φ)  +  λ ρ f

counts: what is left of its own, and λ lost ones, with f the factors by which the cell's genes are above or below what
the decoder expects. φ mixes the profiles of ambient RNA that failed cells show with one that is the cell's own, for
instance another cell's.

Shapes: P particles, N cells, G genes, K latents, W width of z^p, D kinds of damage.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cradlevae.nn.likelihood import Likelihood
from cradlevae.nn.mlp import MLP, Gaussian

WIDTH = 256
LAYERS = 2
GIVEN_LAYERS = 2
"""Layers before the kind of damage is known, and after."""
FOREIGN_WIDTH = 64
"""Width of the layer from which the foreign profile is decoded."""

TYPICAL = 100.0
"""Lost counts are measured in this unit."""


@dataclass(frozen=True)
class Evidence:
    """What the counts of cells say before the kind of damage is known.

    Attributes
    ----------
    hidden
        Hidden layer, (N, width).
    kind
        Log odds of the kinds, as often as copies suffer them, (N, D).
    as_passing
        Posterior of the basal state if the cell were not damaged, (N, K).
    """

    hidden: Tensor
    kind: Tensor
    as_passing: Gaussian


@dataclass(frozen=True)
class Damaged:
    """What the guide says of cells, given the kind of damage of each.

    Attributes
    ----------
    q_basal
        Posterior of the undamaged cell's basal state, (N, K).
    foreign
        Share of the counts that is foreign, a, (N, 1).
    profile
        Shares of the genes in the foreign counts, φ, (N, G).
    lost
        Expected number of lost counts, λ, (N, 1).
    severity
        Mean and log standard deviation of the log odds of the severity, (N,) each.
    parent
        Log odds of the condition of a second cell, (N, conditions).
    """

    q_basal: Gaussian
    foreign: Tensor
    profile: Tensor
    lost: Tensor
    severity: tuple[Tensor, Tensor]
    parent: Tensor

    def undamaged(self, counts: Tensor, share: Tensor, likelihood: Likelihood) -> tuple[Tensor, Tensor]:
        """What is left of the cells' own counts, and what is expected of the lost ones, (P, N, G) each.

        Parameters
        ----------
        counts
            Their counts, (N, G).
        share
            Share of each gene in the undamaged cells, ρ, (P, N, G).
        likelihood
            Where the factors of the cells' own come from.
        """
        of_own = (1 - self.foreign) * share
        own = counts * of_own / (of_own + self.foreign * self.profile + 1e-12)
        expected = of_own * counts.sum(-1, keepdim=True)
        lost = share * likelihood.own_factors(own, expected)
        return own, self.lost * lost / lost.sum(-1, keepdim=True)


class DamageGuide(nn.Module):
    """A network of the counts and z^p of a failed cell.

    It says first how likely each kind of damage is, and then, given a kind, all else.

    Parameters
    ----------
    n_genes, effect_width, n_latent
        G, W and K.
    n_kinds
        D.
    n_conditions
        Conditions that a second cell may be of.
    n_pools
        Profiles of ambient RNA that failed cells show.

    Attributes
    ----------
    pools
        These profiles, (pools, G).
    log_size
        Mean log library size of passing cells.
    kind_odds
        What is added to the log odds of the kinds for the failed cells of the experiment, which suffer other kinds more
        or less often than the copies that it was trained on, (D,).
    """

    pools: Tensor
    log_size: Tensor
    kind_odds: Tensor

    def __init__(
        self, n_genes: int, effect_width: int, n_latent: int, n_kinds: int, n_conditions: int, n_pools: int
    ) -> None:
        super().__init__()
        self.n_kinds = n_kinds
        self.mlp = MLP((n_genes, effect_width, 1), WIDTH, LAYERS)
        self.kind = nn.Linear(WIDTH, n_kinds)
        self.given = MLP((WIDTH, n_kinds), WIDTH, GIVEN_LAYERS)
        self.basal = nn.Linear(WIDTH, 2 * n_latent)
        nn.init.zeros_(self.basal.weight)
        nn.init.zeros_(self.basal.bias)
        self.amounts = nn.Linear(WIDTH, 4)
        self.pool_weights = nn.Linear(WIDTH, n_pools + 1) if n_pools else None
        self.foreign = nn.Linear(WIDTH, FOREIGN_WIDTH)
        self.foreign_genes = nn.Linear(FOREIGN_WIDTH, n_genes)
        self.parent = nn.Linear(WIDTH, n_conditions)
        self.register_buffer("pools", torch.zeros(n_pools, n_genes))
        self.register_buffer("log_size", torch.zeros(()))
        self.register_buffer("kind_odds", torch.zeros(n_kinds))

    def forward(self, standardised: Tensor, effect: Tensor, size: Tensor, as_passing: Gaussian) -> Evidence:
        """What the counts of cells say of the kinds of damage.

        Parameters
        ----------
        standardised
            Their log counts, standardised, without the effects of treatments and levels, (N, G).
        effect
            z^p, (N, W).
        size
            Library sizes, (N,).
        as_passing
            Posterior of the basal state if the cells were not damaged, (N, K).
        """
        log_size = (size.clamp_min(1).log() - self.log_size).unsqueeze(-1)
        hidden = self.mlp(standardised, effect, log_size)
        return Evidence(hidden, self.kind(hidden), as_passing)

    def of_kind(self, evidence: Evidence, kind: Tensor) -> Damaged:
        """What the counts say, given the kind of damage of each cell, (N,)."""
        hidden = self._hidden(evidence, kind)
        moved, widened = self.basal(hidden).chunk(2, dim=-1)
        before = evidence.as_passing
        amounts = self.amounts(hidden)
        foreign, lost = amounts[:, :1], amounts[:, 1:2]
        return Damaged(
            q_basal=Gaussian(before.loc + moved, before.scale * widened.clamp(-4, 4).exp()),
            foreign=torch.sigmoid(foreign),
            profile=self._profile(hidden),
            lost=F.softplus(lost) * TYPICAL,
            severity=_severity(amounts),
            parent=self.parent(hidden),
        )

    def of_damage(self, evidence: Evidence, kind: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Severity and parent of :meth:`of_kind` alone, which takes no profile of all genes."""
        hidden = self._hidden(evidence, kind)
        return _severity(self.amounts(hidden)), self.parent(hidden)

    def _hidden(self, evidence: Evidence, kind: Tensor) -> Tensor:
        one_hot = F.one_hot(kind, self.n_kinds).to(evidence.hidden.dtype)
        hidden: Tensor = self.given(evidence.hidden, one_hot) + evidence.hidden
        return hidden

    def _profile(self, hidden: Tensor) -> Tensor:
        own = torch.softmax(self.foreign_genes(F.leaky_relu(self.foreign(hidden))), dim=-1)
        if self.pool_weights is None:
            return own
        weights = torch.softmax(self.pool_weights(hidden), dim=-1)
        return weights[:, :1] * own + weights[:, 1:] @ self.pools


def _severity(amounts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation of the log odds of the severity, (N,) each."""
    return amounts[:, 2], amounts[:, 3].clamp(-5, 3)
