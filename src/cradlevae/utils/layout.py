"""Tables and prose as plain text: everything is there, whatever the width."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from shutil import get_terminal_size
from typing import Any

import pandas as pd

GAP = "  "
"""Between two columns."""

NARROW = 24
"""Characters that a column of texts may be narrowed to before it is moved into a block of its own."""


@dataclass(frozen=True)
class _Column:
    """A column as it is printed.

    Attributes
    ----------
    name, cells
        Its title and its cells, as texts.
    is_text
        Whether it holds texts, which are aligned on the left and may be wrapped.
    """

    name: str
    cells: list[str]
    is_text: bool

    @property
    def width(self) -> int:
        """Characters that it needs for its cells, and for the longest word of its title."""
        return max([0, *map(len, self.cells), *map(len, self.name.split())])


def terminal_width() -> int | None:
    """Characters of a line of the terminal that stdout is; ``None`` where it is a file or a pipe."""
    return get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """Lines of a text, those after the first one indented; one line where there is no width, none of no text."""
    if width is None:
        return [text] if text else []
    return textwrap.wrap(text, max(width, len(indent) + 1), subsequent_indent=indent, break_on_hyphens=False)


def laid_out(table: pd.DataFrame, width: int | None) -> list[str]:
    """Lines of a table.

    Parameters
    ----------
    table
        What to print; the first column names the rows.
    width
        Characters of a line. A table that is wider has its texts wrapped, and then its columns in blocks one below the
        other, each with the names of the rows, and its titles at underscores. ``None`` gives each row one line, and
        each title its name.
    """
    columns = [_column(table, place) for place in range(table.shape[1])]
    if width is None:
        return _block(columns, [max(column.width, len(column.name)) for column in columns])
    key, *rest = (replace(column, name=column.name.replace("_", " ")) for column in columns)
    key_width = min(key.width, max(width // 2, 1))
    lines: list[str] = []
    for block in _blocks(rest, width - key_width):
        columns = [key, *block] if not lines else _without_blanks([key, *block])
        lines += [*([""] if lines else []), *_block(columns, [key_width, *_widths(block, width - key_width)])]
    return lines


def _without_blanks(columns: Sequence[_Column]) -> list[_Column]:
    """The columns without the rows of which nothing but the name is there."""
    rows = [row for row, cells in enumerate(zip(*(column.cells for column in columns[1:]), strict=True)) if any(cells)]
    return [replace(column, cells=[column.cells[row] for row in rows]) for column in columns]


def _column(table: pd.DataFrame, place: int) -> _Column:
    values = table.iloc[:, place]
    is_text = not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)
    return _Column(str(table.columns[place]), [_text(value) for value in values], is_text)


def _text(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _least(column: _Column) -> int:
    """Fewest characters that a column takes, with the gap before it."""
    return len(GAP) + (min(column.width, NARROW) if column.is_text else column.width)


def _blocks(columns: Sequence[_Column], room: int) -> list[list[_Column]]:
    """The columns in as few blocks as fit into so many characters each; at least one block."""
    blocks: list[list[_Column]] = [[]]
    for column in columns:
        if blocks[-1] and sum(map(_least, blocks[-1])) + _least(column) > room:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _widths(block: Sequence[_Column], room: int) -> list[int]:
    """Widths of the columns of a block: texts share what numbers leave."""
    widths = [_least(column) - len(GAP) for column in block]
    spare = room - sum(widths) - len(GAP) * len(block)
    for place, column in enumerate(block):
        more = min(max(spare, 0), column.width - widths[place])
        widths[place] += more
        spare -= more
    if spare < 0:  # a single column that is too wide
        widths[-1] = max(widths[-1] + spare, 1)
    return widths


def _block(columns: Sequence[_Column], widths: Sequence[int]) -> list[str]:
    titles = _wrapped([column.name for column in columns], columns, widths)
    lines = [*titles, GAP.join("-" * width for width in widths)]
    for row in zip(*(column.cells for column in columns), strict=True):
        lines += _wrapped(row, columns, widths)
    return lines


def _wrapped(cells: Sequence[str], columns: Sequence[_Column], widths: Sequence[int]) -> list[str]:
    """Lines of a row, each cell within the width of its column."""
    parts = [wrapped(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for number in range(max(map(len, parts))):
        texts = [part[number] if number < len(part) else "" for part in parts]
        aligned = [
            text.ljust(width) if column.is_text else text.rjust(width)
            for text, column, width in zip(texts, columns, widths, strict=True)
        ]
        lines.append(GAP.join(aligned).rstrip())
    return lines
