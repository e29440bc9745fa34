"""The figure of cells that failed quality control, before and after the artifact is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from cradlevae.errors import DataError
from cradlevae.reporting.cell_map import Basis, CellMap, cell_map, passing_distances
from cradlevae.reporting.style import (
    CLASSES,
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
    say_instead,
    shorten,
)
from cradlevae.utils.checks import check_anndata, check_choice, optional_text, texts
from cradlevae.utils.constants import MADE_MARK
from cradlevae.utils.types import AnnDataLike, FloatArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURED = 6
"""Number of perturbations that have a colour of their own, unless they are named."""


def cleaned(
    before: AnnDataLike,
    after: AnnDataLike,
    *,
    basis: Basis = "pca",
    perturbations: str | Sequence[str] | None = None,
    perturbation_key: str | None = "perturbation",
    artifact_key: str | Sequence[str] = "artifact",
    layer: str | None = None,
) -> Figure:
    """Failed cells before and after :meth:`cradlevae.CradleVAE.clean`, among the cells that passed, by perturbation.

    Principal components of log2(1 + counts per 10,000), fitted on passing real cells, or their UMAP with the failed
    cells before and after; the cells after cleaning are their drawn counts, since expected counts, being smooth, could
    not be compared with real ones. At most 3,000 passing and 2,000 failed cells are drawn.

    Parameters
    ----------
    before
        Real cells, with counts, perturbations and artifact column(s).
    after
        The AnnData that ``clean`` returned for these cells, all of them or the failed ones.
    basis
        ``"pca"``, or ``"umap"`` of 20 components with 15 neighbours (scanpy; takes half a minute the first time).
    perturbations
        Up to 8 perturbations to colour; ``None`` takes the 6 whose passing cells differ most from the others.
    perturbation_key
        Column of ``before.obs``; ``None`` compares failed cells with all passing ones.
    artifact_key
        Column or columns of ``before.obs``, true for cells that failed.
    layer
        Layer of ``before`` with the counts; ``None`` reads ``X``.

    Returns
    -------
    matplotlib.figure.Figure
        Failed cells before and after, and their distances to the centroid of the passing cells of their
        perturbation.

    Raises
    ------
    DataError
        If a column, layer, gene or perturbation is absent, or fewer than three cells passed.
    """
    check_choice("basis", basis, get_args(Basis))
    check_anndata(before, "before")
    check_anndata(after, "after")
    optional_text("perturbation_key", perturbation_key)
    texts("artifact_key", artifact_key)
    cells = cell_map(before, after, perturbation_key, artifact_key, layer)
    colours = _colours(cells, perturbations, perturbation_key)
    figure = new_figure(3.7 if colours else 3.4)
    grid = figure.add_gridspec(
        2 if colours else 1, 3, width_ratios=[1, 1, 1.05], height_ratios=[1, 0.06][: 1 + bool(colours)]
    )
    left, middle, right = (figure.add_subplot(grid[0, column]) for column in range(3))
    passing, as_measured, twins = cells.plane(basis)
    limits = _limits(np.concatenate([passing, as_measured, twins]))
    n = len(cells.before)
    for ax, failed, plain in ((left, as_measured, FAILED), (middle, twins, MODEL)):
        _scatter(ax, cells, passing, failed, colours or {"all": plain})
        ax.set_xlim(*limits[0])
        ax.set_ylim(*limits[1])
        if basis == "umap":
            ax.set_xticks([])
            ax.set_yticks([])
    name_axes(left, x=_axis(cells, 0, basis), y=_axis(cells, 1, basis), title=f"{n:,} failed cells as measured")
    name_axes(middle, x=_axis(cells, 0, basis), title="the same, artifact taken away")
    _distances(right, cells)
    if colours:
        _key(figure.add_subplot(grid[1, :]), cells, colours)
    headline(
        figure, "Failed cells before and after cleaning, among the cells that passed (grey)",
        _caption(after, basis, marked=bool(colours)),
    )  # fmt: skip
    return figure


def _colours(cells: CellMap, asked: object, key: str | None) -> dict[str, str]:
    """Colour of each perturbation that has one; empty without perturbations."""
    if key is None:
        return {}
    names = cells.distinct(COLOURED)
    if asked is not None:
        names = list(dict.fromkeys(texts("perturbations", asked)))
        unknown = [name for name in names if name not in cells.failed_labels and name not in cells.passing_labels]
        if unknown or not 0 < len(names) <= len(CLASSES):
            raise DataError(
                f"perturbations: no cell drawn is labelled {unknown[0]!r}" if unknown
                else f"perturbations has {len(names)} names; give 1 to {len(CLASSES)}"
            )  # fmt: skip
    return dict(zip(names, CLASSES, strict=False))


def _key(ax: Axes, cells: CellMap, colours: dict[str, str]) -> None:
    """What the colours mean, in axes of their own."""
    ax.set_axis_off()
    for name, colour in colours.items():
        n = int((cells.failed_labels == name).sum())
        ax.scatter([], [], s=14, color=colour, linewidths=0, label=f"{shorten(name, 13)} ({n:,})")
    ax.scatter([], [], s=14, color=MUTED, linewidths=0, alpha=0.6, label="others")
    ax.legend(
        loc="center left", ncols=len(colours) + 1 if len(colours) <= COLOURED else 5, fontsize=TICK_SIZE,
        labelcolor=INK, frameon=False, handletextpad=0.1, columnspacing=0.8, borderaxespad=0.0,
    )  # fmt: skip


def _axis(cells: CellMap, index: int, basis: Basis) -> str:
    if basis == "umap":
        return f"UMAP {index + 1}"
    if index >= len(cells.explained):
        return ""
    return f"PC{index + 1} ({cells.explained[index]:.1%} of variance)"


def _limits(every: FloatArray) -> FloatArray:
    """Range of each coordinate, (2, 2), without the outermost cells."""
    low, high = np.quantile(every, [0.002, 0.998], axis=0)
    margin = 0.06 * np.maximum(high - low, 1e-6)
    return np.column_stack([low - margin, high + margin])


def _scatter(ax: Axes, cells: CellMap, passing: FloatArray, failed: FloatArray, colours: dict[str, str]) -> None:
    """Passing cells in grey, failed ones in the colours of their perturbations, with the passing cells' centres."""
    dress(ax)
    size = float(np.clip(2500 / max(len(passing) + len(failed), 1), 3, 9))
    ax.scatter(passing[:, 0], passing[:, 1], s=size, color=PASSING, alpha=0.3, linewidths=0, rasterized=True)
    rest = np.array([name not in colours for name in cells.failed_labels], dtype=bool)
    ax.scatter(failed[rest, 0], failed[rest, 1], s=size, color=MUTED, alpha=0.45, linewidths=0, rasterized=True)
    single = len(colours) == 1
    for name, colour in colours.items():
        own = cells.failed_labels == name
        ax.scatter(
            failed[own, 0], failed[own, 1], s=size if single else 1.6 * size, color=colour,
            alpha=0.6 if single else 0.85, linewidths=0, rasterized=True, zorder=3,
        )  # fmt: skip
        of_name = passing[cells.passing_labels == name]
        if len(of_name) and not single:
            middle = np.median(of_name, axis=0)
            for ink, width, length in (("white", 3.2, 9.5), (colour, 1.6, 8)):
                ax.plot(*middle, "+", color=ink, markersize=length, markeredgewidth=width, zorder=4)


