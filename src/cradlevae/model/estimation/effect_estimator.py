"""Effects of conditions from a model's networks: treated minus control, artifact off, with their posterior.

Particles (a draw of the globals with a basal state) come in blocks
(:mod:`cradlevae.model.estimation.integration_design`) until the Monte-Carlo error is met. Count noise is integrated
over, not sampled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.labels import context_of
from cradlevae.model.estimation.effect_posterior import EffectPosterior
from cradlevae.model.estimation.integration_design import (
    PARTICLES,
    OffsetPosterior,
    States,
    draw_effects,
    draw_shifts,
    draw_states,
    met,
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


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of the effects of conditions, e.g. that of A+B minus those of A and B; or a single effect.

    Attributes
    ----------
    name
        Name of the contrast in messages.
    conditions
        The conditions; states are those of controls of their context, where they have one.
    dosage
        Their dosages, (conditions, T).
    weights
        Their weights.
    parts
        How much of the spread of each condition's effect counts, a number or (genes,).
    """

    name: str
    conditions: tuple[str, ...]
    dosage: Tensor
    weights: tuple[float, ...]
    parts: tuple[float | Float32Array, ...]


def effects_of(
    conditions: Sequence[str], dosage: Tensor, parts: Sequence[float | Float32Array] | None = None
) -> list[Contrast]:
    """The effect of each of some conditions of these dosages, (conditions, T), as a contrast; all parts are 1."""
    of_rows: Sequence[float | Float32Array] = [1.0] * len(conditions) if parts is None else parts
    rows = zip(conditions, dosage, of_rows, strict=True)
    return [Contrast(name, (name,), of_row.unsqueeze(0), (1.0,), (part,)) for name, of_row, part in rows]


@dataclass(frozen=True)
class EffectEstimates:
    """Effects of several conditions, or contrasts of them.

    Attributes
    ----------
    layers
        What was asked for of each, (contrasts, genes).
    n_particles
        Particles of each.
    """

    layers: dict[str, Float32Array]
    n_particles: list[int]


def estimate_effects(
    model: TrainedModel,
    contrasts: Sequence[Contrast],
    layers_of: Callable[[int, EffectPosterior], Mapping[str, Float32Array]],
    *,
    error: float,
    scale: Scale = "perturbseq",
    basal: Basal = "controls",
    batch: int | None = None,
    seed: int = 0,
) -> EffectEstimates:
    """Effects, or contrasts of them, without what the networks leave of measured effects.

    All conditions of a contrast meet the same states and the same draws of what they share.

    Parameters
    ----------
    model
        A trained model.
    contrasts
        What is asked for.
    layers_of
        Given the number of a contrast and what is known of it, returns the arrays that are kept, (genes,) each.
    error
        Monte-Carlo standard error to reach on 99 % of the genes.
    scale, basal, seed
        As in :func:`cradlevae.query.effects.effects`.
    batch
        Number of the batch (:attr:`.TrainedModel.columns`) that all states are put into; ``None`` leaves them in
        their own.
    """
    layers: dict[str, Float32Array] = {}
    n_particles: list[int] = []
    above: list[str] = []
    with seeded(seed), matmul_precision("float32"):
        controls = _Controls(model, scale, basal, batch, seed)
        for row in track_slow(range(len(contrasts)), len(contrasts), "effects"):
            posterior = _estimate(controls, contrasts[row], error)
            for name, value in layers_of(row, posterior).items():
                if row == 0:
                    layers[name] = np.empty((len(contrasts), len(value)), dtype=np.float32)
                layers[name][row] = value
            n_particles.append(posterior.n_blocks * PARTICLES)
            if posterior.worst > error:
                above.append(contrasts[row].name)
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


def _estimate(controls: _Controls, contrast: Contrast, target: float) -> EffectPosterior:
    """Add blocks of particles until the target is met."""
    means: list[Tensor] = []
    centres: list[Tensor] = []
    deviations: list[Tensor] = []
    residual = torch.zeros(len(controls.model.var))
    terms = list(zip(contrast.conditions, contrast.dosage, contrast.weights, contrast.parts, strict=True))
    for start in range(0, MAX_BLOCKS, BLOCKS):
        blocks = range(start, start + BLOCKS)
        effect, spread = torch.zeros(()), torch.zeros(())
        for condition, dosage, weight, part in terms:
            of_condition = weight * _block_effects(controls, condition, dosage, blocks)
            effect, spread = effect + of_condition, spread + torch.as_tensor(part) * of_condition
        for of_effect, of_spread in zip(effect, spread, strict=True):
            means.append(of_effect.mean(0))
            centres.append(of_spread.mean(0))
            deviation, rest = draw_effects(of_spread)
            deviations.append(deviation)
            residual += rest
        posterior = EffectPosterior.of_blocks(torch.stack(means), torch.stack(centres), torch.cat(deviations), residual)
        if posterior.worst <= target:
            break
    return posterior


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

    Dosages are (conditions, T). Conditions that share states go through the decoder together.
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


def _warn_of_error(conditions: Sequence[str], target: float) -> None:
    if conditions:
        warnings.warn(
            f"the Monte-Carlo error of the effects of {listed(conditions)} is above {target:g} after "
            f"{MAX_BLOCKS * PARTICLES:,} particles; see layers['mc_error'], or ask for a larger error=",
            stacklevel=4,
        )
