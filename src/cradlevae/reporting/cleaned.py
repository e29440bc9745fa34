"""The figure of cells that failed quality control, before and after the artifact is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.moments import expression_blocks
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.reporting.style import (
    FAILED,
    INK,
    MODEL,
    NOTE_SIZE,
    PASSING,
    dress,
    headline,
    legend,
    name_axes,
    new_figure,
    say_instead,
)
from cradlevae.utils.constants import MADE_MARK
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_PASSING = 3000
MAX_FAILED = 2000
"""Largest numbers of passing and of failed cells that are drawn; of more cells, a random choice is drawn."""
N_COMPONENTS = 20
SEED = 0


@dataclass(frozen=True)
class _Cells:
    """Cells in the space of the principal components, (cells, components), and their perturbations."""

    passing: FloatArray
    before: FloatArray
    after: FloatArray
    passing_labels: npt.NDArray[np.object_]
    failed_labels: npt.NDArray[np.object_]
    explained: FloatArray


def cleaned_figure(
    before: AnnDataLike,
    after: AnnDataLike,
    *,
    perturbation_key: str | None = "perturbation",
    artifact_key: str | Sequence[str] = "artifact",
    layer: str | None = None,
) -> Figure:
    """Failed cells before and after :meth:`cradlevae.CradleVAE.clean`, among the cells that passed.

    Principal components of log2(1 + counts per 10,000), fitted on passing real cells; the cells after cleaning are
    their drawn counts (``X``), since expected counts, being smooth, could not be compared with real ones. At most 3,000
    passing and 2,000 failed cells are drawn.

    Parameters
    ----------
    before
        Real cells, with counts, perturbations and artifact column(s).
    after
        The AnnData that ``clean`` returned for these cells, all of them or the failed ones.
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
        If a column, layer or gene is absent, or fewer than three cells passed.
    """
    cells = _project(before, after, perturbation_key, artifact_key, layer)
    figure = new_figure(3.35)
    grid = figure.add_gridspec(1, 3, width_ratios=[1, 1, 1.15])
    left, middle, right = (figure.add_subplot(grid[0, column]) for column in range(3))
    n = len(cells.before)
    _scatter(left, cells, cells.before, FAILED)
    _scatter(middle, cells, cells.after, MODEL)
    name_axes(left, x=_axis(cells, 0), y=_axis(cells, 1), title=f"{n:,} failed cells as measured")
    name_axes(middle, x=_axis(cells, 0), title="the same, artifact taken away")
    _distances(right, cells)
    headline(figure, "Failed cells before and after cleaning, among the cells that passed (grey)", _caption(after))
    return figure


def _project(
    before: AnnDataLike,
    after: AnnDataLike,
    perturbation_key: str | None,
    artifact_key: str | Sequence[str],
    layer: str | None,
) -> _Cells:
    from sklearn.decomposition import PCA

    keys = [artifact_key] if isinstance(artifact_key, str) else list(artifact_key)
    for key in keys if perturbation_key is None else [perturbation_key, *keys]:
        if key not in before.obs:
            raise DataError(f"obs of the cells before cleaning has no column {key!r}")
    if "failed_qc" not in after.obs:
        raise DataError("the cells after cleaning lack obs['failed_qc']; give what clean returns")
    genes = before.var_names.get_indexer(after.var_names)
    if (genes < 0).any():
        missing = str(after.var_names[int(np.flatnonzero(genes < 0)[0])])
        raise DataError(f"gene {missing!r} of the cleaned cells is not among the genes of the cells before")
    rng = np.random.default_rng(SEED)
    artifact = (before.obs[keys].astype(float) != 0).any(axis=1).to_numpy()
    passing = _sample(np.flatnonzero(~artifact), MAX_PASSING, rng)
    rows = before.obs_names.get_indexer(after.obs_names)
    cleaned = _sample(np.flatnonzero(after.obs["failed_qc"].to_numpy(dtype=bool) & (rows >= 0)), MAX_FAILED, rng)
    if len(passing) < 3:
        raise DataError(f"{len(passing)} cells passed quality control; at least three are needed to compare with")

    counts = Counts(before, layer)
    reference = _expression(counts.read(passing)[:, genes])
    n_components = min(N_COMPONENTS, *(size - 1 for size in reference.shape))
    pca = PCA(n_components, svd_solver="arpack", random_state=SEED).fit(reference)
    failed = rows[cleaned]
    order = np.argsort(failed)
    measured = np.empty((len(failed), n_components))
    if len(failed):
        measured[order] = pca.transform(_expression(counts.read(failed[order])[:, genes]))
        twins = pca.transform(_expression(Counts(after).read(cleaned)))
    else:
        twins = measured
    labels = np.full(before.n_obs, "all", dtype=object)
    if perturbation_key is not None:
        labels = before.obs[perturbation_key].astype(str).to_numpy(dtype=object)
    return _Cells(
        pca.transform(reference),
        measured,
        twins,
        labels[passing],
        labels[failed],
        pca.explained_variance_ratio_,
    )


def _sample(rows: IndexArray, n: int, rng: np.random.Generator) -> IndexArray:
    return rows if len(rows) <= n else np.sort(rng.choice(rows, n, replace=False))


def _expression(counts: sp.csr_matrix) -> sp.csr_matrix:
    blocks = [block for _, block in expression_blocks(sp.csr_matrix(counts), "perturbseq")]
    return sp.csr_matrix(sp.vstack(blocks, format="csr"))


def _axis(cells: _Cells, index: int) -> str:
    if index >= len(cells.explained):
        return ""
    return f"PC{index + 1} ({cells.explained[index]:.1%} of variance)"


def _plane(coordinates: FloatArray) -> FloatArray:
    """The first two components; the second is zero where there is only one."""
    return np.column_stack([coordinates, np.zeros(len(coordinates))])[:, :2]


def _scatter(ax: Axes, cells: _Cells, failed: FloatArray, colour: str) -> None:
    dress(ax)
    everyone = _plane(np.concatenate([cells.passing, cells.before, cells.after]))
    low, high = np.quantile(everyone, [0.002, 0.998], axis=0)
    margin = 0.06 * np.maximum(high - low, 1e-6)
    grey, drawn = _plane(cells.passing), _plane(failed)
    size = float(np.clip(2500 / max(len(grey) + len(drawn), 1), 3, 9))
    ax.scatter(grey[:, 0], grey[:, 1], s=size, color=PASSING, alpha=0.35, linewidths=0, rasterized=True)
    ax.scatter(drawn[:, 0], drawn[:, 1], s=size, color=colour, alpha=0.6, linewidths=0, rasterized=True)
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _distances(ax: Axes, cells: _Cells) -> None:
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
        ("failed, as measured", before, FAILED),
        ("failed, cleaned", after, MODEL),
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
    name_axes(ax, x=f"distance in {cells.passing.shape[1]} principal components", y="% of cells", title=title)
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


def passing_distances(
    passing: FloatArray,
    passing_labels: npt.NDArray[np.object_],
    failed: tuple[FloatArray, ...],
    failed_labels: npt.NDArray[np.object_],
) -> tuple[FloatArray, ...]:
    """Distance of cells to the centroid of the passing cells of the same perturbation.

    A passing cell is compared with the centroid of the *other* ones: with few cells, its own part in the centroid would
    bring the two together.

    Parameters
    ----------
    passing
        Coordinates of the passing cells, (cells, components).
    passing_labels
        Their perturbations, (cells,).
    failed
        Coordinates of the failed cells, several versions, each (failed cells, components).
    failed_labels
        Their perturbations, (failed cells,).

    Returns
    -------
    Distances of the passing cells that are not alone, and of each version of the failed cells whose perturbation has
    passing cells.
    """
    codes, names = pd.factorize(passing_labels)
    n = np.bincount(codes, minlength=len(names)).astype(np.float64)
    membership = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(len(names), len(codes)))
    centroid = np.asarray(membership @ passing) / n[:, None]
    company = n[codes]
    spread = np.linalg.norm(passing - centroid[codes], axis=1)
    own = (spread * company / np.maximum(company - 1.0, 1.0))[company > 1]
    target = pd.Index(names).get_indexer(pd.Index(failed_labels)) if len(names) else np.full(len(failed_labels), -1)
    known = target >= 0
    return own, *(np.linalg.norm(version[known] - centroid[target[known]], axis=1) for version in failed)


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


def _caption(after: AnnDataLike) -> str:
    text = (
        "Principal components of log2(1 + counts per 10,000), fitted on passing cells. Distances: to the centroid "
        "of the passing cells of the same perturbation; lines: medians. After cleaning: counts drawn from the "
        "twins (X of clean), since expected counts are smoother than any real cell and would seem closer than they "
        "are. Drawn counts, too, hold only the variation that the model knows: a distance below that of passing cells "
        f"is no sign of a better cell. {_serves(after)}"
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