def _distances(ax: Axes, cells: CellMap) -> None:
    passing, before, after = passing_distances(
        cells.passing, cells.passing_labels, (cells.before, cells.after), cells.failed_labels
    )
    dress(ax)
    title = "distance to their passing cells"
    if len(before) == 0 or len(passing) == 0:
        name_axes(ax, title=title)
        say_instead(ax, "no failed cell has passing cells of the same perturbation")
        return
    top = max(float(np.quantile(values, 0.99)) for values in (passing, before, after))
    edges = np.linspace(0.0, top or 1.0, 41)
    groups = (
        ("passing", passing, PASSING),
        ("failed", before, FAILED),
        ("cleaned", after, MODEL),
    )
    for label, values, colour in groups:
        weights = np.full(len(values), 100.0 / len(values))
        text = f"{label}: median {np.median(values):.1f}"
        clipped = np.minimum(values, edges[-1])
        ax.hist(clipped, bins=edges.tolist(), weights=weights, histtype="stepfilled", color=colour, alpha=0.18)
        ax.hist(
            clipped,
            bins=edges.tolist(),
            weights=weights,
            histtype="step",
            color=colour,
            linewidth=1.3,
            label=text,
        )
    name_axes(ax, x=f"distance in {cells.passing.shape[1]} components", y="% of cells", title=title)
    ax.set_xlim(0.0, edges[-1])
    highest = ax.get_ylim()[1]
    for _, values, colour in groups:
        ax.vlines(float(np.median(values)), 0.0, highest, color=colour, linewidth=0.9, linestyle=(0, (4, 2)))
    ax.set_ylim(0.0, highest * 1.45)
    legend(ax)
    left_out = len(cells.before) - len(before)
    if left_out:
        ax.text(
            0.98, 0.66, f"{left_out:,} failed cells left out:\nno passing cells of theirs", transform=ax.transAxes,
            ha="right", va="top", fontsize=NOTE_SIZE, color=INK,
        )  # fmt: skip


SERVES = {
    "used": "These twins were decoded with their labels: they serve for a look at cells; for clustering take those of "
    "clean(use_label=False), and for differential expression and effects no twin but the model's effects.",
    "unused": "These twins were decoded without their labels: they serve for clustering beside raw passing cells; for "
    "differential expression and effects take no twin but the model's effects.",
}
"""What twins serve for, by whether their labels were used."""


def _serves(after: AnnDataLike) -> str:
    mark: Any = after.uns.get(MADE_MARK, {})
    return SERVES.get(mark.get("label"), "")


def _caption(after: AnnDataLike, basis: Basis, *, marked: bool) -> str:
    text = "Principal components of log2(1 + counts per 10,000), fitted on passing cells"
    text += "; UMAP of these and of the failed cells before and after. " if basis == "umap" else ". "
    text += "Colours: perturbations (failed cells drawn); crosses: medians of their passing cells. " if marked else ""
    text += (
        "Distances: to the centroid of the passing cells of the same perturbation; lines: medians. After cleaning: "
        "counts drawn from the twins (X of clean), since expected counts are smoother than any real cell and would "
        "seem closer than they are. Drawn counts, too, hold only the variation that the model knows: a distance below "
        f"that of passing cells is no sign of a better cell. {_serves(after)}"
    )
    if "confounded" in after.obs:
        failed = after.obs["failed_qc"].to_numpy(dtype=bool)
        n = int((after.obs["confounded"].fillna(False).to_numpy(dtype=bool) & failed).sum())
        if n:
            text += (
                f" {n:,} of {int(failed.sum()):,} failed cells carry a perturbation that changes how often cells fail: "
                "their artifact may be biology."
            )
    return text
