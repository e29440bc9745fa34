"""Effects of perturbations free of artifacts, with credible intervals (average treatment effects, ATE)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import pandas as pd
import torch
from torch import Tensor

from cradlevae.data.labels import CONTROL, Condition, base_of
from cradlevae.model.estimation.effect_estimator import Contrast, Scale, effects_of, estimate_effects
from cradlevae.model.estimation.effect_posterior import LAYERS, EffectPosterior
from cradlevae.model.estimation.effect_residual import EffectResidual
from cradlevae.model.estimation.latent_draws import Basal, draw_condition
from cradlevae.model.estimation.streams import reseed, seeded
from cradlevae.model.estimation.two_groups import ALIKE, TwoGroups
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import (
    PUBLISHED_LIBRARY_SIZE,
    asked_batch,
    asked_conditions,
    asked_names,
    checked_error,
    never_alone,
)
from cradlevae.query.effects_table import targets_of
from cradlevae.utils.checks import check_choice, flag, probability, real_number, seed_number, whole_number
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.names import listed
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array

TARGET_ERROR = {"perturbseq": 0.02, "mean": float("inf")}
"""Default Monte-Carlo error: in log2 units; raw counts have no scale of their own, so no target."""


def effects(
    model: TrainedModel,
    perturbations: str | Sequence[str] | None = None,
    *,
    credible: float = 0.9,
    error: float | None = None,
    scale: Scale = "perturbseq",
    basal: Basal = "controls",
    residual: bool = True,
    batch: str | None = None,
    context: str | None = None,
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
        Conditions, e.g. ``["A+B", "C"]``; ``None`` for all that have training cells.
    credible
        Probability of the credible intervals.
    error
        Monte-Carlo standard error of the effect to reach on 99 % of the genes, in the units of the effect; by default
        0.02 (log2 units), and none for raw counts. Where 4,032 particles do not reach it, a warning says so.
    scale
        ``"perturbseq"`` or ``"mean"`` (raw counts).
    basal
        Basal states: of real passing controls, or from the ``"prior"``.
    residual
        Add what the decoder leaves of the measured effects, for combinations without training cells that of their parts
        (:mod:`cradlevae.model.training.residual`), with its uncertainty, and widen the intervals as far as validation
        cells ask for it; without, the effect is what :func:`~cradlevae.query.predict.predict` would generate. A model
        without gene effects keeps its effects, and only their intervals are widened by what they leave of the measured
        ones. It is known on the scale ``"perturbseq"`` alone.
    batch
        Experimental batch that treated cells and controls are taken to be in; by default the effect is an average over
        the batches of passing controls.
    context
        Context that the effect is asked for in, e.g. a cell line: that of a perturbation not measured there is what it
        has in the other contexts, on the context's own control expression. By default, an average over contexts.
    seed
        Seed of the draws.

    Returns
    -------
    anndata.AnnData
        Conditions × genes: ``X`` the mean effect; layers ``low``, ``high`` (interval), ``sd`` (posterior; the noise of
        the states is taken out of all three), ``mc_error`` (Monte-Carlo standard error of ``X``) and ``lfsr``, the
        local false sign rate: the probability that the effect has not the sign of ``X``, or is none (0 to ½; Stephens,
        Biostatistics 2017). ``obs["n_particles"]``, and ``obs["n_cells"]``: passing training cells of the condition (in
        the context that is asked for); where a context is asked for, ``obs["context"]``, and
        ``obs["measured_in_context"]``: whether all parts of the condition had training cells there.
        :func:`cradlevae.effects_table` makes a table of it.

    Raises
    ------
    DataError
        If a perturbation is unknown or had no training cells, or the batch or the context is unknown.
    """
    check_choice("scale", scale, ("perturbseq", "mean"))
    check_choice("basal", basal, ("controls", "prior"))
    settings = Settings.checked(
        model, credible=credible, error=error, scale=scale, basal=basal, residual=residual, batch=batch,
        context=context, seed=seed,
    )  # fmt: skip
    asked = asked_conditions(model, measured_conditions(model) if perturbations is None else perturbations, context)
    conditions = tuple(dict.fromkeys(asked.values()))
    _warn_of_parts(model, conditions)
    dosage = model.dosage(conditions)
    answer = contrast_effects(model, effects_of(conditions, dosage, settings.parts(conditions, dosage)), settings)
    answer.obs["n_cells"] = [n_cells_of(model, condition) for condition in conditions]
    if any(condition.context is not None for condition in conditions):
        answer.obs["context"] = [condition.context or "" for condition in conditions]
        answer.obs["measured_in_context"] = [model.n_unseen(condition) == 0 for condition in conditions]
    answer = _as_written(answer, asked)
    answer.uns["targets"] = targets_of(model.fields, model.var, asked)
    return answer


