"""The map of genetic interactions: how strong each pair is, and how like the sum of its singles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.reporting.labels import label_points, settle
from cradlevae.reporting.style import (
    CLASSES,
    INK,
    MUTED,
    NOTE_SIZE,
    PASSING,
    name_axes,
    one_panel,
    one_panel_done,
    say_instead,
)
from cradlevae.utils.checks import check_anndata, whole_number
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IndexArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDED = ("magnitude", "similarity", "interaction")
CERTAIN = 0.8
"""Probability of its class from which a pair is drawn in the full colour."""


def interactions(interactions: AnnDataLike, *, n_labels: int = 8, ax: Axes | None = None) -> Figure | Axes:
    """Map of pairs: magnitude of the fit of each pair on its singles against the similarity of these, by class.

    One pair gene by gene is :func:`cradlevae.pl.volcano` of the same object.

    Parameters
    ----------
    interactions
        What :meth:`cradlevae.CradleVAE.interactions` returns: pairs × genes, with ``magnitude``, ``similarity``,
        ``interaction`` (the most probable class), ``p_<class>`` and ``measured`` in ``obs``.
    n_labels
        Largest number of pairs that are named: those farthest from the middle of all. A name that would cover a
        point wherever it stood is left out.
    ax
        Axes to draw into; ``None`` makes a figure of one column's width.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        The figure; or the axes, where some were given.

    Raises
    ------
    DataError
        If a column is absent.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd
    >>> import cradlevae as cv
    >>> obs = {"magnitude": [1.4, 0.6], "similarity": [0.9, 0.5], "interaction": ["additive", "suppressive"]}
    >>> pairs = ad.AnnData(np.zeros((2, 3)), obs=pd.DataFrame(obs, index=["A+B", "A+C"]))
    >>> cv.pl.interactions(pairs).get_suptitle()
    'Interactions of 2 pairs'
    """
    most = whole_number("n_labels", n_labels)
    check_anndata(interactions, "interactions")
    obs = interactions.obs
    absent = [column for column in NEEDED if column not in obs]
    if absent:
        raise DataError(f"interactions has no obs[{absent[0]!r}]; give what model.interactions returns")
    x, y = (obs[column].to_numpy(dtype=np.float64) for column in NEEDED[:2])
    known = np.isfinite(x) & np.isfinite(y)
    measured = obs["measured"].to_numpy(dtype=bool) if "measured" in obs else np.ones(len(obs), dtype=bool)
    drawn = one_panel(ax, 3.5)
    title = f"Interactions of {len(obs):,} pair{'' if len(obs) == 1 else 's'}"
    if not known.any():
        say_instead(drawn, "no pair has a fit on its singles")
        return one_panel_done(drawn, ax, title)
    _points(drawn, obs, x, y, known, measured)
    name_axes(drawn, x="magnitude of the fit on the singles", y="similarity of the singles")
    drawn.axvline(np.sqrt(2), color=MUTED, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
    drawn.margins(0.12)
    drawn.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=NOTE_SIZE, labelcolor=INK, frameon=False,
        handletextpad=0.1, columnspacing=0.8, borderaxespad=0.1,
    )  # fmt: skip
    caption = "Dashed: the magnitude of a pair that is the sum of its singles, √2. "
    caption += f"Pale: the class has a probability below {CERTAIN}. "
    if not measured.all():
        caption += "Hollow: predicted, the pair has no training cells."
    result = one_panel_done(drawn, ax, title, caption)
    if ax is not None:  # the legend stands where the title would
        ax.set_title("", loc="left")
    settle(drawn.figure.figure)
    names = [str(name) for name in interactions.obs_names]
    label_points(drawn, np.where(known, x, np.nan), y, names, _farthest(x, y, known, most))
    return result


def _points(ax: Axes, obs: pd.DataFrame, x: FloatArray, y: FloatArray, known: BoolArray, measured: BoolArray) -> None:
    """Dots by class, the most frequent first; those of sure classes in the full colour."""
    kinds = obs["interaction"].astype(str).to_numpy()
    frequent = pd.Series(kinds[known]).value_counts().index
    for place, kind in enumerate(frequent):
        colour = CLASSES[place] if place < len(CLASSES) else PASSING
        probability = obs[f"p_{kind}"].to_numpy(dtype=np.float64) if f"p_{kind}" in obs else np.ones(len(obs))
        own = known & (kinds == kind)
        ax.scatter([], [], s=16, color=colour, linewidths=0, label=f"{kind.replace('_', ' ')} ({int(own.sum()):,})")
        for sure, alpha in ((probability >= CERTAIN, 1.0), (probability < CERTAIN, 0.4)):
            for seen in (True, False):
                rows = own & sure & (measured == seen)
                ax.scatter(
                    x[rows], y[rows], s=16, facecolors=colour if seen else "white", edgecolors=colour,
                    linewidths=0.9, alpha=alpha, zorder=3,
                )  # fmt: skip


def _farthest(x: FloatArray, y: FloatArray, known: BoolArray, most: int) -> IndexArray:
    """Positions of the points farthest from the middle, in units of the spread of each coordinate."""
    place = np.column_stack([x, y])
    middle = np.median(place[known], axis=0)
    spread = np.maximum(place[known].std(axis=0), 1e-9)
    far = np.where(known, np.linalg.norm((place - middle) / spread, axis=1), -1.0)
    order = np.argsort(-far, kind="stable")[:most]
    return np.asarray(order[known[order]])
