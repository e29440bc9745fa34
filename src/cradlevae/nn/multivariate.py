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

import numpy as np

from cradlevae.utils.types import FloatArray

FULL = 300
"""Most conditions whose covariance is learned as a whole."""

RANK = 60
"""Directions of the covariance of more conditions."""

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
    mean, variance = np.zeros(value.shape), np.zeros(value.shape)
    if not known.any() or not len(value):
        return mean, variance
    noise: FloatArray = np.asarray(np.linalg.cholesky(np.diag(1 / n_cells) + 1 / n_controls), dtype=np.float64)
    scale = np.sqrt(within[known])
    whitened = np.asarray(
        np.linalg.solve(noise, value[:, known] / scale), dtype=np.float64
    )  # noise of unit variance, independent
    shared = np.zeros((len(within), 0)) if loadings is None else loadings
    fitted, left = _fit(whitened, noise, shared[known], to_diagonal)
    mean[:, known] = noise @ fitted * scale
    variance[:, known] = left * scale**2
    return mean, np.maximum(variance, 0.0)


def _fit(
    whitened: FloatArray, noise: FloatArray, loadings: FloatArray, to_diagonal: float
) -> tuple[FloatArray, FloatArray]:
    """Posterior mean of whitened effects, and variance of the effects themselves, (conditions, genes) each."""
    n_conditions = len(whitened)
    excess = np.maximum((whitened**2).mean(axis=0) - 1, 0.05)  # τ² of genes
    scale = excess / excess.mean()
    size = float(excess.mean())
    if n_conditions <= FULL:
        basis, rank = np.eye(n_conditions), n_conditions
    else:
        rank = RANK
        basis = _largest(whitened / np.sqrt(1 + excess), rank)
    projected = basis.T @ whitened  # (rank, genes)
    others = (whitened**2).sum(axis=0) - (projected**2).sum(axis=0)  # squares of what is not in the basis
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
    along = axes.T @ whitened
    others = _GenePosterior.of(rest, scale, loadings)
    mean = others.mean(whitened)
    rows, left = np.zeros((2, *along.shape))
    for position, variance in enumerate(variances):  # each has loadings of all genes: one at a time
        one = _GenePosterior.of(float(variance), scale, loadings)
        rows[position], left[position] = one.mean(along[position]), one.variance
    mean += axes @ (rows - others.mean(along))
    return mean, _variances(axes, left, others.variance, noise)


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
        return np.asarray(measured * (1 - 1 / self.total) + (measured @ self.spread) @ self.spread.T)

    @property
    def variance(self) -> FloatArray:
        """Posterior variance, (genes,)."""
        return np.asarray(1 - 1 / self.total + (self.spread**2).sum(axis=1))


def _largest(table: FloatArray, rank: int) -> FloatArray:
    """Directions of conditions in which a table varies most, (conditions, rank)."""
    from scipy.linalg import eigh

    n = len(table)
    return np.asarray(eigh(table @ table.T, subset_by_index=[n - rank, n - 1])[1], dtype=np.float64)


def _factor(variance: FloatArray | float, scale: FloatArray) -> FloatArray:
    """How much of a whitened effect is kept: its prior variance over that and its noise."""
    prior = variance * scale
    return np.asarray(prior / (1 + prior))


def _towards_diagonal(covariance: FloatArray, noise: FloatArray, part: float) -> FloatArray:
    """The covariance shrunk a part towards its diagonal, as one of the effects themselves."""
    own = noise @ covariance @ noise.T
    own = (1 - part) * own + part * np.diag(np.diag(own))
    left = np.linalg.solve(noise, own)
    return np.asarray(np.linalg.solve(noise, left.T))


def _variances(axes: FloatArray, factor: FloatArray, of_rest: FloatArray, noise: FloatArray) -> FloatArray:
    """Posterior variance of the effects of each condition, in units of the gene's variance, (conditions, genes)."""
    loaded = (noise @ axes) ** 2  # (conditions, directions)
    whole = (noise**2).sum(axis=1)
    return np.asarray(loaded @ (factor - of_rest) + whole[:, None] * of_rest)
