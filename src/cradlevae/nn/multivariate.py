"""Empirical Bayes of a table of effects whose conditions vary together: perturbations of one pathway move alike.

The effects of gene g over conditions are θ_g ~ Normal(0, τ_g² K), measured with the noise s_g² M, where
M = diag(1 / n_t) + 1 / n_control · 11ᵀ: all effects are differences to the same controls. K is learned over genes, τ_g
gene by gene, by EM (Urbut et al., Nature Genetics 2019, "mash", with one covariance). M and K are made diagonal
together, so that an iteration costs conditions³ + conditions² × genes; beyond :data:`FULL` conditions K is a constant
times M but for its :data:`RANK` largest directions.

Genes may vary together, too: with loadings L of genes the prior is K ⊗ D (I − diag LLᵀ + LLᵀ) D, D = diag(τ_g). Then
each direction of K has a posterior of diagonal plus low rank over genes, which costs genes × loadings².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cradlevae.utils.types import FloatArray

FULL = 300
"""Most conditions whose covariance is learned as a whole."""

RANK = 60
"""Directions of the covariance of more conditions."""

SPARE, SUBSPACE_ITERATIONS = 12, 6
"""Directions beside these that are followed to find them, and how often."""

TOGETHER = 512
"""Conditions whose posterior is worked out together."""

ITERATIONS = 60
TOLERANCE = 1e-4
"""EM ends after so many iterations, or when the shrinkage factors move less than this on average."""

TO_DIAGONAL = 0.1
"""How far the covariance is shrunk towards its diagonal in each iteration."""

PRIOR_CONDITIONS = 2.0
"""Weight of the mean scale of all genes in that of each gene, in conditions."""

SMALLEST = 1e-8
"""Smallest variance of effects, in units of their noise."""


def multivariate_shrink(
    value: FloatArray,
    n_cells: FloatArray,
    n_controls: float,
    within: FloatArray,
    *,
    loadings: FloatArray | None = None,
    to_diagonal: float = TO_DIAGONAL,
) -> tuple[FloatArray, FloatArray]:
    """Posterior mean and variance of effects, (conditions, genes) each.

    Parameters
    ----------
    value
        Measured effects, (conditions, genes).
    n_cells
        Cells that each condition's mean is worth, (conditions,).
    n_controls
        Number of controls.
    within
        Variance between the cells of a condition, (genes,); a gene without variance has no effect.
    loadings
        L of genes, (genes, loadings), whose squares add up to less than 1 in each; ``None`` for genes that do not vary
        together. Scales and K are learned as if they did not.
    to_diagonal
        How far K is shrunk towards its diagonal in each iteration.
    """
    known = within > 0
    dtype: type[np.floating[Any]] = np.float64 if len(value) <= FULL else np.float32
    if not known.any() or not len(value):
        mean, variance = np.zeros((2, *value.shape), dtype=dtype)
        return mean, variance
    noise = _Noise.of(n_cells, n_controls)
    scale = np.sqrt(within[known]).astype(dtype)
    whitened = noise.whitened(value[:, known].astype(dtype) / scale)  # noise of unit variance, independent
    shared = np.zeros((len(within), 0)) if loadings is None else loadings
    fitted, left = _fit(whitened, noise, shared[known], to_diagonal)
    fitted = noise.times(fitted)  # tables of thousands of conditions are most of the memory: each is made once
    fitted *= scale
    left *= scale**2
    np.maximum(left, 0.0, out=left)
    if known.all():
        return fitted, left
    mean, variance = np.zeros((2, *value.shape), dtype=dtype)
    mean[:, known], variance[:, known] = fitted, left
    return mean, variance


@dataclass(frozen=True)
class _Noise:
    """A root of M = diag(1 / n) + 1 / n_control · 11ᵀ: N = diag(1 / √n) (I + bend u uᵀ), u a unit vector."""

    root_cells: FloatArray  # √n
    axis: FloatArray  # u
    bend: float
    whole: FloatArray  # diagonal of M

    @classmethod
    def of(cls, n_cells: FloatArray, n_controls: float) -> _Noise:
        root, total = np.sqrt(n_cells), float(n_cells.sum())
        return cls(root, root / total**0.5, (1 + total / n_controls) ** 0.5 - 1, 1 / n_cells + 1 / n_controls)

    def times(self, table: FloatArray) -> FloatArray:
        """N times a table, (conditions, ·)."""
        axis = self.axis.astype(table.dtype)
        moved: FloatArray = np.multiply.outer(axis, np.asarray(self.bend, table.dtype) * (axis @ table))
        moved += table
        moved /= self.root_cells.astype(table.dtype)[:, None]
        return moved

    def whitened(self, table: FloatArray) -> FloatArray:
        """N⁻¹ times a table, (conditions, ·)."""
        axis, back = self.axis.astype(table.dtype), np.asarray(1 / (1 + self.bend) - 1, table.dtype)
        moved: FloatArray = table * self.root_cells.astype(table.dtype)[:, None]
        moved += np.multiply.outer(axis, back * (axis @ moved))
        return moved


def _fit(
    whitened: FloatArray, noise: _Noise, loadings: FloatArray, to_diagonal: float
) -> tuple[FloatArray, FloatArray]:
    """Posterior mean of whitened effects, and variance of the effects themselves, (conditions, genes) each.

    The mean takes the place of the whitened effects.
    """
    n_conditions = len(whitened)
    squares = np.einsum("cg,cg->g", whitened, whitened, dtype=np.float64)
    excess = np.maximum(squares / n_conditions - 1, 0.05)  # τ² of genes
    scale = excess / excess.mean()
    size = float(excess.mean())
    if n_conditions <= FULL:
        basis, rank = np.eye(n_conditions), n_conditions
    else:
        rank = RANK
        basis = _largest(whitened, 1 / np.sqrt(1 + excess), rank)
    projected = (basis.astype(whitened.dtype).T @ whitened).astype(np.float64)  # (rank, genes)
    others = squares - (projected**2).sum(axis=0)  # squares of what is not in the basis
    covariance, rest, before = size * np.eye(rank), size, np.inf
    for _ in range(ITERATIONS):
        variances, directions = np.linalg.eigh(covariance)
        variances = np.maximum(variances, SMALLEST)
        along = directions.T @ projected
        factor = _factor(variances[:, None], scale)
        square = (factor * along) ** 2 + factor  # expected squares; the posterior variance is the factor itself
        of_rest = _factor(rest, scale)
        rest_square = of_rest**2 * others + (n_conditions - rank) * of_rest
        weighted = (factor * along) / np.sqrt(scale)
        moved = weighted @ weighted.T + np.diag((factor / scale).sum(axis=1))
        covariance = directions @ (moved / len(scale)) @ directions.T
        covariance = _towards_diagonal(covariance, noise, to_diagonal) if n_conditions <= FULL else covariance
        rest = float((rest_square / scale).mean() / max(n_conditions - rank, 1)) if n_conditions > rank else size
        scale = (square / variances[:, None]).sum(axis=0) + rest_square / max(rest, SMALLEST)
        scale = np.maximum((scale + PRIOR_CONDITIONS) / (n_conditions + PRIOR_CONDITIONS), SMALLEST)
        covariance, rest, scale = covariance * scale.mean(), rest * scale.mean(), scale / scale.mean()
        now = float(factor.mean())
        if abs(now - before) < TOLERANCE:
            break
        before = now
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, SMALLEST)
    axes = basis @ directions
    along = (axes.astype(whitened.dtype).T @ whitened).astype(np.float64)
    of_others = _GenePosterior.of(rest, scale, loadings)
    rows, left = np.zeros((2, *along.shape))
    for position, variance in enumerate(variances):  # each has loadings of all genes: one at a time
        one = _GenePosterior.of(float(variance), scale, loadings)
        rows[position], left[position] = one.mean(along[position]), one.variance
    mean, beyond = whitened, (rows - of_others.mean(along)).astype(whitened.dtype)  # in its place
    for start in range(0, n_conditions, TOGETHER):
        part = slice(start, start + TOGETHER)
        mean[part] = of_others.mean(mean[part])
        mean[part] += axes[part].astype(mean.dtype) @ beyond
    return mean, _variances(axes, left, of_others.variance, noise, whitened.dtype)


@dataclass(frozen=True)
class _GenePosterior:
    """Effects on all genes along one direction of conditions, measured with noise of unit variance.

    The covariance of what is measured is S = diag(total) + B Bᵀ, so that the mean is (I − S⁻¹) times what is measured,
    and the posterior covariance is I − S⁻¹.
    """

    total: FloatArray  # (genes,)
    spread: FloatArray  # S⁻¹ = diag(1 / total) − spread spreadᵀ, (genes, loadings)

    @classmethod
    def of(cls, variance: float, scale: FloatArray, loadings: FloatArray) -> _GenePosterior:
        """For a direction of this variance, and scales τ² of genes."""
        prior = variance * scale
        total = 1 + prior * (1 - (loadings**2).sum(axis=1))
        moved = np.sqrt(prior)[:, None] * loadings
        inner = np.eye(loadings.shape[1]) + moved.T @ (moved / total[:, None])
        root = np.linalg.cholesky(inner)
        return cls(total, np.linalg.solve(root, (moved / total[:, None]).T).T)

    def mean(self, measured: FloatArray) -> FloatArray:
        """Posterior mean of rows of effects, (..., genes)."""
        spread = self.spread.astype(measured.dtype)
        return np.asarray(measured * (1 - 1 / self.total).astype(measured.dtype) + (measured @ spread) @ spread.T)

    @property
    def variance(self) -> FloatArray:
        """Posterior variance, (genes,)."""
        return np.asarray(1 - 1 / self.total + (self.spread**2).sum(axis=1))


def _largest(table: FloatArray, weight: FloatArray, rank: int) -> FloatArray:
    """Directions of conditions in which a table of weighted genes varies most, (conditions, rank), smallest first.

    By subspace iteration: a matrix of conditions × conditions is never made.
    """
    weight = (weight**2).astype(table.dtype)[:, None]
    start = np.random.default_rng(0).standard_normal((len(table), min(rank + SPARE, len(table))))
    basis = np.linalg.qr(start)[0].astype(table.dtype)
    for _ in range(SUBSPACE_ITERATIONS):
        moved = table @ (weight * (table.T @ basis))
        basis = np.linalg.qr(moved.astype(np.float64))[0].astype(table.dtype)
    within = table.T @ basis
    inner = (within.T @ (weight * within)).astype(np.float64)
    return np.asarray(basis.astype(np.float64) @ np.linalg.eigh((inner + inner.T) / 2)[1][:, -rank:])


def _factor(variance: FloatArray | float, scale: FloatArray) -> FloatArray:
    """How much of a whitened effect is kept: its prior variance over that and its noise."""
    prior = variance * scale
    return np.asarray(prior / (1 + prior))


def _towards_diagonal(covariance: FloatArray, noise: _Noise, part: float) -> FloatArray:
    """The covariance shrunk a part towards its diagonal, as one of the effects themselves."""
    own = noise.times(noise.times(covariance).T)
    own = (1 - part) * own + part * np.diag(np.diag(own))
    return noise.whitened(noise.whitened(own).T)


def _variances(
    axes: FloatArray, factor: FloatArray, of_rest: FloatArray, noise: _Noise, dtype: np.dtype[Any]
) -> FloatArray:
    """Posterior variance of the effects of each condition, in units of the gene's variance, (conditions, genes)."""
    loaded = (noise.times(axes) ** 2).astype(dtype)  # (conditions, directions)
    variance = loaded @ (factor - of_rest).astype(dtype)
    whole, of_rest = noise.whole.astype(dtype), of_rest.astype(dtype)
    for start in range(0, len(variance), TOGETHER):
        part = slice(start, start + TOGETHER)
        variance[part] += np.multiply.outer(whole[part], of_rest)
    return np.asarray(variance)
