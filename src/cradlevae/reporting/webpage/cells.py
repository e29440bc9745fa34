"""Cells for the page: where passing, failed and cleaned cells lie, as principal components and as a UMAP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.labels import CONTROL, base_of
from cradlevae.data.moments import expression_blocks
from cradlevae.reporting.webpage.packing import packed
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray

N_COMPONENTS = 30
N_NEIGHBOURS = 15

FEWEST_FOR_UMAP = 1000
"""Points below which principal components show as much."""

LEAST_PASSING = 3
SEED = 0
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
    from sklearn.decomposition import PCA

    at = twins.obs_names.get_indexer(data.cells)
    rows = np.flatnonzero(at >= 0)
    failed = data.failed[rows]
    if (~failed).sum() < LEAST_PASSING or not failed.any():
        return None
    measured = _expression(sp.csr_matrix(data.counts[rows]))
    cleaned = _expression(_integer_counts(twins, at[rows[failed]]))
    passing = measured[np.flatnonzero(~failed)]
    n_components = min(N_COMPONENTS, *(size - 1 for size in passing.shape))
    pca = PCA(n_components, svd_solver="arpack", random_state=SEED).fit(passing)
    points = np.concatenate([pca.transform(measured), pca.transform(cleaned)])
    shares = [f"PC{number + 1} ({share:.1%} of variance)" for number, share in enumerate(pca.explained_variance_ratio_)]
    layouts = {}
    if len(points) >= FEWEST_FOR_UMAP:
        layouts["UMAP"] = _layout(_umap(points), ["UMAP 1", "UMAP 2"])
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


def _integer_counts(twins: AnnDataLike, rows: IndexArray) -> sp.csr_matrix:
    """Counts of twins that can stand beside real cells."""
    return sp.csr_matrix(twins.X[rows])


def _expression(counts: sp.csr_matrix) -> sp.csr_matrix:
    return sp.csr_matrix(sp.vstack([block for _, block in expression_blocks(counts)], format="csr"))


def _umap(points: FloatArray) -> FloatArray:
    import anndata as ad
    import scanpy as sc

    cells = ad.AnnData(np.zeros((len(points), 1), dtype=np.float32), obsm={"X_pca": points})
    sc.pp.neighbors(cells, n_neighbors=N_NEIGHBOURS, use_rep="X_pca", random_state=SEED)
    sc.tl.umap(cells, random_state=SEED)
    return np.asarray(cells.obsm["X_umap"], dtype=np.float64)


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
