"""Fields of the configuration dataclasses as they arrive from Python, YAML and the command line: checked, and plain.

numpy scalars become Python's, lists become tuples, and a value of another type is refused with the name of the field.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from cradlevae.errors import DataError


def normalise_fields(instance: Any) -> None:
    """Bring every field of a (frozen) dataclass to the type that it declares, in place; call it in ``__post_init__``.

    Raises
    ------
    DataError
        If a value is of another type; the message names the field, the value and what it must be.
    """
    hints = get_type_hints(type(instance))
    for entry in fields(instance):
        value = getattr(instance, entry.name)
        object.__setattr__(instance, entry.name, as_type(hints[entry.name], value, entry.name))


def plain(value: Any) -> Any:
    """A numpy scalar (or array of no dimension) as Python's own number or text; anything else as it is."""
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


def as_type(kind: Any, value: Any, name: str) -> Any:
    """A value as its declared type wants it; :class:`DataError` names what does not fit."""
    value = plain(value)
    if not fits(kind, value):
        raise DataError(f"{name} is {value!r}; it must be {described(kind)}")
    return _converted(kind, value, name)


def _converted(kind: Any, value: Any, name: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _converted(next(choice for choice in inner if fits(choice, value)), value, name)
    if origin is tuple:
        return tuple(_converted(inner[0], plain(item), name) for item in value)
    return float(value) if kind is float else value


def fits(kind: Any, value: Any) -> bool:
    """Whether a plain value is of a declared type; types that are not plain are left to whoever takes the value."""
    value = plain(value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(choice, value) for choice in inner)
    if origin is Literal:
        return isinstance(value, str | bool | int)  # which of them is checked, with the choices, by the dataclass
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, list | tuple | np.ndarray) and all(fits(inner[0], item) for item in value)
    if kind in (str, bool):
        return isinstance(value, kind)
    if kind is type(None):
        return value is None
    return not isinstance(value, str) if origin in (dict, Mapping) else True


def described(kind: Any) -> str:
    """A declared type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(described(choice) for choice in inner)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        return f"a list of {described(inner[0])}"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "None"}
    return words.get(kind, getattr(kind, "__name__", str(kind)))
