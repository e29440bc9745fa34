"""The figure of quality control: the values of each criterion, and its thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.data.qc.criteria import CRITERIA, QC_KEY, VALUE_COLUMNS
from cradlevae.data.qc.table import qc_table
from cradlevae.errors import DataError
from cradlevae.reporting.style import (
    FAILED,
    INK,
    PASSING,
    TICK_SIZE,
    dress,
    headline,
    name_axes,
    panels,
    percent,
    plain_log_ticks,
    say_instead,
)
from cradlevae.utils.checks import check_anndata
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NAMES = {
    "umi": ("UMI counts", "counts of a cell"),
    "genes": ("Detected genes", "genes of a cell"),
    "mito": ("Mitochondrial counts", "% of a cell's counts"),
    "ribo": ("Ribosomal counts", "% of a cell's counts"),
    "haemo": ("Haemoglobin counts", "% of a cell's counts"),
    "doublet": ("Predicted doublets", "Scrublet score"),
}
"""Title and x label of each criterion."""
LOGARITHMIC = frozenset({"umi", "genes"})
PERCENTAGES = frozenset({"mito", "ribo", "haemo"})
BINS = 45
ROUND = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
TICK_GAP = 0.11
"""Percentages at which an axis may have ticks, and the least share of its length between two of them."""


def qc(adata: AnnDataLike) -> Figure:
    """Histogram of each QC criterion with its threshold and the share of cells that fail it.

    Parameters
    ----------
    adata
        Cells annotated by :func:`cradlevae.annotate_qc`: its columns of ``obs`` and ``uns["cradlevae_qc"]``.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per criterion; those that were not assessed say why.

    Raises
    ------
    DataError
        If the cells are not annotated.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> report = cv.annotate_qc(adata, criteria=["umi", "genes"])
    >>> len(cv.pl.qc(adata).axes)
    6
    """
    check_anndata(adata)
    if QC_KEY not in adata.uns:
        raise DataError(f"the AnnData has no uns[{QC_KEY!r}]; run annotate_qc first")
    table = qc_table(adata.uns[QC_KEY])
    figure, axes = panels(len(CRITERIA))
    for criterion, ax in zip(CRITERIA, axes, strict=True):
        _panel(ax, criterion, table[table["criterion"] == criterion], adata.obs)
    for ax in axes[::3]:
        ax.set_ylabel("cells", fontsize=axes[0].xaxis.label.get_fontsize(), color=INK)
    overall = table[table["criterion"] == "any"].iloc[0]
    share = percent(overall["n_failing"], overall["n_cells"])
    headline(
        figure,
        f"Quality control: {share} of {overall['n_cells']:,} cells fail a criterion",
        "Dashed: threshold (of each batch, where there are several). Orange: cells that fail this criterion. Numbers "
        "of cells are on a logarithmic scale. "
        "Axes of percentages are even up to the threshold, and logarithmic far beyond.",
    )
    return figure


def _panel(ax: Axes, criterion: str, rows: pd.DataFrame, obs: pd.DataFrame) -> None:
    title, unit = NAMES[criterion]
    assessed = rows[rows["status"] == "assessed"]
    column = VALUE_COLUMNS[criterion]
    if assessed.empty or column not in obs:
        reason = "; ".join(dict.fromkeys(rows["reason"])) if assessed.empty else f"obs has no column {column!r}"
        name_axes(ax, title=title)
        say_instead(ax, f"not assessed: {reason}" if assessed.empty else reason)
        return
    share = percent(float(assessed["n_failing"].sum()), float(assessed["n_cells"].sum()))
    values = obs[column].to_numpy(dtype=np.float64)
    failed = np.asarray(obs.get(f"qc_{criterion}", pd.Series(False, index=obs.index)), dtype=bool)
    known = np.isfinite(values)
    log = criterion in LOGARITHMIC
    if log:
        known &= values > 0
    thresholds = assessed["threshold"].dropna().to_numpy(dtype=np.float64)
    dress(ax)
    name_axes(ax, x=unit, title=f"{title}: {share} fail")
    _histogram(ax, values[known], failed[known], thresholds, criterion=criterion)
    notes = []
    if log and (n_empty := int((values == 0).sum())):
        notes.append(f"{n_empty:,} empty, not shown")
    if len(rows) > len(assessed):
        notes.append(f"{len(rows) - len(assessed)} of {len(rows)} batches\nnot assessed")
    if log and (on_log := int(assessed["note"].str.contains("log scale").sum())):
        notes.append(
            "threshold found\non the log scale"
            if on_log == len(assessed)
            else f"{on_log} thresholds found\non the log scale"
        )
    if log and (thresholds <= 1).any():
        notes.append("threshold below 1:\nnone can fail" if (thresholds <= 1).all() else "some thresholds below 1")
    if notes:
        left = criterion in LOGARITHMIC
        ax.text(
            0.03 if left else 0.97, 0.96, "\n".join(notes), transform=ax.transAxes, va="top",
            ha="left" if left else "right", fontsize=TICK_SIZE, color=INK,
        )  # fmt: skip


def _histogram(ax: Axes, values: FloatArray, failed: BoolArray, thresholds: FloatArray, *, criterion: str) -> None:
    """Histogram of all values, however far they lie; the scale of cells is logarithmic, so that few are seen too."""
    if len(values) == 0:
        say_instead(ax, "no cell has a value")
        return
    log, curved = criterion in LOGARITHMIC, criterion in PERCENTAGES
    drawn = thresholds[thresholds > 0] if log else thresholds
    width = max(float(np.max(drawn, initial=0.0)), 1.0)  # up to here the axis of a percentage is nearly even
    low, high = float(min([values.min(), *drawn])), float(max([values.max(), *drawn]))
    if log:
        edges = np.exp(_ruler(np.log(low / 1.05), np.log(high * 1.05), np.log(drawn)))
    elif curved:
        edges = width * np.sinh(_ruler(0.0, np.arcsinh(1.03 * high / width) or 1.0, np.arcsinh(drawn / width)))
    else:
        margin = 0.03 * (high - low) or 0.5
        edges = _ruler(0.0 if low >= 0 else low - margin, high + margin, drawn)
    for part, colour in ((values[~failed], PASSING), (values[failed], FAILED)):
        ax.hist(part, bins=edges.tolist(), color=colour, alpha=0.9, linewidth=0, log=True)
    ax.set_ylim(bottom=0.7)
    plain_log_ticks(ax.yaxis, 0.7, ax.get_ylim()[1])
    for threshold in drawn:
        ax.axvline(threshold, color=INK, linewidth=0.9 if len(drawn) == 1 else 0.5, linestyle=(0, (4, 2)))
    if log:
        ax.set_xscale("log")
        plain_log_ticks(ax.xaxis, float(edges[0]), float(edges[-1]))
    elif curved:
        ax.set_xscale("asinh", linear_width=width)
        ticks = _ticks(width, float(edges[-1]))
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
    ax.set_xlim(float(edges[0]), float(edges[-1]))
    ax.grid(False, axis="x")


def _ticks(width: float, high: float) -> list[float]:
    """Round percentages that lie far enough from each other on an axis that is even up to ``width``."""
    chosen = [0.0]
    for tick in ROUND:
        gap = np.arcsinh(tick / width) - np.arcsinh(chosen[-1] / width)
        if tick <= high and gap >= TICK_GAP * np.arcsinh(high / width):
            chosen.append(tick)
    return chosen


def _ruler(low: float, high: float, marks: FloatArray) -> FloatArray:
    """About :data:`BINS` equal steps from ``low`` to ``high``, shifted so that a single mark is on it."""
    step = (high - low) / BINS
    if len(marks) != 1:
        return np.linspace(low, high, BINS + 1)
    mark = float(marks[0])
    below, above = np.ceil((mark - low) / step), np.ceil((high - mark) / step)
    edges = mark + step * np.arange(-below, above + 1)
    if low == 0:  # no value lies below: the first bin begins there, and is not a sliver
        edges = np.concatenate([[0.0], edges[edges > step / 2]])
    return edges
