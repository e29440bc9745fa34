"""The floors of this package, one function each, registered by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from cradlevae.data.labels import Condition, condition_name, context_of, in_context, singles_of
from cradlevae.data.moments import ConditionMoments, Effects, control_row, moderated_variance
from cradlevae.data.naming.gene_names import target_columns
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.registry import FloorFunction, floor
from cradlevae.evaluation.floors.shrinkage import (
    hierarchical_effects,
    lowrank_shrink,
    moderated_errors,
    multivariate_effects,
    seen_effects,
    shrinkage,
)
from cradlevae.evaluation.floors.training_moments import shared_controls
from cradlevae.utils.types import FloatArray

LOADINGS = 10
"""Dimensions of the gene loadings of the bilinear floor (Ahlmann-Eltze et al., Nature Methods 2025)."""

RIDGE = 0.1
"""Ridge penalty of the bilinear floor (same source)."""


@floor("zero", "no change")
def _zero(train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]) -> FloatArray:
    return np.zeros((len(conditions), train.mean.shape[1]))


@floor("perturbed_mean", "mean of all perturbed training cells")
def _perturbed_mean(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    """In a context, of those of the context; of all where it has none."""
    effects = seen_effects(train)
    if not effects.names:
        return _unanswered(train, conditions)
    cells = dict(zip(train.names, train.n_cells, strict=True))
    means = {}
    for context in {context_of(name) for name in conditions}:
        rows = _rows_of(effects, context)
        weights = [float(cells[effects.names[row]]) for row in rows]
        means[context] = np.average(effects.value[rows], axis=0, weights=weights)
    answer = [means[context_of(name)] for name in conditions]
    return np.array(answer).reshape(len(conditions), train.mean.shape[1])


def _rows_of(effects: Effects, context: str | None) -> list[int]:
    """Rows of the effects in a context; all where there are none in it."""
    rows = [row for row, name in enumerate(effects.names) if context_of(name) == context]
    return rows or list(range(len(effects.names)))


def _error_of(estimate: Callable[[ConditionMoments], Effects]) -> FloorFunction:
    """The standard errors that come with effects of training cells, as the error of a floor."""

    def error(train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]) -> FloatArray:
        effects = estimate(train)
        return _look_up(replace(effects, value=effects.standard_error), conditions)

    return error


def _shrunk(train: ConditionMoments, *, singles: bool = False) -> Effects:
    """Effects, or those of single perturbations, shrunk by a scale of the gene, with deviations a posteriori.

    What is shrunk by a factor f keeps f of its error's variance. Singles alone set τ² of their sums: combinations move
    genes further and would undo part of the shrinkage.
    """
    effects, errors = seen_effects(train), _measured(train, singles=singles)
    effects = _singles(effects) if singles else effects
    kept = shrinkage(effects.value, effects.standard_error)
    return replace(effects, value=kept * effects.value, standard_error=np.sqrt(kept) * errors.standard_error)


def _measured(train: ConditionMoments, *, singles: bool) -> Effects:
    """Effects as they were measured, with their standard errors."""
    errors = moderated_errors(train)
    return _singles(errors) if singles else errors


def _error_of_sums(estimate: Callable[..., Effects]) -> FloorFunction:
    """The errors of sums of effects of single perturbations, which are estimated with errors of their own.

    All singles are measured against the same controls, whose error is added once for each pair of members, as far as
    shrinkage has left it.
    """

    def error(train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]) -> FloatArray:
        base = control_row(train)
        of_control = moderated_variance(train)[base] / train.n_cells[base]
        own, measured = (
            replace(effects, value=effects.standard_error**2)
            for effects in (estimate(train, singles=True), _measured(train, singles=True))
        )
        answer = np.empty((len(conditions), train.mean.shape[1]))
        for row, members in enumerate(map(_singles_within, conditions)):
            left, before = _look_up(own, members), _look_up(measured, members)
            kept = np.divide(left, before, out=np.zeros_like(left), where=before > 0).clip(0, 1).mean(axis=0)
            answer[row] = left.sum(axis=0) + shared_controls(train, members) * kept**2 * of_control
        return np.sqrt(answer)

    return error


@floor("training_mean", "mean of the perturbation's own training cells", error=_error_of(moderated_errors))
def _training_mean(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    return _look_up(seen_effects(train), conditions)


@floor("shrunk_mean", "training mean, shrunk by empirical Bayes", error=_error_of(_shrunk))
def _shrunk_mean(train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]) -> FloatArray:
    return _look_up(_shrunk(train), conditions)


@floor("lowrank_shrunk_mean", "training mean at low rank plus its shrunk residual", needs_validation=True)
def _lowrank_shrunk_mean(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    assert validation is not None  # floor_effects has asked for them
    return _look_up(lowrank_shrink(train, validation), conditions)


@floor(
    "hierarchical_mean",
    "training mean, shrunk by a scale of the gene and one of the perturbation, on a base that all conditions share",
    error=_error_of(hierarchical_effects),
)
def _hierarchical_mean(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    return _look_up(hierarchical_effects(train), conditions)


@floor(
    "multivariate_shrunk_mean",
    "training mean, shrunk with a covariance between perturbations that is learned over genes",
    error=_error_of(multivariate_effects),
)
def _multivariate_shrunk_mean(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    return _look_up(multivariate_effects(train), conditions)


@floor("additive", "control plus the effects of the single perturbations", error=_error_of_sums(_measured))
def _additive(train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]) -> FloatArray:
    return _of_singles(_singles(seen_effects(train)), conditions, np.sum)


@floor(
    "additive_shrunk",
    "control plus the shrunk effects of the single perturbations",
    error=_error_of_sums(_shrunk),
)
def _additive_shrunk(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    return _of_singles(_shrunk(train, singles=True), conditions, np.sum)


@floor(
    "additive_hierarchical",
    "control plus the hierarchically shrunk effects of the single perturbations",
    error=_error_of_sums(hierarchical_effects),
)
def _additive_hierarchical(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    return _of_singles(hierarchical_effects(train, singles=True), conditions, np.sum)


@floor(
    "additive_multivariate",
    "control plus the effects of the single perturbations, shrunk together",
    error=_error_of_sums(multivariate_effects),
)
def _additive_multivariate(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    return _of_singles(multivariate_effects(train, singles=True), conditions, np.sum)


@floor("matching_mean", "mean of the cells' means of the constituent single perturbations")
def _matching_mean(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    return _of_singles(_singles(seen_effects(train)), conditions, np.mean)


@floor("bilinear_ridge", "ridge regression between PCA loadings of genes and of perturbed genes")
def _bilinear_ridge(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    """Y ≈ G W Pᵀ + b (Ahlmann-Eltze et al., Nature Methods 2025, "linear model").

    G are PCA scores of the genes over the training means, P the rows of G of the perturbed genes (their sum
    for a combination), b the mean training effect. Answers for any condition whose genes were measured,
    seen or not. In a context it is fitted to the effects of the context, and to all where it has none.
    """
    if not train.genes:
        raise DataError("bilinear_ridge looks up the perturbed genes; give genes= to condition_moments")
    effects = seen_effects(train)
    loadings = _gene_loadings(train)
    named = {*effects.names, *conditions}
    singles = sorted({single for name in named for single in singles_of(name)})
    targets = dict(zip(singles, target_columns(singles, train.genes, train.symbols), strict=True))

    def embedding(condition: str) -> FloatArray | None:
        columns = [targets[single] for single in singles_of(condition)]
        return np.asarray(loadings[list(chain(*columns))].sum(axis=0)) if all(columns) else None

    answer = _unanswered(train, conditions)
    for context in {context_of(name) for name in conditions}:
        rows = _rows_of(effects, context)
        fitted = [(i, p) for i in rows if (p := embedding(effects.names[i])) is not None]
        if not fitted:
            continue
        perturbed = np.array([p for _, p in fitted])  # (perturbations, loadings)
        response = effects.value[[i for i, _ in fitted]].T  # (genes, perturbations)
        offset, weights = _ridge_weights(loadings, perturbed, response)
        for position, condition in enumerate(conditions):
            p = embedding(condition) if context_of(condition) == context else None
            if p is not None:
                answer[position] = loadings @ weights @ p + offset
    return answer


def _ridge_weights(loadings: FloatArray, perturbed: FloatArray, response: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Offset b, (genes,), and weights W, (loadings, loadings), of the bilinear floor."""
    offset = response.mean(axis=1)
    penalty = RIDGE * np.eye(loadings.shape[1])
    by_gene = np.linalg.solve(loadings.T @ loadings + penalty, loadings.T @ (response - offset[:, None]))
    weights = np.linalg.solve(perturbed.T @ perturbed + penalty, perturbed.T @ by_gene.T).T
    return np.asarray(offset), np.asarray(weights)


