"""The design of a simulated experiment: which cells get which condition and artifact, and what can be simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cradlevae.data.labels import singles_of
from cradlevae.data.simulation.damage import ARTIFACT_KINDS, CLEAN
from cradlevae.data.simulation.ground_truth import GroundTruth
from cradlevae.errors import DataError
from cradlevae.utils.checks import texts
from cradlevae.utils.fields import plain
from cradlevae.utils.types import IntArray

MIN_GENES = 10
"""Fewest genes that hold a marker of each group and some others."""


RANGES: dict[str, tuple[type, float, float]] = {
    "n_cells": (int, 2, np.inf),
    "n_genes": (int, MIN_GENES, np.inf),
    "n_perturbations": (int, 1, np.inf),
    "n_combinations": (int, 0, np.inf),
    "n_interacting": (int, 0, np.inf),
    "n_latent": (int, 1, np.inf),
    "mask_probability": (float, 0, 1),
    "effect_size": (float, 0, 10),
    "artifact_rate": (float, 0, 1),
    "confounded": (float, -10, 10),
    "n_batches": (int, 1, np.inf),
    "batch_sd": (float, 0, 5),
    "confounding": (float, 0, 1),
    "n_contexts": (int, 1, np.inf),
    "context_sd": (float, 0, 5),
    "control_share": (float, 0, 1),
    "seed": (int, 0, np.inf),
}
"""Type and bounds of the arguments that are one number."""


@dataclass(frozen=True)
class Design:
    """How many cells get which condition, and which of them are damaged.

    Attributes
    ----------
    n_cells, n_perturbations, n_combinations
        Numbers of cells, of single perturbations and of pairs.
    control_share
        Share of the cells that are controls.
    artifact_rate
        Probability that a cell is damaged.
    confounded
        Log odds ratio of being damaged for cells with the first perturbation.
    n_batches, n_contexts
        Numbers of batches and of contexts.
    confounding
        Share of a perturbed condition's cells that are put into the condition's own batch.
    """

    n_cells: int
    n_perturbations: int
    n_combinations: int
    control_share: float
    artifact_rate: float
    confounded: float
    n_batches: int = 1
    n_contexts: int = 1
    confounding: float = 0.0

    @property
    def n_controls(self) -> int:
        """Number of control cells."""
        return max(1, round(self.control_share * self.n_cells))

    def conditions(self, n_conditions: int, rng: np.random.Generator) -> IntArray:
        """Draw the condition of each cell, 0 for controls, (cells,)."""
        treated = 1 + np.arange(self.n_cells - self.n_controls) % (n_conditions - 1)
        return rng.permutation(np.concatenate([np.zeros(self.n_controls, dtype=np.int64), treated]))

    def artifacts(
        self,
        truth: GroundTruth,
        condition: IntArray,
        kinds: tuple[str, ...],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.str_]:
        """Draw the artifact kind of each cell, (cells,)."""
        carries = np.array([truth.perturbations[0] in singles_of(name) for name in truth.conditions])
        odds_ratio = np.where(carries[condition], np.exp(self.confounded), 1.0)
        rate = self.artifact_rate
        damaged = rng.random(self.n_cells) < rate * odds_ratio / (1.0 - rate + rate * odds_ratio)
        chosen = rng.choice(np.array(kinds or (CLEAN,)), self.n_cells)
        return np.where(damaged, chosen, CLEAN)


def checked_numbers(**arguments: Any) -> dict[str, Any]:
    """Return the arguments as Python's numbers.

    Raises
    ------
    DataError
        If one has another type, or lies outside the bounds, than :data:`RANGES` says.
    """
    numbers = {name: plain(value) for name, value in arguments.items()}
    for name, value in numbers.items():
        kind, low, high = RANGES[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and (kind is int or not isinstance(value, float)):
            raise DataError(f"{name}={arguments[name]!r} must be a {'whole ' if kind is int else ''}number")
        if not low <= value <= high or value == np.inf:
            bounds = f"at least {low}" if high == np.inf else f"between {low} and {high}"
            raise DataError(f"{name}={value!r} must be {bounds}")
    return numbers


def check_design(design: Design, n_interacting: int) -> None:
    """Raise :class:`DataError` unless there are enough pairs, and enough cells for every condition."""
    n_pairs = design.n_perturbations * (design.n_perturbations - 1) // 2
    if design.n_combinations > n_pairs:
        raise DataError(
            f"n_combinations={design.n_combinations} exceeds the {n_pairs} pairs of "
            f"{design.n_perturbations} perturbations; lower it or raise n_perturbations"
        )
    if n_interacting > design.n_combinations:
        raise DataError(
            f"n_interacting={n_interacting} exceeds n_combinations={design.n_combinations}; "
            "lower it or raise n_combinations"
        )
    n_conditions = design.n_perturbations + design.n_combinations
    n_treated = design.n_cells - design.n_controls
    if n_treated < n_conditions:
        raise DataError(
            f"n_cells={design.n_cells} with control_share={design.control_share} leaves {n_treated} "
            f"cells for {n_conditions} perturbations and combinations; raise n_cells or lower control_share"
        )
    _check_strata(design, n_treated // n_conditions)


def _check_strata(design: Design, n_cells: int) -> None:
    """Raise :class:`DataError` unless every batch gets controls of every context, and every context ``n_cells`` too."""
    if design.confounding > 0 and design.n_batches == 1:
        raise DataError(
            f"confounding={design.confounding} of perturbations and batches needs several batches; raise n_batches "
            "(confounded= is the argument for perturbations and damage)"
        )
    if design.n_controls < design.n_batches * design.n_contexts:
        raise DataError(
            f"n_batches={design.n_batches} with n_contexts={design.n_contexts}: the {design.n_controls} control cells "
            "do not reach for one in each context of each batch; raise n_cells or control_share, or lower one of them"
        )
    if n_cells < design.n_contexts:
        raise DataError(
            f"n_contexts={design.n_contexts} exceeds the {n_cells} cells of a perturbation; raise n_cells or lower it"
        )


def checked_kinds(artifact_kinds: Sequence[str], artifact_rate: float) -> tuple[str, ...]:
    """Return the kinds of artifact as a tuple; :class:`DataError` where one is unknown or named twice."""
    kinds = texts("artifact_kinds", artifact_kinds)
    if any(kind not in ARTIFACT_KINDS for kind in kinds) or len(set(kinds)) < len(kinds):
        raise DataError(f"artifact_kinds={kinds!r} must name each of {', '.join(ARTIFACT_KINDS)} at most once")
    if not kinds and artifact_rate > 0:
        raise DataError("artifact_kinds is empty; name a kind, or set artifact_rate=0")
    return kinds


def checked_library(library_size: tuple[float, float]) -> tuple[float, float]:
    """Return median and log-sd as Python's numbers; :class:`DataError` unless both are within bounds."""
    try:
        median, spread = map(float, library_size)
    except (TypeError, ValueError):
        raise DataError(f"library_size={library_size!r} must be two numbers: median and log-sd") from None
    if not (1.0 <= median <= 1e6 and 0.0 <= spread <= 3.0):
        raise DataError(f"library_size={library_size!r} must be a median from 1 to 1e6 and a log-sd from 0 to 3")
    return median, spread
