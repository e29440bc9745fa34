"""The figure of a model's scores, between those of its floors and the ceiling."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.reporting.style import (
    CEILING,
    FLOOR,
    INK,
    LABEL_SIZE,
    MODEL,
    MUTED,
    NOTE_SIZE,
    TICK_SIZE,
    check_table,
    dress,
    headline,
    name_axes,
    new_figure,
    number,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = {
    "ate_rho": "ATE-ρ",
    "ate_r2": "ATE-R²",
    "jaccard_20": "Jaccard@20",
    "pearson_delta": "Pearson-Δ",
    "discrimination_l2": "Discrimination",
}
"""Metrics that are drawn; 1 is the best value of each."""
MODEL_NAME = "model"
LOWEST = -0.5
"""Lower scores are drawn at the edge, with their value beside them, so that one bad floor does not hide the others."""
NEEDED = ("metric", "predictor", "value")


def scores(scores: pd.DataFrame) -> Figure:
    """Draw the model's main scores beside those of all floors, with the attainable score where it is known.

    Parameters
    ----------
    scores
        Tidy scores as :func:`cradlevae.evaluate` returns them, a row per ``reference`` (optional), ``metric`` and
        ``predictor`` (``"model"`` or a floor): ``value``, and where known ``low``, ``high``, ``ceiling`` and ``note``.

    Returns
    -------
    matplotlib.figure.Figure
        A row of panels per reference, a column per metric.

    Raises
    ------
    DataError
        If a column is absent or none of the main metrics is there.
    """
    check_table("scores", scores, NEEDED, "evaluate")
    shown = scores[scores["metric"].isin(list(METRICS))]
    if shown.empty:
        raise DataError(f"none of the main metrics ({', '.join(METRICS)}) is among the scores")
    if "reference" not in shown:
        shown = shown.assign(reference="")
    answered = shown.groupby("predictor")["value"].transform(lambda value: value.notna().any())
    silent = list(dict.fromkeys(shown.loc[~answered, "predictor"].astype(str)))
    shown = shown[answered] if answered.any() else shown
    metrics = [name for name in METRICS if (shown["metric"] == name).any()]
    references = list(dict.fromkeys(shown["reference"].astype(str)))
    predictors = _order(shown, metrics[0])

    row_height = 0.6 + 0.17 * (len(predictors) + 1)
    figure = new_figure(0.8 + row_height * len(references))
    grid = figure.add_gridspec(len(references), len(metrics))
    for row, reference in enumerate(references):
        ours = shown[shown["reference"].astype(str) == reference]
        band = _ceiling_band(scores, reference)
        for column, metric in enumerate(metrics):
            ax = figure.add_subplot(grid[row, column])
            _panel(ax, ours[ours["metric"] == metric], predictors, band if metric == "ate_rho" else None)
            last = row == len(references) - 1
            name_axes(ax, title=METRICS[metric] if row == 0 else "", x="score" if last else "")
            if column:
                ax.tick_params(labelleft=False)
            elif len(references) > 1:
                label = textwrap.fill(reference, 24)
                ax.set_ylabel(label, fontsize=LABEL_SIZE, color=INK, parse_math=False)
    against = f", against {references[0]}" if len(references) == 1 and references[0] else ""
    headline(figure, f"Scores of the model and of its floors{against}", _caption(shown, silent))
    return figure


def _caption(shown: pd.DataFrame, silent: list[str]) -> str:
    text = (
        "Blue: the model. Grey: floors, which need no trained model; the line marks the best of them. Bars: 95 % "
        "intervals, where they were computed. 1 is perfect. "
    )
    if "ceiling" in shown and shown["ceiling"].notna().any():
        text += "Green: the score of the truth itself against so noisy a reference, where that is known. "
    if (shown["value"] < LOWEST).any():
        text += f"Triangles: scores below {number(LOWEST, 1)}. "
    if any(_is_model(name) and name != MODEL_NAME for name in shown["predictor"]):
        text += "Hollow: the model's effects taken as the released evaluation takes them. "
    if silent:
        text += f"Not shown, because they cannot answer: {', '.join(name.replace('_', ' ') for name in silent)}. "
    notes = dict.fromkeys(shown["note"].dropna().astype(str)) if "note" in shown else {}
    return text + " ".join(f"Note: {note}." for note in notes if note)


def _ceiling_band(scores: pd.DataFrame, reference: str) -> tuple[float, float] | None:
    """Interval of the attainable ATE-ρ, if it is among the scores."""
    band = scores[scores["metric"] == "attainable_rho"]
    if "reference" in band:
        band = band[band["reference"].astype(str) == reference]
    if band.empty or not {"low", "high"} <= set(band.columns):
        return None
    low, high = float(band["low"].iloc[0]), float(band["high"].iloc[0])
    return (low, high) if np.isfinite([low, high]).all() else None


def _is_model(predictor: object) -> bool:
    """Whether a predictor is the model, under either protocol."""
    return str(predictor).startswith(MODEL_NAME)


def _order(scores: pd.DataFrame, metric: str) -> list[str]:
    """Predictors from the bottom up: floors by their score, the model on top."""
    score = scores[scores["metric"] == metric].groupby("predictor")["value"].mean()
    names = list(dict.fromkeys(scores["predictor"].astype(str)))

    def height(name: str) -> tuple[bool, bool, float]:
        value = float(score.get(name, np.nan))
        return _is_model(name), name == MODEL_NAME, value if np.isfinite(value) else -np.inf

    return sorted(names, key=height)


def _panel(ax: Axes, rows: pd.DataFrame, predictors: list[str], band: tuple[float, float] | None) -> None:
    dress(ax)
    ax.grid(False, axis="y")
    _name_predictors(ax, predictors)
    values = rows["value"].to_numpy(dtype=np.float64)
    low = max(LOWEST, min([0.0, *values[np.isfinite(values)]]))
    ax.set_xlim(low - 0.06, 1.06)
    ax.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
    floors = values[[not _is_model(name) for name in rows["predictor"]]]
    if np.isfinite(floors).any():
        ax.axvline(max(float(np.nanmax(floors)), low - 0.06), color=FLOOR, linewidth=0.8, zorder=1)
    ceiling = rows["ceiling"].dropna() if "ceiling" in rows else rows["value"].iloc[:0]
    if len(ceiling):
        _draw_ceiling(ax, float(ceiling.iloc[0]), band, len(predictors))
    for _, row in rows.iterrows():
        _dot(ax, row, predictors.index(str(row["predictor"])), low)


def _name_predictors(ax: Axes, predictors: list[str]) -> None:
    names = [name if _is_model(name) else name.replace("_", " ") for name in predictors]
    ax.set_yticks(range(len(predictors)), names, parse_math=False)
    ax.set_ylim(-0.6, len(predictors) + 0.5)  # the topmost row is the ceiling's number
    for label, name in zip(ax.get_yticklabels(), predictors, strict=True):
        label.set_fontsize(TICK_SIZE)
        label.set_fontweight("bold" if name == MODEL_NAME else "normal")
        label.set_color(MODEL if _is_model(name) else INK)


def _draw_ceiling(ax: Axes, value: float, band: tuple[float, float] | None, top: int) -> None:
    if band is not None:
        ax.axvspan(*band, color=CEILING, alpha=0.13, linewidth=0, zorder=0)
    ax.axvline(value, color=CEILING, linewidth=1.4, zorder=1)
    ax.text(
        value - 0.03, top - 0.1, number(value), ha="right", va="center", fontsize=NOTE_SIZE, color=CEILING,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, zorder=5,
    )  # fmt: skip


def _dot(ax: Axes, row: pd.Series[float], height: int, low: float) -> None:
    value = float(row["value"])
    main, ours = str(row["predictor"]) == MODEL_NAME, _is_model(row["predictor"])
    colour = MODEL if ours else FLOOR
    if not np.isfinite(value):
        ax.text(low, height, "n/a", va="center", fontsize=NOTE_SIZE, color=MUTED, style="italic")
        return
    if value < low:
        ax.plot([low - 0.03], [height], "<", color=colour, markersize=4, clip_on=False)
        ax.text(low + 0.05, height, number(value, 1), va="center", fontsize=NOTE_SIZE, color=colour)
        return
    bounds = [float(row[name]) if name in row else np.nan for name in ("low", "high")]
    if np.isfinite(bounds).all():
        ax.hlines(height, bounds[0], bounds[1], color=colour, linewidth=1.3, alpha=0.6, zorder=3)
    face = colour if main or not ours else "white"
    ax.plot(
        [value], [height], "o", color=colour, markerfacecolor=face, markersize=6 if main else 4,
        markeredgewidth=0 if face == colour else 1, zorder=4,
    )  # fmt: skip
