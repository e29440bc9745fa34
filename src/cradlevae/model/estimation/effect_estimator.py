"""Effects of conditions from a model's networks: treated minus control, artifact off, with their posterior.

Particles (a draw of the globals with a basal state) come in blocks
(:mod:`cradlevae.model.estimation.integration_design`) until the Monte-Carlo error is met. Count noise is integrated
over, not sampled.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.labels import context_of
from cradlevae.model.estimation.integration_design import (
    DRAWS,
    PARTICLES,
    States,
    deviation_noise,
    draw_effects,
    draw_offsets,
    draw_shifts,
    draw_states,
    residual_freedom,
)
from cradlevae.model.estimation.latent_draws import Basal
from cradlevae.model.estimation.streams import seeded
from cradlevae.model.trained import TrainedModel
from cradlevae.nn.log_expression import expected_log_expression
from cradlevae.utils.names import listed
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array

Scale = Literal["perturbseq", "mean"]
"""log2(1 + 1e4·x/Σx), or raw counts."""

BLOCKS = 8
"""Blocks of particles that are decoded together and that every condition gets: enough to tell their spread."""

MAX_BLOCKS = 192
"""Blocks after which a condition is given up whose error is still above the target."""

COVERED = 0.99
"""Share of the genes whose Monte-Carlo error meets the target."""


@dataclass(frozen=True)
class EffectEstimates:
    """Effects of several conditions.

    Attributes
    ----------
    layers
        ``X`` (mean effect), ``low``, ``high``, ``sd`` and ``mc_error``, (conditions, genes) each.
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
    """
    layers: list[dict[str, Float32Array]] = []
    n_particles: list[int] = []
    above: list[str] = []
    with seeded(seed):
        controls = _Controls(model, scale, basal, batch, seed)
        for row in track_slow(range(len(conditions)), len(conditions), "effects"):
            estimate = _estimate(controls, conditions[row], dosage[row], error)
            layers.append(estimate.layers(credible))
            n_particles.append(estimate.n_particles)
            if estimate.worst > error:
                above.append(conditions[row])
    _warn_of_error(above, error)
    stacked = {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}
    return EffectEstimates(stacked, n_particles)


@dataclass
class _Controls:
    """The states of each block with their expression under control; the same for every condition."""

    model: TrainedModel
    scale: Scale
    basal: Basal
    batch: int | None
    seed: int
    decoded: dict[tuple[str | None, range], tuple[States, Tensor]] = field(default_factory=dict)

    def of_blocks(self, blocks: range, context: str | None) -> tuple[States, Tensor]:
        """States of blocks in a context, and their expression under control, (states, 1, genes)."""
        if (context, blocks) not in self.decoded:
            states = draw_states(self.model, self.basal, self.seed, blocks, context)
            if self.batch is not None:
                states = replace(states, levels=self.model.in_batch(states.levels, self.batch))
            self.decoded[context, blocks] = states, self.expression(states)
        return self.decoded[context, blocks]

    def expression(self, states: States, shift: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """Expected expression of each state under each of its shifts, (states, n, W) → (states, n, genes).

        With the gene effects of each, (states, n, genes), where there are such. Without shifts, under control, it is
        (states, 1, genes).
        """
        basal = states.basal.unsqueeze(1)
        if shift is not None:
            basal = basal.expand(-1, shift.shape[1], -1)
        level = self.model.module.of_levels(states.levels.unsqueeze(1))
        share: Tensor = self.model.module.decode_share(basal, shift, offset=offset, level=level)
        library = states.library_size.unsqueeze(1).expand(share.shape[:2])
        if self.scale == "mean":
            return share.mul_(library.unsqueeze(2))
        flat = expected_log_expression(share.flatten(0, 1), self.model.module.likelihood, library.flatten())
        return flat.view(share.shape)


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

    def layers(self, credible: float) -> dict[str, Float32Array]:
        """Mean, interval and standard deviation of the posterior, and the Monte-Carlo error, (genes,)."""
        mean = self.means.mean(0)
        draws = self.deviations.flatten(0, 1)
        total = draws.square().sum(0)
        noise = deviation_noise() * self.residual / residual_freedom()
        within = (total - noise).clamp_min(0) / len(draws)  # without what the few states add
        # a block's draws deviate from its mean, whose own variance is at most that of independent draws, often less
        posterior = within + torch.minimum(within / (DRAWS - 1), self.means.var(0))
        shrink = torch.where(total > 0, (posterior / total * len(draws)).sqrt(), 0.0)
        low, high = _quantiles(draws, (1 - credible) / 2)
        layers = {
            "X": mean,
            "low": mean + shrink * low,
            "high": mean + shrink * high,
            "sd": posterior.sqrt(),
            "mc_error": self.error,
        }
        return {name: value.numpy() for name, value in layers.items()}


def _estimate(controls: _Controls, condition: str, dosage: Tensor, target: float) -> _Estimate:
    """Add blocks of particles until the target is met."""
    means: list[Tensor] = []
    deviations: list[Tensor] = []
    residual = torch.zeros(len(controls.model.var))
    for start in range(0, MAX_BLOCKS, BLOCKS):
        effect = _block_effects(controls, condition, dosage, range(start, start + BLOCKS))
        for block in effect:
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
    states, control = controls.of_blocks(blocks, context_of(condition))
    shift = draw_shifts(controls.model, dosage, controls.seed, blocks)
    offset = draw_offsets(controls.model, dosage, controls.seed, blocks, controls.model.n_unseen(condition))
    return (controls.expression(states, shift, offset) - control).view(shape)


def _quantiles(draws: Tensor, tail: float) -> tuple[Tensor, Tensor]:
    """The quantiles ``tail`` and 1 − ``tail`` of each gene, (draws, genes) → two (genes,)."""
    ranked = draws.T.contiguous().sort(dim=1).values
    last = ranked.shape[1] - 1
    place = tail * last
    below = min(int(place), last - 1)
    part = place - below
    low = ranked[:, below].lerp(ranked[:, below + 1], part)
    return low, ranked[:, last - below].lerp(ranked[:, last - below - 1], part)


def _warn_of_error(conditions: Sequence[str], target: float) -> None:
    if conditions:
        warnings.warn(
            f"the Monte-Carlo error of the effects of {listed(conditions)} is above {target:g} after "
            f"{MAX_BLOCKS * PARTICLES:,} particles; see layers['mc_error'], or ask for a larger error=",
            stacklevel=4,
        )
