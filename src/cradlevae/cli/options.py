"""The options of a command, from the signature of its function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
"""Words that a switch may be followed by; case does not matter."""

NULL = ("null", "none")
"""Words that mean ``None`` where an option may be ``None``; case does not matter."""


@dataclass(frozen=True)
class Option:
    """An option of a command, or a word that follows the command.

    Attributes
    ----------
    name
        Its name, as in Python.
    hint
        The type of its value.
    default
        Its default; :data:`inspect.Parameter.empty` where a value must be given.
    positional
        Whether the value may stand without the name, after the command.
    group
        Parameter of the command's function that is a dataclass with this field; empty for the function's own.
    """

    name: str
    hint: Any
    default: Any
    positional: bool = False
    group: str = ""

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is Parameter.empty

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that a value may have, without ``None``."""
        union = get_args(self.hint) if get_origin(self.hint) in (Union, UnionType) else (self.hint,)
        return tuple(kind for kind in union if kind is not NoneType)

    @property
    def optional(self) -> bool:
        """Whether the value may be ``None``."""
        return NoneType in get_args(self.hint)

    @property
    def several(self) -> bool:
        """Whether it takes several words."""
        return any(get_origin(kind) in (list, tuple) for kind in self.kinds)

    @property
    def switch(self) -> bool:
        """Whether it means "yes" where no word follows it."""
        return bool in self.kinds

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it takes, where it takes no others; a switch takes :data:`YES` and :data:`NO` as well."""
        if any(kind is not bool and get_origin(kind) is not Literal for kind in self.kinds):
            return ()
        return tuple(str(word) for kind in self.kinds for word in get_args(kind))

    @property
    def shown(self) -> str:
        """The option as a user writes it: ``DATA`` or ``--n_cells``."""
        return self.name.upper() if self.positional else f"--{self.name}"


def options_of(function: Callable[..., None]) -> dict[str, Option]:
    """The options of a command's function by name; the fields of its dataclasses are options of their own."""
    hints = get_type_hints(function)
    options = []
    for name, parameter in signature(function).parameters.items():
        if is_dataclass(hints[name]):
            types = get_type_hints(hints[name])
            options += [Option(one.name, types[one.name], one.default, group=name) for one in fields(hints[name])]
        else:
            positional = parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
            options.append(Option(name, hints[name], parameter.default, positional))
    return {option.name: option for option in options}


def arguments_of(function: Callable[..., None], values: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a command's function from the values of its options: dataclasses are made of their fields."""
    hints = get_type_hints(function)
    arguments: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for option in options_of(function).values():
        (groups.setdefault(option.group, {}) if option.group else arguments)[option.name] = values[option.name]
    return arguments | {group: hints[group](**content) for group, content in groups.items()}
