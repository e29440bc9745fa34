"""Dataclasses from plain values of a YAML file or a Python caller, checked and brought to the declared types."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from cradlevae.errors import DataError
from cradlevae.utils.names import closest

Kind = TypeVar("Kind")


def from_plain(kind: type[Kind], given: Any, where: str) -> Kind:
    """A dataclass from a mapping of plain values.

    Parameters
    ----------
    kind
        The dataclass.
    given
        Values by the names of its fields; an instance of ``kind`` comes back as it is.
    where
        What the values are, for messages, e.g. ``"the plan"``.

    Raises
    ------
    DataError
        If a field is unknown, missing or of another type; the message names it.
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise DataError(f"{where} must be a mapping, not {given!r}")
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise DataError(f"{where} has no {name!r}{closest(str(name), list(known))}")
    for name, entry in known.items():
        if name not in given and entry.default is MISSING and entry.default_factory is MISSING:
            raise DataError(f"{where} lacks {name}:")
    hints = get_type_hints(kind)
    return kind(**{name: _typed(hints[name], value, f"{name} of {where}") for name, value in given.items()})


def normalise(record: Any, where: str) -> None:
    """Bring the fields of a frozen dataclass to their declared types, from its ``__post_init__``.

    NumPy scalars become Python's, arrays and lists become tuples, mappings become the dataclass that is declared.

    Raises
    ------
    DataError
        If a value is of another type; the message names the field.
    """
    hints = get_type_hints(type(record))
    for entry in fields(record):
        value = _typed(hints[entry.name], getattr(record, entry.name), f"{entry.name} of {where}")
        object.__setattr__(record, entry.name, value)


def plain(value: Any) -> Any:
    """The same value of plain mappings, lists, numbers and text, as JSON and YAML hold them."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _typed(kind: Any, value: Any, where: str) -> Any:
    """A value as its type wants it, lists as tuples and mappings as dataclasses."""
    if not is_dataclass(value):
        value = plain(value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        choices = [choice for choice in inner if choice is not type(None)]
        exact = [choice for choice in choices if type(value) is choice]
        fitting = [choice for choice in choices if _fits(choice, value)]
        return _typed((exact or fitting or choices)[0], value, where)
    if origin is tuple:
        if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
            raise DataError(f"{where} must be a list, not {value!r}")
        return tuple(_typed(inner[0], item, where) for item in value)
    if is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):  # whose own fields may hold NumPy's types
            value = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return from_plain(kind, value, where)
    if not _fits(kind, value):
        raise DataError(f"{where} must be {getattr(kind, '__name__', kind)}, not {value!r}")
    return float(value) if kind is float else value


def _fits(kind: Any, value: Any) -> bool:
    """Whether a plain value is of a plain type; a type that is not plain is checked by the class that takes it."""
    origin = get_origin(kind) or kind
    if origin is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, (list, tuple))
    return isinstance(value, origin) if origin in (str, bool, dict) else True
