"""The figure of the artifact signature: how the artifact changes each gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.reporting.labels import label_points, settle
from cradlevae.reporting.style import (
    FAILED,
    MODEL,
    MUTED,
    PASSING,
    check_table,
    dress,
    headline,
    name_axes,
    panels,
    plain_log_ticks,
    say_instead,
    shorten,
)
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.types import BoolArray, FloatArray, IndexArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NAMED, NAMED_OF_MANY = 6, 3
"""Number of genes named in each direction: in one or two panels, and in more."""
NEEDED = ("log2_fold_change", "share")


def signature(signature: pd.DataFrame) -> Figure:
    """Log2 fold change of each gene by the artifact against its share of the counts.

    Parameters
    ----------
    signature
        The table that :meth:`cradlevae.CradleVAE.artifact_signature` returns: indexed by gene, ``log2_fold_change``,
        ``share``, and optionally ``criterion``, ``low``, ``high``.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per criterion.

    Raises
    ------
    DataError
        If a column is absent or there is no gene.
    """
    check_table("signature", signature, NEEDED, "artifact_signature")
    if len(signature) == 0:
        raise DataError("the signature has no gene; give the table that artifact_signature returns")
    if "criterion" not in signature:
        signature = signature.assign(criterion="artifact")
    criteria = list(dict.fromkeys(signature["criterion"].astype(str)))
    blocks = [signature[signature["criterion"].astype(str) == name] for name in criteria]
    n = len(criteria)
    named = NAMED if n < 3 else NAMED_OF_MANY
    figure, axes = panels(n, columns=3 if n > 2 else n, row_height=2.2 if n > 2 else 2.9)
    columns = min(3, n)
    for index, (name, ax, block) in enumerate(zip(criteria, axes, blocks, strict=True)):
        _panel(ax, block, named)
        name_axes(
            ax, x="counts per 10,000, artifact off" if index + columns >= n else "",
            y="log2 fold change" if index % columns == 0 else "", title=f"{shorten(name, 18)}: {_tally(block)}",
        )  # fmt: skip
    headline(
        figure,
        "What the artifact does to each gene",
        "Fold change of a gene's share of the counts, artifact on against off, in control cells. Coloured: the "
        "credible interval excludes no change. Named, with interval: the genes whose interval is farthest from no "
        "change. Shares add up to one: genes that rise make all others fall.",
    )
    settle(figure)
    for ax, block in zip(axes, blocks, strict=True):
        x, y, keep = _points(block)
        label_points(ax, x, y, list(block.index.astype(str)[keep]), _extreme(y, _bounds(block), named))
    return figure


def _points(block: pd.DataFrame) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Counts per 10,000 and fold change of the genes that can be drawn, and which genes those are."""
    x = TARGET_SUM * block["share"].to_numpy(dtype=np.float64)
    y = block["log2_fold_change"].to_numpy(dtype=np.float64)
    keep = np.isfinite(x) & np.isfinite(y) & (x > 0)
    return x[keep], y[keep], keep


def _moved(block: pd.DataFrame) -> IntArray:
    """Direction of each gene: −1, 0 or 1 where its interval lies below, around or above no change."""
    if not {"low", "high"} <= set(block.columns):
        return np.zeros(len(block), dtype=np.int64)
    low, high = (block[name].to_numpy(dtype=np.float64) for name in ("low", "high"))
    return (low > 0).astype(np.int64) - (high < 0).astype(np.int64)


def _tally(block: pd.DataFrame) -> str:
    if not {"low", "high"} <= set(block.columns):
        return f"{len(block):,} genes"
    moved = _moved(block)
    return f"{int((moved > 0).sum()):,} up, {int((moved < 0).sum()):,} down"


def _extreme(y: FloatArray, bounds: tuple[FloatArray, FloatArray], n: int) -> IndexArray:
    """Positions of the rising and falling genes whose intervals are farthest from no change."""
    low, high = bounds
    up = np.argsort(-low, kind="stable")[:n]
    down = np.argsort(high, kind="stable")[:n]
    chosen = np.unique(np.concatenate([up[y[up] > 0], down[y[down] < 0]]))
    return chosen[np.argsort(-np.abs(y[chosen]), kind="stable")]


def _bounds(block: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Interval of each gene that can be drawn; the fold change itself where there is none."""
    _, y, keep = _points(block)
    if not {"low", "high"} <= set(block.columns):
        return y, y
    low, high = (block[name].to_numpy(dtype=np.float64)[keep] for name in ("low", "high"))
    return np.where(np.isfinite(low), low, y), np.where(np.isfinite(high), high, y)


def _panel(ax: Axes, block: pd.DataFrame, n: int) -> None:
    dress(ax)
    x, y, keep = _points(block)
    if len(x) == 0:
        say_instead(ax, "no gene has a fold change")
        return
    moved = _moved(block)[keep]
    ax.set_xscale("log")
    ax.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    for sign, colour, alpha in ((0, PASSING, 0.5), (1, FAILED, 0.8), (-1, MODEL, 0.8)):
        here = moved == sign
        ax.scatter(
            x[here],
            y[here],
            s=8,
            color=colour,
            alpha=alpha,
            linewidths=0,
            rasterized=True,
            zorder=2 + abs(sign),
        )
    low, high = _bounds(block)
    named = _extreme(y, (low, high), n)
    ax.vlines(x[named], low[named], high[named], color=MUTED, linewidth=0.7, alpha=0.7, zorder=2)
    bottom, top = min([y.min(), *low[named]]), max([y.max(), *high[named]])
    room = 0.08 * max(top - bottom, 0.1)
    ax.set_ylim(bottom - room, top + room)
    ax.set_xlim(x.min() / 1.5, x.max() * 1.5)
    plain_log_ticks(ax.xaxis, *ax.get_xlim())
