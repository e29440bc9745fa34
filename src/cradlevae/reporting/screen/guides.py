"""The figure of the assignment of guide RNAs: how many cells each rule assigns and loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.data.guides.assignment import ASSIGNMENT_KEY
from cradlevae.errors import DataError
from cradlevae.reporting.style import (
    CEILING,
    FAILED,
    INK,
    LABEL_SIZE,
    MODEL,
    MUTED,
    PASSING,
    headline,
    legend,
    name_axes,
    panels,
    percent,
    plain_counts,
    plain_log_ticks,
)
from cradlevae.utils.checks import check_anndata
from cradlevae.utils.types import AnnDataLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {
    "controls": ("controls", PASSING),
    "singles": ("one target", MODEL),
    "combinations": ("several targets", CEILING),
    "ambiguous": ("ambiguous", FAILED),
    "missing": ("missing", MUTED),
}
"""Columns of the report in the order of the bars: name and colour."""


def guides(adata: AnnDataLike) -> Figure:
    """Cells by what each rule makes of them, and the number of cells of each guide RNA.

    Parameters
    ----------
    adata
        Cells to which :func:`cradlevae.assign_guides` has assigned guide RNAs.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels.

    Raises
    ------
    DataError
        If no guide RNAs are assigned.
    """
    check_anndata(adata)
    if ASSIGNMENT_KEY not in adata.uns:
        raise DataError(f"the AnnData has no uns[{ASSIGNMENT_KEY!r}]; run assign_guides first")
    assignment = adata.uns[ASSIGNMENT_KEY]
    report = assignment["report"]
    used = report[report["used"].astype(bool)].iloc[0]
    figure, (rules, sizes) = panels(2, columns=2, row_height=2.9)
    _rules(rules, report)
    n_cells = np.sort(adata.uns[assignment["guides_key"]]["n_cells"].to_numpy(dtype=np.float64))[::-1]
    sizes.plot(
        np.arange(1, len(n_cells) + 1), np.maximum(n_cells, 0.5), color=MODEL, linewidth=1.2, drawstyle="steps-mid"
    )
    sizes.set_yscale("log")
    plain_log_ticks(sizes.yaxis, 0.5, max(float(n_cells.max(initial=1.0)), 1.0) * 1.5)
    name_axes(sizes, x="guide RNAs, the most frequent first", y="assigned cells", title="Cells of each guide RNA")
    lost = percent(float(used["lost"]), float(adata.n_obs))
    headline(
        figure,
        f"Guide RNAs: {lost} of {adata.n_obs:,} cells are without a perturbation (rule: {used['rule']})",
        "Each bar is a rule by which a guide RNA counts as present; bold: the one used. Missing: no guide RNA. "
        f"Ambiguous: guide RNAs of more than {assignment['max_targets']} genes. A guide RNA without cells is at 0.5.",
    )
    return figure


def _rules(ax: Axes, report: pd.DataFrame) -> None:
    """Stacked bars of all rules, the first on top."""
    left = np.zeros(len(report))
    position = np.arange(len(report))
    for column, (name, colour) in PARTS.items():
        width = report[column].to_numpy(dtype=np.float64)
        ax.barh(position, width, left=left, color=colour, height=0.75, label=name, linewidth=0)
        left += width
    ax.set_yticks(position, report["rule"])
    for label, used in zip(ax.get_yticklabels(), report["used"].astype(bool), strict=True):
        label.set(fontsize=LABEL_SIZE, color=INK, fontweight="bold" if used else "normal")
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.set_xlim(0, float(left.max(initial=1.0)))
    plain_counts(ax.xaxis)
    name_axes(ax, x="cells")
    legend(ax, above=True)
