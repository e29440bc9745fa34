"""How many effects are hardly any: the two-groups model of many effects beside each other.

The posterior of an effect has a normal shape about its mean, which is right on average over effects. Most genes do
hardly anything under most perturbations, though, and in them a mean that is away from 0 is noise more often than that
shape says. Over many effects this shows: of means over their standard deviations, z, a narrow group stands out beside
a wide one, z ~ p Normal(0, s²) + (1 − p) Normal(0, S²) (Efron, JASA 2004, with an empirical null). An effect of the
narrow group has either sign with probability ½.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cradlevae.utils.types import FloatArray

SWEEPS, TOLERANCE = 300, 1e-6
"""EM ends after so many sweeps, or when one moves the share less than this."""

PRIOR_EFFECTS = 20.0
"""Effects of the wide group that are added beforehand: of few effects, the share of the narrow one is small."""

FIRST = 0.5, 0.5, 3.0
"""Share and standard deviation of the narrow group, and that of the wide one, at the start of EM."""


@dataclass(frozen=True)
class TwoGroups:
    """The two groups of effects.

    Attributes
    ----------
    share
        Share of effects that are hardly any.
    narrow, wide
        Standard deviation of z = mean / standard deviation in that group, at most 1, and in the other, at least 1.
    """

    share: float = 0.0
    narrow: float = 1.0
    wide: float = 1.0

    @classmethod
    def of(cls, surety: npt.ArrayLike) -> TwoGroups:
        """The groups that many effects consist of, from their means over their standard deviations."""
        square = np.asarray(surety, dtype=np.float64).ravel() ** 2
        share, narrow, wide = FIRST
        if not square.size or not square.any():
            return cls()
        for _ in range(SWEEPS):
            in_narrow = cls(share, narrow, wide).probability(square=square)
            before, share = share, float(in_narrow.sum() / (len(square) + PRIOR_EFFECTS))
            narrow = min(1.0, _sd(square, in_narrow))
            wide = max(1.0, _sd(square, 1 - in_narrow))
            if abs(share - before) < TOLERANCE:
                break
        return cls(share, narrow, wide)

    def probability(self, surety: npt.ArrayLike = 0.0, *, square: FloatArray | None = None) -> FloatArray:
        """How probably effects of these z (or of these squares of z) are hardly any."""
        squares = np.asarray(surety, dtype=np.float64) ** 2 if square is None else square
        falls = np.exp(-squares / 2 * (1 / self.narrow**2 - 1 / self.wide**2))
        narrow = self.share / self.narrow * falls
        return np.asarray(narrow / (narrow + (1 - self.share) / self.wide))


def _sd(square: FloatArray, weight: FloatArray) -> float:
    return float(np.sqrt(max((weight * square).sum() / max(weight.sum(), 1e-12), 1e-6)))


ALIKE = TwoGroups()
"""No effect is hardly any."""
