"""How objects show themselves in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping


def summary_html(title: str, rows: Mapping[str, object]) -> str:
    """A title and a small table of names and values, as HTML; values that are empty are left out.

    Examples
    --------
    >>> "notes" in summary_html("Split", {"seed": 0, "notes": ""})
    False
    """
    left = 'style="text-align:left"'
    cells = [(html.escape(name), html.escape(str(value))) for name, value in rows.items() if str(value)]
    lines = "".join(f"<tr><th {left}>{name}</th><td {left}>{value}</td></tr>" for name, value in cells)
    return f"<div><b>{html.escape(title)}</b><table>{lines}</table></div>"
