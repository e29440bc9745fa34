"""Effects of perturbations free of artifacts, with credible intervals (average treatment effects, ATE)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cradlevae.data.labels import listed
from cradlevae.errors import DataError
from cradlevae.model.integration_design import (
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
from cradlevae.model.trained import TrainedModel
from cradlevae.nn.expectation import expected_log_expression
from cradlevae.nn.likelihood import sample_gamma_poisson
from cradlevae.query.states import (
    PUBLISHED_LIBRARY_SIZE,
    Basal,
    canonical_conditions,
    check_credible,
    draw_condition,
    seeded,
)
from cradlevae.utils.checks import check_at_least, check_choice
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array

Scale = Literal["perturbseq", "mean"]
"""log2(1 + 1e4·x/Σx), or raw counts."""


BATCHES = 8
"""Batches of particles that are decoded together and that every condition gets: enough to tell their spread."""

MAX_BATCHES = 192
"""Batches after which a condition is given up whose error is still above the target."""

TARGET_ERROR = {"perturbseq": 0.02, "mean": float("inf")}
"""Default Monte-Carlo error: in log2 units; raw counts have no scale of their own, so no target."""

COVERED = 0.99
"""Share of the genes whose Monte-Carlo error meets the target."""


def effects(
    model: TrainedModel,
    perturbations: str | Sequence[str],
    *,
    credible: float = 0.9,
    error: float | None = None,
    scale: Scale = "perturbseq",
    basal: Basal = "controls",
    residual: bool = True,
    seed: int = 0,
) -> ad.AnnData:
    """Effect of each condition on each gene: treated minus control, artifact off.

    Effect = E[log2(1 + 1e4·x/Σx)] under treatment minus the same under control, for the *same* basal states and library
    sizes (paired), those of real passing controls; the scale depends on library size. Count noise is integrated over,
    not sampled, with Σx at the library size. Particles are added in batches until the Monte-Carlo error is met.

    Parameters
    ----------
    model
        A trained model.
    perturbations
        Conditions, e.g. ``["A+B", "C"]``.
    credible
        Probability of the credible intervals, from the posterior of mask and embedding.
    error
        Monte-Carlo standard error of the effect to reach on 99 % of the genes, in the units of the effect; by default
        0.02 (log2 units), and none for raw counts. Where 4,032 particles do not reach it, a warning says so.
    scale
        ``"perturbseq"`` or ``"mean"`` (raw counts).
    basal
        Basal states: of real passing controls, or from the ``"prior"``.
    residual
        Add what the decoder leaves of the measured effects, for combinations without training cells that of the members
        (:mod:`cradlevae.model.training.residual`), with its uncertainty, and widen the intervals as far as validation
        cells ask for it; without, the effect is what :func:`~cradlevae.query.predict.predict` would generate. It is
        known on the scale ``"perturbseq"`` alone.
    seed
        Seed of the draws.

    Returns
    -------
    anndata.AnnData
        Conditions × genes: ``X`` the mean effect; layers ``low``, ``high`` (interval), ``sd`` (posterior; the noise of
        the states is taken out of all three) and ``mc_error`` (Monte-Carlo standard error of ``X``);
        ``obs["n_particles"]``.

    Raises
    ------
    DataError
        If a perturbation is unknown or had no training cells.
    """
    check_credible(credible)
    check_choice("scale", scale, ("perturbseq", "mean"))
    check_choice("basal", basal, ("controls", "prior"))
    target = TARGET_ERROR[scale] if error is None else error
    if not target > 0:
        raise DataError(f"error is {error}; it must be positive, e.g. 0.02")
    conditions = canonical_conditions(model, perturbations)
    dosage = model.dosage(conditions)
    layers: list[dict[str, Float32Array]] = []
    n_particles: list[int] = []
    above: list[str] = []
    with seeded(seed):
        controls = _Controls(model, scale, basal, seed)
        for row in track_slow(range(len(conditions)), len(conditions), "effects"):
            estimate = _estimate(controls, dosage[row], target)
            layers.append(estimate.layers(credible))
            n_particles.append(estimate.n_particles)
            if estimate.worst > target:
                above.append(conditions[row])
    _warn_of_error(above, target)
    stacked = {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}
    obs = pd.DataFrame({"n_particles": n_particles}, index=pd.Index(conditions, name="perturbation"))
    settings = {"scale": scale, "credible": credible, "error": target, "basal": basal}
    if residual and scale == "perturbseq" and model.residual is not None:
        _add_residual(stacked, *model.residual.of(conditions, dosage.numpy()), model.residual.widening, credible)
    x = stacked.pop("X")
    return ad.AnnData(X=x, obs=obs, var=model.var.copy(), layers=stacked, uns={"effects": settings})


def _add_residual(
    layers: dict[str, Float32Array],
    residual: Float32Array,
    variance: Float32Array,
    part: Float32Array,
    widening: float,
    credible: float,
) -> None:
    """Move the effects by their residuals, and widen their intervals, in place."""
    before = layers["X"].copy()
    layers["X"] += residual
    reach = NormalDist().inv_cdf((1 + credible) / 2) ** 2 * variance
    for name, side in (("low", -1), ("high", 1)):
        away = np.sqrt((part * (layers[name] - before)) ** 2 + reach)
        away *= widening
        layers[name] = layers["X"] + side * away
    layers["sd"] = np.sqrt((part * layers["sd"]) ** 2 + variance)
    layers["sd"] *= widening


@dataclass
class _Controls:
    """The states of each batch with their expression under control; the same for every condition."""

    model: TrainedModel
    scale: Scale
    basal: Basal
    seed: int
    made: dict[range, tuple[States, Tensor]] = field(default_factory=dict)

    def of(self, batches: range) -> tuple[States, Tensor]:
        """States of batches, and their expression under control, (states, 1, genes)."""
        if batches not in self.made:
            states = draw_states(self.model, self.basal, self.seed, batches)
            self.made[batches] = states, self.expression(states)
        return self.made[batches]

    def expression(self, states: States, shift: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """Expected expression of each state under each of its shifts, (states, n, W) → (states, n, genes).

        With the gene effects of each, (states, n, genes), where there are such. Without shifts, under control, it is
        (states, 1, genes).
        """
        basal = states.basal.unsqueeze(1)
        if shift is not None:
            basal = basal.expand(-1, shift.shape[1], -1)
        share: Tensor = self.model.module.decode_share(basal, shift, offset=offset)
        library = states.library_size.unsqueeze(1).expand(share.shape[:2])
        if self.scale == "mean":
            return share.mul_(library.unsqueeze(2))
        flat = expected_log_expression(share.flatten(0, 1), self.model.module.concentration, library.flatten())
        return flat.view(share.shape)


@dataclass(frozen=True)
class _Estimate:
    """What batches of particles tell of the effects of a condition."""

    means: Tensor  # of each batch, (batches, genes)
    deviations: Tensor  # of each batch's draws, (batches, draws, genes)
    residual: Tensor  # sum of squares, (genes,)

    @property
    def n_particles(self) -> int:
        return len(self.means) * PARTICLES

    @property
    def error(self) -> Tensor:
        """Monte-Carlo standard error of the mean over batches, (genes,)."""
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
        # a batch's draws deviate from its mean, whose own variance is at most that of independent draws, often less
        posterior = within + torch.minimum(within / (DRAWS - 1), self.means.var(0))
        shrink = torch.where(total > 0, (posterior / total * len(draws)).sqrt(), 0.0)
        low, high = _quantiles(draws, (1 - credible) / 2)
        found = {
            "X": mean,
            "low": mean + shrink * low,
            "high": mean + shrink * high,
            "sd": posterior.sqrt(),
            "mc_error": self.error,
        }
        return {name: value.numpy() for name, value in found.items()}


def _estimate(controls: _Controls, dosage: Tensor, target: float) -> _Estimate:
    """Add batches of particles until the target is met."""
    means: list[Tensor] = []
    deviations: list[Tensor] = []
    residual = torch.zeros(len(controls.model.var))
    for start in range(0, MAX_BATCHES, BATCHES):
        effect = _batch_effects(controls, dosage, range(start, start + BATCHES))
        for batch in effect:
            means.append(batch.mean(0))
            deviation, rest = draw_effects(batch)
            deviations.append(deviation)
            residual += rest
        estimate = _Estimate(torch.stack(means), torch.stack(deviations), residual)
        if estimate.worst <= target:
            break
    return estimate


def _batch_effects(controls: _Controls, dosage: Tensor, batches: range) -> Tensor:
    """Effect of a condition on each particle of these batches, (batches, particles, genes)."""
    shape = len(batches), PARTICLES, len(controls.model.var)
    if not dosage.any():  # the control
        return torch.zeros(shape)
    states, control = controls.of(batches)
    shift = draw_shifts(controls.model, dosage, controls.seed, batches)
    offset = draw_offsets(controls.model, dosage, controls.seed, batches)
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
            f"{MAX_BATCHES * PARTICLES:,} particles; see layers['mc_error'], or ask for a larger error=",
            stacklevel=3,
        )


def published_effects(
    model: TrainedModel,
    perturbations: str | Sequence[str],
    *,
    n_particles: int = 2500,
    library_size: float = PUBLISHED_LIBRARY_SIZE,
    scale: Scale = "perturbseq",
    seed: int = 0,
) -> ad.AnnData:
    """Effects as the released evaluation takes them, kept for comparison with published numbers.

    Counts are sampled at one library size from basal states of the prior; treated and control are drawn
    independently of each other.

    Parameters
    ----------
    model
        A trained model.
    perturbations
        Conditions.
    n_particles
        Cells sampled for each condition.
    library_size
        Library size of all of them.
    scale
        ``"perturbseq"`` or ``"mean"`` (raw counts).
    seed
        Seed of the draws.

    Returns
    -------
    anndata.AnnData
        Conditions × genes, ``X`` the effect.
    """
    check_choice("scale", scale, ("perturbseq", "mean"))
    check_at_least(1, n_particles=n_particles)
    conditions = canonical_conditions(model, perturbations)
    dosage = torch.cat([torch.zeros(1, len(model.treatments)), model.dosage(conditions)])
    with seeded(seed):
        means = [
            _sampled_expression(model, treated, n_particles, library_size, scale)
            for treated in track_slow(dosage, len(dosage), "effects")
        ]
    value = torch.stack(means[1:]) - means[0]
    obs = pd.DataFrame(index=pd.Index(conditions, name="perturbation"))
    return ad.AnnData(X=value.numpy(), obs=obs, var=model.var.copy())


def _sampled_expression(
    model: TrainedModel, dosage: Tensor, n_particles: int, library_size: float, scale: Scale
) -> Tensor:
    """Mean expression of sampled cells, (genes,)."""
    total = torch.zeros(len(model.var))
    for start in range(0, n_particles, 500):
        n = min(500, n_particles - start)
        z_p = draw_condition(model, dosage, n)[1].unsqueeze(1)
        z_b = torch.randn(n, 1, model.module.n_latent)
        share = model.module.decode_share(z_b, z_p, offset=model.module.offset(dosage.unsqueeze(0)))[:, 0]
        counts = sample_gamma_poisson(share * library_size, model.module.concentration)
        if scale == "perturbseq":
            counts = torch.log2(1 + TARGET_SUM * counts / counts.sum(1, keepdim=True).clamp_min(1))
        total += counts.sum(0)
    return total / n_particles
