"""The figure of a benchmark: a dot per score, a bar at the mean, floors and ceiling as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cradlevae.reporting.scores import LOWEST
from cradlevae.reporting.style import (
    CEILING,
    FLOOR,
    INK,
    LABEL_SIZE,
    MODEL,
    NOTE_SIZE,
    TICK_SIZE,
    dress,
    headline,
    name_axes,
    new_figure,
    number,
    say_instead,
    shorten,
)
from cradlevae.utils.names import listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = {"ate_rho": "ATE-ρ", "ate_r2": "ATE-R²", "pearson_delta": "Pearson-Δ"}
KEYS = ("data", "recipe", "qc")


def benchmark_figure(results: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Draw every score of every model, a row of panels per data set and QC threshold.

    Parameters
    ----------
    results
        The results of a :class:`~cradlevae.benchmarking.record.Benchmark`; of several references, the first is drawn.
    table
        Their :func:`~cradlevae.benchmarking.table.summary`.
    """
    rows: list[Any] = list(table.groupby(list(KEYS), sort=False).groups)
    drawn = results[results["metric"].isin(list(METRICS)) & (results["kind"] == "model") & results["value"].notna()]
    chosen = [drawn[(drawn[list(KEYS)] == list(names)).all(axis=1)] for names in rows]
    models = [list(dict.fromkeys(part["model"])) for part in chosen]
    heights = [0.5 + 0.17 * max(len(names), 6) for names in models] or [1.0]
    figure = new_figure(1.1 + sum(heights))
    grid = figure.add_gridspec(len(heights), len(METRICS), height_ratios=heights)
    for place, names in enumerate(rows):
        part = chosen[place]
        of_table = (table[list(KEYS)] == list(names)).all(axis=1)
        references = list(dict.fromkeys(part["reference"]))
        for column, (metric, title) in enumerate(METRICS.items()):
            ax = figure.add_subplot(grid[place, column])
            name_axes(ax, title=title if place == 0 else "", x="score" if place == len(rows) - 1 else "")
            if not references:
                say_instead(ax, "no model has a score")
                continue
            scores = part[(part["reference"] == references[0]) & (part["metric"] == metric)]
            landmarks = table[of_table & (table["reference"] == references[0]) & (table["metric"] == metric)]
            _panel(ax, scores, landmarks, models[place])
            if column == 0:
                label = f"{shorten(names[0], 24)}\n{names[1]}, {names[2]}"
                ax.set_ylabel(label, fontsize=LABEL_SIZE, color=INK, parse_math=False)
            else:
                ax.tick_params(labelleft=False)
    headline(figure, "Models between floors and ceiling", _caption(results, rows, models))
    return figure


def _caption(results: pd.DataFrame, rows: list[Any], models: list[list[str]]) -> str:
    text = (
        "Dots: scores of single seeds (of split and initialisation). Bars: their means. Grey lines: the best floor, "
        "and dotted the other floors, as far as they are near. Green: the ceiling, the score of the truth itself "
        "against so noisy a reference. Axes begin and end where the scores do."
    )
    every = list(
        dict.fromkeys(results.loc[results["metric"].isin(list(METRICS)) & (results["kind"] == "model"), "model"])
    )
    for names, answered in zip(rows, models, strict=True):
        silent = [name for name in every if name not in answered]
        if silent and answered:
            text += f" Without scores on {shorten(names[0], 24)}: {listed(silent)}."
    return text


def _panel(ax: Axes, scores: pd.DataFrame, landmarks: pd.DataFrame, models: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    dress(ax)
    ax.grid(False, axis="y")
    ax.set_yticks(range(len(models)), [shorten(name, 30) for name in models], parse_math=False)
    ax.tick_params(axis="y", labelsize=TICK_SIZE)
    ax.set_ylim(len(models) - 0.4, -1.5)  # the topmost row is the ceiling's number
    reach = _reach(scores, landmarks)
    for height, name in enumerate(models):
        values = scores.loc[scores["model"] == name, "value"].to_numpy(dtype=np.float64)
        values = np.maximum(values[np.isfinite(values)], LOWEST)
        if len(values) == 0:
            ax.text(reach[0], height, " no score", va="center", fontsize=NOTE_SIZE, color=FLOOR, style="italic")
            continue
        spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
        ax.plot(values, height + spread, "o", color=MODEL, markersize=3, alpha=0.55, markeredgewidth=0, zorder=3)
        ax.vlines(float(values.mean()), height - 0.34, height + 0.34, color=MODEL, linewidth=1.8, zorder=4)
    _landmarks(ax, landmarks, reach)
    ax.set_xlim(*reach)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _reach(scores: pd.DataFrame, landmarks: pd.DataFrame) -> tuple[float, float]:
    """Range of the axis: all scores, the best floor and the ceiling."""
    best = landmarks.loc[landmarks["model"] == landmarks["best_floor"], "mean"]
    values = pd.concat([scores["value"], best, landmarks["ceiling"]]).dropna().clip(lower=LOWEST)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = max(0.12 * (high - low), 0.02)
    return low - room, high + room


def _landmarks(ax: Axes, landmarks: pd.DataFrame, reach: tuple[float, float]) -> None:
    """Lines of the floors and of the ceiling."""
    floors: Any = landmarks[landmarks["kind"] == "floor"]
    for _, row in floors.iterrows():
        best = row["model"] == row["best_floor"]
        if reach[0] <= row["mean"] <= reach[1]:
            style: Any = "-" if best else ":"
            ax.axvline(row["mean"], color=FLOOR, linewidth=1.0 if best else 0.5, linestyle=style, zorder=1)
    ceiling = landmarks["ceiling"].dropna()
    if len(ceiling):
        ax.axvline(float(ceiling.iloc[0]), color=CEILING, linewidth=1.3, zorder=1)
        value = float(ceiling.iloc[0])
        ax.text(
            value - 0.02 * (reach[1] - reach[0]), -1.0, number(value), ha="right", va="center", fontsize=NOTE_SIZE,
            color=CEILING, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, zorder=5,
        )  # fmt: skip
