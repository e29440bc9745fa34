"""Figures of batches and contexts: their sizes, how far they differ, and how perturbations are spread over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.data.factors import Factor
from cradlevae.data.qc.balance import (
    association,
    batch_balance,
    batch_shares,
    cells_lost,
    level_counts,
    perturbation_balance,
)
from cradlevae.reporting.style import (
    FAILED,
    INK,
    MODEL,
    MUTED,
    NOTE_SIZE,
    PASSING,
    TICK_SIZE,
    dress,
    headline,
    legend,
    name_axes,
    new_figure,
    number,
    plain_counts,
    shorten,
)
from cradlevae.utils.names import listed
from cradlevae.utils.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 40
"""Largest number of perturbations, or batches, that are drawn."""

WRITTEN = 12
"""Up to so many columns, the number of cells is written into each field."""

ABSENT = "#D5D9DD"
"""Colour of fields without a value."""

DARK = 0.5
"""Brightness of a field below which the number in it is white."""

RANGE = 2.0
"""Colours reach from a quarter to four times the controls' share (log2)."""


def batches_figure(data: Experiment) -> Figure | None:
    """Cells and controls of each batch, and how far its controls differ from the others'; ``None`` without batches.

    Parameters
    ----------
    data
        An experiment.
    """
    table = batch_balance(data)
    if table.empty:
        return None
    rows = table.sort_values("n_cells", ascending=False, kind="stable").iloc[:MAX_ROWS].iloc[::-1]
    several = table["column"].nunique() > 1
    labels = [shorten(f"{row.column}: {row.level}" if several else str(row.level)) for row in rows.itertuples()]
    figure = new_figure(1.5 + 0.19 * max(len(rows), 3))
    left, right = figure.subplots(1, 2, width_ratios=[3, 2], sharey=True)
    height = np.arange(len(rows))
    for ax in (left, right):
        dress(ax)
        ax.grid(False, axis="y")
    left.barh(height, rows["n_passing"], color=PASSING, height=0.7, label="passing cells")
    left.barh(height, rows["n_controls"], color=MODEL, height=0.7, label="controls among them")
    left.set_yticks(height, labels, fontsize=TICK_SIZE, parse_math=False)
    plain_counts(left.xaxis)
    legend(left, above=True)
    name_axes(left, x="cells")
    right.plot(rows["difference"], height, "o", color=MODEL, markersize=5, clip_on=False)
    right.set_xlim(0, 1.12 * max(float(rows["difference"].max(skipna=True)), 0.01) if rows["difference"].any() else 1.0)
    name_axes(right, x="difference of its controls (log2)")
    headline(figure, _batches_title(table), _batches_caption(table, len(rows)))
    return figure


def _batches_title(table: pd.DataFrame) -> str:
    known = table["difference"].dropna()
    if known.empty:
        return f"{len(table)} batches, with too few controls to compare them"
    return f"{len(table)} batches: their controls differ by {number(known.min())} to {number(known.max())} log2"


def _batches_caption(table: pd.DataFrame, n_shown: int) -> str:
    text = (
        "Right: standard deviation over genes of mean log2 expression of the batch's controls minus that of the other "
        "controls; the noise of the means is taken out."
    )
    without = table.loc[table["n_controls"] == 0, "level"].tolist()
    if without:
        text += f" No controls in {listed(without)}: effects of the cells there cannot be measured."
    if n_shown < len(table):
        text += f" Shown: the {n_shown} largest of {len(table):,}."
    return text


def balance_figure(data: Experiment) -> Figure | None:
    """Share of each perturbation's cells in each batch, against that of the controls; ``None`` without batches.

    Parameters
    ----------
    data
        An experiment.
    """
    factor = next((factor for factor in data.varied if factor.role != "context"), None)
    if factor is None:
        return None
    shares, balance = batch_shares(data, factor), perturbation_balance(data)
    if len(shares) < 2:
        return None
    largest = level_counts(data, factor).sum().sort_values(ascending=False).index[:MAX_ROWS]
    columns = [level for level in factor.levels if level in set(largest)]
    treated = shares.iloc[1:]
    uneven = (treated - shares.iloc[0]).abs().sum(axis=1)
    chosen = treated.loc[uneven.sort_values(ascending=False, kind="stable").index[:MAX_ROWS]]
    drawn = pd.concat([shares.iloc[:1], chosen])[columns]
    control = shares.iloc[0][columns].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(control > 0, np.log2(drawn.to_numpy() / control), np.nan)
    figure = new_figure(1.7 + 0.165 * max(len(drawn), 4))
    ax = figure.add_subplot()
    image = _field(ax, np.clip(relative, -RANGE, RANGE), drawn, [f"{share:.0%}" for share in drawn.to_numpy().ravel()])
    bar = figure.colorbar(image, ax=ax, shrink=0.7, pad=0.02)
    bar.ax.tick_params(labelsize=TICK_SIZE, color=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)
    bar.set_label("share against the controls' (log2)", fontsize=NOTE_SIZE, color=INK)
    name_axes(ax, x=factor.key)
    headline(figure, _balance_title(data, factor, balance), _balance_caption(balance, len(drawn) - 1, len(treated)))
    return figure


