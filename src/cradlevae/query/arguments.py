"""What a user may write as arguments of a query, checked: conditions, probabilities, artifact classes."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.experiment import DataFields, Experiment
from cradlevae.data.labels import Condition, condition_name, in_context, requested_conditions, singles_of
from cradlevae.errors import DataError
from cradlevae.model.trained import TrainedModel
from cradlevae.utils.checks import shown, texts
from cradlevae.utils.fields import plain
from cradlevae.utils.names import listed
from cradlevae.utils.types import BoolArray

PUBLISHED_LIBRARY_SIZE = 10_000.0
"""Library size at which the released evaluation generates cells, whatever the data's."""


def checked_error(error: Any) -> float:
    """Return the Monte-Carlo error that effects are to reach; :class:`DataError` unless it is a positive number."""
    number = plain(error)
    if not isinstance(number, int | float) or isinstance(number, bool) or not number > 0:
        raise DataError(f"error is {shown(error)}; it must be positive, e.g. 0.02")
    return float(number)


def asked_conditions(
    model: TrainedModel, labels: str | Sequence[str], context: str | None = None
) -> dict[str, Condition]:
    """What a user asks for: a canonical condition for each label as it was written, in that order.

    Parameters
    ----------
    model
        The model.
    labels
        What a user wrote.
    context
        The context that they are asked for in; ``None`` is that of each label, or none.

    Raises
    ------
    DataError
        If nothing is asked for, a label is blank, or a perturbation or the context is unknown to the model or had no
        training cells.
    """
    asked = asked_names(model.fields, labels, model.perturbations)
    context = asked_context(model.fields, model.levels, context)
    if context is not None:
        asked = {label: in_context(condition, context) for label, condition in asked.items()}
    model.dosage(tuple(asked.values()))  # raises for what cannot be predicted
    return asked


def asked_names(
    fields: DataFields, labels: str | Sequence[str], perturbations: Collection[str] = ()
) -> dict[str, Condition]:
    """Canonical conditions of labels by what was written, whatever a model knows of them.

    Parameters
    ----------
    fields
        Separator and control labels of the data.
    labels
        What a user wrote.
    perturbations
        Single perturbations that are known, whose names may hold a separator.
    """
    return requested_conditions(
        labels,
        separator=fields.separator,
        control_labels=fields.control_labels,
        perturbations=perturbations,
        guides=fields.guides_key is not None,
    )


def asked_level(
    fields: DataFields, levels: Mapping[str, Sequence[str]], role: Literal["batch", "context"], level: Any
) -> str | None:
    """The batch or context that a user asks for; ``None`` where none is.

    Parameters
    ----------
    fields
        Columns of the data.
    levels
        Known batches and contexts by column.
    role
        Which of the two it is.
    level
        What a user wrote: a name, or a number of a lane.

    Raises
    ------
    DataError
        If there is no such column, or it has no such category; the message lists those that there are.
    """
    if level is None:
        return None
    key = fields.batch_key if role == "batch" else fields.context_key
    if key is None:
        raise DataError(
            f"{role} is {shown(level)}, but the model knows no {'batches' if role == 'batch' else 'contexts'}: it was "
            f"trained without {role}_key; leave {role} out"
        )
    number = plain(level)
    if isinstance(number, bool) or not isinstance(number, str | int):
        raise DataError(f"{role} is {shown(level)}; it must be the name of a {role} of obs[{key!r}]")
    if str(number) not in levels[key]:
        raise DataError(f"unknown {role} {str(number)!r} of obs[{key!r}]; known: {listed(levels[key], 8)}")
    return str(number)


def asked_context(fields: DataFields, levels: Mapping[str, Sequence[str]], context: Any) -> str | None:
    """The context that a user asks for, as :func:`asked_level`; ``None`` also where there is one only."""
    known = asked_level(fields, levels, "context", context)
    return known if known is not None and len(levels[str(fields.context_key)]) > 1 else None


