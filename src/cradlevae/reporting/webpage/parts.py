"""What sections of the page are made of, as HTML: numbers, facts, tables, figures, findings and interactive parts."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_DPI = 200
"""Pixels per inch of an embedded figure: sharp on screens of high density too."""
COLOURS = 128
"""Colours of an embedded figure; with so few it is a third as large, and no eye tells the difference."""
MAX_ROWS = 2000
"""Largest number of rows of a table that are written; the files beside the page hold all rows."""
MISSING = "–"


def format_value(value: Any) -> str:
    """Write a value as text: numbers to three digits, whole ones in full, missing ones as a dash; not yet escaped."""
    if value is None or value is pd.NA or value is pd.NaT:
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}".replace("-", "−")
    if isinstance(value, float | np.floating):
        return _format_number(float(value))
    return str(value)


def _format_number(value: float) -> str:
    if np.isnan(value):
        return MISSING
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.2e}".replace("-", "−")
    return (f"{value:,.0f}" if size >= 999.5 else f"{value:#.3g}".rstrip(".")).replace("-", "−")


def facts_html(facts: Mapping[str, Any]) -> str:
    """Facts by name."""
    items = "\n".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(format_value(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts card">\n{items}\n</dl>'


def uses_html(uses: Mapping[str, str]) -> str:
    """Terms and sentences about them."""
    items = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in uses.items())
    return f'<dl class="uses card">\n{items}\n</dl>'


def findings_html(findings: Sequence[Any]) -> str:
    """Findings of :func:`cradlevae.evaluation.verdict.verdict`: level, topic and text of each."""
    words = {"good": "Good", "note": "Note", "warning": "Caution"}
    items = "\n".join(
        f'<li class="{escape(entry.level, quote=True)}"><strong>{escape(entry.topic)}'
        f'<span class="level">{words[entry.level]}</span></strong><span>{escape(entry.text)}</span></li>'
        for entry in findings
    )
    return f'<ul class="findings">\n{items}\n</ul>'


def steps_html(steps: Sequence[tuple[str, str]]) -> str:
    """A numbered list of sentences, each with the code that does it (may be empty)."""
    items = "\n".join(
        f"<li>{escape(text)}{f' <code>{escape(code)}</code>' if code else ''}</li>" for text, code in steps
    )
    return f'<ol class="steps">\n{items}\n</ol>'


def figure_html(name: str, figure: Figure) -> str:
    """A figure as a PNG in a button that enlarges it."""
    from PIL import Image

    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=FIGURE_DPI, facecolor=figure.get_facecolor())
    image = Image.open(buffer).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(small, "png", optimize=True)
    data = base64.b64encode(small.getvalue()).decode("ascii")
    alt = escape(figure.get_suptitle() or name, quote=True)
    label = escape(f"Enlarge the figure: {name}", quote=True)
    return (
        f'<figure><button type="button" aria-label="{label}"><img alt="{alt}" '
        f'width="{image.width}" height="{image.height}" src="data:image/png;base64,{data}"></button></figure>'
    )


def table_html(table: pd.DataFrame, name: str, *, searchable: bool = False, wide: Collection[str] = ()) -> str:
    """A table; columns of ``wide`` are left out on narrow screens.

    Parameters
    ----------
    table
        The table; its index is written where it says something.
    name
        What it shows, for screen readers and where it scrolls.
    searchable
        Give it a search field, and sort it by its headings.
    wide
        Names of columns that a narrow screen leaves out.
    """
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index()
    shown = table.iloc[:MAX_ROWS]
    classes = [_classes(shown.iloc[:, place], str(column) in wide) for place, column in enumerate(table.columns)]
    head = "".join(
        f'<th scope="col"{kind}>{escape(str(column).replace("_", " "))}</th>'
        for column, kind in zip(table.columns, classes, strict=True)
    )
    columns = [[_cell(value) for value in shown.iloc[:, place]] for place in range(table.shape[1])]
    body = "\n".join(
        f"<tr>{''.join(f'<td{kind}{key}>{text}</td>' for kind, (key, text) in zip(classes, row, strict=True))}</tr>"
        for row in zip(*columns, strict=True)
    )
    use = ' class="searchable"' if searchable else ""
    scrolls = f'class="table" tabindex="0" role="region" aria-label="{escape(name, quote=True)}"'
    html = f"<div {scrolls}><table{use}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    if len(table) > MAX_ROWS:
        html += f'\n<p class="note">The first {MAX_ROWS:,} of {len(table):,} rows.</p>'
    return f'<div class="card">{html}</div>'


def _cell(value: Any) -> tuple[str, str]:
    """Attribute by which a cell is sorted, and its text: both escaped."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool | np.bool_)
    key = f' data-order="{"" if np.isnan(value) else repr(float(value))}"' if number else ""
    return key, escape(format_value(value))


def _classes(column: pd.Series[Any], wide: bool) -> str:
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    names = [name for name, holds in (("number", numeric), ("wide", wide)) if holds]
    return f' class="{" ".join(names)}"' if names else ""
