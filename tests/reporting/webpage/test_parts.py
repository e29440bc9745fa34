"""The HTML page: complete in itself, escaped, and with numbers that can be read."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.errors import DataError
from cradlevae.reporting.page import format_value, write_page
from cradlevae.reporting.style import headline, panels

EVIL = '<script>alert("x")</script> & $title'
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects tags, links and text, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.text.append(data.strip())


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def page(path: Path, **changes) -> Path:
    figure, (ax,) = panels(1)
    ax.plot([0, 1])
    headline(figure, EVIL)
    content = {
        "title": EVIL,
        "summary": {EVIL: EVIL, "cells": 12345, "share": 0.123456},
        "tables": {EVIL: pd.DataFrame({EVIL: [EVIL, "b"], "value": [0.123456, np.nan]})},
        "figures": {EVIL: figure},
    }
    return write_page(path, **(content | changes))


def test_page_escapes_everything(tmp_path):
    reader = read(page(tmp_path / "report.html"))
    assert "script" not in reader.seen
    assert reader.text.count(EVIL) == 10  # title twice, fact and name, two headings and their links, column and cell
    assert ("alt", EVIL) in reader.attributes


def test_page_needs_nothing_else(tmp_path):
    path = page(tmp_path / "report.html")
    reader = read(path)
    assert not {"link", "script", "iframe"} & set(reader.seen)
    links = [value for name, value in reader.attributes if name in ("src", "href")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not re.search(r"url\(|@import|https?://", path.read_text(encoding="utf-8"))
    anchors = {value for name, value in reader.attributes if name == "id"}
    assert {link[1:] for link in links if link.startswith("#")} == anchors
    [image] = [link for link in links if link.startswith("data:")]
    assert base64.b64decode(image.split(",")[1])[:4] == b"\x89PNG"


def test_page_writes_numbers_to_three_digits(tmp_path):
    text = read(page(tmp_path / "report.html")).text
    assert "12,345" in text
    assert text.count("0.123") == 2
    assert "–" in text  # the missing value


def test_page_is_for_dark_screens_and_paper_too(tmp_path):
    text = page(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_page_shows_an_index_that_says_something_and_cuts_long_tables(tmp_path):
    table = pd.DataFrame({"x": np.arange(1000)}, index=pd.Index([f"g{i}" for i in range(1000)], name="gene"))
    reader = read(page(tmp_path / "report.html", tables={"genes": table}, figures={}))
    assert "gene" in reader.text
    assert "g199" in reader.text
    assert "g200" not in reader.text
    assert "The first 200 of 1,000 rows." in reader.text


def test_page_of_nothing(tmp_path):
    reader = read(page(tmp_path / "report.html", title="empty", summary={}, tables={}, figures={}))
    assert reader.seen.count("h1") == 1
    assert not {"section", "nav", "dl"} & set(reader.seen)
    read(page(tmp_path / "report.html", tables={"none": pd.DataFrame({"a": []})}))


def test_page_leaves_nothing_half_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        page(tmp_path / "file" / "report.html")
    with pytest.raises(AttributeError):
        page(tmp_path / "report.html", figures={"not a figure": None})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.500"), (12.345, "12.3"), (999.6, "1,000"), (-0.25, "−0.250"), (0.0, "0.00"), (100.0, "100"),
        (123456.7, "123,457"), (1.234e-7, "1.23e−07"), (2.5e9, "2.50e+09"), (np.float32(0.125), "0.125"),
        (7, "7"), (np.int64(-1234), "−1,234"), (True, "yes"), (np.False_, "no"), (None, "–"), (np.nan, "–"),
        (pd.NA, "–"), (pd.NaT, "–"), (np.inf, "∞"), (-np.inf, "−∞"), ("A+B", "A+B"),
    ],
)  # fmt: skip
def test_values_as_text(value, text):
    assert format_value(value) == text


@given(st.floats(min_value=-1e12, max_value=1e12))
def test_written_numbers_are_right_to_three_digits(value):
    read_back = float(format_value(value).replace("−", "-").replace(",", ""))
    assert abs(read_back - value) <= 0.005 * abs(value) * 1.001
