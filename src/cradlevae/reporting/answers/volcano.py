"""The volcano figure: effect of one perturbation on each gene, and how sure its sign is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cradlevae.data.labels import singles_of
from cradlevae.errors import DataError
from cradlevae.reporting.answers.tables import effect_unit, layer_of, matrix_of, n_cells_of, need_layers
from cradlevae.reporting.labels import label_points, settle
from cradlevae.reporting.style import (
    FAILED,
    MODEL,
    MUTED,
    PASSING,
    name_axes,
    number,
    one_panel,
    one_panel_done,
    shorten,
)
from cradlevae.utils.checks import probability, shown, whole_number
from cradlevae.utils.names import closest
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_LFSR = 1e-20
"""Genes of smaller false sign rates are drawn at this one, as triangles: what differs there is no longer evidence."""


def volcano(
    effects: AnnDataLike,
    perturbation: str | None = None,
    *,
    lfsr: float = 0.05,
    n_labels: int = 10,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Effect of a perturbation on each gene against the local false sign rate.

    Parameters
    ----------
    effects
        What :meth:`cradlevae.CradleVAE.effects`, ``contrast`` or ``interactions`` returns: conditions × genes, with
        the layers ``low``, ``high`` and ``lfsr``.
    perturbation
        Which of its rows; ``None`` where there is one only.
    lfsr
        Genes are called, and coloured, at this local false sign rate or below.
    n_labels
        Largest number of called genes that are named: those of the lowest rates, and the perturbation's targets. A
        name that would cover a gene wherever it stood is left out.
    ax
        Axes to draw into; ``None`` makes a figure of one column's width.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        The figure; or the axes, where some were given.

    Raises
    ------
    DataError
        If the effects lack a layer, or have no such row.

    Examples
    --------
    >>> import anndata as ad, numpy as np
    >>> import cradlevae as cv
    >>> effects = ad.AnnData(np.array([[1.5, -0.2]]), layers={"lfsr": np.array([[0.001, 0.3]])})
    >>> figure = cv.pl.volcano(effects)
    >>> figure.get_suptitle()
    '0: 1 gene up, 0 down'
    """
    limit, most = probability("lfsr", lfsr, 0.05), whole_number("n_labels", n_labels)
    need_layers(effects, "lfsr")
    row = _row(effects, perturbation)
    name = str(effects.obs_names[row])
    x, rate = matrix_of(effects)[row], layer_of(effects, "lfsr")[row]
    y = -np.log10(np.clip(rate, LEAST_LFSR, 1.0))
    known = np.isfinite(x) & np.isfinite(y)
    called = known & (rate <= limit)
    genes = [str(gene) for gene in effects.var_names]
    named = _named(x, rate, called, np.isin(genes, singles_of(name)) & known, most)

    drawn = one_panel(ax, 3.1)
    drawn.axvline(0, color=MUTED, linewidth=0.6, zorder=1)
    drawn.axhline(-np.log10(limit), color=MUTED, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    _intervals(drawn, effects, row, x, y, named)
    beyond = rate < LEAST_LFSR
    for mask, colour, alpha in (
        (known & ~called, PASSING, 0.5),
        (called & (x > 0), FAILED, 0.9),
        (called & (x <= 0), MODEL, 0.9),
    ):
        for top, marker in ((mask & ~beyond, "o"), (mask & beyond, "^")):
            drawn.scatter(
                x[top], y[top], s=9, color=colour, alpha=alpha, linewidths=0, marker=marker, rasterized=True, zorder=3
            )
    left, right = float(np.min(x[known], initial=0.0)), float(np.max(x[known], initial=0.0))
    room = 0.12 * max(right - left, 0.1)
    top = max(float(np.max(y[known], initial=0.0)), -np.log10(limit))
    drawn.set_xlim(left - room, right + room)
    drawn.set_ylim(0.0, 1.12 * top)
    name_axes(drawn, x=f"effect ({effect_unit(effects)})", y="−log10 local false sign rate")
    up, down = int((called & (x > 0)).sum()), int((called & (x < 0)).sum())
    title = f"{shorten(name, 24)}: {up:,} gene{'' if up == 1 else 's'} up, {down:,} down"
    result = one_panel_done(drawn, ax, title, _caption(effects, row, limit, beyond=bool((beyond & known).any())))
    settle(drawn.figure.figure)
    label_points(drawn, x, np.where(known, y, -1.0), genes, named)
    return result


def _row(effects: AnnDataLike, perturbation: str | None) -> int:
    """Position of the row to draw."""
    names = [str(name) for name in effects.obs_names]
    if perturbation is None:
        if len(names) != 1:
            raise DataError(f"the effects have {len(names)} rows; name one with perturbation=")
        return 0
    if not isinstance(perturbation, str) or perturbation not in names:
        raise DataError(
            f"perturbation is {shown(perturbation)}, which is not among the effects{closest(str(perturbation), names)}"
        )
    return names.index(perturbation)


def _named(x: FloatArray, rate: FloatArray, called: Any, target: Any, most: int) -> IndexArray:
    """Positions of the genes to name: targets first, then called genes by rate and by size of the effect."""
    if most == 0:
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort((-np.abs(x), rate, ~called))
    chosen = order[called[order]][:most]
    return np.asarray(np.concatenate([np.flatnonzero(target), chosen[~target[chosen]]]))


def _intervals(ax: Axes, effects: AnnDataLike, row: int, x: FloatArray, y: FloatArray, named: IndexArray) -> None:
    """Credible intervals of the named genes."""
    if {"low", "high"} <= set(effects.layers):
        low, high = layer_of(effects, "low")[row], layer_of(effects, "high")[row]
        ax.hlines(y[named], low[named], high[named], color=MUTED, linewidth=0.6, alpha=0.6, zorder=2)


def _caption(effects: AnnDataLike, row: int, limit: float, *, beyond: bool) -> str:
    n = n_cells_of(effects)
    cells = "" if n is None else "Unseen: no training cells. " if n[row] == 0 else f"{n[row]:,.0f} training cells. "
    text = f"{cells}Dashed: false sign rate {number(limit)}; genes above it are called."
    if {"low", "high"} <= set(effects.layers):
        text += " Lines: credible intervals of named genes."
    return text + (f" Triangles: rates below {LEAST_LFSR:.0e}." if beyond else "")
