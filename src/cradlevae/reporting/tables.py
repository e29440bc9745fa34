"""Tables on the terminal and in files."""

from __future__ import annotations

import sys

import pandas as pd

from cradlevae.utils.layout import laid_out, terminal_width, wrapped

IMPORTANT = ("ate_rho", "ate_r2", "jaccard_20", "pearson_delta", "discrimination_l2", "clean_deviance")
"""Metrics that are shown with their floors and their ceiling."""

LINE = 120
"""Most characters in a line of prose."""

SIGNS = {"good": "+", "note": "·", "warning": "!"}
"""What stands before a finding of each level."""


def print_scores(scores: pd.DataFrame) -> None:
    """Print the scores that matter most, and those of metrics of your own, as one table for each reference."""
    from cradlevae.evaluation.metrics.registry import metrics_of

    by_floor = [entry.name for kind in ("effect", "response", "clean") for entry in metrics_of(kind) if entry.own]
    main = (*IMPORTANT, *by_floor)
    for reference, part in scores[scores["metric"].isin(main)].groupby("reference", sort=False):
        show(_by_predictor(part), f"{reference} (fraction: 0 = best floor, 1 = ceiling)")
    single = scores[~scores["metric"].isin(scores.loc[scores["predictor"] == "zero", "metric"])]
    for reference, part in single[~single["metric"].isin((*main, "attainable_rho"))].groupby("reference", sort=False):
        wide = part.pivot_table(index="metric", columns="predictor", values="value", sort=False, dropna=False)
        notes = part.drop_duplicates("metric").set_index("metric")["note"].reindex(wide.index).fillna("")
        wide = wide.dropna(how="all")
        wide = wide.assign(note=notes) if notes.any() else wide
        show(wide.reset_index(), f"further scores: {reference}")


def _by_predictor(part: pd.DataFrame) -> pd.DataFrame:
    """Scores against one reference, predictors × metrics; the model, its ceiling and its fraction are first."""
    wide = part.pivot_table(index="predictor", columns="metric", values="value", sort=False).dropna(how="all")
    of_model = part[part["predictor"] == "model"].set_index("metric")[["ceiling", "fraction"]].T.dropna(how="all")
    ours = [name for name in ("model", "model (published protocol)") if name in wide.index]
    rows = pd.concat([wide.loc[ours], of_model.reindex(columns=wide.columns), wide.drop(index=ours)])
    return rows.rename_axis(index="predictor", columns=None).reset_index()


def print_verdict(scores: pd.DataFrame) -> None:
    """Print the verdict on a table of scores, a paragraph for each finding."""
    from cradlevae.evaluation.verdict import verdict

    width = terminal_width()
    lines = ["", "verdict (+ rely on it, · know it, ! distrust it)"]
    for found in verdict(scores):
        text = f"{SIGNS[found.level]} {found.topic}: {found.text}"
        lines += wrapped(text, None if width is None else min(width, LINE), indent="  ")
    _write(lines)


def show(table: pd.DataFrame, title: str) -> None:
    """Print a table: within the width of a terminal, and a line for each row where there is none."""
    width = terminal_width()
    _write(["", *wrapped(title, width), *laid_out(table, width)])


def _write(lines: list[str]) -> None:
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))
