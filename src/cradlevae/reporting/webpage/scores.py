"""Scores for the page: the model beside the best floor and the ceiling, with fraction and note in sight."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.evaluation.score_table import MODEL, REAL
from cradlevae.reporting.webpage.parts import format_value, table_html

SINGLE = (MODEL, "data", REAL)
"""Predictors whose scores have a row of their own in the summary."""


def scores_html(scores: pd.DataFrame) -> str:
    """A table for each reference: what is scored, the model's score, floor, ceiling, fraction and note; then all rows."""
    chosen = scores[scores["predictor"].isin(SINGLE)]
    parts = []
    for reference, rows in chosen.groupby("reference", sort=False):
        body = "\n".join(_row(row) for _, row in rows.iterrows())
        parts.append(
            f'<div class="card"><table class="stacked"><caption>Compared with {escape(str(reference))}</caption>\n'
            '<thead><tr><th scope="col">Score</th><th scope="col" class="number">Model</th>'
            '<th scope="col" class="number">Best floor</th><th scope="col" class="number">Ceiling</th>'
            '<th scope="col">Fraction</th><th scope="col">Note</th></tr></thead>\n'
            f"<tbody>\n{body}\n</tbody></table></div>"
        )
    first = ["reference", "metric", "predictor", "value", "fraction", "note"]
    ordered = scores[first + [name for name in scores if name not in first]]
    table = table_html(ordered, "All scores", searchable=True, wide=ordered.columns.difference(first[1:5]).tolist())
    return "\n".join(parts) + f"\n<details><summary>All {len(scores):,} scores, floors included</summary>\n{table}</details>"


def _row(row: pd.Series) -> str:
    entry = REGISTRY.get(str(row["metric"]))
    what = "" if entry is None else f"<small>{escape(entry.description)}</small>"
    who = "" if row["predictor"] == MODEL else f" ({escape(str(row['predictor']))})"
    between = "" if np.isnan(row["low"]) else f"<small>{_number(row['low'])} to {_number(row['high'])}</small>"
    floor = "" if np.isnan(row["floor"]) else f"{_number(row['floor'])}<small>{_words(row['best_floor'])}</small>"
    ceiling = "" if np.isnan(row["ceiling"]) else _number(row["ceiling"])
    return (
        f'<tr><th scope="row">{_words(row["metric"])}{who}{what}</th>'
        f'<td class="number" data-label="Model">{_number(row["value"])}{between}</td>'
        f'<td class="number" data-label="Best floor">{floor}</td>'
        f'<td class="number" data-label="Ceiling">{ceiling}</td>'
        f'<td data-label="Fraction">{_fraction(row["fraction"])}</td>'
        f'<td class="note">{escape(str(row["note"] or ""))}</td></tr>'
    )


def _fraction(value: float) -> str:
    """The fraction as a number and a bar; a negative one has no bar."""
    if np.isnan(value):
        return ""
    low = ' class="low"' if value < 0.5 else ""
    width = 100 * min(max(value, 0.0), 1.0)
    return f'{escape(format_value(round(value, 2)))} <span class="bar"><i{low} style="width:{width:.0f}%"></i></span>'


def _number(value: float) -> str:
    return escape(format_value(float(value)))


def _words(name: str) -> str:
    return escape(str(name).replace("_", " "))
