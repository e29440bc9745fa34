"""Checks of arguments; their messages name the argument, the value and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cradlevae.errors import DataError


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise :class:`DataError` unless a value is one of those allowed."""
    if value not in allowed:
        raise DataError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")


def check_at_least(least: float, **values: float) -> None:
    """Raise :class:`DataError` unless every value is a number and not below ``least``."""
    for name, value in values.items():
        if not value >= least:
            raise DataError(f"{name} is {value}; it must be at least {least}")
