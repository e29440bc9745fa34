"""What the decoder leaves of the measured effects, as a trained model keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cradlevae.data.labels import base_of
from cradlevae.model.estimation.two_groups import ALIKE, TwoGroups
from cradlevae.utils.types import Float32Array, FloatArray


@dataclass(frozen=True)
class MeasurementNoise:
    """How exactly cells measured effects: each as a difference to the same controls.

    Attributes
    ----------
    n_cells
        Cells that the mean of each treatment is worth, (T,); 0 where none measured it.
    combined_cells
        The same of combinations, (combinations,).
    n_controls
        Controls that all are compared with.
    within
        Variance of a gene between cells, (genes,).
    """

    n_cells: FloatArray
    combined_cells: FloatArray
    n_controls: float
    within: Float32Array

    def kept(self, n_cells: float, variance: Float32Array) -> Float32Array:
        """Which share of its measurement, of so many cells, an effect of this posterior variance keeps, (genes,)."""
        if not n_cells:
            return np.zeros_like(variance)
        noise = self.within * np.float32(1 / n_cells + 1 / self.n_controls)
        share = np.divide(variance, noise, out=np.zeros_like(variance), where=noise > 0)
        return np.asarray(np.minimum(share, 1))

    @property
    def of_controls(self) -> Float32Array:
        """Standard error of the controls' mean, which all measured effects share, (genes,)."""
        return np.asarray(np.sqrt(self.within / np.float32(self.n_controls)))


@lru_cache(maxsize=8)
def _places(names: tuple[str, ...]) -> dict[str, int]:
    """Place of each name."""
    return {name: place for place, name in enumerate(names)}


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
    combined_mean
        The same of these, (combinations, genes).
    combined_sd
        Standard deviation of what they leave of the sum of their single perturbations, (combinations, genes).
    combined_part
        The part of the decoder's standard deviation, of combinations.
    unmeasured_sd
        Standard deviation of what combinations without cells may leave of that sum, as those with cells do, (genes,).
    noise
        Of the measurements.
    control_mean
        Mean expression of passing training controls (of failed ones where none passed), (genes,).
    widening
        Factor of the standard deviation of effects (the decoder's and this) that validation cells ask for.
    single_groups, combined_groups
        How many effects of single perturbations, and of combinations with cells, are hardly any.
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
    unmeasured_sd: Float32Array
    noise: MeasurementNoise
    control_mean: Float32Array
    widening: float = 1.0
    single_groups: TwoGroups = ALIKE
    combined_groups: TwoGroups = ALIKE
    n_pairs: int = 0

    def parts(self, conditions: Sequence[str], dosage: Float32Array) -> list[float | Float32Array]:
        """How much of the decoder's standard deviation is left in that of conditions of these dosages, (conditions, T).

        A number, or (genes,), for each condition: a combination with cells keeps as little of it as of what its single
        perturbations leave; see :meth:`of_contrast`.
        """
        own = dosage.shape[1] - self.n_pairs
        place = _places(self.combinations)
        parts: list[float | Float32Array] = []
        for name, of_row in zip(conditions, dosage[:, :own], strict=True):
            if base_of(name) in place:
                parts.append(self._expected_part(place[base_of(name)]))
            else:
                present = np.flatnonzero(of_row)
                parts.append(float(self.part[present[0]]) if len(present) == 1 else 1.0)
        return parts

    def _expected_part(self, row: int) -> Float32Array:
        """How much of the error of what is expected of a combination with cells is left in its effect, (genes,)."""
        kept = self.noise.kept(self.noise.combined_cells[row], self.combined_sd[row] ** 2)
        return np.float32(self.combined_part) * (1 - kept)

    def groups(self, conditions: Sequence[str]) -> TwoGroups:
        """How many effects are hardly any: those of a measured combination alone, or else of single perturbations."""
        combined = len(conditions) == 1 and base_of(conditions[0]) in self.combinations
        return self.combined_groups if combined else self.single_groups

    def of(self, conditions: Sequence[str], dosage: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Mean and variance of each of some conditions of these dosages, (conditions, T) → (conditions, genes)."""
        mean, variance = np.empty((2, len(conditions), self.mean.shape[1]), dtype=np.float32)
        for row, name in enumerate(conditions):
            mean[row], variance[row] = self.of_contrast([name], [1.0], dosage[row : row + 1])
        return mean, variance

    def of_contrast(
        self, conditions: Sequence[str], weights: Sequence[float], dosage: Float32Array, *, from_control: bool = False
    ) -> tuple[Float32Array, Float32Array]:
        """Mean and variance of a weighted sum over conditions, (genes,) each.

        Parameters
        ----------
        conditions, weights
            The conditions and their weights.
        dosage
            Their dosages, (conditions, T).
        from_control
            Whether the variance is that of expression: of the controls' mean plus the sum.

        Notes
        -----
        An effect that keeps the share f of its measurement keeps f of the measurement's error, and of that the part
        that is of the controls is the same for all effects. A combination with cells has the sum of its single
        perturbations before its cells tell more; of that sum's error it keeps 1 − f.
        """
        treatments = np.flatnonzero(dosage.any(axis=0))
        of_controls = -self.noise.of_controls if from_control else np.zeros_like(self.control_mean)
        weight_of = np.zeros((len(treatments), self.mean.shape[1]), dtype=np.float32)
        mean, variance = np.zeros((2, self.mean.shape[1]), dtype=np.float32)
        own = dosage.shape[1] - self.n_pairs
        place = _places(self.combinations)
        combined: dict[str, float] = {}
        for name, weight, of_row in zip(conditions, weights, dosage, strict=True):
            amount = np.float32(weight) * of_row[treatments][:, None]
            if np.count_nonzero(of_row[:own]) > 1:
                combined[base_of(name)] = combined.get(base_of(name), 0.0) + weight
            if base_of(name) in place:
                row, single = place[base_of(name)], (treatments < own)[:, None]
                mean += np.float32(weight) * self.combined_mean[row] + (amount * ~single).T[0] @ self.mean[treatments]
                amount = np.where(single, amount * self._expected_part(row), amount)
            else:
                mean += amount.T[0] @ self.mean[treatments]
            weight_of += amount
        for name, weight in combined.items():
            if name not in place:
                variance += np.float32(weight**2) * self.unmeasured_sd**2
                continue
            sd = self.combined_sd[place[name]]
            shared = self._shared(self.noise.combined_cells[place[name]], sd)
            variance += np.float32(weight**2) * (sd**2 - shared**2)
            of_controls = of_controls + np.float32(weight) * shared
        for treatment, amount in zip(treatments, weight_of, strict=True):
            shared = self._shared(self.noise.n_cells[treatment], self.sd[treatment])
            variance += amount**2 * (self.sd[treatment] ** 2 - shared**2)
            of_controls = of_controls + amount * shared
        return mean, variance + of_controls**2

    def _shared(self, n_cells: float, sd: Float32Array) -> Float32Array:
        """How much of an effect's error is that of the controls, (genes,)."""
        return np.asarray(np.minimum(self.noise.kept(n_cells, sd**2) * self.noise.of_controls, sd))
