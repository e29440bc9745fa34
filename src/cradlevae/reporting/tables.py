"""Tables on the terminal and in files."""

from __future__ import annotations

from typing import Any

import pandas as pd

IMPORTANT = ("ate_rho", "ate_r2", "jaccard_20", "pearson_delta", "discrimination_l2", "clean_deviance")
"""Metrics that are shown with their floors and their ceiling."""

WIDTH = 160
"""Fewest columns of characters for which a table is laid out where the output is no terminal."""


def print_scores(scores: pd.DataFrame) -> None:
    """Print the scores that matter most, and those of metrics of your own, as one table for each reference."""
    from cradlevae.evaluation.metrics.registry import metrics_of

    by_floor = [entry.name for kind in ("effect", "clean") for entry in metrics_of(kind) if entry.own]
    shown = scores["metric"].isin((*IMPORTANT, *by_floor))
    for reference, part in scores[shown].groupby("reference", sort=False):
        wide = part.pivot_table(index="metric", columns="predictor", values="value", sort=False)
        first = [name for name in ("model", "model (published protocol)") if name in wide]
        wide = wide[[*first, *(name for name in wide if name not in first)]].dropna(axis=1, how="all")
        of_model = part[part["predictor"] == "model"].set_index("metric").reindex(wide.index)
        for place, name in enumerate(("ceiling", "fraction"), start=1):
            if of_model[name].notna().any():
                wide.insert(min(place, wide.shape[1]), name, of_model[name])
        show(wide.reset_index(), f"{reference} (fraction: 0 = best floor, 1 = ceiling)")
    single = scores[~scores["metric"].isin(scores.loc[scores["predictor"] == "zero", "metric"])]
    single = single[~single["metric"].isin((*IMPORTANT, *by_floor, "attainable_rho"))]
    show(single[["reference", "metric", "predictor", "value", "note"]], "further scores")


def show(table: pd.DataFrame, title: str) -> None:
    """Print a table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", header_style="bold")
    for place, name in enumerate(table.columns):
        width = max(map(len, table[name].astype(str)), default=0) if place == 0 else None  # names stay whole
        text = table[name].dtype == object
        shown.add_column(str(name).replace("_", " "), justify="left" if text else "right", min_width=width)
    for row in table.itertuples(index=False):
        shown.add_row(*(_text(value) for value in row))
    Console(width=max(Console().width, WIDTH) if not Console().is_terminal else None).print(shown)


def _text(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
