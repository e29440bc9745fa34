"""Perturbation labels as people write them, turned into canonical conditions and dosages.

A *condition* is what was done to a cell: ``control``, a single perturbation ``A`` or a combination ``A+B``. Its
canonical name sorts the single perturbations and joins them with ``+``, so ``B_A``, ``A+B`` and ``B+A`` are one
condition.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import numpy as np

from cradlevae.errors import DataError
from cradlevae.utils.types import Float32Array

CONTROL = "control"
"""Canonical name of the unperturbed condition."""

DEFAULT_CONTROLS = ("control", "ctrl", "non-targeting")
"""Labels that mean "unperturbed" unless the caller names others; case does not matter."""


def parse_label(
    label: str, *, separator: str = "+", control_labels: Sequence[str] = DEFAULT_CONTROLS
) -> tuple[str, ...]:
    """Return the single perturbations that a label means, sorted; empty for a control.

    ``A+ctrl`` (GEARS style) is the single ``A``; ``A+A`` (two guide RNAs against one gene) is ``A``.

    Parameters
    ----------
    label
        The label of a cell, e.g. ``"A+B"``.
    separator
        Text between the single perturbations of a combination.
    control_labels
        Labels that mean "unperturbed"; case does not matter.
    """
    controls = {name.casefold() for name in control_labels} | {CONTROL}
    if label.casefold() in controls:
        return ()
    parts = {part.strip() for part in label.split(separator)}
    return tuple(sorted(part for part in parts if part and part.casefold() not in controls))


def condition_name(singles: Iterable[str]) -> str:
    """Return the canonical name of the condition with these single perturbations."""
    return "+".join(sorted(singles)) or CONTROL


def singles_of(condition: str) -> tuple[str, ...]:
    """Return the single perturbations of a canonical condition; empty for ``control``."""
    return () if condition == CONTROL else tuple(condition.split("+"))


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


def closest(name: str, known: Sequence[str]) -> str:
    """Return the end of an error message: the known names that are most similar to ``name``."""
    lowered = {candidate.casefold(): candidate for candidate in known}
    similar = [lowered[key] for key in difflib.get_close_matches(name.casefold(), lowered, n=3, cutoff=0.5)]
    if similar:
        return "; did you mean " + " or ".join(map(repr, similar)) + "?"
    return f"; known: {listed(known, 8)}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names, quoted, for a message; an ellipsis stands for the others."""
    return ", ".join(map(repr, list(names)[:most])) + (", …" if len(names) > most else "")
