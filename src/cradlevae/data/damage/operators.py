"""Damage operators: each damages copies of cells as one physical process does, as hard as its prior says.

The priors are wide and generic. They are those of what a laboratory can do to a cell, not of a data set. A new operator
is a class with a ``key`` under :func:`register_damage`; a model is told which ones to use by ``damages=``.

Shapes: N cells, G genes. Counts are whole numbers in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from cradlevae.errors import DataError
from cradlevae.utils.names import closest
from cradlevae.utils.types import BoolArray, Float32Array, FloatArray

SEEN = 0.6
"""Share of ambient copies whose pool is one that the failed cells of the experiment show, where they show any."""

FEWEST, MOST = 0.02, 0.98
"""Bounds of shares of counts that are kept or foreign."""


@dataclass(frozen=True)
class Surroundings:
    """What cells are damaged with.

    Attributes
    ----------
    others
        Counts of another, random cell for each copy, (N, G).
    profile
        Mean profile of the cells, (G,), sums to 1.
    pools
        Profiles of ambient RNA that failed cells show, (pools, G); none where they show none.
    retained
        Genes whose RNA a leaking cell retains, for instance mitochondrial ones, (G,).
    """

    others: Float32Array
    profile: FloatArray
    pools: Float32Array
    retained: BoolArray


class Damage(ABC):
    """One way to damage a cell."""

    key: ClassVar[str]
    """Name in settings, tables and files."""

    description: ClassVar[str]
    """One line."""

    severity: ClassVar[str]
    """What the severity is the share of, from 0 to 1."""

    share: ClassVar[float] = 0.1
    """How often it is drawn, beside the others."""

    by_another_cell: ClassVar[bool] = False
    """Whether the foreign counts are those of another cell, its second parent."""

    harmless: ClassVar[bool] = False
    """Whether the counts stay as they are."""

    @abstractmethod
    def damaged(
        self, counts: Float32Array, around: Surroundings, random: np.random.Generator
    ) -> tuple[Float32Array, FloatArray]:
        """Damage copies of cells.

        Parameters
        ----------
        counts
            Undamaged counts, (N, G); they are left as they are.
        around
            What they are damaged with.
        random
            Source of randomness.

        Returns
        -------
        counts
            Damaged counts, (N, G).
        severity
            Severity of each copy, (N,).
        """


DAMAGES: dict[str, Damage] = {}
"""Every damage operator by its key."""

Kind = TypeVar("Kind", bound=type[Damage])


def register_damage(kind: Kind) -> Kind:
    """Make a damage operator known by its key; a class decorator.

    Raises
    ------
    DataError
        If the key is taken.
    """
    if kind.key in DAMAGES:
        raise DataError(f"a damage {kind.key!r} is already registered; choose another key")
    DAMAGES[kind.key] = kind()
    return kind


def damage_of(key: str) -> Damage:
    """The damage operator with a key; :class:`DataError` if there is none."""
    if key not in DAMAGES:
        raise DataError(f"unknown damage {key!r}{closest(key, list(DAMAGES))}; known: {', '.join(DAMAGES)}")
    return DAMAGES[key]


def damage_shares(keys: Sequence[str]) -> FloatArray:
    """How often copies suffer each of some damages, (damages,); they sum to 1."""
    often = np.array([damage_of(key).share for key in keys])
    return np.asarray(often / often.sum())


def thinned(counts: Float32Array, keep: FloatArray, random: np.random.Generator) -> Float32Array:
    """Keep each molecule with a probability, which broadcasts to (N, G)."""
    left = np.zeros_like(counts)
    present = counts > 0
    chance = np.broadcast_to(keep, counts.shape)[present]
    left[present] = random.binomial(counts[present].astype(np.int64), chance)
    return left


def _some(low: float, high: float, n: int, random: np.random.Generator) -> FloatArray:
    """Uniform numbers, (n, 1)."""
    return random.uniform(low, high, (n, 1))


@register_damage
class FewCounts(Damage):
    """Most molecules are lost, whatever their gene: the share that is left is log-uniform."""

    key: ClassVar[str] = "few_counts"
    description: ClassVar[str] = "molecules are lost at random"
    severity: ClassVar[str] = "share of the cell's molecules that are lost"
    share: ClassVar[float] = 0.32

    FEWEST: ClassVar[float] = 0.05
    """Of cells that keep less, so little is left that copies of them teach nothing."""

    def damaged(
        self, counts: Float32Array, around: Surroundings, random: np.random.Generator
    ) -> tuple[Float32Array, FloatArray]:
        """Thin the counts."""
        keep = np.exp(_some(np.log(self.FEWEST), np.log(MOST), len(counts), random))
        return thinned(counts, keep, random), 1 - keep[:, 0]


@register_damage
class Doublet(Damage):
    """Two whole cells in one droplet."""

    key: ClassVar[str] = "doublet"
    description: ClassVar[str] = "the counts of another cell are added"
    severity: ClassVar[str] = "share of the counts that are another cell's"
    share: ClassVar[float] = 0.26
    by_another_cell: ClassVar[bool] = True

    def damaged(
        self, counts: Float32Array, around: Surroundings, random: np.random.Generator
    ) -> tuple[Float32Array, FloatArray]:
        """Add another cell."""
        both = counts + around.others
        return both, around.others.sum(axis=1) / np.maximum(both.sum(axis=1), 1)


@register_damage
class PartialDoublet(Damage):
    """Two cells in one droplet, of which both or one have lost some of their molecules."""

    key: ClassVar[str] = "partial_doublet"
    description: ClassVar[str] = "a part of another cell's counts is added, to all or a part of its own"
    severity: ClassVar[str] = "share of the counts that are another cell's"
    share: ClassVar[float] = 0.05
    by_another_cell: ClassVar[bool] = True

    def damaged(
        self, counts: Float32Array, around: Surroundings, random: np.random.Generator
    ) -> tuple[Float32Array, FloatArray]:
        """Add a part of another cell."""
        n = len(counts)
        keep = np.where(random.random((n, 1)) < 0.5, 1.0, _some(0.2, 1.0, n, random))
        own, other = thinned(counts, keep, random), thinned(around.others, _some(0.1, 1.0, n, random), random)
        both = own + other
        return both, other.sum(axis=1) / np.maximum(both.sum(axis=1), 1)


@register_damage
class Ambient(Damage):
    """Some of the counts are replaced by RNA from outside of the cell.

    Its pool is one that the failed cells of the experiment show, or any other: the mean profile, flattened and skewed.
    """

    key: ClassVar[str] = "ambient"
    description: ClassVar[str] = "RNA from outside of the cell takes the place of its own"
    severity: ClassVar[str] = "share of the counts that are ambient"
    share: ClassVar[float] = 0.24

    def damaged(
        self, counts: Float32Array, around: Surroundings, random: np.random.Generator
    ) -> tuple[Float32Array, FloatArray]:
        """Replace counts, as many as are lost or more or less."""
        n = len(counts)
        own = thinned(counts, 1 - _some(FEWEST, MOST, n, random), random)
        lost = (counts.sum(axis=1) - own.sum(axis=1))[:, None]
        lost = np.where(random.random((n, 1)) < 0.7, lost, lost * _some(0.2, 2.0, n, random))
        foreign = random.poisson(lost * self.pools(n, around, random))
        both = np.asarray(own + foreign, dtype=np.float32)
        return both, foreign.sum(axis=1) / np.maximum(both.sum(axis=1), 1)

    def pools(self, n: int, around: Surroundings, random: np.random.Generator) -> FloatArray:
        """Random profiles of ambient RNA, (n, G), which sum to 1."""
        skew = random.normal(size=(n, len(around.profile)))
        pools = (around.profile + 1e-9) ** _some(0.0, 1.2, n, random) * np.exp(skew * _some(0.0, 2.5, n, random))
        if len(around.pools):
            seen = random.random(n) < SEEN
            chosen = around.pools[random.integers(len(around.pools), size=int(seen.sum()))]
            pools[seen] = chosen * np.exp(skew[seen] * _some(0.0, 0.3, int(seen.sum()), random))
        return np.asarray(pools / pools.sum(axis=1, keepdims=True))


@register_damage
class Dying(Damage):
    """Cytoplasmic RNA leaks out, of some genes more than of others; that of the retained genes stays."""

    key: ClassVar[str] = "dying"
    description: ClassVar[str] = "cytoplasmic RNA is lost, of some genes more than of others"
    severity: ClassVar[str] = "share of the cell's molecules that are lost"
    share: ClassVar[float] = 0.06

    def damaged(
        self, counts: Float32Array, around: Surroundings, random: np.random.Generator
    ) -> tuple[Float32Array, FloatArray]:
        """Thin the counts of each gene as its own chance says."""
        n, n_genes = counts.shape
        uneven = random.normal(size=(n, n_genes)) * _some(0.0, 2.0, n, random)
        keep = 1 / (1 + np.exp(-(1.5 * random.normal(size=(n, 1)) + uneven)))
        keep = np.where(around.retained, 1.0, keep)
        left = thinned(counts, keep, random)
        return left, 1 - left.sum(axis=1) / np.maximum(counts.sum(axis=1), 1)


@register_damage
class FewMolecules(Damage):
    """All counts are copies of a few molecules, as after a poor reverse transcription."""

    key: ClassVar[str] = "few_molecules"
    description: ClassVar[str] = "the counts are copies of a few of the cell's molecules"
    severity: ClassVar[str] = "share of the cell's molecules that were never amplified"
    share: ClassVar[float] = 0.02

    def damaged(
        self, counts: Float32Array, around: Surroundings, random: np.random.Generator
    ) -> tuple[Float32Array, FloatArray]:
        """Draw as many counts from a part of the molecules."""
        keep = np.exp(_some(np.log(FEWEST), np.log(0.5), len(counts), random))
        molecules = thinned(counts, keep, random)
        copies = counts.sum(axis=1) / np.maximum(molecules.sum(axis=1), 1)
        return random.poisson(molecules * copies[:, None]).astype(np.float32), 1 - keep[:, 0]


@register_damage
class Several(Damage):
    """One damage after another: two cells, or ambient RNA, and then lost molecules."""

    key: ClassVar[str] = "several"
    description: ClassVar[str] = "a part of another cell or ambient RNA is added, and molecules are lost"
    severity: ClassVar[str] = "share of the counts that are foreign"
    share: ClassVar[float] = 0.03

    def damaged(
        self, counts: Float32Array, around: Surroundings, random: np.random.Generator
    ) -> tuple[Float32Array, FloatArray]:
        """Damage the cells twice or three times."""
        n = len(counts)
        first = DAMAGES["partial_doublet"], DAMAGES["ambient"]
        damaged, severity = first[0].damaged(counts, around, random)
        polluted, of_pool = first[1].damaged(damaged, around, random)
        both = random.random((n, 1)) < 0.5
        damaged = np.where(both, polluted, damaged)
        severity = np.where(both[:, 0], 1 - (1 - severity) * (1 - of_pool), severity)
        return thinned(damaged, _some(0.1, 1.0, n, random), random), severity


@register_damage
class Unharmed(Damage):
    """Nothing happened: the cell failed quality control for another reason."""

    key: ClassVar[str] = "none"
    description: ClassVar[str] = "the cell is not damaged"
    severity: ClassVar[str] = "0"
    share: ClassVar[float] = 0.02
    harmless: ClassVar[bool] = True

    def damaged(
        self, counts: Float32Array, around: Surroundings, random: np.random.Generator
    ) -> tuple[Float32Array, FloatArray]:
        """Leave the counts as they are."""
        return counts.copy(), np.zeros(len(counts))