def asked_batch(model: TrainedModel, batch: Any) -> int | None:
    """Number of the batch that a user asks for among the levels of a model; ``None`` where none is, or there is one.

    Raises
    ------
    DataError
        If the batch is unknown, or no training cell was in it.
    """
    name = asked_level(model.fields, model.levels, "batch", batch)
    column, effects = model.column("batch"), model.module.level_effects
    if name is None or column is None:
        return None
    number = column.number(name)
    if effects is not None and effects.n_cells[number] == 0:
        trained = [level for level in column.levels if effects.n_cells[column.number(level)] > 0]
        raise DataError(
            f"no training cell is in the batch {name!r}, so the model knows nothing of it; known: {listed(trained, 8)}"
        )
    return number


def answerable_cells(model: TrainedModel, data: Experiment, needed: BoolArray, otherwise: str) -> BoolArray:
    """Cells whose perturbations had training cells, and contexts controls; a warning names those that are left out.

    Parameters
    ----------
    model, data
        The model, and cells as it reads them.
    needed
        Cells of which at least one must be answerable, (cells,).
    otherwise
        What follows where none is, for the message.

    Raises
    ------
    DataError
        If none of these cells is answerable.
    """
    answerable = set(model.answerable(data.conditions))
    able = np.array([name in answerable for name in data.conditions])
    known = np.asarray(able[data.condition])
    if not (known & needed).any():
        raise DataError(f"none of the cells has a perturbation with training cells, so {otherwise}")
    if not known.all():
        names = [name for name, can in zip(data.conditions, able, strict=True) if not can]
        warnings.warn(
            f"{int((~known).sum())} cells are left out, because a part of their perturbation had no training cells, "
            f"or their context no training controls: {listed(names)}",
            stacklevel=4,
        )
    return known


def never_alone(model: TrainedModel, conditions: Iterable[Condition]) -> list[str]:
    """Single perturbations of some conditions that no training cell has alone, in any context."""
    singles = dict.fromkeys(single for condition in conditions for single in singles_of(condition))
    return [single for single in singles if str(condition_name((single,))) not in model.n_cells]


def need_artifact(model: TrainedModel, what: str) -> None:
    """Raise :class:`DataError` if a model has no artifact latent, which is needed to do ``what``."""
    if not model.declaration.artifact:
        raise DataError(f"{model.declaration.name} has no artifact latent, so it cannot {what}; a CradleVAE can")


def need_damaged_cells(model: TrainedModel, what: str) -> None:
    """Raise :class:`DataError` if no training cell had an artifact, which is needed to do ``what``."""
    if not model.trained_criteria:
        columns = ", ".join(map(repr, model.criteria))
        raise DataError(f"no training cell failed quality control (obs: {columns}), so the model cannot {what}")


def artifact_indicator(model: TrainedModel, artifact: Any) -> Tensor:
    """Artifact indicator of a generated cell, (C,), from what a user may write.

    Parameters
    ----------
    model
        The model.
    artifact
        ``False`` (off), ``True`` (every class on that training cells had), the name of a class or several.

    Raises
    ------
    DataError
        If a named class is unknown or had no training cells, or the model has no artifact to switch on.
    """
    indicator = torch.zeros(len(model.criteria))
    switch = plain(artifact)
    if switch is False:
        return indicator
    if switch is not True and (isinstance(switch, int | float) or not isinstance(artifact, Iterable)):
        raise DataError(f"artifact is {shown(artifact)}; it must be true or false, or the names of artifact classes")
    need_artifact(model, "give damaged cells")
    need_damaged_cells(model, "give damaged cells")
    classes = model.trained_criteria if switch is True else texts("artifact", artifact)
    if not classes:
        raise DataError("artifact names no class; use artifact=False for artifact-free cells")
    for name in classes:
        if name not in model.criteria:
            raise DataError(f"unknown artifact class {name!r}; known: {', '.join(map(repr, model.criteria))}")
        if name not in model.trained_criteria:
            raise DataError(
                f"no training cell had the artifact class {name!r}, so the model knows nothing of it; "
                f"known: {', '.join(map(repr, model.trained_criteria))}"
            )
        indicator[model.criteria.index(name)] = 1.0
    return indicator
