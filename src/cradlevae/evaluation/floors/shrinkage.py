"""Effects pulled towards zero, or towards what they share, as far as their noise asks for.

Empirical Bayes: true effects of a gene vary over perturbations with variance τ², measured ones with τ² +
se², so R·τ²/(τ²+se²) has the smallest expected squared error. The se² here includes the noise of the
control mean: it is part of every R² that τ² is estimated from, and it is an error of the effect like any
other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cradlevae.data.labels import CONTROL, singles_of
from cradlevae.data.moments import (
    ConditionMoments,
    Effects,
    control_row,
    measured_effects,
    moderated_variance,
    pooled_variance,
    steadied_variance,
)
from cradlevae.errors import DataError
from cradlevae.nn.hierarchy import Evidence, hierarchical_shrink
from cradlevae.nn.multivariate import multivariate_shrink
from cradlevae.utils.types import FloatArray

MAX_RANK = 50
"""Largest rank tried; the ranks that validation picks are single digits."""


def shrink(value: FloatArray, standard_error: FloatArray) -> FloatArray:
    """Effects shrunk to zero by empirical Bayes, gene by gene: ``R`` times :func:`shrinkage`.

    Parameters
    ----------
    value, standard_error
        Effects and their standard errors, (perturbations, genes); rows of NaN (no cells) stay NaN.
    """
    return np.asarray(value * shrinkage(value, standard_error))


def shrinkage(value: FloatArray, standard_error: FloatArray) -> FloatArray:
    """The factor by which empirical Bayes shrinks each effect, ``τ²/(τ²+se²)``, (perturbations, genes).

    ``τ²_g = max(mean_t R²_tg − mean_t se²_tg, 0)`` over the perturbations with data; arguments as of :func:`shrink`.
    """
    seen = np.isfinite(value).all(axis=1)
    if not seen.any():
        return np.ones_like(value)
    noise = standard_error**2
    spread = np.maximum((value[seen] ** 2).mean(axis=0) - noise[seen].mean(axis=0), 0.0)  # (genes,)
    total = spread + noise
    factor = np.divide(np.broadcast_to(spread, total.shape), total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(factor)


def lowrank_shrink(train: ConditionMoments, validation: ConditionMoments) -> Effects:
    """Effects approximated at low rank, plus the shrunk rest; the rank is the best one on validation cells.

    Effects are scaled to unit noise (each perturbation divided by √(1/n_t + 1/n_control), each gene by its
    pooled standard deviation within conditions), decomposed by SVD, cut at rank r and brought back. The rest
    is shrunk by :func:`shrink`. Of the ranks 0 (plain shrinkage) to 50, the one of smallest
    squared error against the effects in the validation cells is taken.

    Parameters
    ----------
    train, validation
        Moments of the same genes in training and in validation cells, controls among both.

    Returns
    -------
    Effects of the perturbations seen in training, with their unshrunk standard errors.

    Raises
    ------
    DataError
        If no perturbation has cells in both parts.
    """
    effects = seen_effects(train)
    held_out = seen_effects(validation)
    common = [name for name in effects.names if name in set(held_out.names)]
    if not common:
        raise DataError("the rank is chosen on validation cells, but no perturbation has training and validation cells")
    rows = [effects.names.index(name) for name in common]
    truth = held_out.value[[held_out.names.index(name) for name in common]]

    noise_scale = _noise_scale(train, effects.names)  # (perturbations, genes)
    known = noise_scale > 0
    standardised = np.divide(effects.value, noise_scale, out=np.zeros_like(noise_scale), where=known)
    left, size, right = np.linalg.svd(standardised, full_matrices=False)
    low_rank = np.zeros_like(effects.value)
    best, best_error = low_rank, np.inf
    for rank in range(min(MAX_RANK, len(size)) + 1):
        if rank > 0:
            component = size[rank - 1] * np.outer(left[:, rank - 1], right[rank - 1])
            low_rank = low_rank + component * noise_scale
        candidate = low_rank + shrink(effects.value - low_rank, effects.standard_error)
        error = float(((candidate[rows] - truth) ** 2).sum())
        if error < best_error:
            best, best_error = candidate, error
    return Effects(effects.names, best, effects.standard_error, effects.genes)


def hierarchical_effects(train: ConditionMoments, *, singles: bool = False) -> Effects:
    """Effects shrunk by a scale of their gene and one of their perturbation; :func:`shrink` has only that of the gene.

    Perturbations without effect are shrunk to zero on all genes, and add to the controls as a base that all conditions
    share. See :func:`cradlevae.nn.hierarchy.hierarchical_shrink`.

    Parameters
    ----------
    train
        Moments of training cells, controls among them.
    singles
        Whether conditions of one perturbation only are used.

    Returns
    -------
    Effects of the conditions with cells; ``standard_error`` is the standard deviation a posteriori.
    """
    seen = _control_first(train, singles=singles)
    evidence = Evidence.of_cells(seen.mean, seen.n_effective, steadied_variance(seen))
    control = np.arange(len(seen.names)) == 0
    value, variance = hierarchical_shrink([evidence], np.zeros_like(evidence.mean), control)
    return Effects(seen.names[1:], value[1:].astype(np.float64), np.sqrt(variance[1:].astype(np.float64)), train.genes)


def multivariate_effects(train: ConditionMoments, *, singles: bool = False) -> Effects:
    """Effects shrunk together: conditions that move genes alike tell of each other.

    See :func:`cradlevae.nn.multivariate.multivariate_shrink`. Parameters and return value are those of
    :func:`hierarchical_effects`.
    """
    seen = _control_first(train, singles=singles)
    measured = seen.mean[1:] - seen.mean[0]
    value, variance = multivariate_shrink(
        measured, seen.n_effective[1:], float(seen.n_effective[0]), steadied_variance(seen)
    )
    return Effects(seen.names[1:], value, np.sqrt(variance), train.genes)


def _control_first(train: ConditionMoments, *, singles: bool) -> ConditionMoments:
    """Moments of the controls, and of the conditions (of one perturbation only) that have cells."""
    base = control_row(train)
    return train.of(
        [base]
        + [
            row
            for row, name in enumerate(train.names)
            if row != base and train.n_cells[row] > 0 and (not singles or len(singles_of(name)) == 1)
        ]
    )


def seen_effects(moments: ConditionMoments) -> Effects:
    """Measured effects of the perturbations that have cells, without the others."""
    effects = measured_effects(moments)
    cells = dict(zip(moments.names, moments.n_cells, strict=True))
    rows = [row for row, name in enumerate(effects.names) if cells[name] > 0]
    names = tuple(effects.names[row] for row in rows)
    return Effects(names, effects.value[rows], effects.standard_error[rows], effects.genes)


def moderated_errors(moments: ConditionMoments) -> Effects:
    """Measured effects of the perturbations that have cells, with moderated errors.

    Intervals are made of them: the variance between three cells is often far below that of the gene. See
    :func:`cradlevae.data.moments.moderated_variance`.
    """
    effects = seen_effects(moments)
    rows = [moments.names.index(name) for name in effects.names]
    squared = moderated_variance(moments) / np.where(moments.n_cells == 0, 1, moments.n_effective)[:, None]
    return replace(effects, standard_error=np.sqrt(squared[rows] + squared[control_row(moments)]))


def _noise_scale(moments: ConditionMoments, names: tuple[str, ...]) -> FloatArray:
    """Noise of every effect as (perturbation part) × (gene part), (perturbations, genes)."""
    base = control_row(moments, CONTROL)
    n_cells = moments.n_effective[[moments.names.index(name) for name in names]]
    of_perturbation = np.sqrt(1.0 / n_cells + 1.0 / moments.n_cells[base])
    return np.asarray(np.outer(of_perturbation, np.sqrt(pooled_variance(moments))))
