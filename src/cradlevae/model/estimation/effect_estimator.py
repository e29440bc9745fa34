"""Effects of conditions from a model's networks: treated minus control, artifact off, with their posterior.

Particles (a draw of the globals with a basal state) come in blocks
(:mod:`cradlevae.model.estimation.integration_design`) until the Monte-Carlo error is met. Count noise is integrated
over, not sampled.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.labels import context_of
from cradlevae.model.estimation.integration_design import (
    DRAWS,
    PARTICLES,
    OffsetPosterior,
    States,
    deviation_noise,
    draw_effects,
    draw_shifts,
    draw_states,
    met,
    residual_freedom,
)
from cradlevae.model.estimation.latent_draws import Basal
from cradlevae.model.estimation.streams import seeded
from cradlevae.model.trained import TrainedModel
from cradlevae.nn.log_expression import NearbyLogExpression
from cradlevae.nn.matmul import matmul_precision
from cradlevae.utils.names import listed
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array

Scale = Literal["perturbseq", "mean"]
"""log2(1 + 1e4·x/Σx), or raw counts."""

BLOCKS = 8
"""Blocks of particles that are decoded together and that every condition gets: enough to tell their spread."""

CONDITIONS = 24
"""Conditions that are decoded together where each has few particles."""

MAX_BLOCKS = 192
"""Blocks after which a condition is given up whose error is still above the target."""

COVERED = 0.99
"""Share of the genes whose Monte-Carlo error meets the target."""


LAYERS = "X", "low", "high", "sd", "mc_error"
"""Mean effect, ends of its interval, standard deviation, and Monte-Carlo error of the mean."""


@dataclass(frozen=True)
class EffectEstimates:
    """Effects of several conditions.

    Attributes
    ----------
    layers
        Those of :data:`LAYERS` that were asked for, (conditions, genes) each.
    n_particles
        Particles of each condition.
    """

    layers: dict[str, Float32Array]
    n_particles: list[int]


def estimate_effects(
    model: TrainedModel,
    conditions: Sequence[str],
    dosage: Tensor,
    *,
    credible: float,
    error: float,
    scale: Scale = "perturbseq",
    basal: Basal = "controls",
    batch: int | None = None,
    seed: int = 0,
    wanted: Collection[str] = LAYERS,
) -> EffectEstimates:
    """Effects of conditions of these dosages, (conditions, T), without what the networks leave of measured effects.

    Parameters
    ----------
    model
        A trained model.
    conditions
        Names of the conditions; states are those of controls of their context, where they have one.
    dosage
        Dosages of the conditions, (conditions, T).
    credible
        Probability of the credible intervals.
    error
        Monte-Carlo standard error to reach on 99 % of the genes.
    scale, basal, seed
        As in :func:`cradlevae.query.effects.effects`.
    batch
        Number of the batch (:attr:`.TrainedModel.columns`) that all states are put into; ``None`` leaves them in
        their own.
    wanted
        Layers to give, some of :data:`LAYERS`.
    """
    layers = {name: np.empty((len(conditions), len(model.var)), dtype=np.float32) for name in wanted}
    n_particles: list[int] = []
    above: list[str] = []
    with seeded(seed), matmul_precision("float32"):
        controls = _Controls(model, scale, basal, batch, seed)
        for row in track_slow(range(len(conditions)), len(conditions), "effects"):
            estimate = _estimate(controls, conditions[row], dosage[row], error)
            for name, value in estimate.layers(credible, wanted).items():
                layers[name][row] = value
            n_particles.append(estimate.n_particles)
            if estimate.worst > error:
                above.append(conditions[row])
    _warn_of_error(above, error)
    return EffectEstimates(layers, n_particles)


class _Controls:
    """The states of each block with their expression under control; the same for every condition."""

    def __init__(self, model: TrainedModel, scale: Scale, basal: Basal, batch: int | None, seed: int) -> None:
        self.model, self.scale, self.basal, self.batch, self.seed = model, scale, basal, batch, seed
        self.offsets = None if model.module.gene_effects is None else OffsetPosterior(model, seed)
        self._of_blocks: dict[tuple[str | None, range], _ControlBlocks] = {}

    def of_blocks(self, blocks: range, context: str | None) -> _ControlBlocks:
        """States of blocks in a context."""
        if (context, blocks) not in self._of_blocks:
            states = draw_states(self.model, self.basal, self.seed, blocks, context)
            if self.batch is not None:
                states = replace(states, levels=self.model.in_batch(states.levels, self.batch))
            self._of_blocks[context, blocks] = _ControlBlocks(self.model, states, self.scale)
        return self._of_blocks[context, blocks]


class _ControlBlocks:
    """States, decoded without a perturbation, and the effects of perturbations on them."""

    def __init__(self, model: TrainedModel, states: States, scale: Scale) -> None:
        self._decoder, self._states = model.module.decoder, states
        self._of_basal = self._decoder.rates_of_basal(states.basal.unsqueeze(1))
        level = model.module.of_levels(states.levels.unsqueeze(1))
        if level is not None:
            self._of_basal = self._of_basal + level
        share = self._share(None, None)[:, 0]
        self._nearby, self._share_of_control = None, share
        if scale == "perturbseq":
            self._nearby = NearbyLogExpression(share, model.module.likelihood, states.library_size)

    def effects(self, shift: Tensor, offset: Tensor | None) -> Tensor:
        """Effect on each state of each of its shifts, (states, n, W), and gene effects → (states, n, genes)."""
        share = self._share(shift, offset)
        if self._nearby is not None:
            return self._nearby.at(share).sub_(self._nearby.value.unsqueeze(1))
        return share.sub_(self._share_of_control.unsqueeze(1)).mul_(self._states.library_size[:, None, None])

    def _share(self, shift: Tensor | None, offset: Tensor | None) -> Tensor:
        """Expected shares of each state, (states, n, genes); n is 1 without shifts."""
        basal = self._states.basal.unsqueeze(1)
        if shift is not None:
            basal = basal.expand(-1, shift.shape[1], -1)
        rates = self._decoder.rates(basal, shift, self._of_basal)
        return torch.softmax(rates if offset is None else rates.add_(offset), dim=-1)


@dataclass(frozen=True)
class _Estimate:
    """What blocks of particles say of the effects of a condition."""

    means: Tensor  # of each block, (blocks, genes)
    deviations: Tensor  # of each block's draws, (blocks, draws, genes)
    residual: Tensor  # sum of squares, (genes,)

    @property
    def n_particles(self) -> int:
        return len(self.means) * PARTICLES

    @property
    def error(self) -> Tensor:
        """Monte-Carlo standard error of the mean over blocks, (genes,)."""
        error: Tensor = self.means.std(0) / len(self.means) ** 0.5
        return error

    @property
    def worst(self) -> float:
        """The error that :data:`COVERED` of the genes keep below."""
        error = self.error
        return float(error.kthvalue(max(1, int(COVERED * len(error)))).values)

    def layers(self, credible: float, wanted: Collection[str] = LAYERS) -> dict[str, Float32Array]:
        """Mean, interval and standard deviation of the posterior, and the Monte-Carlo error, (genes,); those wanted."""
        mean = self.means.mean(0)
        draws = self.deviations.flatten(0, 1)
        total = draws.square().sum(0)
        noise = deviation_noise() * self.residual / residual_freedom()
        within = (total - noise).clamp_min(0) / len(draws)  # without what the few states add
        # a block's draws deviate from its mean, whose own variance is at most that of independent draws, often less
        posterior = within + torch.minimum(within / (DRAWS - 1), self.means.var(0))
        layers = {"X": mean, "sd": posterior.sqrt(), "mc_error": self.error}
        if "low" in wanted or "high" in wanted:
            shrink = torch.where(total > 0, (posterior / total * len(draws)).sqrt(), 0.0)
            low, high = _quantiles(draws, (1 - credible) / 2)
            layers |= {"low": mean + shrink * low, "high": mean + shrink * high}
        return {name: layers[name].numpy() for name in wanted}


def _estimate(controls: _Controls, condition: str, dosage: Tensor, target: float) -> _Estimate:
    """Add blocks of particles until the target is met."""
    means: list[Tensor] = []
    deviations: list[Tensor] = []
    residual = torch.zeros(len(controls.model.var))
    for start in range(0, MAX_BLOCKS, BLOCKS):
        for block in _block_effects(controls, condition, dosage, range(start, start + BLOCKS)):
            means.append(block.mean(0))
            deviation, rest = draw_effects(block)
            deviations.append(deviation)
            residual += rest
        estimate = _Estimate(torch.stack(means), torch.stack(deviations), residual)
        if estimate.worst <= target:
            break
    return estimate


def _block_effects(controls: _Controls, condition: str, dosage: Tensor, blocks: range) -> Tensor:
    """Effect of a condition on each particle of these blocks, (blocks, particles, genes)."""
    shape = len(blocks), PARTICLES, len(controls.model.var)
    if not dosage.any():  # the control
        return torch.zeros(shape)
    shift = draw_shifts(controls.model, dosage.unsqueeze(0), controls.seed, blocks)[:, :, 0]
    offset = _offset(controls, condition, dosage, blocks)
    states = controls.of_blocks(blocks, context_of(condition))
    return states.effects(met(shift), None if offset is None else met(offset)).view(shape)


def _offset(controls: _Controls, condition: str, dosage: Tensor, blocks: range) -> Tensor | None:
    """Draws of what gene effects of a condition add, (blocks, 7, genes)."""
    if controls.offsets is None:
        return None
    return controls.offsets.draws(dosage, blocks, controls.model.n_unseen(condition))


def mean_effects(model: TrainedModel, conditions: Sequence[str], dosage: Tensor, seed: int = 0) -> Float32Array:
    """Effects of many perturbed conditions, from seven particles each and without their spread, (conditions, genes).

    Arguments are those of :func:`estimate_effects`. Conditions that share states go through the decoder together.
    """
    effects = np.empty((len(conditions), len(model.var)), dtype=np.float32)
    contexts = [context_of(name) for name in conditions]
    groups = [np.flatnonzero([one == context for one in contexts]) for context in dict.fromkeys(contexts)]
    chunks = [rows[start : start + CONDITIONS] for rows in groups for start in range(0, len(rows), CONDITIONS)]
    block = range(1)
    with seeded(seed), matmul_precision("float32"):
        controls = _Controls(model, "perturbseq", "controls", None, seed)
        for rows in track_slow(chunks, len(chunks), "effects of all conditions"):
            shift = draw_shifts(model, dosage[rows], seed, block)[0]  # (7, conditions, W): a draw for each state
            drawn = [_offset(controls, conditions[row], dosage[row], block) for row in rows]
            offset = None if drawn[0] is None else torch.cat([one for one in drawn if one is not None]).transpose(0, 1)
            found = controls.of_blocks(block, contexts[rows[0]]).effects(shift, offset)
            effects[rows] = found.mean(0).numpy()
    return effects


def _quantiles(draws: Tensor, tail: float) -> tuple[Tensor, Tensor]:
    """The quantiles ``tail`` and 1 − ``tail`` of each gene, (draws, genes) → two (genes,)."""
    last = len(draws) - 1
    place = tail * last
    below = min(int(place), last - 1)
    part = place - below
    ranked = draws.T.contiguous()
    least, most = (ranked.topk(below + 2, dim=1, largest=largest).values for largest in (False, True))
    return least[:, below].lerp(least[:, below + 1], part), most[:, below].lerp(most[:, below + 1], part)


def _warn_of_error(conditions: Sequence[str], target: float) -> None:
    if conditions:
        warnings.warn(
            f"the Monte-Carlo error of the effects of {listed(conditions)} is above {target:g} after "
            f"{MAX_BLOCKS * PARTICLES:,} particles; see layers['mc_error'], or ask for a larger error=",
            stacklevel=4,
        )
