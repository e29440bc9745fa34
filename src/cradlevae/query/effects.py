"""Effects of perturbations free of artifacts, with credible intervals (average treatment effects, ATE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cradlevae.data.labels import CONTROL, Condition
from cradlevae.model.estimation.effect_estimator import Scale, estimate_effects
from cradlevae.model.estimation.latent_draws import Basal, draw_condition
from cradlevae.model.estimation.streams import reseed, seeded
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import PUBLISHED_LIBRARY_SIZE, asked_batch, asked_conditions, checked_error
from cradlevae.utils.checks import check_choice, flag, probability, real_number, seed_number, whole_number
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array

TARGET_ERROR = {"perturbseq": 0.02, "mean": float("inf")}
"""Default Monte-Carlo error: in log2 units; raw counts have no scale of their own, so no target."""


def effects(
    model: TrainedModel,
    perturbations: str | Sequence[str],
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
        the states is taken out of all three) and ``mc_error`` (Monte-Carlo standard error of ``X``);
        ``obs["n_particles"]``; where a context is asked for, ``obs["context"]``, and ``obs["measured_in_context"]``:
        whether all parts of the condition had training cells there.

    Raises
    ------
    DataError
        If a perturbation is unknown or had no training cells, or the batch or the context is unknown.
    """
    credible, seed, residual = probability("credible", credible), seed_number(seed), flag("residual", residual)
    check_choice("scale", scale, ("perturbseq", "mean"))
    check_choice("basal", basal, ("controls", "prior"))
    target = TARGET_ERROR[scale] if error is None else checked_error(error)
    asked = asked_conditions(model, perturbations, context)
    conditions = tuple(dict.fromkeys(asked.values()))
    dosage = model.dosage(conditions)
    estimates = estimate_effects(
        model, conditions, dosage, credible=credible, error=target, scale=scale, basal=basal,
        batch=asked_batch(model, batch), seed=seed,
    )  # fmt: skip
    layers = estimates.layers
    obs = pd.DataFrame({"n_particles": estimates.n_particles}, index=pd.Index(conditions, name="perturbation"))
    if any(condition.context is not None for condition in conditions):
        obs["context"] = [condition.context or "" for condition in conditions]
        obs["measured_in_context"] = [model.n_unseen(condition) == 0 for condition in conditions]
    settings: dict[str, Any] = {"scale": scale, "credible": credible, "error": target, "basal": basal}
    settings |= {name: value for name, value in (("batch", batch), ("context", context)) if value is not None}
    if residual and scale == "perturbseq" and model.residual is not None:
        _add_residual(layers, *model.residual.of(conditions, dosage.numpy()), model.residual.widening, credible)
    x = layers.pop("X")
    effects = ad.AnnData(X=x, obs=obs, var=model.var.copy(), layers=layers, uns={"effects": settings})
    return _as_written(effects, asked)


def _as_written(effects: ad.AnnData, asked: Mapping[str, Condition]) -> ad.AnnData:
    """A row for each label, named as it was written, of effects whose rows are canonical conditions."""
    if list(asked) == list(effects.obs_names):
        return effects
    rows = effects.obs_names.get_indexer(pd.Index(list(asked.values())))
    obs = effects.obs.iloc[rows].set_axis(pd.Index(list(asked), name="perturbation"))
    layers = {name: table[rows] for name, table in effects.layers.items()}
    return ad.AnnData(X=effects.X[rows], obs=obs, var=effects.var, layers=layers, uns=effects.uns)


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
