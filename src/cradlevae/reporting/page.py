"""The report as one HTML file that needs nothing else: figures, tables and styles are inside."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cradlevae.utils.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_DPI = 200
"""Pixels per inch of an embedded figure: sharp on screens of high density too."""
MAX_ROWS = 200
"""Largest number of rows of a table that are written; the files beside the page hold all rows."""
MISSING = "–"


def write_page(
    path: str | Path,
    *,
    title: str,
    summary: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Figure],
) -> Path:
    """Write a self-contained HTML page; nothing half-written stays behind.

    Parameters
    ----------
    path
        The file.
    title
        Heading of the page.
    summary
        Facts by name, shown on top.
    tables
        Tables by heading; numbers are written to three digits, at most the first 200 rows of each.
    figures
        Figures by heading; they are embedded as PNG.

    Returns
    -------
    Path of the file.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    from importlib.metadata import version
    from importlib.resources import files

    sections = [(name, _figure(name, figure)) for name, figure in figures.items()]
    sections += [(name, _table(table)) for name, table in tables.items()]
    template = Template(files("cradlevae.reporting").joinpath("page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(title),
        summary=_summary(summary),
        contents=_contents([name for name, _ in sections]),
        sections="\n".join(
            f'<section>\n<h2 id="{_anchor(index, name)}">{escape(name)}</h2>\n{body}\n</section>'
            for index, (name, body) in enumerate(sections)
        ),
        version=escape(version("cradlevae")),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


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


def _summary(facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    items = "\n".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(format_value(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="summary">\n{items}\n</dl>'


def _anchor(index: int, name: str) -> str:
    return f"s{index}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}"


def _contents(names: list[str]) -> str:
    if len(names) < 2:
        return ""
    links = "\n".join(f'<a href="#{_anchor(index, name)}">{escape(name)}</a>' for index, name in enumerate(names))
    return f'<nav aria-label="Contents">\n{links}\n</nav>'


def _figure(name: str, figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=FIGURE_DPI, facecolor=figure.get_facecolor())
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    alt = escape(figure.get_suptitle() or name, quote=True)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"></figure>'


def _table(table: pd.DataFrame) -> str:
    if not isinstance(table.index, pd.RangeIndex):
        index_name = "" if table.index.name is None else str(table.index.name)
        labels = [format_value(label) for label in table.index[:MAX_ROWS]]
    else:
        index_name, labels = None, []
    shown = table.iloc[:MAX_ROWS]
    numeric = [_is_numeric(table.iloc[:, column]) for column in range(table.shape[1])]
    columns = [[format_value(value) for value in shown.iloc[:, column]] for column in range(table.shape[1])]

    head = "" if index_name is None else f'<th scope="col">{escape(index_name)}</th>'
    head += "".join(
        f'<th scope="col"{_class(number)}>{escape(str(name))}</th>'
        for name, number in zip(table.columns, numeric, strict=True)
    )
    body = []
    for row in range(len(shown)):
        cells = "" if index_name is None else f'<th scope="row">{escape(labels[row])}</th>'
        cells += "".join(
            f"<td{_class(number)}>{escape(values[row])}</td>" for values, number in zip(columns, numeric, strict=True)
        )
        body.append(f"<tr>{cells}</tr>")
    rows = "\n".join(body)
    html = f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'
    if len(table) > MAX_ROWS:
        html += f'\n<p class="note">The first {MAX_ROWS} of {len(table):,} rows.</p>'
    return html


def _is_numeric(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))


def _class(number: bool) -> str:
    return ' class="number"' if number else ""
