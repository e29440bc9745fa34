"""The terms of the loss that counterfactual pairs add: a cell and its damaged copy, which are the same cell.

The copy goes through the guide of damage as a failed cell does. The terms are how far its posterior of the basal state
is from that of the undamaged cell, KL( q(z^b | x) ‖ q(z^b | damaged x) ), how well the undamaged counts are expected
from the copy, and what the guide says of the damage, which is known.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cradlevae.data.loading.counterfactual_pairs import PairBatch
from cradlevae.model.damage.guide import Damaged
from cradlevae.model.module import CradleModule
from cradlevae.nn.mlp import gaussian_kl

SIZE_SD = 0.5
"""Standard deviation of the log of the undamaged library size about its expectation."""

PAIR_WEIGHT = 0.05
"""Weight of the expected counts and of the damage in the loss, beside the ELBO."""


def pair_terms(module: CradleModule, pairs: PairBatch) -> dict[str, Tensor]:
    """The terms, each a mean over pairs: ``counterfactual`` (β included), ``pair_counts`` and ``pair_damage``."""
    beta = module.config.counterfactual_weight or 0.0
    draw = module.sample_globals(module.draw_noise(1, pairs.treatments), pairs.treatments)
    effect = (pairs.treatment_dosage @ draw.shift)[0].index_select(0, pairs.condition)
    offset = module.offset(pairs.treatment_dosage, pairs.treatments)
    offset = None if offset is None else offset.index_select(0, pairs.condition)
    evidence = module.damage_evidence(pairs.damaged, effect, offset, pairs.levels)
    assert module.damage_guide is not None
    told = module.damage_guide.of_kind(evidence, pairs.kind)
    noise = effect.new_empty(pairs.whole, module.n_latent).normal_()  # that of all pairs, in every process
    z_basal = told.q_basal.sample(noise[pairs.first : pairs.first + len(pairs.kind)]).unsqueeze(0)
    share = module.decode_share(z_basal, effect.unsqueeze(0), None, offset, module.of_levels(pairs.levels))
    own, lost = told.undamaged(pairs.damaged, share, module.likelihood)
    terms = {}
    if beta:
        standardised = module.standardised(pairs.counts, offset, pairs.levels)
        undamaged = module.encode_dense(standardised, effect, pairs.levels)
        terms["counterfactual"] = beta * gaussian_kl(undamaged, told.q_basal).sum(-1).mean()
    terms["pair_counts"] = PAIR_WEIGHT * _counts_term(pairs.counts, (own + lost)[0])
    terms["pair_damage"] = PAIR_WEIGHT * _damage_term(pairs, evidence.kind, told)
    return terms


def _counts_term(counts: Tensor, expected: Tensor) -> Tensor:
    """Minus the log probability of undamaged counts: multinomial, of a log-normal total; without constants."""
    total, size = expected.sum(-1), counts.sum(-1)
    shares = expected / total.unsqueeze(-1).clamp_min(1e-12)
    of_genes = -(counts * (shares + 1e-9).log()).sum(-1)
    of_total = 0.5 * ((size + 1).log() - (total + 1).log()).square() / SIZE_SD**2
    return (of_genes + of_total).mean()


def _damage_term(pairs: PairBatch, kind_odds: Tensor, told: Damaged) -> Tensor:
    """Minus the log probability of what was done to the copies."""
    of_kind = F.cross_entropy(kind_odds, pairs.kind)
    odds = torch.logit(pairs.severity.clamp(0.005, 0.995))
    mean, log_sd = told.severity
    of_severity = (0.5 * ((odds - mean) * (-log_sd).exp()).square() + log_sd).mean()
    two = (pairs.parent >= 0).to(odds.dtype)
    of_parent = F.cross_entropy(told.parent, pairs.parent.clamp_min(0), reduction="none")
    return of_kind + of_severity + (of_parent * two).mean()
