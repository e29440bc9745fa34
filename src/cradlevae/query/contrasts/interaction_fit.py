"""What kind of interaction two perturbations have: the pair's effect fitted by those of its single perturbations.

After Norman et al. (Science 2019): δ_AB ≈ c_A δ_A + c_B δ_B over genes. Theirs is a Theil–Sen fit, and similarities are
distance correlations; here it is least squares and the cosine, which cost no more than the genes there are. The classes
are theirs in name; the rules are those of :func:`interaction_class`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cradlevae.utils.types import FloatArray

CLASSES = "additive", "synergistic", "suppressive", "epistatic"

ADDITIVE = 2**0.5
"""Magnitude of a pair whose single perturbations both contribute their whole effect."""

MORE = 1.2
"""Factor by which the magnitude of a synergistic pair is above that, and of a suppressive one below."""

EQUAL = 0.5
"""Equality of contributions below which one perturbation masks the other."""

COLLINEAR = 1e-3
"""Singular values below this share of the largest say nothing: two perturbations of one effect have one coefficient."""


class Fit(NamedTuple):
    """Coefficients of a pair's single perturbations.

    Attributes
    ----------
    first, second
        c_A and c_B.
    """

    first: FloatArray
    second: FloatArray

    @property
    def magnitude(self) -> FloatArray:
        """√(c_A² + c_B²): √2 where both contribute their whole effect."""
        return np.hypot(self.first, self.second)

    @property
    def equality(self) -> FloatArray:
        """The smaller contribution over the larger one, 0 to 1; 0 where they have opposite signs."""
        least, most = np.minimum(self.first, self.second), np.maximum(np.abs(self.first), np.abs(self.second))
        return np.asarray(np.clip(least / np.maximum(most, 1e-12), 0.0, 1.0))


def projection(first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """The matrix, (2, genes), that fits a table of genes by the effects of two single perturbations, (genes,) each.

    It is applied to the interaction, whose fit is (c_A − 1, c_B − 1): what cannot be told is then taken for additive.
    """
    return np.asarray(np.linalg.pinv(np.stack([first, second], axis=1).astype(np.float64), rcond=COLLINEAR))


def interaction_class(fit: Fit) -> npt.NDArray[np.intp]:
    """The place of each fit's class in :data:`CLASSES`.

    - *synergistic*: the magnitude is more than 1.2 × √2;
    - *epistatic*, otherwise: the smaller contribution is less than half of the larger one, or opposite to it: one
      perturbation masks the other;
    - *suppressive*, otherwise: the magnitude is less than √2 / 1.2;
    - *additive*: all others.
    """
    chosen = np.where(fit.magnitude < ADDITIVE / MORE, CLASSES.index("suppressive"), CLASSES.index("additive"))
    chosen = np.where(fit.equality < EQUAL, CLASSES.index("epistatic"), chosen)
    return np.where(fit.magnitude > ADDITIVE * MORE, CLASSES.index("synergistic"), chosen)


def cosine(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Cosine of the angle between two effects over genes; 0 where one of them is none."""
    first, second = (np.asarray(effect, dtype=np.float64) for effect in (one, other))
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size > 0 else 0.0
