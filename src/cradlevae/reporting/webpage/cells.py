"""Cells for the page: where passing, failed and cleaned cells lie, as principal components and as a UMAP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.labels import CONTROL, base_of
from cradlevae.data.moments import log_expression
from cradlevae.reporting.cell_map import components_of, embedded
from cradlevae.reporting.webpage.packing import packed
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray

N_COMPONENTS = 30

FEWEST_FOR_UMAP = 1000
"""Points below which principal components show as much."""

LEAST_PASSING = 3
RESOLUTION = 2000
"""Steps between the ends of an axis."""


def packed_cells(data: Experiment, twins: AnnDataLike) -> dict[str, Any] | None:
    """Cells as they were measured, and the twins of the failed ones, in common coordinates.

    Principal components of log2(1 + counts per 10,000) of the passing cells, and a UMAP of these components.

    Parameters
    ----------
    data
        The measured cells.
    twins
        Their twins as :meth:`cradlevae.CradleVAE.clean` returns them, by the same names.

    Returns
    -------
    dict
        ``layouts`` (by name the coordinates ``x`` and ``y``, packed, of all measured cells and then of the twins of the
        failed ones, and the names of the axes), ``failed`` (0 or 1), ``perturbation`` (index into ``perturbations``)
        and ``damage`` (index into ``damages``) of the measured cells; ``None`` with fewer than three passing cells.
    """
    at = twins.obs_names.get_indexer(data.cells)
    rows = np.flatnonzero(at >= 0)
    failed = data.failed[rows]
    if (~failed).sum() < LEAST_PASSING or not failed.any():
        return None
    measured = log_expression(data.counts[rows])
    cleaned = log_expression(sp.csr_matrix(twins.X[at[rows[failed]]]))
    pca = components_of(measured[np.flatnonzero(~failed)], N_COMPONENTS)
    points = np.concatenate([pca.transform(measured), pca.transform(cleaned)])
    shares = [f"PC{number + 1} ({share:.1%} of variance)" for number, share in enumerate(pca.explained_variance_ratio_)]
    layouts = {}
    if len(points) >= FEWEST_FOR_UMAP:
        layouts["UMAP"] = _layout(embedded(points), ["UMAP 1", "UMAP 2"])
    plane = np.column_stack([points, np.zeros(len(points))])[:, :2]
    layouts["Principal components"] = _layout(plane, [*shares, ""][:2])
    names = [base_of(name) for name in data.conditions]
    codes, perturbations = pd.factorize(np.array(names, dtype=object)[data.condition[rows]])
    damage, damages = _damages(twins, at[rows])
    return {
        "layouts": layouts,
        "failed": packed(failed),
        "perturbation": packed(codes),
        "perturbations": [str(name) for name in perturbations],
        "control": CONTROL,
        "damage": packed(damage),
        "damages": damages,
    }


def _layout(plane: FloatArray, axes: list[str]) -> dict[str, Any]:
    """Coordinates; what lies beyond the outermost thousandth of the cells is drawn at the edge."""
    low, high = np.quantile(plane, [0.001, 0.999], axis=0)
    margin = 0.25 * np.maximum(high - low, 1e-6)
    inside = np.clip(plane, low - margin, high + margin)
    step = float(np.maximum(high - low, 1e-6).max() / RESOLUTION)
    return {"axes": axes, "x": packed(inside[:, 0], step), "y": packed(inside[:, 1], step)}


def _damages(twins: AnnDataLike, rows: IndexArray) -> tuple[IndexArray, list[str]]:
    """The most probable damage of cells, −1 for passing ones, and its names; no names where it was not diagnosed."""
    if "damage" not in twins.obs:
        return np.full(len(rows), -1), []
    damage = pd.Categorical(twins.obs["damage"])
    return np.asarray(damage.codes)[rows].astype(np.int64), [str(name).replace("_", " ") for name in damage.categories]
