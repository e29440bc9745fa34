"""Perturbation labels as people write them, turned into conditions and dosages.

A :class:`Condition` is what was done to a cell: ``control``, a single perturbation ``A`` or a combination ``A+B``. It
consists of single perturbations; its name, which joins them, is only shown. The singles are sorted, so ``B+A`` and
``A+B`` are one condition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from cradlevae.errors import DataError

CONTROL = "control"
"""Canonical name of the unperturbed condition."""

TARGET = "target"
"""Column of a table of guide RNAs with the target of each; ``control`` for those that target no gene."""

UNASSIGNED = "unassigned"
"""Label of a cell whose guide RNAs do not tell its perturbation; such cells are left out, with a warning."""

DEFAULT_CONTROLS = ("control", "ctrl", "non-targeting", "non_targeting")
"""Labels that mean "unperturbed" unless the caller names others; case does not matter."""

MISSING = frozenset({"", "nan", "-nan", "none", "na", "<na>", "n/a", "#n/a", "#na", "null"})
"""Texts that stand for a missing label, in lower case; most of them come from tables that were written and read."""

BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
"""A part with one bracket of a pair was cut out of a name, as in ``(+)-JQ1``."""


class Condition(str):
    """The canonical name of a condition, which knows its single perturbations.

    It is a text like any other, but nobody has to split it to learn what it consists of: names such as ``Na+`` may hold
    the text that joins the singles.

    Attributes
    ----------
    singles
        The single perturbations, sorted; empty for the control.
    context
        The context in which it is asked for, or measured; ``None`` where it is not one context's.
    base
        Its name without the context.
    """

    singles: tuple[str, ...]
    context: str | None
    base: str

    def __new__(
        cls, name: str, singles: Iterable[str], context: str | None = None, base: str | None = None
    ) -> Condition:
        """Name a condition."""
        condition = super().__new__(cls, name)
        condition.singles = tuple(singles)
        condition.context = context
        condition.base = str(name) if base is None else base
        return condition

    def __getnewargs__(self) -> tuple[str, tuple[str, ...], str | None, str]:  # type: ignore[override]
        return str(self), self.singles, self.context, self.base


def condition_name(singles: Iterable[str], separator: str | None = "+") -> Condition:
    """Return the condition with these single perturbations; its name joins them with the separator.

    Without a separator, ``+`` joins those of a cell that was found to have several guide RNAs.
    """
    parts = tuple(sorted(singles))
    return Condition((separator or "+").join(parts) or CONTROL, parts)


def in_context(condition: str, context: str | None) -> Condition:
    """Return a condition in a context, ``"A+B in D1"``; the control, which is one condition, stays as it is.

    Parameters
    ----------
    condition
        Name of a condition; where it is one of another context already, that context is replaced.
    context
        The context; ``None`` is none.
    """
    base, singles = base_of(condition), singles_of(condition)
    if context is None or not singles:
        return Condition(base, singles)
    return Condition(f"{base} in {context}", singles, context, base)


def context_of(condition: str) -> str | None:
    """Return the context of a condition; ``None`` where it is not one context's."""
    return condition.context if isinstance(condition, Condition) else None


def base_of(condition: str) -> str:
    """Return the name of a condition without its context."""
    return condition.base if isinstance(condition, Condition) else str(condition)


def singles_of(condition: str) -> tuple[str, ...]:
    """Return the single perturbations of a canonical condition; empty for ``control``.

    A :class:`Condition` knows them. A plain text is read as a name whose singles are joined with ``+``.
    """
    if isinstance(condition, Condition):
        return condition.singles
    return () if condition == CONTROL else tuple(condition.split("+"))


def parse_label(
    label: str, *, separator: str | None = "+", control_labels: Sequence[str] = DEFAULT_CONTROLS
) -> tuple[str, ...]:
    """Return the single perturbations that a label means, sorted; empty for a control.

    Control labels are recognised before the label is split, also as parts of it: ``A+ctrl`` (GEARS style) is the single
    ``A``, and so is ``A_non_targeting`` with the separator ``_``. ``A+A`` (two guide RNAs against one gene) is ``A``.

    Parameters
    ----------
    label
        The label of a cell, e.g. ``"A+B"``.
    separator
        Text between the single perturbations of a combination; ``None`` where there are no combinations.
    control_labels
        Labels that mean "unperturbed"; case does not matter.

    Raises
    ------
    DataError
        If the label is missing, or has nothing that could be a name on one side of the separator.
    """
    parts = _parts(label, separator, control_labels)
    if is_missing(label, separator=separator, control_labels=control_labels):
        raise DataError(f"label {label!r} is missing or empty; name the perturbation, or 'control'")
    for part in parts:
        if separator is not None and (not part or _cut_in_brackets(part)):
            raise DataError(
                f"label {label!r} has {part!r} on one side of the separator {separator!r}, which is no name; if "
                f"{separator!r} belongs to a name, use separator=None (no combinations), or name what else stands "
                "between the perturbations of a combination"
            )
    return tuple(sorted(set(parts)))


