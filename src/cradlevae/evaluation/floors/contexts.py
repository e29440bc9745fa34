"""Effects in a context, and what the same perturbations do in the others.

Where the training cells are of several contexts, conditions are those of each context (``A in D1``). This file finds
their counterparts in other contexts, and averages over contexts where none is asked for.

Averages over contexts weigh each context by the number of cells that its effect is worth. Nothing is known beforehand
of how far contexts differ; with these weights a context of few cells cannot spoil the average, and with equal numbers
of cells all contexts count alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from cradlevae.data.labels import context_of, in_context
from cradlevae.data.moments import ConditionMoments
from cradlevae.utils.types import BoolArray, FloatArray

Function = Callable[[ConditionMoments, ConditionMoments | None, Sequence[str]], FloatArray]


def contexts_of(moments: ConditionMoments, *, with_cells: bool = False) -> tuple[str, ...]:
    """Contexts of the conditions, in their order; empty where conditions have no context.

    Parameters
    ----------
    moments
        Moments of the conditions.
    with_cells
        Whether to leave out contexts in which no effect can be measured.
    """
    counted = zip(moments.names, moments.n_cells, strict=True)
    found = [context_of(name) for name, n in counted if n > 0 or not with_cells]
    return tuple(dict.fromkeys(context for context in found if context is not None))


def averaged_over_contexts(
    function: Function,
    train: ConditionMoments,
    validation: ConditionMoments | None,
    conditions: Sequence[str],
    *,
    power: int = 1,
) -> FloatArray:
    """Answers of a floor's function; the average over contexts for a condition that is no context's.

    Parameters
    ----------
    function
        Answers for conditions of a context, (conditions, genes).
    train, validation
        Moments of training and of validation cells.
    conditions
        Conditions to answer for.
    power
        1 averages effects, 2 combines their (independent) standard errors.

    Returns
    -------
    (conditions, genes). A condition is averaged over the contexts in which it has training cells; one that has none
    anywhere, such as an unseen combination, over all contexts in which the function has an answer.
    """
    contexts = contexts_of(train)
    asked = [
        [in_context(name, context) for context in contexts] if contexts and context_of(name) is None else [name]
        for name in conditions
    ]
    flat = list(chain(*asked))
    answers = function(train, validation, flat)
    if len(flat) == len(conditions):
        return answers
    cells = dict(zip(train.names, train.n_effective * (train.n_cells > 0), strict=True))
    weight = np.array([cells.get(name, 0.0) for name in flat])
    ends = np.cumsum([len(names) for names in asked])
    starts = ends - [len(names) for names in asked]
    averages = [_average(answers[i:j], weight[i:j], power) for i, j in zip(starts, ends, strict=True)]
    return np.array(averages).reshape(len(conditions), answers.shape[1])


def _average(answers: FloatArray, weight: FloatArray, power: int) -> FloatArray:
    """Weighted average of the rows that are answers, (genes,); NaN where there are none."""
    answered: BoolArray = np.asarray(np.isfinite(answers).all(axis=1))
    if not answered.any():
        return np.full(answers.shape[1], np.nan)
    if len(answers) == 1:
        return np.asarray(answers[0])
    share: FloatArray = np.asarray(np.where(answered, weight, 0.0))
    if share.sum() == 0:
        share = answered.astype(np.float64)
    combined = (share / share.sum()) ** power @ np.where(answered[:, None], answers**power, 0.0)
    return np.asarray(combined ** (1 / power))
