"""Cells decoded as they would look otherwise: from their latent states, or undamaged as the guide of damage tells.

Each cell's random numbers are its own, so that it gets the same twin in whatever company it is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.minibatch import Minibatch, make_minibatch
from cradlevae.model.estimation.streams import CellStreams, padding
from cradlevae.model.globals import Globals, artifact_state, perturbation_state
from cradlevae.model.module import CradleModule, failed_cells, sparse_counts
from cradlevae.model.trained import TrainedModel
from cradlevae.nn.mlp import Gaussian
from cradlevae.query.unlabelled import OwnConditions
from cradlevae.utils.types import IndexArray, IntArray

KIND, CONDITION = 3, 4
"""Purposes of the streams of cells: kinds of damage, and conditions of cells whose labels are not used."""


@dataclass(frozen=True)
class Target:
    """What cells are to be like.

    Attributes
    ----------
    artifact
        Artifact indicator, (C,); ``None`` keeps each cell's own.
    dosage
        Dosages by :attr:`group`, (groups, T); ``None`` keeps each cell's own.
    group
        Which of the dosages each cell of the experiment has: that of its context, (cells,).
    batch
        Number of the batch; ``None`` keeps each cell's own.
    """

    artifact: Tensor | None
    dosage: Tensor | None
    group: IntArray
    batch: int | None = None


@dataclass(frozen=True)
class Twins:
    """Counterfactuals of a block of cells.

    Attributes
    ----------
    share
        Expected share of each gene, mean over draws, (cells, genes).
    log_sd
        Standard deviation of its logarithm over draws.
    drawn
        Gene shares in one random draw.
    counts
        Counts that are the cells' own, (cells, genes).
    information
        What the counts say about z^b, in nats, (cells,).
    """

    share: Tensor
    log_sd: Tensor
    drawn: Tensor
    counts: Tensor
    information: Tensor


@dataclass(frozen=True)
class _Decoded:
    """Counterfactuals of a block of cells.

    Attributes
    ----------
    rates
        Expected counts up to a factor of the cell, (draws, cells, genes).
    counts
        Counts that are the cells' own, (cells, genes).
    information
        What the counts say about z^b, in nats, (cells,).
    """

    rates: Tensor
    counts: Tensor
    information: Tensor

    def with_rows(self, rows: Tensor, other: _Decoded) -> _Decoded:
        """With some cells, (cells,) bool, of another block."""
        return _Decoded(
            torch.where(rows.unsqueeze(-1), other.rates, self.rates),
            torch.where(rows.unsqueeze(-1), other.counts, self.counts),
            torch.where(rows, other.information, self.information),
        )

    def finished(self, chosen: Tensor) -> Twins:
        """What is asked for of them; ``chosen`` is a random draw of each cell, (cells,)."""
        share = self.rates.div_(self.rates.sum(-1, keepdim=True))
        return Twins(
            share.mean(0),
            share.clamp_min(1e-12).log().std(0, correction=min(1, len(share) - 1)),
            share[chosen, torch.arange(len(chosen))],
            self.counts,
            self.information,
        )


def decoded_twins(
    model: TrainedModel,
    data: Experiment,
    rows: IndexArray,
    size: int,
    draw: Globals,
    streams: CellStreams,
    target: Target,
    own_conditions: OwnConditions | None = None,
) -> Twins:
    """Decode cells with the random numbers of their streams; as many rows as ``size`` go through the networks.

    With ``own_conditions``, their conditions are drawn by their counts, and their labels are not used.
    """
    module, n, n_draws = model.module, len(rows), len(draw.shift)
    pad = padding(n, size)
    minibatch = make_minibatch(data, rows[pad])
    noise = streams.normal(2 * n_draws, module.n_latent)[:, pad]
    if own_conditions is None:
        own = _own_states(module, draw, minibatch)
    else:
        chance = streams.spread(n_draws, CONDITION)[:, pad]
        own = _States(*own_conditions.states(minibatch, rows[pad], chance), minibatch.levels, by_draw=True)
    wanted = _wanted_states(model, draw, minibatch, own, target, rows[pad])
    undamaged = torch.from_numpy(data.failed[rows] & _switched_off(module, target))
    if undamaged.any():
        chance = streams.spread(n_draws, KIND)[:, pad]
        decoded = _undamaged(module, minibatch, own, wanted, noise[:n_draws], chance, n)
    if not undamaged.all():
        passing = _counterfactual(module, draw, minibatch, own, wanted, target.artifact, noise, n)
        decoded = passing.with_rows(undamaged, decoded) if undamaged.any() else passing
    return decoded.finished(streams.below(n_draws))


@dataclass(frozen=True)
class _States:
    """What cells of a minibatch have beside their basal state: z^p, what gene effects add, and levels."""

    perturbation: Tensor  # (P or 1, N or 1, W)
    offset: Tensor | None  # (N or 1, G), or (P, N, G)
    levels: Tensor | None  # (N, columns)
    by_draw: bool = False  # whether a cell's condition differs between draws

    def of_draw(self, draw: int) -> _States:
        """Those of one draw, with the offset of each cell."""
        state = self.perturbation[min(draw, len(self.perturbation) - 1)].unsqueeze(0)
        offset = self.offset if self.offset is None or self.offset.ndim == 2 else self.offset[draw]
        return replace(self, perturbation=state, offset=offset)


def _own_states(module: CradleModule, draw: Globals, minibatch: Minibatch) -> _States:
    return _States(
        perturbation_state(draw, minibatch.dosage, minibatch.condition),
        module.offset_of_cells(minibatch.dosage, minibatch.condition),
        minibatch.levels,
    )


def _wanted_states(
    model: TrainedModel, draw: Globals, minibatch: Minibatch, own: _States, target: Target, rows: IndexArray
) -> _States:
    """What the cells, ``rows`` of the experiment, are to have in place of their own."""
    module, wanted = model.module, own
    if target.dosage is not None and len(target.dosage) == 1:  # the same for all cells
        z_p = torch.einsum("t,dtk->dk", target.dosage[0], draw.shift).unsqueeze(1)
        wanted = replace(wanted, perturbation=z_p, offset=module.offset(target.dosage))
    elif target.dosage is not None:
        place, of_cells = np.unique(target.group[rows], return_inverse=True)
        dosage, condition = target.dosage[place], torch.from_numpy(of_cells)
        z_p = perturbation_state(draw, dosage, condition)
        wanted = replace(wanted, perturbation=z_p, offset=module.offset_of_cells(dosage, condition))
    if target.batch is not None and minibatch.levels is not None:
        wanted = replace(wanted, levels=model.in_batch(minibatch.levels, target.batch))
    return wanted


def _switched_off(module: CradleModule, target: Target) -> bool:
    """Whether damage is to be undone by a guide of damage."""
    return module.damage_guide is not None and target.artifact is not None and not bool(target.artifact.any())


def _counterfactual(
    module: CradleModule,
    draw: Globals,
    minibatch: Minibatch,
    own: _States,
    wanted: _States,
    artifact: Tensor | None,
    noise: Tensor,
    n: int,
) -> _Decoded:
    """The first ``n`` cells with other classes of artifact (``None`` keeps theirs), by their latent states."""
    n_draws, now = len(draw.shift), minibatch.artifact
    classes = now, now if artifact is None else artifact.expand_as(now)
    shared = [artifact_state(draw, one) for one in classes]
    counts = sparse_counts(minibatch)
    encoded = module.encode_counts(counts)[0]
    posterior, q_own = module.encode(encoded, own.perturbation, shared[0], own.offset, own.levels)
    z_b = posterior.sample(noise[:n_draws])
    before, after = _with_own(shared, q_own, classes, noise[n_draws:])
    dense = counts.dense()
    mean = module.decode_share(z_b, own.perturbation, before, own.offset, module.of_levels(own.levels))
    factor = module.likelihood.own_factors(dense, mean.mul_(minibatch.library_size.unsqueeze(1)))
    share = module.decode_share(z_b, wanted.perturbation, after, wanted.offset, module.of_levels(wanted.levels))
    information = posterior.kl_to_standard().sum(-1).mean(0)
    return _Decoded(factor.mul_(share)[:, :n], dense[:n], information[:n])


def _undamaged(
    module: CradleModule, minibatch: Minibatch, own: _States, wanted: _States, noise: Tensor, chance: Tensor, n: int
) -> _Decoded:
    """The first ``n`` cells undamaged, by the guide of damage: what is left of their own counts, and lost ones.

    Each draw takes a kind of damage, as probable as the guide says, by ``chance``, (P, N) between 0 and 1.
    """
    guide = module.damage_guide
    assert guide is not None
    counts, evidence = sparse_counts(minibatch).dense(), None
    level, wanted_level = module.of_levels(own.levels), module.of_levels(wanted.levels)
    rates, kept, information = [], torch.zeros(()), torch.zeros(())
    for draw in range(len(noise)):
        before, after = own.of_draw(draw), wanted.of_draw(draw)
        if evidence is None or own.by_draw:
            seen = before.perturbation[0] if own.by_draw else own.perturbation.mean(0)
            evidence = module.damage_evidence(counts, seen, before.offset, own.levels)
        up_to = torch.softmax(evidence.kind + guide.kind_odds, dim=-1).cumsum(-1)
        kind = torch.searchsorted(up_to, chance[draw].unsqueeze(1)).squeeze(1).clamp_max(guide.n_kinds - 1)
        told = guide.of_kind(evidence, kind)
        z_b = (told.q_basal.loc + told.q_basal.scale * noise[draw]).unsqueeze(0)
        share = module.decode_share(z_b, before.perturbation, None, before.offset, level)
        left, lost = told.undamaged(counts, share, module.likelihood)
        expected = left + lost
        if wanted is not own:  # genes move as their shares do
            moved = module.decode_share(z_b, after.perturbation, None, after.offset, wanted_level)
            expected = expected * (moved / share)
        rates.append(expected[:, :n])
        kept = kept + left[0] / len(noise)
        information = information + told.q_basal.kl_to_standard().sum(-1) / len(noise)
    return _Decoded(torch.cat(rates), kept[:n], information[:n])


def _with_own(
    shared: list[Tensor | None], posterior: Gaussian | None, classes: tuple[Tensor, Tensor], noise: Tensor
) -> list[Tensor | None]:
    """z^a from its shared parts, of cells of these classes, (N, C), and of the same cells of others.

    Their own part is the same: what the counts say of a damaged cell, a draw from the prior for one that is to be
    damaged. Both come of standard normal ``noise``, (P, N, K).
    """
    if posterior is None:
        return shared
    damaged = [failed_cells(one).unsqueeze(1) for one in classes]
    own = damaged[0] * posterior.sample(noise) + (1 - damaged[0]) * noise
    return [None if one is None else one + of * own for one, of in zip(shared, damaged, strict=True)]