def _cut_in_brackets(part: str) -> bool:
    return any(part.count(opened) != part.count(closed) for opened, closed in BRACKETS)


def is_missing(label: str, *, separator: str | None = "+", control_labels: Sequence[str] = DEFAULT_CONTROLS) -> bool:
    """Whether a label, or a part of it, stands for a missing value; a control label never does."""
    parts = _parts(label, separator, control_labels)
    if not all(parts):  # "+" is missing, but in "Na+" the separator belongs to the name
        return not any(parts)
    return any(part.casefold() in MISSING for part in parts)


def _parts(label: str, separator: str | None, control_labels: Sequence[str]) -> list[str]:
    """Split a label and leave out the controls, also those whose names hold the separator."""
    controls = {_folded(name) for name in (*control_labels, CONTROL)}
    if _folded(label) in controls:
        return []
    if separator is None:
        return [label.strip()]
    whole = label if separator.strip() else label.strip()  # blanks around a label separate nothing
    pieces = [piece.strip() for piece in whole.split(separator)]
    spelled = {tuple(_folded(piece) for piece in name.split(separator)) for name in (*control_labels, CONTROL)}
    longest = max(map(len, spelled))
    parts: list[str] = []
    position = 0
    while position < len(pieces):
        ahead = [tuple(_folded(piece) for piece in pieces[position : position + n]) for n in range(longest, 0, -1)]
        control = next((run for run in ahead if run in spelled), None)
        if control is None:
            parts.append(pieces[position])
        position += 1 if control is None else len(control)
    return parts


def _folded(text: str) -> str:
    return text.strip().casefold()


def requested_conditions(
    labels: str | Iterable[str],
    *,
    separator: str | None = "+",
    control_labels: Sequence[str] = DEFAULT_CONTROLS,
    perturbations: Collection[str] = (),
    guides: bool = False,
) -> dict[str, Condition]:
    """Return the conditions that a user asks for, by the label as the user wrote it, each label once and in order.

    Two spellings of one condition (``A+B``, ``B+A``) are two entries with equal conditions.

    Parameters
    ----------
    labels
        One label or several. A :class:`Condition` knows its single perturbations and is not split.
    separator, control_labels
        As in :class:`~cradlevae.data.fields.DataFields`.
    perturbations
        Known single perturbations, if there are any. With another separator than ``+``, ``A+B`` is understood as well,
        if no perturbation has this name, but ``A`` and ``B`` are known.
    guides
        Whether the conditions were read from guide RNAs. There are combinations then without a separator, too: their
        names join known perturbations with ``+``.

    Raises
    ------
    DataError
        If no label is given, one of them is empty or missing, or it is several combinations of known perturbations.
    """
    if not isinstance(labels, Iterable) or isinstance(labels, bytes):
        raise DataError(f"perturbations is {labels!r}; give a label such as 'A+B', or a list of labels")
    given = [labels] if isinstance(labels, str) else list(labels)
    for label in given:
        if not isinstance(label, str | int | np.integer) or isinstance(label, bool):
            raise DataError(f"perturbations has {label!r}, which is no label; give texts such as 'A+B'")
    if not given:
        raise DataError("no perturbations were given")
    conditions = {}
    for label in given:
        if isinstance(label, Condition):
            conditions[str(label)] = in_context(condition_name(label.singles, separator), label.context)
            continue
        label = str(label)
        singles = set(parse_label(label, separator=separator, control_labels=control_labels))
        if guides and separator is None and not singles <= set(perturbations):
            singles = _joined(label, perturbations, control_labels) or singles
        for name in singles - set(perturbations):
            others = {part.strip() for part in name.split("+")}
            if len(others) > 1 and separator is not None and others <= set(perturbations):
                singles = singles - {name} | others
        conditions[label] = condition_name(singles, separator)
    return conditions


def _joined(label: str, perturbations: Collection[str], control_labels: Sequence[str]) -> set[str]:
    """Return the known perturbations that a label joins with ``+``; none where there are no such.

    The names of perturbations may hold a ``+`` as well.
    """
    controls = {_folded(name) for name in (*control_labels, CONTROL)}
    pieces = label.split("+")
    readings: list[set[frozenset[str]]] = [{frozenset()}]  # of the first 0, 1, … pieces
    for end in range(1, len(pieces) + 1):
        ways: set[frozenset[str]] = set()
        for start in range(end):
            name = "+".join(pieces[start:end]).strip()
            if name in perturbations or _folded(name) in controls:
                own = {name} if name in perturbations else set()
                ways |= {way | own for way in readings[start]}
        readings.append(ways)
    if len(readings[-1]) > 1:
        shown = " or ".join(str(sorted(way)) for way in sorted(readings[-1], key=sorted))
        raise DataError(f"label {label!r} may mean {shown}; give a condition of the data, from model.data.conditions")
    return set(next(iter(readings[-1]), ()))
