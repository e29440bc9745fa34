"""Whether the labels of cells fit: perturbations that a model knows, and controls to make one of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cradlevae.data.fields import DataFields
from cradlevae.data.labels import CONTROL, Condition, condition_name
from cradlevae.data.naming.cell_labels import CellLabels
from cradlevae.data.naming.label_advice import control_separator, likely_controls_first
from cradlevae.errors import DataError
from cradlevae.utils.names import closest, listed
from cradlevae.utils.types import BoolArray


def check_labels(
    labels: CellLabels, assigned: BoolArray, perturbations: Sequence[str] | None, fields: DataFields
) -> None:
    """Raise :class:`DataError` if a perturbation is unknown to a model, or there are no controls to make one of."""
    if not assigned.any():
        return  # the caller says so
    if perturbations is None:
        check_controls(labels, assigned, fields)
        return
    own = sorted({single for condition in occurring_conditions(labels, assigned) for single in condition.singles})
    _check_known(own, perturbations, fields)


def _check_known(own: Sequence[str], perturbations: Sequence[str], fields: DataFields) -> None:
    """Raise :class:`DataError` if the data have a perturbation that a model does not know."""
    known = set(perturbations)
    for single in own:
        if single not in known:
            raise DataError(
                f"perturbation {single!r} in obs[{fields.perturbation_key!r}] is unknown to the model"
                + closest(single, list(perturbations))
            )


def occurring_conditions(labels: CellLabels, usable: BoolArray) -> tuple[Condition, ...]:
    """Return the conditions of the usable cells: the control, then the others by name."""
    occurring = {labels.conditions[code] for code in np.unique(labels.codes[usable])}
    treated = sorted(condition for condition in occurring if condition is not None and condition.singles)
    return (condition_name(()), *treated)


def check_controls(labels: CellLabels, usable: BoolArray, fields: DataFields) -> None:
    """Raise :class:`DataError` where no usable cell is a control; the message shows what may be one."""
    n_cells = np.bincount(labels.codes[usable], minlength=len(labels.conditions))
    present = [index for index, condition in enumerate(labels.conditions) if condition is not None and n_cells[index]]
    if any(labels.conditions[index] == CONTROL for index in present):
        return
    column = fields.guides_key is None
    names = [labels.written[index] if column else str(labels.conditions[index]) for index in present]
    shown = likely_controls_first(names, [int(n_cells[index]) for index in present])
    where = f"obs[{fields.perturbation_key!r}]" if column else f"obsm[{fields.guides_key!r}]"
    other = control_separator(names, fields) if column else None
    mend = f"if {other!r} separates them, use separator={other!r}" if other else "name yours with control_labels="
    raise DataError(
        f"no control cells: none of {', '.join(map(repr, fields.control_labels))} is in {where} "
        f"(labels there: {listed(shown)}); {mend}"
    )
