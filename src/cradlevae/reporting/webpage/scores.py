"""Scores for the page: the model beside the best floor and the ceiling, with fraction and note in sight."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.evaluation.score_table import MODEL
from cradlevae.reporting.tables import IMPORTANT
from cradlevae.reporting.webpage.parts import format_value, table_html

HEADINGS = ("Score", "Model", "Best floor", "Ceiling", "Fraction", "Note")


def scores_html(scores: pd.DataFrame) -> str:
    """The scores that matter most by reference, those without a floor, and all of them in a table to search."""
    of_model = scores[scores["predictor"] == MODEL]
    placed = of_model["fraction"].notna() | of_model["metric"].isin(IMPORTANT)
    own = of_model["metric"].isin([entry.name for entry in REGISTRY.values() if entry.own])
    parts, alone = [], []
    for reference, rows in of_model[placed | own].groupby("reference", sort=False):
        lines = [_placed(row, against="" if len(rows) > 1 else str(reference)) for _, row in rows.iterrows()]
        if len(rows) > 1:
            parts.append(_table(f"Compared with {reference}", HEADINGS, lines))
        else:
            alone += lines
    if alone:
        parts.append(_table("Compared with parts of these cells, or otherwise", HEADINGS, alone))
    single = of_model[of_model["floor"].isna() & ~placed & ~own]
    if len(single):
        lines = [_single(row) for _, row in single.iterrows()]
        table = _table("", ("Score", "Model", "Compared with", "Note"), lines)
        parts.append(
            f"<details><summary>Scores without a floor: intervals, likelihood, leakage</summary>{table}</details>"
        )
    table = table_html(
        _whole(scores), "All scores", searchable=True, wide=("compared with", "interval", "note", "ceiling")
    )
    parts.append(f"<details><summary>All {len(scores):,} scores, floors included</summary>\n{table}</details>")
    return "\n".join(parts)


def _table(caption: str, headings: tuple[str, ...], rows: list[str]) -> str:
    numbers = {"Model", "Best floor", "Ceiling"}
    head = "".join(f'<th scope="col"{_number_class(name in numbers)}>{name}</th>' for name in headings)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "\n".join(rows)
    kind = "stacked scores" if caption else "stacked"
    return (
        f'<div class="card"><table class="{kind}">{title}\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _placed(row: pd.Series[Any], *, against: str) -> str:
    """A score between floor and ceiling, and what it was compared with, if that is not said elsewhere."""
    floor = "" if _absent(row["floor"]) else f"{_number(row['floor'])}<small>{_words(row['best_floor'])}</small>"
    ceiling = "" if _absent(row["ceiling"]) else _number(row["ceiling"])
    return (
        f"<tr>{_name(row, against)}{_value(row)}"
        f'<td class="number" data-label="Best floor">{floor}</td>'
        f'<td class="number" data-label="Ceiling">{ceiling}</td>'
        f'<td data-label="Fraction">{_fraction(row["fraction"])}</td>'
        f'<td class="note">{escape(_text(row["note"]))}</td></tr>'
    )


def _single(row: pd.Series[Any]) -> str:
    """A score that stands alone."""
    return (
        f'<tr>{_name(row)}{_value(row)}<td data-label="Compared with">{escape(str(row["reference"]))}</td>'
        f'<td class="note">{escape(_text(row["note"]))}</td></tr>'
    )


def _name(row: pd.Series[Any], against: str = "") -> str:
    reference = f"<small>against {escape(against)}</small>" if against else ""
    entry = REGISTRY.get(str(row["metric"]))
    what = "" if entry is None else f"<small>{escape(entry.description)}</small>"
    return f'<th scope="row">{_words(row["metric"])}{what}{reference}</th>'


def _value(row: pd.Series[Any]) -> str:
    between = "" if _absent(row["low"]) else f"<small>{_number(row['low'])} to {_number(row['high'])}</small>"
    return f'<td class="number" data-label="Model">{_number(row["value"])}{between}</td>'


def _fraction(value: object) -> str:
    """The fraction as a number and a bar; a negative one has no bar."""
    if _absent(value):
        return ""
    fraction = float(value)  # type: ignore[arg-type]
    low = ' class="low"' if fraction < 0.5 else ""
    width = 100 * min(max(fraction, 0.0), 1.0)
    written = f"{fraction:.2f}".replace("-", "−")
    return f'{written} <span class="bar"><i{low} style="width:{width:.0f}%"></i></span>'


def _whole(scores: pd.DataFrame) -> pd.DataFrame:
    """All rows, as they are read best: names in words, the interval in one column."""
    between = [
        "" if _absent(low) else f"{format_value(low)} to {format_value(high)}"
        for low, high in zip(scores["low"], scores["high"], strict=True)
    ]
    words = {name: scores[name].map(lambda text: _text(text).replace("_", " ")) for name in ("metric", "predictor")}
    return pd.DataFrame(
        {
            "score": words["metric"],
            "predictor": words["predictor"],
            "value": scores["value"],
            "fraction": scores["fraction"],
            "interval": between,
            "ceiling": scores["ceiling"],
            "note": scores["note"].map(_text),
            "compared with": scores["reference"],
        }
    ).reset_index(drop=True)


def _absent(value: object) -> bool:
    return value is None or bool(np.isnan(float(value)))  # type: ignore[arg-type]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> str:
    return escape(format_value(float(value)))  # type: ignore[arg-type]


def _words(name: object) -> str:
    return escape(str(name).replace("_", " "))


def _number_class(number: bool) -> str:
    return ' class="number"' if number else ""