def _balance_title(data: Experiment, factor: Factor, balance: pd.DataFrame) -> str:
    strength = number(association(level_counts(data, factor)))
    return f"Perturbations over {factor.key}: uneven batches cost {cells_lost(balance):.0%} of the cells (V {strength})"


def _balance_caption(balance: pd.DataFrame, n_shown: int, n_all: int) -> str:
    text = (
        "Each field: the share of the perturbation's passing cells that are in the batch; blue: more than of the "
        "controls, orange: less, grey: a batch without controls. Cells lost: 1 − Σ effective / Σ cells. V: Cramér's "
        "association of perturbations and batches."
    )
    unmeasured = balance.loc[balance["n_compared"] == 0, "condition"].tolist()
    if unmeasured:
        text += f" Without controls in any of their batches, so that no effect can be measured: {listed(unmeasured)}."
    if n_shown < n_all:
        text += f" Shown: the {n_shown} most uneven of {n_all:,} perturbations."
    return text


def contexts_figure(data: Experiment) -> Figure | None:
    """Passing cells of each perturbation in each context; ``None`` where there are not several contexts.

    Parameters
    ----------
    data
        An experiment.
    """
    factor = next((factor for factor in data.varied if factor.role == "context"), None)
    if factor is None:
        return None
    counts = level_counts(data, factor)
    treated = counts.iloc[1:]
    fewest = treated.min(axis=1).sort_values(kind="stable").index[: MAX_ROWS - 1]
    levels = counts.sum().sort_values(ascending=False).index[:MAX_ROWS]
    drawn = pd.concat([counts.iloc[:1], treated.loc[fewest]])[
        [level for level in factor.levels if level in set(levels)]
    ]
    figure = new_figure(1.7 + 0.165 * max(len(drawn), 4))
    ax = figure.add_subplot()
    with np.errstate(divide="ignore"):
        size = np.log10(drawn.to_numpy(dtype=np.float64))
    size[~np.isfinite(size)] = np.nan
    _field(ax, size, drawn, [f"{n:,}" for n in drawn.to_numpy().ravel()], colours="Blues")
    name_axes(ax, x=factor.key)
    empty = int((treated.to_numpy() == 0).sum())
    title = f"{len(treated):,} perturbation{'s' if len(treated) > 1 else ''} in {len(factor.levels)} contexts"
    title += f": {empty:,} of {treated.size:,} pairs have no cell" if empty else ": all pairs have cells"
    caption = "Passing cells, on a logarithmic scale of colour; grey: none."
    without = [str(level) for level, n in counts.iloc[0].items() if n == 0]
    if without:
        caption += f" Without controls, so that no effect can be measured in them: {listed(without)}."
    if len(drawn) < len(counts):
        caption += f" Shown: the controls and the {len(drawn) - 1} perturbations of the fewest cells in a context."
    headline(figure, title, caption)
    return figure


def _field(ax: Axes, values: FloatArray, table: pd.DataFrame, texts: list[str], *, colours: str = "") -> Any:
    """Draw a table as coloured fields, with the numbers in them where there is room; missing values are grey."""
    from matplotlib.colors import LinearSegmentedColormap

    palette: Any = LinearSegmentedColormap.from_list("balance", [FAILED, "#FFFFFF", MODEL])
    limits: dict[str, Any] = {"vmin": -RANGE, "vmax": RANGE}
    if colours:
        from matplotlib import colormaps

        palette, limits = (
            colormaps[colours].copy(),
            {"vmin": 0.0, "vmax": 1.3 * max(float(np.nanmax(values, initial=1.0)), 1.0)},
        )
    palette = palette.with_extremes(bad=ABSENT)
    image = ax.imshow(np.ma.masked_invalid(values), aspect="auto", cmap=palette, interpolation="nearest", **limits)
    dress(ax)
    ax.grid(False)
    ax.set_yticks(range(len(table)), [shorten(str(name)) for name in table.index], fontsize=TICK_SIZE, parse_math=False)
    crowded = table.shape[1] > WRITTEN
    ax.set_xticks(
        range(table.shape[1]), [shorten(str(name), 16) for name in table.columns], fontsize=TICK_SIZE,
        rotation=90 if crowded else 0, parse_math=False,
    )  # fmt: skip
    ax.tick_params(length=0)
    for place, text in enumerate(() if crowded else texts):
        row, column = divmod(place, table.shape[1])
        red, green, blue, _ = image.to_rgba(np.ma.masked_invalid(values))[row, column]
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < DARK
        ax.text(column, row, text, ha="center", va="center", fontsize=NOTE_SIZE, color="white" if dark else INK)
    return image
