"""Empirical Bayes of a table of effects: conditions × genes, measured in one class of cells or in several.

The deviation of condition t from what is expected, in gene g, is δ_tg ~ Normal(0, σ_t² τ_g²): a condition that does
nothing is silenced whatever its genes, and a gene that nothing moves whatever the condition. Conditions share their
base, so those that do nothing serve as controls, too. A class of cells may show effects diluted, by a slope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cradlevae.utils.constants import CACHED_VALUES
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnyIntArray, BoolArray, Float32Array, FloatArray, IndexArray

SWEEPS = 100
TOLERANCE = 5e-4
"""Expectation maximisation ends after so many sweeps, or when one moves the scales less than this share."""

SOME_VALUES = 500_000
"""Values of a table from which what its genes share is learned; of a larger one, every so many genes are looked at."""

FURTHER_SWEEPS = 10
"""Sweeps for the scales of the other genes, each of which has its own."""

RELAXATION = 1.5
"""How far a sweep goes beyond the scales that it finds: expectation maximisation takes short steps."""

LEAST_VARIANCE = 1e-9
"""Added to the variance of means: a gene that no cell shows is not known without error."""


@dataclass(frozen=True)
class Evidence:
    """Means of the conditions in one class of cells.

    Attributes
    ----------
    mean
        (conditions, genes); anything where a condition has no cell, of which 0 is made.
    n_cells
        Cells that each mean is worth, (conditions,); 0 where a condition has none.
    within
        Variance of a gene between cells of a condition, (genes,).
    slope
        Share of an effect that these cells show.
    """

    mean: Float32Array
    n_cells: FloatArray
    within: FloatArray
    slope: float = 1.0

    def __post_init__(self) -> None:
        if not self.measured.all():
            object.__setattr__(self, "mean", np.where(self.measured[:, None], self.mean, np.float32(0)))

    @classmethod
    def of_cells(cls, mean: FloatArray, n_cells: FloatArray | AnyIntArray, within: FloatArray) -> Evidence:
        """Means worth so many cells, (conditions,), which vary so much within a condition, (genes,)."""
        return cls(mean.astype(np.float32), np.asarray(n_cells, dtype=np.float64), within)

    @property
    def measured(self) -> BoolArray:
        """Whether the condition has cells, (conditions,)."""
        return np.asarray(self.n_cells > 0)

    def variance_of(self, part: slice) -> Float32Array:
        """Variance of the means of some genes, (conditions, genes); anything where a condition has no cell."""
        per_cell = 1 / np.where(self.measured, self.n_cells, 1.0)
        return np.asarray(np.multiply.outer(per_cell, self.within[part]) + LEAST_VARIANCE, dtype=np.float32)

    def precision_of(self, part: slice) -> Float32Array:
        """1 / variance, 0 for conditions without cells, (conditions, genes)."""
        return np.where(self.measured[:, None], 1 / self.variance_of(part), np.float32(0))

    def of(self, rows: IndexArray) -> Evidence:
        """The evidence of some conditions."""
        if np.array_equal(rows, np.arange(len(self.n_cells))):
            return self
        return replace(self, mean=self.mean[rows], n_cells=self.n_cells[rows])

    def of_genes(self, genes: slice | IndexArray) -> Evidence:
        """The evidence of some genes."""
        return replace(self, mean=np.ascontiguousarray(self.mean[:, genes]), within=self.within[genes])


def gene_blocks(n_rows: int, n_genes: int, values: int = CACHED_VALUES) -> list[slice]:
    """Genes of a table of so many rows that are worked on together."""
    step = max(1, values // max(n_rows, 1))
    return [slice(start, min(start + step, n_genes)) for start in range(0, n_genes, step)]


def some_genes(n_rows: int, n_genes: int) -> slice:
    """Genes of a table of so many rows that stand for all of them: every so many, of a large one."""
    return slice(0, None, max(1, -(-n_rows * n_genes // SOME_VALUES)))


def fit_scales(
    informative: BoolArray,
    n_genes: int,
    update: Callable[[slice, FloatArray], npt.NDArray[np.floating]],
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
        for part in gene_blocks(len(informative), n_genes):
            scales.take(part, update(part, scales.prior(part)))
        scales.end_sweep()
        if scales.change < TOLERANCE:
            break
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
    change
        How far the last sweep has moved them, as a share of their mean.
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
        self._before, self.change = self.spread.copy(), np.inf

    def prior(self, part: slice) -> FloatArray:
        """Prior variance σ²τ² of the effects on some genes, (rows, genes)."""
        return np.asarray(self.strength[:, None] * self.spread[part])

    def take(self, part: slice, square: npt.NDArray[np.floating]) -> None:
        """Take in the expected squares of the effects on some genes, (rows, genes)."""
        informative = self.informative
        weight = np.where(informative, 1 / np.where(informative, self.strength, 1.0), 0.0)
        mean_square = (weight.astype(square.dtype) @ square).astype(np.float64) / max(int(informative.sum()), 1)
        if self.spread_prior is not None:
            mean_square = most_probable_square(mean_square, int(informative.sum()), *self.spread_prior)
        before = self.spread[part]
        self.spread[part] = np.maximum(before * (mean_square / before) ** RELAXATION, self.smallest)
        moving = self.spread[part] > self.smallest  # the squares of the others are the bound's
        self._moved += square @ np.where(moving, 1 / self.spread[part], 0.0).astype(square.dtype)
        self._n_moved += int(moving.sum())

    def end_sweep(self) -> None:
        """Set σ² by what the sweep has seen, and bring its mean to 1."""
        informative, strength = self.informative, self.strength.copy()
        if self._n_moved:
            moved = self._moved
            if self._tied is not None:  # the mean of the rows that share a scale
                n_rows = np.bincount(self._tied, informative)
                moved = (np.bincount(self._tied, moved * informative) / np.maximum(n_rows, 1))[self._tied]
            size = moved[informative].mean() / self._n_moved
            ratio = moved[informative] / self._n_moved / size / strength[informative]
            relaxed = strength[informative] * ratio**RELAXATION
            self.strength[informative] = relaxed / relaxed.mean()
            self.spread = np.maximum(self.spread * size, self.smallest)
        self._moved, self._n_moved = np.zeros(len(informative)), 0
        away = np.abs(self.spread - self._before).sum() / self.spread.sum()
        self.change = max(float(away), float(np.abs(self.strength - strength)[informative].mean()))
        self._before = self.spread.copy()


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
        if np.abs(step).max(initial=0.0) < 1e-6:
            break
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
    bases = np.stack([_first_base(one, control) for one in evidence])
    genes = some_genes(n_rows, n_genes)
    some, of_some = [one.of_genes(genes) for one in evidence], np.ascontiguousarray(expected[:, genes])
    bases_of_some = bases[:, genes].copy()
    blocks = {
        part.start: _Block(some, of_some, bases_of_some, informative, part) for part in gene_blocks(*of_some.shape)
    }
    spread, strength = fit_scales(
        informative, of_some.shape[1], lambda part, prior: blocks[part.start].squares(prior),
        track_slow(range(SWEEPS), SWEEPS, "scales of effects"),
        smallest=1e-8,
    )  # fmt: skip
    all_learned = genes.step == 1
    scales = ScaleFit(informative, n_genes, smallest=1e-8)
    scales.strength[:] = strength
    scales.spread[:] = spread if all_learned else np.median(spread)
    parts = gene_blocks(n_rows, n_genes)
    for part in track_slow(parts, len(parts), "shrinking effects"):
        block = blocks[part.start] if all_learned else _Block(evidence, expected, bases, informative, part)
        for _ in range(0 if all_learned else FURTHER_SWEEPS):
            scales.take(part, block.squares(scales.prior(part)))
        mean[:, part], variance[:, part] = block.posterior(scales.prior(part).astype(np.float32))
    return mean, variance


def _first_base(one: Evidence, control: BoolArray) -> FloatArray:
    rows = control & one.measured
    if not rows.any():
        rows = one.measured
    return np.asarray(one.mean[rows].mean(axis=0, dtype=np.float64)) if rows.any() else np.zeros(one.mean.shape[1])


class _Block:
    """Some genes of the evidence, of which what no sweep changes is worked out once.

    With P the precision of a class's means and ``base`` the means without effects, δ has the precision Σ slope² P, and
    what is told of it is Σ slope P (mean − slope · expected − base).
    """

    def __init__(
        self,
        evidence: Sequence[Evidence],
        expected: npt.NDArray[np.floating],
        bases: FloatArray,
        informative: BoolArray,
        part: slice,
    ) -> None:
        self._slopes = [np.float32(one.slope) for one in evidence]
        self._bases = bases[:, part]  # moved on in place
        self._own = [one.precision_of(part) for one in evidence]
        of_expected = expected[:, part].astype(np.float32)
        self._levels = [
            one.mean[:, part] - slope * of_expected for one, slope in zip(evidence, self._slopes, strict=True)
        ]
        told = informative[:, None].astype(np.float32)
        self._weights = [told * slope * own for slope, own in zip(self._slopes, self._own, strict=True)]
        self._precision = sum((w * slope for w, slope in zip(self._weights, self._slopes, strict=True)), np.float32(0))

    def squares(self, prior: FloatArray) -> Float32Array:
        """Expected squares of δ with this prior variance, (conditions, genes)."""
        mean, variance = self.posterior(prior.astype(np.float32))
        mean *= mean
        return np.asarray(mean + variance)

    def posterior(self, prior: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Mean and variance of δ, (conditions, genes) each; moves the bases on."""
        told, of_base = np.zeros_like(prior), np.ones(prior.shape[1])
        for place, (slope, own, level, weight) in enumerate(
            zip(self._slopes, self._own, self._levels, self._weights, strict=True)
        ):
            told += weight * (level - self._bases[place].astype(np.float32))
            of_level = own / (1 + slope**2 * prior * own)  # precision of the base as this condition tells it
            total = np.maximum(of_level.sum(axis=0, dtype=np.float64), 1e-12)
            self._bases[place] = np.einsum("cg,cg->g", of_level, level) / total
            if place == 0:
                of_base = 1 / total
        left = prior / (1 + prior * self._precision)  # given the base
        return left * told, left + (left * self._precision) ** 2 * of_base.astype(np.float32)
