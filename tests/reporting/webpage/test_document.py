"""The page: complete in itself, with a link to each section, and never half-written."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cradlevae.errors import DataError
from cradlevae.reporting.webpage.document import Section, write_page

EVIL = '<script>alert("x")</script> & $title'
VOID = {"meta", "img", "br", "link", "input"}
SECTIONS = [Section("First things", EVIL, "<p>one</p>"), Section("Second", "", "<p>two</p>")]


class Reader(HTMLParser):
    """Collects attributes and text, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] not in ("style", "script"):
            self.text.append(data.strip())


def page(path: Path, **changes) -> Path:
    return write_page(path, **({"title": EVIL, "lead": EVIL, "sections": SECTIONS, "data": {"a": EVIL}} | changes))


def test_the_page_escapes_what_it_is_given_and_needs_nothing_else(tmp_path):
    path = page(tmp_path / "report.html")
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    assert reader.text.count(EVIL) == 4  # title twice, lead, reading
    links = [value for name, value in reader.attributes if name in ("src", "href")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert {link[1:] for link in links if link.startswith("#")} == {"content", "first-things", "second"}
    assert not re.search(r"url\(|@import|https?://", path.read_text(encoding="utf-8"))


def test_data_come_back_as_they_were(tmp_path):
    text = page(tmp_path / "report.html").read_text(encoding="utf-8")
    [block] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert json.loads(block) == {"a": EVIL}


def test_the_page_is_for_dark_screens_and_paper_too(tmp_path):
    text = page(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_nothing_is_left_half_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        page(tmp_path / "file" / "report.html")
    with pytest.raises(TypeError):
        page(tmp_path / "report.html", data={"not to be written": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
