"""Latent states that queries decode: basal states of real controls, draws of the global variables, encoded cells."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.experiment import DataFields
from cradlevae.data.labels import Condition, requested_conditions
from cradlevae.errors import DataError
from cradlevae.model.globals import Globals
from cradlevae.model.trained import TrainedModel
from cradlevae.nn.matmul import matmul_precision
from cradlevae.utils.checks import check_at_least, check_choice
from cradlevae.utils.types import Float32Array

Basal = Literal["controls", "prior"]
"""Where basal states come from: real passing controls (default) or the prior Normal(0, I)."""

PUBLISHED_LIBRARY_SIZE = 10_000.0
"""Library size at which the released evaluation generates, whatever the data's."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with torch's random numbers at ``seed``, without gradients; the caller's stay as they are."""
    check_at_least(0, seed=seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), matmul_precision("float32"):
        torch.manual_seed(seed)
        yield


def check_credible(credible: float) -> None:
    """Raise :class:`DataError` unless this is the probability of an interval."""
    if not 0 < credible < 1:
        raise DataError(f"credible is {credible}; it must lie between 0 and 1, e.g. 0.9")


def canonical_conditions(model: TrainedModel, labels: str | Sequence[str]) -> tuple[Condition, ...]:
    """Canonical names of what a user asked for, in that order, each once.

    Raises
    ------
    DataError
        If nothing is asked for, or a single perturbation is unknown to the model or had no training cells.
    """
    conditions = canonical_names(model.fields, labels, model.perturbations)
    model.dosage(conditions)  # refuses what cannot be predicted
    return conditions


def canonical_names(
    fields: DataFields, labels: str | Sequence[str], perturbations: Collection[str] = ()
) -> tuple[Condition, ...]:
    """The same for labels as the data's fields have them, whatever is known of them."""
    conditions = requested_conditions(
        labels, separator=fields.separator, control_labels=fields.control_labels, perturbations=perturbations
    )
    return tuple(dict.fromkeys(conditions.values()))


def draw_globals(model: TrainedModel, n: int, treatments: Tensor | None = None) -> Globals:
    """Draw M, E and A ``n`` times from the guide; M and E of some ``treatments`` (rows of treatments, int64) or all."""
    return model.module.sample_globals(model.module.draw_noise(n, treatments), treatments)


def draw_condition(model: TrainedModel, dosage: Tensor, n: int) -> tuple[Globals, Tensor]:
    """Draw ``n`` times what a condition of dosages (T,) needs: the globals of its treatments, and its z^p, (n, W)."""
    treatments = torch.nonzero(dosage).squeeze(1)
    draw = draw_globals(model, n, treatments)
    return draw, torch.einsum("m,nmk->nk", dosage[treatments], draw.shift).expand(n, -1)


def draw_basal(
    model: TrainedModel, shape: tuple[int, ...], basal: Basal, generator: np.random.Generator
) -> tuple[Tensor, Float32Array]:
    """Basal states, (*shape, K), and the library sizes of the controls that they come from, (*shape,)."""
    check_choice("basal", basal, ("controls", "prior"))
    bank = model.bank()
    chosen = generator.integers(len(bank.library_size), size=shape)
    noise = torch.randn(*shape, model.module.n_latent)
    if basal == "prior":
        return noise, bank.library_size[chosen]
    loc, scale = torch.from_numpy(bank.loc[chosen]), torch.from_numpy(bank.scale[chosen])
    return loc + scale * noise, bank.library_size[chosen]


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


def need_artifact(model: TrainedModel, what: str) -> None:
    """Raise :class:`DataError` if a model has no artifact latent, which is needed to do ``what``."""
    if not model.declaration.artifact:
        raise DataError(f"{model.declaration.name} has no artifact latent, so it cannot {what}; a CradleVAE can")


def artifact_indicator(model: TrainedModel, artifact: Any) -> Tensor:
    """Artifact indicator of a generated cell, (C,), from what a user may write.

    Parameters
    ----------
    model
        The model.
    artifact
        ``False`` (off), ``True`` (every class on), the name of a class or several.

    Raises
    ------
    DataError
        If a named class is unknown, or the model has no artifact to switch on.
    """
    indicator = torch.zeros(len(model.criteria))
    if isinstance(artifact, bool | np.bool_) and not artifact:
        return indicator
    need_artifact(model, "give damaged cells")
    if isinstance(artifact, bool | np.bool_):
        return indicator + 1.0
    for name in [artifact] if isinstance(artifact, str) else artifact:
        if name not in model.criteria:
            raise DataError(f"unknown artifact class {name!r}; known: {', '.join(map(repr, model.criteria))}")
        indicator[model.criteria.index(name)] = 1.0
    return indicator
