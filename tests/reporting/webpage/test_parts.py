"""Parts of the page: escaped, and with numbers that can be read."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.evaluation.verdict import Finding
from cradlevae.reporting.style import headline, panels
from cradlevae.reporting.webpage.parts import (
    facts_html,
    figure_html,
    findings_html,
    format_value,
    steps_html,
    table_html,
    uses_html,
)

EVIL = '<script>alert("x")</script> & $title'


def test_every_part_escapes_what_it_is_given():
    figure, (ax,) = panels(1)
    ax.plot([0, 1])
    headline(figure, EVIL)
    table = pd.DataFrame({EVIL: [EVIL, "b"], "value": [0.123456, np.nan]}, index=pd.Index(["a", EVIL], name="at"))
    parts = [
        facts_html({EVIL: EVIL}), uses_html({EVIL: EVIL}), steps_html([(EVIL, EVIL)]), figure_html(EVIL, figure),
        findings_html([Finding("warning", EVIL, EVIL)]), table_html(table, EVIL),
    ]  # fmt: skip
    for part in parts:
        assert "<script" not in part
        assert "&lt;script&gt;alert(&quot;x&quot;)" in part


def test_figures_are_small_and_can_be_enlarged():
    figure, (ax,) = panels(1)
    ax.plot([0, 1])
    html = figure_html("A line", figure)
    assert 'aria-label="Enlarge the figure: A line"' in html
    width = re.search(r'width="(\d+)"', html)
    assert width is not None
    assert 1000 <= int(width[1]) <= 1440
    assert len(html) < 60_000


def test_tables_show_an_index_that_says_something_and_are_cut_when_long():
    table = pd.DataFrame({"x_y": np.arange(3000)}, index=pd.Index([f"g{i}" for i in range(3000)], name="gene"))
    html = table_html(table, "genes", searchable=True, wide=["x_y"])
    assert ">gene</th>" in html
    assert '<th scope="col" class="number wide">x y</th>' in html
    assert "g1999<" in html
    assert "g2000<" not in html
    assert "The first 2,000 of 3,000 rows." in html
    assert 'data-order="1999.0">1,999<' in html
    assert "<td" not in table_html(pd.DataFrame({"a": []}), "none")


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
