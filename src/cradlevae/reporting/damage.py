"""The figure of what happened to failed cells: how many suffered each kind of damage, and how hard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.data.damage.operators import DAMAGES
from cradlevae.reporting.style import (
    FAILED,
    INK,
    NOTE_SIZE,
    TICK_SIZE,
    check_table,
    dress,
    headline,
    name_axes,
    new_figure,
    percent,
    plain_counts,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST = 5
"""Cells of a kind whose severities are drawn as a distribution; fewer are drawn as points."""

BINS = 20


def damage(diagnoses: pd.DataFrame) -> Figure:
    """Draw how many failed cells suffered each kind of damage, and how hard.

    Parameters
    ----------
    diagnoses
        A row for each failed cell, as :meth:`cradlevae.CradleVAE.diagnose` returns it.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each kind: the expected number of cells (the sum of its probabilities), and the severities of the
        cells of which it is the most probable kind.
    """
    check_table("diagnoses", diagnoses, ("damage", "severity"), "model.diagnose")
    kinds = [key for key in DAMAGES if f"p_{key}" in diagnoses]
    number = np.array([diagnoses[f"p_{key}"].sum() for key in kinds])
    order = np.argsort(number)
    figure = new_figure(1.1 + 0.32 * len(kinds))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3), sharey=True)
    for ax in (left, right):
        dress(ax)
        ax.grid(False, axis="y")
    left.barh(range(len(kinds)), number[order], color=FAILED, height=0.6)
    left.set_yticks(range(len(kinds)), [kinds[at].replace("_", " ") for at in order], fontsize=TICK_SIZE)
    left.margins(x=0.42)
    plain_counts(left.xaxis)
    for place, at in enumerate(order):
        text = f" {number[at]:,.0f} ({percent(number[at], len(diagnoses))})"
        left.text(number[at], place, text, va="center", fontsize=NOTE_SIZE, color=INK)
        own = diagnoses.loc[(diagnoses["damage"] == kinds[at]).to_numpy(), "severity"].to_numpy()
        if DAMAGES[kinds[at]].harmless or not len(own):
            continue
        if len(own) < FEWEST:
            right.plot(own, np.full(len(own), place), "o", color=FAILED, markersize=3)
            continue
        often, edges = np.histogram(own, bins=BINS, range=(0, 1))
        height = 0.42 * np.append(often, often[-1]) / often.max()
        right.fill_between(edges, place - height, place + height, step="post", color=FAILED, alpha=0.75, linewidth=0)
    right.set_xlim(0, 1)
    name_axes(left, x="expected number of cells", title="Kinds of damage")
    name_axes(right, x="severity (median of each cell)", title="How hard, where this kind is the most probable")
    headline(
        figure,
        f"What happened to {len(diagnoses):,} failed cells",
        "Severity: the share of a cell's molecules that are lost (few counts, dying, few molecules), or of its counts "
        "that are foreign (doublet, ambient). Left: sums of probabilities.",
    )
    return figure
