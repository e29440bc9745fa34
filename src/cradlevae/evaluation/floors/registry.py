"""The register of floors: predictions of effects by a line of algebra, from the moments of training cells alone.

A score means little until it is compared with such a prediction. A floor is one declaration, made by :func:`floor`: a
function with a name, a description and what it needs. Every registered floor is scored by
:func:`cradlevae.evaluate`, can be trained and asked as a :class:`cradlevae.FloorModel`, and is listed by
:func:`cradlevae.models`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cradlevae.data.labels import singles_of
from cradlevae.data.moments import ConditionMoments, control_row
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.contexts import averaged_over_contexts, contexts_of
from cradlevae.utils.types import FloatArray

FloorFunction = Callable[[ConditionMoments, ConditionMoments | None, Sequence[str]], FloatArray]


@dataclass(frozen=True)
class Floor:
    """A registered floor.

    Attributes
    ----------
    name
        Name of the floor in tables.
    description
        One line for tables and reports.
    function
        Takes the moments of the training cells, those of the validation cells (or ``None``) and the conditions to
        answer for; returns their effects, (conditions, genes), with rows of NaN for those that it cannot answer.
    error
        Takes the same and returns the standard errors of the effects (or their standard deviations a posteriori);
        ``None`` where the floor does not know them.
    needs_validation
        Whether the function looks at validation cells.
    needs_contexts
        Whether the function looks at other contexts than the one that is asked for.
    """

    name: str
    description: str
    function: FloorFunction
    error: FloorFunction | None = None
    needs_validation: bool = False
    needs_contexts: bool = False

    def usable(self, train: ConditionMoments, validation: ConditionMoments) -> bool:
        """Whether the cells have what the floor needs.

        A floor that needs validation cells needs two validation controls, and a perturbation with training cells and
        two validation cells. One that looks at other contexts needs training cells in two of them.
        """
        if self.needs_contexts and len(contexts_of(train, with_cells=True)) < 2:
            return False
        if not self.needs_validation:
            return True
        both = (train.n_cells[1:] > 0) & (validation.n_cells[1:] > 1)
        return bool(validation.n_cells[0] > 1 and both.any())


FLOORS: dict[str, Floor] = {}
"""Every registered floor by name."""


def floor(
    name: str,
    description: str,
    *,
    error: FloorFunction | None = None,
    needs_validation: bool = False,
    needs_contexts: bool = False,
) -> Callable[[FloorFunction], FloorFunction]:
    """Register a function as a floor.

    Parameters
    ----------
    name, description, error, needs_validation, needs_contexts
        As the attributes of :class:`Floor`.

    Raises
    ------
    DataError
        If the name is taken.

    Examples
    --------
    >>> import numpy as np
    >>> from cradlevae.evaluation.floors.registry import FLOORS, floor
    >>> @floor("one_everywhere", "every gene doubles")
    ... def one_everywhere(train, validation, conditions):
    ...     return np.ones((len(conditions), train.mean.shape[1]))
    >>> FLOORS["one_everywhere"].description
    'every gene doubles'

    Take it out again:

    >>> del FLOORS["one_everywhere"]
    """

    def register(function: FloorFunction) -> FloorFunction:
        if name in FLOORS:
            raise DataError(f"a floor named {name!r} is already registered; choose another name")
        FLOORS[name] = Floor(name, description, function, error, needs_validation, needs_contexts)
        return function

    return register


def floor_effects(
    name: str, train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray:
    """Effects that the floor ``name`` predicts, (conditions, genes); rows of NaN where it cannot answer.

    Parameters
    ----------
    name
        A name in :data:`FLOORS`.
    train, validation
        Moments of training and of validation cells, controls among both. Validation cells may be ``None`` for floors
        that do not need them.
    conditions
        Canonical names of the perturbed conditions to answer for. Where the training cells are of several contexts, a
        condition without one is answered by the average over its contexts.

    Raises
    ------
    DataError
        If the floor is unknown, ``control`` is among the conditions, there are no training controls, or the
        floor lacks the validation cells or gene names it needs.
    """
    if name not in FLOORS:
        raise DataError(f"unknown floor {name!r}; known: {', '.join(FLOORS)}")
    if any(not singles_of(condition) for condition in conditions):
        raise DataError("the control has no effect of its own; leave it out of the conditions")
    control_row(train)
    entry = FLOORS[name]
    if entry.needs_validation and validation is None:
        raise DataError(f"the floor {name!r} looks at validation cells; give their moments")
    return averaged_over_contexts(entry.function, train, validation, conditions)


def floor_errors(
    name: str, train: ConditionMoments, validation: ConditionMoments | None, conditions: Sequence[str]
) -> FloatArray | None:
    """Standard errors of :func:`floor_effects`, (conditions, genes); ``None`` where the floor does not know them.

    Parameters and errors are those of :func:`floor_effects`.
    """
    function = FLOORS[name].error
    return None if function is None else averaged_over_contexts(function, train, validation, conditions, power=2)
