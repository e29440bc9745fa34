"""Latent states drawn from a trained model: basal states of controls, globals from the guide, damage of real cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cradlevae.model.globals import Globals
from cradlevae.model.trained import TrainedModel
from cradlevae.utils.checks import check_choice
from cradlevae.utils.types import Float32Array

Basal = Literal["controls", "prior"]
"""Where basal states come from: real passing controls (default) or the prior Normal(0, I)."""


def draw_globals(model: TrainedModel, n: int, treatments: Tensor | None = None) -> Globals:
    """Draw M, E and A ``n`` times from the guide; M and E of some ``treatments`` (rows of treatments, int64) or all."""
    return model.module.sample_globals(model.module.draw_noise(n, treatments), treatments)


def draw_condition(model: TrainedModel, dosage: Tensor, n: int) -> tuple[Globals, Tensor]:
    """Draw ``n`` times what a condition of dosages (T,) needs: the globals of its treatments, and its z^p, (n, W)."""
    treatments = torch.nonzero(dosage).squeeze(1)
    draw = draw_globals(model, n, treatments)
    return draw, torch.einsum("m,nmk->nk", dosage[treatments], draw.shift).expand(n, -1)


@dataclass(frozen=True)
class BasalStates:
    """Basal states of controls.

    Attributes
    ----------
    state
        z^b, (..., K).
    library_size
        Library sizes of the controls that they come from, (...).
    levels
        Levels of these controls in the columns that cells differ in, (..., columns).
    """

    state: Tensor
    library_size: Float32Array
    levels: Tensor


def draw_basal(
    model: TrainedModel,
    shape: tuple[int, ...],
    basal: Basal,
    generator: np.random.Generator,
    context: str | None = None,
) -> BasalStates:
    """Basal states of controls of a context, or of all (``None``): ``shape`` of them."""
    check_choice("basal", basal, ("controls", "prior"))
    bank = model.bank(context)
    chosen = generator.integers(len(bank.library_size), size=shape)
    state = torch.randn(*shape, model.module.n_latent)
    if basal == "controls":
        state = torch.from_numpy(bank.loc[chosen]) + torch.from_numpy(bank.scale[chosen]) * state
    return BasalStates(state, bank.library_size[chosen], torch.from_numpy(bank.levels[chosen]))


def draw_cell_artifact(model: TrainedModel, artifact: Tensor, indicator: Tensor) -> Tensor:
    """z^a of damaged cells from its shared part, (..., K): each takes the own part of a real failed cell.

    Parameters
    ----------
    model
        A trained model.
    artifact
        Shared part of z^a, (..., K).
    indicator
        Classes that the cells have, (C,); the real cells have one of these at least, where there are such.
    """
    bank = model.damage
    if bank is None:
        return artifact
    rows = np.flatnonzero(bank.artifact[:, indicator.numpy() > 0].any(axis=1))
    rows = rows if len(rows) else np.arange(len(bank.loc))
    chosen = rows[torch.randint(len(rows), artifact.shape[:-1]).numpy()]
    return (
        artifact
        + torch.from_numpy(bank.loc[chosen])
        + torch.from_numpy(bank.scale[chosen]) * torch.randn_like(artifact)
    )