@dataclass(frozen=True)
class Settings:
    """How effects are estimated; see :func:`effects` for the words.

    Attributes
    ----------
    credible, scale, basal, seed
        As there.
    error
        The Monte-Carlo error to reach.
    batch, batch_name
        Number of the batch, and its name as it was asked for; ``None`` for none.
    context
        The context as it was asked for; ``None`` for none.
    residual
        What is added to the decoder's effects; ``None`` for nothing.
    """

    credible: float
    error: float
    scale: Scale
    basal: Basal
    batch: int | None
    batch_name: str | None
    context: str | None
    residual: EffectResidual | None
    seed: int

    @classmethod
    def checked(
        cls,
        model: TrainedModel,
        *,
        credible: float,
        error: float | None,
        seed: int,
        batch: str | None = None,
        context: str | None = None,
        scale: Scale = "perturbseq",
        basal: Basal = "controls",
        residual: bool = True,
    ) -> Settings:
        """What a user asks for; :class:`DataError` where it is not allowed."""
        added = flag("residual", residual) and scale == "perturbseq"
        return cls(
            credible=probability("credible", credible),
            error=TARGET_ERROR[scale] if error is None else checked_error(error),
            scale=scale,
            basal=basal,
            batch=asked_batch(model, batch),
            batch_name=batch,
            context=context,
            residual=model.residual if added else None,
            seed=seed_number(seed),
        )

    def parts(self, conditions: Sequence[str], dosage: Tensor) -> Sequence[float | Float32Array]:
        """How much of the decoder's spread counts in conditions of these dosages, (conditions, T)."""
        if self.residual is None:
            return [1.0] * len(conditions)
        return self.residual.parts(conditions, dosage.numpy())

    def record(self) -> dict[str, Any]:
        """The settings as they go with an answer."""
        asked = {"batch": self.batch_name, "context": self.context}
        settings = {"scale": self.scale, "credible": self.credible, "error": self.error, "basal": self.basal}
        return settings | {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True)
class Added:
    """What is added to the decoder's effect: mean and variance, (genes,) each; widening and groups of the whole."""

    moved: Float32Array | float = 0.0
    variance: Float32Array | float = 0.0
    widening: float = 1.0
    groups: TwoGroups = ALIKE


def contrast_effects(
    model: TrainedModel,
    contrasts: Sequence[Contrast],
    settings: Settings,
    look: Callable[[int, EffectPosterior, Added], None] | None = None,
) -> ad.AnnData:
    """Contrasts of effects with all layers of :func:`effects`, contrasts × genes; ``obs`` has ``n_particles``.

    ``look`` is shown the number of each contrast, what the decoder knows of it, and what is added to that.
    """

    def layers_of(row: int, posterior: EffectPosterior) -> Mapping[str, Float32Array]:
        residual, one = settings.residual, contrasts[row]
        added = Added()
        if residual is not None:
            moved, variance = residual.of_contrast(one.conditions, one.weights, one.dosage.numpy())
            added = Added(moved, variance, residual.widening, residual.groups(one.conditions))
        if look is not None:
            look(row, posterior, added)
        return posterior.layers(settings.credible, **vars(added))

    estimates = estimate_effects(
        model, contrasts, layers_of, error=settings.error, scale=settings.scale, basal=settings.basal,
        batch=settings.batch, seed=settings.seed,
    )  # fmt: skip
    names = pd.Index([str(one.name) for one in contrasts], name="perturbation")
    obs = pd.DataFrame({"n_particles": estimates.n_particles}, index=names)
    layers = {name: estimates.layers[name] for name in LAYERS}
    x = layers.pop("X")
    return ad.AnnData(X=x, obs=obs, var=model.var.copy(), layers=layers, uns={"effects": settings.record()})


def measured_conditions(model: TrainedModel) -> list[Condition]:
    """All perturbed conditions with training cells that the model can answer for, whatever their context."""
    model.bank()  # an untrained model has none, and says so
    names = [name for name in model.conditions if name != CONTROL and name in model.n_cells]
    conditions = list(asked_names(model.fields, names, model.perturbations).values())
    answerable = set(model.answerable(conditions))
    return [condition for condition in conditions if condition in answerable]


def n_cells_of(model: TrainedModel, condition: Condition) -> int:
    """Passing training cells of a condition, in its context where it has one."""
    return model.n_cells.get(str(condition), 0)


def _warn_of_parts(model: TrainedModel, conditions: Sequence[Condition]) -> None:
    """Warn of perturbations that are asked for alone, or in new combinations, and have no training cells alone."""
    unmeasured = [condition for condition in conditions if base_of(condition) not in model.n_cells]
    if names := never_alone(model, unmeasured):
        warnings.warn(
            f"no training cell has {listed(names)} alone: the effect alone, and in combinations without training "
            "cells, is a guess from other combinations, and its interval may be too narrow",
            stacklevel=4,
        )


def _as_written(effects: ad.AnnData, asked: Mapping[str, Condition]) -> ad.AnnData:
    """A row for each label, named as it was written, of effects whose rows are canonical conditions."""
    if list(asked) == list(effects.obs_names):
        return effects
    rows = effects.obs_names.get_indexer(pd.Index(list(asked.values())))
    obs = effects.obs.iloc[rows].set_axis(pd.Index(list(asked), name="perturbation"))
    layers = {name: table[rows] for name, table in effects.layers.items()}
    return ad.AnnData(X=effects.X[rows], obs=obs, var=effects.var, layers=layers, uns=effects.uns)


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
    n_particles, seed = whole_number("n_particles", n_particles, 1), seed_number(seed)
    library_size = real_number("library_size", library_size, above=0)
    asked = asked_conditions(model, perturbations)
    conditions = tuple(dict.fromkeys(asked.values()))
    names = (CONTROL, *conditions)
    dosage = torch.cat([torch.zeros(1, len(model.treatments)), model.dosage(conditions)])
    with seeded(seed):
        means = []
        for name, treated in track_slow(zip(names, dosage, strict=True), len(dosage), "effects"):
            reseed(seed, name)
            means.append(_sampled_expression(model, treated, n_particles, library_size, scale))
    value = torch.stack(means[1:]) - means[0]
    obs = pd.DataFrame(index=pd.Index(conditions, name="perturbation"))
    return _as_written(ad.AnnData(X=value.numpy(), obs=obs, var=model.var.copy()), asked)


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
        counts = model.module.likelihood.sample(share * library_size)
        if scale == "perturbseq":
            counts = torch.log2(1 + TARGET_SUM * counts / counts.sum(1, keepdim=True).clamp_min(1))
        total += counts.sum(0)
    return total / n_particles
