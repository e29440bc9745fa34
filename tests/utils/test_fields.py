"""Fields of dataclasses become plain, or are refused by their name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from cradlevae.errors import DataError
from cradlevae.utils.fields import normalise_fields


@dataclass(frozen=True)
class Settings:
    whole: int = 1
    number: float = 1.0
    text: str = "a"
    switch: bool = False
    perhaps: int | None = None
    labels: str | tuple[str, ...] = ()
    choice: Literal["one", "two"] = "one"

    def __post_init__(self) -> None:
        normalise_fields(self)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"whole": np.int64(3)}, 3),
        ({"number": np.float32(0.5)}, 0.5),
        ({"number": np.int64(2)}, 2.0),
        ({"number": 2}, 2.0),
        ({"text": np.str_("b")}, "b"),
        ({"switch": np.bool_(True)}, True),
        ({"perhaps": np.int32(4)}, 4),
        ({"perhaps": None}, None),
        ({"labels": ["a", np.str_("b")]}, ("a", "b")),
        ({"labels": np.array(["a"])}, ("a",)),
        ({"labels": "a"}, "a"),
        ({"whole": np.array(7)}, 7),
    ],
)
def test_values_become_pythons_own(given: dict[str, Any], expected: Any) -> None:
    name = next(iter(given))
    value = getattr(Settings(**given), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"whole": 1.5}, "whole is 1.5; it must be a whole number"),
        ({"whole": True}, "whole is True; it must be a whole number"),
        ({"whole": None}, "whole is None; it must be a whole number"),
        ({"number": "1"}, "number is '1'; it must be a number"),
        ({"switch": 1}, "switch is 1; it must be true or false"),
        ({"perhaps": 2.0}, "perhaps is 2.0; it must be a whole number or None"),
        ({"labels": 0}, "labels is 0; it must be a text or a list of a text"),
        ({"labels": [1]}, "labels is .*; it must be a text or a list of a text"),
        ({"text": None}, "text is None; it must be a text"),
    ],
)
def test_other_types_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Settings(**given)
