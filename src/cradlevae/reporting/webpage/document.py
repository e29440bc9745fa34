"""The page itself: sections in their order, what its code reads, and the libraries that draw."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from cradlevae.reporting.webpage.packing import compressed
from cradlevae.utils.atomic import atomic_path

CODE = ("effects.js", "plots.js", "main.js")
"""Files of the page's own code, in their order."""


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes
    ----------
    name
        Its heading.
    reading
        One or two sentences: what is shown, and what good looks like.
    body
        HTML of what it shows.
    """

    name: str
    reading: str
    body: str

    @property
    def anchor(self) -> str:
        """Where links find it."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def html(self) -> str:
        """The section as HTML."""
        reading = f'<p class="reading">{escape(self.reading)}</p>\n' if self.reading else ""
        return f'<section id="{self.anchor}">\n<h2>{escape(self.name)}</h2>\n{reading}{self.body}\n</section>'


def write_page(path: str | Path, *, title: str, lead: str, sections: Sequence[Section], data: dict[str, Any]) -> Path:
    """Write a self-contained HTML page; nothing half-written stays behind.

    Parameters
    ----------
    path
        The file.
    title, lead
        Heading of the page, and the line below it.
    sections
        The sections; their names differ.
    data
        What the code of the page reads: ``effects``, ``map`` and ``cells``, each where there is one.

    Returns
    -------
    Path of the file.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    from importlib.metadata import version

    page = Template(own_text("page.html")).substitute(
        title=escape(title),
        lead=escape(lead),
        style=own_text("page.css"),
        contents=_contents(sections),
        sections="\n".join(section.html() for section in sections),
        version=escape(version("cradlevae")),
        payload=_payload(data),
        code="\n".join(own_text(name) for name in CODE),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def own_text(name: str) -> str:
    """A file of the page's own."""
    from importlib.resources import files

    return files("cradlevae.reporting.webpage").joinpath(name).read_text(encoding="utf-8")


def _contents(sections: Sequence[Section]) -> str:
    links = "\n".join(f'<li><a href="#{section.anchor}">{escape(section.name)}</a></li>' for section in sections)
    return f"<ol>\n{links}\n</ol>"


def _payload(data: dict[str, Any]) -> str:
    """Data and libraries as blocks that no browser executes; ``<`` is written so that none can be closed early."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    blocks = {"plotly": _plotly(), "datatables": _datatables()}
    return "\n".join(
        [
            f'<script type="application/json" id="data">{text}</script>',
            *(f'<script type="text/plain" id="{name}">{compressed(code)}</script>' for name, code in blocks.items()),
        ]
    )


def _plotly() -> bytes:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).encode()


def _datatables() -> bytes:
    """DataTables as the package itables ships it; the package itself is not imported."""
    from importlib.util import find_spec

    found = find_spec("itables")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("html").joinpath("dt_bundle.js").read_bytes()
