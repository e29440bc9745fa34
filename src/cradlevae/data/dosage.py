"""Dosages: which treatments, and how much of each, a condition consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cradlevae.data.labels import base_of, context_of, singles_of
from cradlevae.errors import DataError
from cradlevae.utils.names import closest
from cradlevae.utils.types import Float32Array


def dosage_table(conditions: Sequence[str], perturbations: Sequence[str]) -> Float32Array:
    """Return the dosage of each perturbation in each canonical condition, (conditions, perturbations), 0/1.

    Raises
    ------
    DataError
        If a single perturbation of a condition is not among ``perturbations``; the message gives the closest names.
    """
    position = {name: column for column, name in enumerate(perturbations)}
    table = np.zeros((len(conditions), len(perturbations)), dtype=np.float32)
    for row, condition in enumerate(conditions):
        for single in singles_of(condition):
            if single not in position:
                raise DataError(f"unknown perturbation {single!r}{closest(single, perturbations)}")
            table[row, position[single]] = 1.0
    return table


def indicator_table(conditions: Sequence[str], treatments: Sequence[str]) -> Float32Array:
    """Return 1 where a condition is a treatment, (conditions, treatments); rows of unknown conditions are zero."""
    equal = np.array(conditions, dtype=object)[:, None] == np.array(treatments, dtype=object)
    return np.asarray(equal, dtype=np.float32)


def treatment_dosage(
    conditions: Sequence[str],
    perturbations: Sequence[str],
    treatments: Sequence[str] | None = None,
    pairs: Sequence[tuple[str, str]] = (),
    shares: Mapping[str, float] | None = None,
) -> Float32Array:
    """Dosage of each treatment, and of each pair of a treatment and a context, in conditions, (conditions, T).

    Parameters
    ----------
    conditions
        Canonical conditions; those of a context have the pairs of that context.
    perturbations
        Single perturbations.
    treatments
        Conditions that each are a treatment of their own; ``None`` where the single perturbations are the treatments.
    pairs
        Treatments and contexts.
    shares
        Weight of each context in a condition that is no context's; without, such a condition has no pair.
    """
    base = (
        dosage_table(conditions, perturbations)
        if treatments is None
        else indicator_table([base_of(name) for name in conditions], treatments)
    )
    if not pairs:
        return base
    place = {name: column for column, name in enumerate(perturbations if treatments is None else treatments)}
    columns = np.array([place[treatment] for treatment, _ in pairs])
    contexts = [context_of(name) for name in conditions]
    weight = np.array([[float(own == context) for _, context in pairs] for own in contexts], dtype=np.float32)
    if shares is not None:
        of_pair = np.array([shares.get(context, 0.0) for _, context in pairs])
        measured = np.bincount(columns, of_pair, minlength=base.shape[1])[columns]
        spread = np.divide(of_pair, measured, out=np.zeros_like(of_pair), where=measured > 0)
        weight[[own is None for own in contexts]] = spread
    return np.concatenate([base, base[:, columns] * weight], axis=1)
