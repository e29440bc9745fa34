"""Tables as text: nothing is cut, lines fit the terminal, and a pipe gets a line for each row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.utils.layout import laid_out, terminal_width, wrapped

WORDS = st.text("abcdefg_", min_size=1, max_size=12)
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    n = draw(st.integers(1, 5))
    columns = {"name": [f"row_{place}" for place in range(n)]}
    for place in range(draw(st.integers(1, 7))):
        values = TEXTS if draw(st.booleans()) else st.floats(-1e6, 1e6)
        columns[f"{draw(WORDS)} {place}"] = draw(st.lists(values, min_size=n, max_size=n))
    return pd.DataFrame(columns)


@given(tables(), st.integers(1, 100))
def test_a_table_fits_its_width_and_every_character_is_there(table: pd.DataFrame, width: int) -> None:
    lines = laid_out(table, width)
    if width >= 30:  # room for a name and a number beside it
        assert max(map(len, lines)) <= width
    shown = sorted("".join("".join(lines).split()).replace("-", ""))
    for column in table:
        for value in table[column]:
            text = f"{value:.3g}" if isinstance(value, float) else value
            for character in set(text) - {" ", "-"}:
                assert shown.count(character) >= text.count(character)
    if table.shape[1] == 2 and pd.api.types.is_object_dtype(table.dtypes.iloc[1]):  # one block: nothing is repeated
        names = "".join(table.columns).replace("_", "")
        cells = "".join(table.iloc[:, 0]) + "".join(table.iloc[:, 1])
        assert len(shown) == len("".join((names + cells).split()))


@given(tables())
def test_without_a_width_each_row_is_one_line(table: pd.DataFrame) -> None:
    lines = laid_out(table, None)
    assert len(lines) == len(table) + 2
    for line, (_, row) in zip(lines[2:], table.iterrows(), strict=True):
        for value in row:
            assert (f"{value:.3g}" if isinstance(value, float) else value) in line


def test_numbers_are_aligned_and_blank_rows_are_not_repeated() -> None:
    table = pd.DataFrame(
        {"metric": ["a", "b"], "value": [1.5, np.nan], "note": ["", "a note of thirty characters or so"]}
    )
    assert laid_out(table, None) == [
        "metric  value  note",
        "------  -----  ---------------------------------",
        "a         1.5",
        "b              a note of thirty characters or so",
    ]
    assert laid_out(table, 30) == [
        "metric  value",
        "------  -----",
        "a         1.5",
        "b",
        "",
        "metric  note",
        "------  ----------------------",
        "b       a note of thirty",
        "        characters or so",
    ]


def test_prose() -> None:
    assert wrapped("held-out cells are scored", 10, "  ") == ["held-out", "  cells", "  are", "  scored"]
    assert wrapped("held-out cells are scored", None) == ["held-out cells are scored"]
    assert wrapped("", 10) == wrapped("", None) == []


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal_width() is None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "61")
    assert terminal_width() == 61
