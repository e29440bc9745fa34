"""What the decoder leaves of the measured effects, as a trained model keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cradlevae.utils.types import Float32Array


@dataclass(frozen=True)
class EffectResidual:
    """What the decoder leaves of the measured effects, on log2(1 + 1e4·x/Σx).

    Attributes
    ----------
    mean, sd
        Its posterior mean and standard deviation for each treatment, (T, genes); 0 where there were no cells. That of a
        combination without cells is the sum of its single perturbations'.
    part
        How much of the decoder's standard deviation is left in that of a treatment's effect, (T,): 1, or less where
        evidence was shrunk towards a part of what it expects.
    combinations
        Combinations with training cells.
    combined_mean, combined_sd, combined_part
        The same of these, (combinations, genes) and one part.
    widening
        Factor of the standard deviation of effects (the decoder's and this) that validation cells ask for.
    """

    mean: Float32Array
    sd: Float32Array
    part: Float32Array
    combinations: tuple[str, ...]
    combined_mean: Float32Array
    combined_sd: Float32Array
    combined_part: float
    widening: float

    def of(self, conditions: Sequence[str], dosage: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Mean and variance of conditions of these dosages, (conditions, T) → (conditions, genes), and their part."""
        mean, variance = dosage @ self.mean, dosage**2 @ self.sd**2
        present = (dosage != 0).astype(np.float32)
        part = np.where(present.sum(axis=1) == 1, present @ self.part, 1).astype(np.float32)[:, None]
        place = {name: row for row, name in enumerate(self.combinations)}
        for row, name in enumerate(conditions):
            if name in place:
                mean[row], variance[row] = self.combined_mean[place[name]], self.combined_sd[place[name]] ** 2
                part[row] = self.combined_part
        return mean, variance, part
