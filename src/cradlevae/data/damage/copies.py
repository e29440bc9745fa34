"""Damaged copies of cells, of random kinds and severities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cradlevae.data.damage.operators import Surroundings, damage_of, damage_shares
from cradlevae.utils.types import BoolArray, Float32Array, FloatArray, IntArray


@dataclass(frozen=True)
class DamagedCopies:
    """Damaged copies of cells.

    Attributes
    ----------
    counts
        Damaged counts, (copies, genes).
    kind
        Which of the damages each has suffered, (copies,).
    severity
        How hard, from 0 to 1, (copies,).
    mixed
        Whether the counts hold another cell's, (copies,).
    """

    counts: Float32Array
    kind: IntArray
    severity: FloatArray
    mixed: BoolArray


def damaged_copies(
    counts: Float32Array, around: Surroundings, damages: Sequence[str], random: np.random.Generator
) -> DamagedCopies:
    """Damage copies of cells, each by one of the damages.

    Parameters
    ----------
    counts
        Undamaged counts, (copies, genes).
    around
        What they are damaged with.
    damages
        Keys of damage operators; they occur as often as they say.
    random
        Source of randomness.
    """
    operators = [damage_of(key) for key in damages]
    kind = random.choice(len(operators), size=len(counts), p=damage_shares(damages))
    damaged, severity = counts.copy(), np.zeros(len(counts))
    mixed = np.zeros(len(counts), dtype=bool)
    for number, operator in enumerate(operators):
        rows = np.flatnonzero(kind == number)
        if not len(rows):
            continue
        part = Surroundings(around.others[rows], around.profile, around.pools, around.retained)
        damaged[rows], severity[rows] = operator.damaged(counts[rows], part, random)
        mixed[rows] = operator.by_another_cell
    return DamagedCopies(damaged, kind.astype(np.int64), severity, mixed)
