"""Effects of perturbations free of artifacts, with credible intervals (average treatment effects, ATE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from cradlevae.data.checks import check_at_least, check_choice
from cradlevae.data.progress import track_slow
from cradlevae.model.trained import TrainedModel
from cradlevae.nn.expectation import TARGET_SUM, expected_log_expression
from cradlevae.nn.likelihood import sample_gamma_poisson
from cradlevae.query.states import (
    PUBLISHED_LIBRARY_SIZE,
    Basal,
    canonical_conditions,
    check_credible,
    draw_basal,
    draw_globals,
    seeded,
)

Scale = Literal["perturbseq", "mean"]
"""log2(1 + 1e4·x/Σx), or raw counts."""


@dataclass(frozen=True)
class _States:
    """Basal states and library sizes at which effects are taken."""

    basal: Tensor  # (states, latent)
    library_size: Tensor  # (states,)


def effects(
    model: TrainedModel,
    perturbations: str | Sequence[str],
    *,
    credible: float = 0.9,
    n_draws: int = 50,
    n_states: int = 64,
    scale: Scale = "perturbseq",
    basal: Basal = "controls",
    seed: int = 0,
) -> ad.AnnData:
    """Effect of each condition on each gene: treated minus control, artifact off.

    Effect = E[log2(1 + 1e4·x/Σx)] under treatment minus the same under control, for the *same* basal states and library
    sizes (paired), those of real passing controls; the scale depends on library size. Count noise is summed over, not
    sampled, with Σx at the library size.

    Parameters
    ----------
    model
        A trained model.
    perturbations
        Conditions, e.g. ``["A+B", "C"]``.
    credible
        Probability of the credible intervals, from the posterior of mask and embedding.
    n_draws
        Posterior draws of mask and embedding.
    n_states
        Basal states (control cells).
    scale
        ``"perturbseq"`` or ``"mean"`` (raw counts).
    basal
        Basal states: of real passing controls, or from the ``"prior"``.
    seed
        Seed of the draws.

    Returns
    -------
    anndata.AnnData
        Conditions × genes: ``X`` the mean effect; layers ``low``, ``high`` (interval) and ``sd`` (posterior).

    Raises
    ------
    DataError
        If a perturbation is unknown or had no training cells.
    """
    check_credible(credible)
    check_choice("scale", scale, ("perturbseq", "mean"))
    check_at_least(1, n_draws=n_draws, n_states=n_states)
    conditions = canonical_conditions(model, perturbations)
    dosage = model.dosage(conditions)
    tail = (1 - credible) / 2
    layers: dict[str, list[npt.NDArray[np.float32]]] = {"X": [], "low": [], "high": [], "sd": []}
    with seeded(seed):
        z_b, library = draw_basal(model, (n_states,), basal, np.random.default_rng(seed))
        states = _States(z_b, torch.from_numpy(library))
        shift = draw_globals(model, n_draws).shift  # (draws, T, latent)
        control = _mean_expression(model, states, torch.zeros(1, model.module.n_latent), scale)
        for row in track_slow(range(len(conditions)), len(conditions), "effects"):
            z_p = torch.einsum("t,dtk->dk", dosage[row], shift)
            drawn = (_mean_expression(model, states, z_p, scale) - control).numpy()  # (draws, genes)
            layers["X"].append(drawn.mean(axis=0))
            layers["low"].append(np.quantile(drawn, tail, axis=0).astype(np.float32))
            layers["high"].append(np.quantile(drawn, 1 - tail, axis=0).astype(np.float32))
            layers["sd"].append(drawn.std(axis=0))
    stacked = {name: np.stack(rows) for name, rows in layers.items()}
    obs = pd.DataFrame(index=pd.Index(conditions, name="perturbation"))
    settings = {
        "scale": scale,
        "credible": credible,
        "n_draws": n_draws,
        "n_states": n_states,
        "basal": basal,
    }
    x = stacked.pop("X")
    return ad.AnnData(X=x, obs=obs, var=model.var.copy(), layers=stacked, uns={"effects": settings})


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
    dosage = torch.cat([torch.zeros(1, len(model.perturbations)), model.dosage(conditions)])
    with seeded(seed):
        means = [
            _sampled_expression(model, treated, n_particles, library_size, scale)
            for treated in track_slow(dosage, len(dosage), "effects")
        ]
    value = torch.stack(means[1:]) - means[0]
    obs = pd.DataFrame(index=pd.Index(conditions, name="perturbation"))
    return ad.AnnData(X=value.numpy(), obs=obs, var=model.var.copy())


def _mean_expression(model: TrainedModel, states: _States, z_p: Tensor, scale: Scale) -> Tensor:
    """Mean over states of the expected expression at each z^p, (draws, latent) → (draws, genes)."""
    n = len(states.basal)
    none = torch.zeros(1, n, model.module.n_latent)
    rows = []
    for shift in z_p:
        share = model.module.decode_share(states.basal.unsqueeze(0), shift.expand(1, n, -1), none)[0]
        if scale == "mean":
            rows.append((share * states.library_size.unsqueeze(1)).mean(0))
        else:
            rows.append(expected_log_expression(share, model.module.concentration, states.library_size).mean(0))
    return torch.stack(rows)


def _sampled_expression(
    model: TrainedModel, dosage: Tensor, n_particles: int, library_size: float, scale: Scale
) -> Tensor:
    """Mean expression of sampled cells, (genes,)."""
    total = torch.zeros(len(model.var))
    for start in range(0, n_particles, 500):
        n = min(500, n_particles - start)
        z_p = torch.einsum("t,ntk->nk", dosage, draw_globals(model, n).shift).unsqueeze(1)
        z_b = torch.randn_like(z_p)
        share = model.module.decode_share(z_b, z_p, torch.zeros_like(z_p))[:, 0]
        counts = sample_gamma_poisson(share * library_size, model.module.concentration)
        if scale == "perturbseq":
            counts = torch.log2(1 + TARGET_SUM * counts / counts.sum(1, keepdim=True).clamp_min(1))
        total += counts.sum(0)
    return total / n_particles
