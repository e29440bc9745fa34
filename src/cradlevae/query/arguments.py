"""What a user may write as arguments of a query, checked: conditions, probabilities, artifact classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.experiment import DataFields
from cradlevae.data.labels import condition_name, parse_label
from cradlevae.errors import DataError
from cradlevae.model.trained import TrainedModel

PUBLISHED_LIBRARY_SIZE = 10_000.0
"""Library size at which the released evaluation generates cells, whatever the data's."""


def check_credible(credible: float) -> None:
    """Raise :class:`DataError` unless this is the probability of an interval."""
    if not 0 < credible < 1:
        raise DataError(f"credible is {credible}; it must lie between 0 and 1, e.g. 0.9")


def canonical_conditions(model: TrainedModel, labels: str | Sequence[str]) -> tuple[str, ...]:
    """Canonical names of what a user asked for, in that order, each once.

    Raises
    ------
    DataError
        If nothing is asked for, or a perturbation is unknown to the model or had no training cells.
    """
    conditions = canonical_names(model.fields, labels)
    model.dosage(conditions)  # raises for what cannot be predicted
    return conditions


def canonical_names(fields: DataFields, labels: str | Sequence[str]) -> tuple[str, ...]:
    """Canonical names of labels as the data's fields have them, whatever a model knows of them."""
    labels = [labels] if isinstance(labels, str) else list(labels)
    if not labels:
        raise DataError("no perturbations were given")
    names = (_condition(str(label), fields.separator, fields.control_labels) for label in labels)
    return tuple(dict.fromkeys(names))


def _condition(label: str, separator: str, control_labels: Sequence[str]) -> str:
    # the canonical "A+B" is always understood, beside the data's own separator
    own = parse_label(label, separator=separator, control_labels=control_labels)
    singles = {single for part in own for single in parse_label(part, separator="+", control_labels=control_labels)}
    return condition_name(singles)


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
