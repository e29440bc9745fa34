"""Floors that carry an effect from the other contexts (cell lines, donors) into the one that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cradlevae.data.labels import base_of, condition_name, context_of, singles_of
from cradlevae.data.moments import ConditionMoments, Effects
from cradlevae.evaluation.floors.registry import floor
from cradlevae.evaluation.floors.shrinkage import moderated_errors, shrink
from cradlevae.utils.types import FloatArray


@dataclass(frozen=True)
class Elsewhere:
    """What perturbations do in the contexts beside one.

    Attributes
    ----------
    value
        Mean effect over the other contexts by condition without context, (genes,) each.
    variance
        Squared error of ``value`` as the effect that all contexts share, (genes,) each.
    """

    value: dict[str, FloatArray]
    variance: dict[str, FloatArray]

    def of(self, condition: str) -> tuple[FloatArray, FloatArray] | None:
        """Effect and squared error of a condition, or the sums of those of its singles; ``None`` without them."""
        base = base_of(condition)
        parts = [base] if base in self.value else [str(condition_name((single,))) for single in singles_of(condition)]
        if not parts or any(part not in self.value for part in parts):
            return None
        return sum_of([self.value[part] for part in parts]), sum_of([self.variance[part] for part in parts])


def sum_of(rows: Sequence[FloatArray]) -> FloatArray:
    """Sum of some rows of genes, (genes,)."""
    return np.asarray(np.sum(rows, axis=0))


@dataclass(frozen=True)
class MeasuredContexts:
    """Effects of all conditions in their contexts.

    Attributes
    ----------
    effects
        Measured effects with moderated errors.
    cells
        Number of cells that each effect is worth, (conditions,).
    between
        Variance of true effects between contexts, (genes,).
    """

    effects: Effects
    cells: FloatArray
    between: FloatArray

    @classmethod
    def of(cls, train: ConditionMoments) -> MeasuredContexts:
        """The effects in training cells."""
        effects, cells = moderated_errors(train), dict(zip(train.names, train.n_effective, strict=True))
        worth = np.array([cells[name] for name in effects.names], dtype=np.float64)
        return cls(effects, worth, between_contexts(effects))

    def beside(self, context: str | None) -> Elsewhere:
        """Average every condition over the contexts beside one, weighted by the cells that each effect is worth.

        The squared error of an average is made of the errors of its effects and of how far effects differ between
        contexts, gene by gene: an average over two contexts says less of a third where they differ.
        """
        rows = _rows_by_condition(self.effects, leave_out=context)
        value, variance = {}, {}
        for base, of_base in rows.items():
            share = self.cells[of_base] / self.cells[of_base].sum()
            value[base] = share @ self.effects.value[of_base]
            variance[base] = share**2 @ (self.effects.standard_error[of_base] ** 2 + self.between)
        return Elsewhere(value, variance)


def _rows_by_condition(effects: Effects, *, leave_out: str | None = None) -> dict[str, list[int]]:
    """Rows of each condition in all contexts but one, by its name without context."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(effects.names):
        if context_of(name) is not None and context_of(name) != leave_out:
            rows.setdefault(base_of(name), []).append(row)
    return rows


def between_contexts(effects: Effects) -> FloatArray:
    """Variance of a perturbation's true effects between contexts, averaged over perturbations, (genes,).

    It is the variance of measured effects about their mean over contexts, less that of their errors, and not below 0.
    """
    several = [of_base for of_base in _rows_by_condition(effects).values() if len(of_base) > 1]
    if not several:
        return np.zeros(effects.value.shape[1])
    spread = [
        effects.value[of_base].var(axis=0, ddof=1) - (effects.standard_error[of_base] ** 2).mean(axis=0)
        for of_base in several
    ]
    free = [len(of_base) - 1 for of_base in several]
    return np.maximum(np.average(spread, axis=0, weights=free), 0.0)


def _answers(measured: MeasuredContexts, conditions: Sequence[str], *, shrunk: bool = False) -> FloatArray:
    """Effects of conditions elsewhere, shrunk over all perturbations or not, (conditions, genes)."""
    answer = np.full((len(conditions), measured.effects.value.shape[1]), np.nan)
    for context in {context_of(name) for name in conditions}:
        found = measured.beside(context)
        if shrunk and found.value:
            error = np.sqrt(np.stack(list(found.variance.values())))
            moved = shrink(np.stack(list(found.value.values())), error)
            found = Elsewhere(dict(zip(found.value, moved, strict=True)), found.variance)
        for row, name in enumerate(conditions):
            effect = found.of(name) if context_of(name) == context else None
            if effect is not None:
                answer[row] = effect[0]
    return answer


def _other_contexts_error(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    """Errors of the averages, and how far the context's own effect may be from what the others share."""
    measured = MeasuredContexts.of(train)
    answer = np.full((len(conditions), train.mean.shape[1]), np.nan)
    for context in {context_of(name) for name in conditions}:
        found = measured.beside(context)
        for row, name in enumerate(conditions):
            effect = found.of(name) if context_of(name) == context else None
            if effect is not None:
                answer[row] = np.sqrt(effect[1] + measured.between)
    return answer


@floor(
    "other_contexts_mean",
    "mean effect of the perturbation over the other contexts",
    error=_other_contexts_error,
    needs_contexts=True,
)
def _other_contexts_mean(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    return _answers(MeasuredContexts.of(train), conditions)


@floor("other_contexts_shrunk", "mean over the other contexts, shrunk by empirical Bayes", needs_contexts=True)
def _other_contexts_shrunk(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    return _answers(MeasuredContexts.of(train), conditions, shrunk=True)


@floor(
    "other_contexts_shifted",
    "shrunk mean over the other contexts plus what other perturbations do more in this one",
    needs_contexts=True,
)
def _other_contexts_shifted(
    train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    """Plus the context's own shift: the mean over the other perturbations of effect here minus effect elsewhere."""
    measured = MeasuredContexts.of(train)
    answer, here = _answers(measured, conditions, shrunk=True), measured.effects
    shifts: dict[str | None, dict[str, FloatArray]] = {}
    for context in {context_of(name) for name in conditions}:
        found = measured.beside(context)
        own = {base_of(name): row for row, name in enumerate(here.names) if context_of(name) == context}
        shifts[context] = {
            base: here.value[row] - found.value[base] for base, row in own.items() if base in found.value
        }
    for row, name in enumerate(conditions):
        others = [shift for base, shift in shifts[context_of(name)].items() if base != base_of(name)]
        if others:
            answer[row] += np.mean(others, axis=0)
    return answer
