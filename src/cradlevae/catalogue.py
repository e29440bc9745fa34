"""All models by name, floors among them: the models that a benchmark can compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from cradlevae.api import CLASSES
from cradlevae.evaluation.floors.model import FloorModel
from cradlevae.evaluation.floors.registry import FLOORS


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be made by its name.

    Attributes
    ----------
    name
        Its key, e.g. ``sams_vae`` or ``shrunk_mean``.
    description
        One line.
    kind
        ``model`` of the family, or ``floor``.
    make
        ``make(adata, split=..., **options)`` makes it, not yet trained; ``train()``, ``effects``, ``predict`` and
        :func:`cradlevae.evaluate` work for all. Options of a floor are the fields of :class:`cradlevae.DataFields`.
    """

    name: str
    description: str
    kind: Literal["model", "floor"]
    make: Callable[..., Any]


def models() -> dict[str, ModelEntry]:
    """Every model of the family by its key, your own declarations included, then every floor.

    Returns
    -------
    dict of str to ModelEntry
        What each is called, one line about it, whether it is a ``model`` or a ``floor``, and what makes one.

    Examples
    --------
    >>> import cradlevae as cv
    >>> cv.models()["sams_vae"].description
    'basal state + sparse additive effect'
    >>> [name for name, entry in cv.models().items() if entry.kind == "model"]
    ['cradle_vae', 'sams_vae', 'svae_plus', 'cpa_vae', 'conditional_vae']
    """
    family = [ModelEntry(key, kind.declaration.description, "model", kind) for key, kind in CLASSES.items()]
    floors = [ModelEntry(name, FLOORS[name].description, "floor", partial(FloorModel, name)) for name in FLOORS]
    return {entry.name: entry for entry in family + floors}
