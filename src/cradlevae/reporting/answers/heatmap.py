"""The heatmap of effects: conditions × genes, each clustered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cradlevae.errors import DataError
from cradlevae.reporting.answers.tables import effect_unit, layer_of, matrix_of, n_cells_of, need_layers
from cradlevae.reporting.style import (
    FAILED,
    INK,
    MODEL,
    MUTED,
    NOTE_SIZE,
    TALLEST,
    TICK_SIZE,
    WIDTH,
    headline,
    new_figure,
    number,
    shorten,
)
from cradlevae.utils.checks import probability, shown, texts, whole_number
from cradlevae.utils.names import closest
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IndexArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CONDITIONS = 2000
"""Largest number of conditions that are drawn; of more, those with the most called genes."""
MOST_ORDERED = 300
"""Up to so many leaves, neighbours in the tree are turned to lie as close as they can."""
LABEL_SPACE = 0.125
"""Height in inches that a name needs."""
CHARACTER = 0.056
"""Width in inches of a character of a name."""
HEAD = 2.0
"""Height in inches of title, tree, gene names, colour bar and caption."""
DOT_SPACE = 0.07
"""Width and height in inches that a field needs for a dot in it."""
BRIGHTEST = 99.0
"""Percentile of the sizes of the effects that has the strongest colour."""


def effect_heatmap(
    effects: AnnDataLike,
    *,
    perturbations: str | Sequence[str] | None = None,
    genes: str | Sequence[str] | None = None,
    n_genes: int = 40,
    lfsr: float = 0.05,
) -> Figure:
    """Effects of all conditions on the genes that answer most, both clustered (Ward's method).

    Parameters
    ----------
    effects
        What :meth:`cradlevae.CradleVAE.effects` returns: conditions × genes, with the layer ``lfsr``.
    perturbations
        Conditions to draw; ``None`` draws all, up to 2,000. Where they do not all have room for their names, those
        with the most called genes are named.
    genes
        Genes to draw; ``None`` draws those of the largest called effects.
    n_genes
        Number of genes that are drawn where ``genes`` names none.
    lfsr
        Effects are called at this local false sign rate or below; a dot marks them, where there is room.

    Returns
    -------
    matplotlib.figure.Figure
        Heatmap, trees and colour bar, of two columns' width.

    Raises
    ------
    DataError
        If the effects lack the layer, or a condition or gene.

    Examples
    --------
    >>> import anndata as ad, numpy as np
    >>> import cradlevae as cv
    >>> effects = ad.AnnData(np.array([[1.5, -0.2], [1.2, 0.0]]), layers={"lfsr": np.full((2, 2), 0.01)})
    >>> figure = cv.pl.effect_heatmap(effects)
    >>> [label.get_text() for label in figure.axes[2].get_yticklabels()]
    ['0', '1']
    """
    limit, most = probability("lfsr", lfsr, 0.05), whole_number("n_genes", n_genes, least=1)
    need_layers(effects, "lfsr")
    value = np.nan_to_num(matrix_of(effects))
    called = layer_of(effects, "lfsr") <= limit
    rows = _chosen("perturbations", perturbations, effects.obs_names)
    if rows is None:
        rows = np.sort(np.argsort(-called.sum(axis=1), kind="stable")[:MOST_CONDITIONS])
    columns = _chosen("genes", genes, effects.var_names)
    if columns is None:
        strongest = np.max(np.where(called, np.abs(value), 0.0)[rows], axis=0)
        order = np.lexsort((-np.abs(value[rows]).max(axis=0), -strongest))
        columns = np.sort(order[:most])
    value, called = value[np.ix_(rows, columns)], called[np.ix_(rows, columns)]
    n_cells = n_cells_of(effects)
    names = [shorten(str(effects.obs_names[row])) for row in rows]
    if n_cells is not None:
        names = [f"{name} ({n_cells[row]:,.0f})" for name, row in zip(names, rows, strict=True)]
    gene_names = [shorten(str(effects.var_names[column]), 14) for column in columns]
    figure = _draw(value, called, names, gene_names, effect_unit(effects))
    n_all = effects.shape[0]
    some = f"{len(rows):,}" + (f" of {n_all:,}" if len(rows) < n_all else "")
    headline(
        figure,
        f"Effects of {some} condition{'' if n_all == 1 else 's'} on {len(columns):,} gene{'s'[: len(columns) > 1]}",
        _caption(limit, n_cells is not None, genes is None),
    )
    return figure


def _chosen(argument: str, given: Any, names: Any) -> IndexArray | None:
    """Positions of the names that were asked for; ``None`` where none were."""
    if given is None:
        return None
    known = [str(name) for name in names]
    asked = list(dict.fromkeys(texts(argument, given)))
    unknown = [name for name in asked if name not in set(known)]
    if unknown or not asked:
        what = f"{unknown[0]!r} is not among the effects{closest(unknown[0], known)}" if unknown else "is empty"
        raise DataError(f"{argument}: {what}" if unknown else f"{argument} is {shown(given)}; name at least one")
    place = {name: index for index, name in enumerate(known)}
    return np.array([place[name] for name in asked])


def _draw(value: FloatArray, called: BoolArray, names: list[str], genes: list[str], unit: str) -> Figure:
    n_rows, n_columns = value.shape
    body = min(max(LABEL_SPACE * n_rows, 0.5), TALLEST - HEAD)
    beside = 0.85 + CHARACTER * max(map(len, names))
    width = min(WIDTH, beside + max(LABEL_SPACE * n_columns, 1.6))
    figure = new_figure(HEAD + body, width)
    grid = figure.add_gridspec(2, 2, width_ratios=[0.09, 1], height_ratios=[0.3, body])
    row_order = _tree(figure.add_subplot(grid[1, 0]), value, "left")
    column_order = _tree(figure.add_subplot(grid[0, 1]), value.T, "top")
    ax = figure.add_subplot(grid[1, 1])
    shown_values, marked = value[np.ix_(row_order, column_order)], called[np.ix_(row_order, column_order)]
    image = _image(ax, shown_values)
    weight = called.sum(axis=1)[row_order] + np.abs(shown_values).max(axis=1) / (np.abs(value).max() + 1e-9) / 2
    labelled = _with_room(weight, max(1, int(body / LABEL_SPACE)))
    ax.set_yticks(labelled, [names[row_order[at]] for at in labelled], fontsize=TICK_SIZE, parse_math=False)
    across = _with_room(np.abs(shown_values).max(axis=0), max(1, round((width - beside) / LABEL_SPACE)))
    ax.set_xticks(across, [genes[column_order[at]] for at in across], fontsize=TICK_SIZE, rotation=90, parse_math=False)
    ax.yaxis.tick_right()
    ax.tick_params(length=2 if len(labelled) < n_rows else 0, color=MUTED, width=0.5, labelcolor=INK, pad=2)
    if body / n_rows >= DOT_SPACE and (width - beside) / n_columns >= DOT_SPACE:
        at_row, at_column = np.nonzero(marked)
        ax.scatter(at_column, at_row, s=1.6, color=INK, linewidths=0)
    bar = figure.colorbar(image, ax=ax, orientation="horizontal", shrink=0.4, aspect=26, pad=0.02, extend="both")
    bar.ax.tick_params(labelsize=TICK_SIZE, color=MUTED, labelcolor=INK, width=0.6, length=2.5)
    bar.outline.set_visible(False)
    bar.set_label(f"effect ({unit})", fontsize=NOTE_SIZE, color=INK)
    return figure


def _image(ax: Axes, value: FloatArray) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    palette = LinearSegmentedColormap.from_list("effects", [MODEL, "#FFFFFF", FAILED])
    size = np.abs(value)
    limit = float(np.percentile(size[size > 0], BRIGHTEST)) if (size > 0).any() else 1.0
    image = ax.imshow(value, aspect="auto", cmap=palette, vmin=-limit, vmax=limit, interpolation="nearest")
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image


def _tree(ax: Axes, value: FloatArray, side: str) -> IntArray:
    """Draw the tree of the rows, and return their order in it."""
    from scipy.cluster.hierarchy import dendrogram, linkage

    ax.set_axis_off()
    n = len(value)
    if n < 3:
        return np.arange(n)
    links = linkage(value, "ward", optimal_ordering=n <= MOST_ORDERED)
    tree = dendrogram(links, no_plot=True)
    for across, depth in zip(tree["icoord"], tree["dcoord"], strict=True):
        x, y = (np.asarray(across) - 5) / 10, np.asarray(depth)
        ax.plot(*((-y, x) if side == "left" else (x, y)), color=MUTED, linewidth=0.5 if n <= MOST_ORDERED else 0.2)
    if side == "left":
        ax.set_ylim(n - 0.5, -0.5)
        ax.set_xlim(right=0)
    else:
        ax.set_xlim(-0.5, n - 0.5)
        ax.set_ylim(bottom=0)
    return np.asarray(tree["leaves"], dtype=np.int64)


def _with_room(weight: FloatArray, most: int) -> IndexArray:
    """Positions that are named: all where there is room, else the heaviest that lie far enough from each other."""
    n = len(weight)
    if n <= most:
        return np.arange(n)
    distance, chosen = n / most, np.zeros(0, dtype=np.int64)
    for at in np.argsort(-weight, kind="stable"):
        if not len(chosen) or np.min(np.abs(chosen - at)) >= distance:
            chosen = np.append(chosen, at)
    return np.sort(chosen)


def _caption(limit: float, counted: bool, by_size: bool) -> str:
    text = f"Dots, where there is room: local false sign rate up to {number(limit)}. "
    text += "In brackets: training cells. " if counted else ""
    text += "Genes: those of the largest called effects. " if by_size else ""
    return text + f"Strongest colour: the {BRIGHTEST:.0f}th percentile of the sizes."
