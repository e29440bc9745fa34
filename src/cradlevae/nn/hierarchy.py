"""Empirical Bayes of a table of effects: conditions × genes, measured in one class of cells or in several.

The deviation of condition t from what is expected, in gene g, is δ_tg ~ Normal(0, σ_t² τ_g²): a condition that does
nothing is silenced whatever its genes, and a gene that nothing moves whatever the condition. Conditions share their
base, so those that do nothing serve as controls, too. A class of cells may show effects diluted, by a slope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cradlevae.utils.constants import BLOCK_VALUES
from cradlevae.utils.types import AnyIntArray, BoolArray, Float32Array, FloatArray, IndexArray

SWEEPS = 60

LEAST_VARIANCE = 1e-9
"""Added to the variance of means: a gene that no cell shows is not known without error."""


@dataclass(frozen=True)
class Evidence:
    """Means of the conditions in one class of cells.

    Attributes
    ----------
    mean
        (conditions, genes); anything where a condition has no cell.
    variance
        Variance of these means, (conditions, genes).
    measured
        Whether the condition has cells, (conditions,).
    slope
        Share of an effect that these cells show.
    """

    mean: FloatArray
    variance: FloatArray
    measured: BoolArray
    slope: float = 1.0

    @classmethod
    def of_cells(cls, mean: FloatArray, n_cells: FloatArray | AnyIntArray, within: FloatArray) -> Evidence:
        """Means worth so many cells, (conditions,), which vary so much within a condition, (genes,)."""
        variance = within / np.where(n_cells == 0, 1, n_cells)[:, None] + LEAST_VARIANCE
        return cls(np.nan_to_num(mean), variance, n_cells > 0)

    @property
    def precision(self) -> FloatArray:
        """1 / variance, 0 for conditions without cells, (conditions, genes)."""
        return np.where(self.measured[:, None], 1 / self.variance, 0.0)

    def of(self, rows: IndexArray) -> Evidence:
        """The evidence of some conditions."""
        return Evidence(self.mean[rows], self.variance[rows], self.measured[rows], self.slope)


def fit_scales(
    informative: BoolArray,
    n_genes: int,
    update: Callable[[slice, FloatArray], FloatArray],
    sweeps: Iterable[object],
    *,
    smallest: float,
    spread_prior: tuple[float, float] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """τ² of genes, (genes,), and σ² of rows, (rows,), at their most probable values, by EM; the mean of σ² is 1.

    Parameters
    ----------
    informative
        Rows that have effects, (rows,).
    n_genes
        Number of genes.
    update
        Given some genes and their prior variance σ²τ², (rows, genes), takes a step and returns the expected squares of
        their effects.
    sweeps
        An item per sweep.
    smallest
        Smallest τ².
    spread_prior
        Median of τ a priori, and standard deviation of its logarithm; ``None`` lets the evidence decide alone.
    """
    scales = ScaleFit(informative, n_genes, smallest=smallest, spread_prior=spread_prior)
    for _ in sweeps:
        for part in scales.parts():
            scales.take(part, update(part, scales.prior(part)))
        scales.end_sweep()
    return scales.spread, scales.strength


class ScaleFit:
    """τ² of genes and σ² of rows at their most probable values, by EM: a sweep goes over all genes, part by part.

    Parameters
    ----------
    informative, n_genes, smallest, spread_prior
        As in :func:`fit_scales`.
    tied
        Rows that share a scale σ: the scale of each row, (rows,). ``None`` gives each row its own.

    Attributes
    ----------
    spread, strength
        τ², (genes,), and σ², (rows,); the mean of σ² over informative rows is 1.
    """

    def __init__(
        self,
        informative: BoolArray,
        n_genes: int,
        *,
        smallest: float,
        spread_prior: tuple[float, float] | None = None,
        tied: AnyIntArray | None = None,
    ) -> None:
        self._tied = tied
        self.informative, self.smallest, self.spread_prior = informative, smallest, spread_prior
        self.spread: FloatArray = np.full(n_genes, 0.02)
        self.strength: FloatArray = informative.astype(np.float64)
        self._moved, self._n_moved = np.zeros(len(informative)), 0

    def parts(self) -> list[slice]:
        """Genes that are worked on together."""
        n_genes, step = len(self.spread), max(1, BLOCK_VALUES // len(self.informative))
        return [slice(start, start + step) for start in range(0, n_genes, step)]

    def prior(self, part: slice) -> FloatArray:
        """Prior variance σ²τ² of the effects on some genes, (rows, genes)."""
        return np.asarray(self.strength[:, None] * self.spread[part])

    def take(self, part: slice, square: FloatArray) -> None:
        """Take in the expected squares of the effects on some genes, (rows, genes)."""
        informative = self.informative
        mean_square = (square[informative] / self.strength[informative, None]).mean(axis=0)
        if self.spread_prior is not None:
            mean_square = most_probable_square(mean_square, int(informative.sum()), *self.spread_prior)
        self.spread[part] = np.maximum(mean_square, self.smallest)
        moving = self.spread[part] > self.smallest  # the squares of the others are the bound's
        self._moved += (square[:, moving] / self.spread[part][moving]).sum(axis=1)
        self._n_moved += int(moving.sum())

    def end_sweep(self) -> None:
        """Set σ² by what the sweep has seen, and bring its mean to 1."""
        informative = self.informative
        if self._n_moved:
            moved = self._moved
            if self._tied is not None:  # the mean of the rows that share a scale
                n_rows = np.bincount(self._tied, informative)
                moved = (np.bincount(self._tied, moved * informative) / np.maximum(n_rows, 1))[self._tied]
            size = moved[informative].mean() / self._n_moved
            self.strength[informative] = moved[informative] / self._n_moved / size
            self.spread = np.maximum(self.spread * size, self.smallest)
        self._moved, self._n_moved = np.zeros(len(informative)), 0


def most_probable_square(mean_square: FloatArray, n: int, median: float, sd: float) -> FloatArray:
    """The most probable τ² of genes whose n effects have these mean squares, (genes,), under a log-normal prior of τ.

    By Newton's method for log τ, whose log posterior is concave.
    """
    centre = np.log(median)
    log_spread = 0.5 * np.log(np.maximum(mean_square, 1e-12))  # the largest likelihood
    log_spread = (n * log_spread + centre / sd**2) / (n + 1 / sd**2)
    for _ in range(20):
        pull = n * mean_square * np.exp(-2 * log_spread)
        step = (pull - n - (log_spread - centre) / sd**2) / (2 * pull + 1 / sd**2)
        log_spread += np.clip(step, -1, 1)
    return np.asarray(np.exp(2 * log_spread))


def hierarchical_shrink(
    evidence: Sequence[Evidence], expected: npt.NDArray[np.floating], control: BoolArray
) -> tuple[Float32Array, Float32Array]:
    """How far conditions are from what is expected: posterior mean and variance of δ, (conditions, genes) each.

    Parameters
    ----------
    evidence
        The conditions' means, of one or several classes of cells.
    expected
        Effects that are expected, (conditions, genes); 0 for a hierarchical shrinkage of the effects themselves.
    control
        Which conditions are controls, (conditions,); they have no effect.

    Notes
    -----
    σ and τ are at their most probable values, by EM; 0 for conditions without cells.
    """
    n_rows, n_genes = expected.shape
    informative = ~control & np.any([one.measured & (one.slope > 0) for one in evidence], axis=0)
    mean, variance = np.zeros((2, n_rows, n_genes), dtype=np.float32)
    if not informative.any():
        return mean, variance
    bases = [_first_base(one, control) for one in evidence]

    def update(part: slice, prior: FloatArray) -> FloatArray:
        deviation, left, of_base = _posterior(evidence, expected, bases, prior, informative, part)
        mean[:, part], variance[:, part] = deviation, left + of_base
        return np.asarray(deviation**2 + left + of_base)

    fit_scales(informative, n_genes, update, range(SWEEPS), smallest=1e-8)
    return mean, variance


def _first_base(one: Evidence, control: BoolArray) -> FloatArray:
    rows = control & one.measured
    if not rows.any():
        rows = one.measured
    return np.asarray(one.mean[rows].mean(axis=0)) if rows.any() else np.zeros(one.mean.shape[1])


def _posterior(
    evidence: Sequence[Evidence],
    expected: npt.NDArray[np.floating],
    bases: list[FloatArray],
    prior: FloatArray,
    informative: BoolArray,
    part: slice,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """For some genes: mean of δ, its variance given the base, and what the base adds; moves the bases on."""
    weighted, precision = np.zeros((2, *prior.shape))
    for one, base in zip(evidence, bases, strict=True):
        use = (one.measured & informative)[:, None]
        residual = one.mean[:, part] - one.slope * expected[:, part] - base[part]
        weighted += np.where(use, one.slope * residual / one.variance[:, part], 0.0)
        precision += np.where(use, one.slope**2 / one.variance[:, part], 0.0)
    shrinkage = prior * precision / (1 + prior * precision)
    of_base = np.zeros(prior.shape[1])
    for position, (one, base) in enumerate(zip(evidence, bases, strict=True)):
        weight = np.where(one.measured[:, None], 1 / (one.slope**2 * prior + one.variance[:, part]), 0.0)
        total = np.maximum(weight.sum(axis=0), 1e-12)
        level = one.mean[:, part] - one.slope * expected[:, part]
        base[part] = np.where(one.measured[:, None], weight * level, 0.0).sum(axis=0) / total
        if position == 0:
            of_base = 1 / total
    mean = np.where(informative[:, None], shrinkage * weighted / np.maximum(precision, 1e-12), 0.0)
    return mean, prior * (1 - shrinkage), shrinkage**2 * of_base