def _gene_loadings(train: ConditionMoments) -> FloatArray:
    """PCA scores of the genes over the means of all training conditions, (genes, ≤ 10)."""
    means = train.mean[train.n_cells > 0].T  # (genes, conditions)
    left, size, _ = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    return np.asarray(left[:, :LOADINGS] * size[:LOADINGS])


def _unanswered(train: ConditionMoments, conditions: Sequence[str]) -> FloatArray:
    return np.full((len(conditions), train.mean.shape[1]), np.nan)


def _look_up(effects: Effects, conditions: Sequence[str]) -> FloatArray:
    """Rows of ``effects`` for ``conditions``, NaN for those it has not, (conditions, genes)."""
    row = {name: position for position, name in enumerate(effects.names)}
    answer = np.full((len(conditions), effects.value.shape[1]), np.nan)
    for position, condition in enumerate(conditions):
        if condition in row:
            answer[position] = effects.value[row[condition]]
    return answer


def _singles(effects: Effects) -> Effects:
    """Those of the single perturbations."""
    rows = [row for row, name in enumerate(effects.names) if len(singles_of(name)) == 1]
    names = tuple(effects.names[row] for row in rows)
    return Effects(names, effects.value[rows], effects.standard_error[rows], effects.genes)


def _of_singles(singles: Effects, conditions: Sequence[str], combine: Callable[..., FloatArray]) -> FloatArray:
    """Combine the effects of each condition's single perturbations; NaN where one has not been seen alone."""
    answer = np.full((len(conditions), singles.value.shape[1]), np.nan)
    for position, condition in enumerate(conditions):
        answer[position] = combine(_look_up(singles, _singles_within(condition)), axis=0)
    return answer


def _singles_within(condition: str) -> list[Condition]:
    """The single perturbations of a condition, in its context."""
    return [in_context(condition_name((single,)), context_of(condition)) for single in singles_of(condition)]
