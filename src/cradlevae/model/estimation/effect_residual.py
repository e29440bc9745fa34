"""What the decoder leaves of the measured effects, as a trained model keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cradlevae.data.labels import base_of
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
    n_pairs
        How many of the treatments, the last ones, are pairs of a treatment and a context.
    """

    mean: Float32Array
    sd: Float32Array
    part: Float32Array
    combinations: tuple[str, ...]
    combined_mean: Float32Array
    combined_sd: Float32Array
    combined_part: float
    widening: float
    n_pairs: int = 0

    def of(self, conditions: Sequence[str], dosage: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Mean and variance of conditions of these dosages, (conditions, T) → (conditions, genes), and their part."""
        own = dosage.shape[1] - self.n_pairs
        sparse = sp.csr_matrix(dosage)
        mean, variance = sparse @ self.mean, sparse.power(2) @ self.sd**2
        present = (dosage[:, :own] != 0).astype(np.float32)
        part = np.where(present.sum(axis=1) == 1, present @ self.part[:own], 1).astype(np.float32)[:, None]
        place = {name: row for row, name in enumerate(self.combinations)}
        for row, name in enumerate(conditions):
            if base_of(name) in place:
                position, of_context = place[base_of(name)], dosage[row, own:]
                mean[row] = self.combined_mean[position] + of_context @ self.mean[own:]
                variance[row] = self.combined_sd[position] ** 2 + of_context**2 @ self.sd[own:] ** 2
                part[row] = self.combined_part
        return mean, variance, part
