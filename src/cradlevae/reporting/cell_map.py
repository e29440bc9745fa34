"""Cells before and after the artifact is removed, in the space of principal components of the cells that passed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.moments import indicator, log_expression
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

Basis = Literal["pca", "umap"]
MAX_PASSING = 3000
MAX_FAILED = 2000
"""Largest numbers of passing and of failed cells that are drawn; of more cells, a random choice is drawn."""
N_COMPONENTS = 20
N_NEIGHBOURS = 15
SEED = 0


@dataclass(frozen=True)
class CellMap:
    """Cells in the space of the principal components, (cells, components), and their perturbations."""

    passing: FloatArray
    before: FloatArray
    after: FloatArray
    passing_labels: npt.NDArray[np.object_]
    failed_labels: npt.NDArray[np.object_]
    explained: FloatArray

    def plane(self, basis: Basis) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Two coordinates of the passing cells, and of the failed ones before and after."""
        parts = (self.passing, self.before, self.after)
        every = np.concatenate(parts)
        flat = embedded(every) if basis == "umap" else np.column_stack([every, np.zeros(len(every))])[:, :2]
        first, second = np.cumsum([len(part) for part in parts])[:2]
        return flat[:first], flat[first:second], flat[second:]

    def distinct(self, n: int) -> list[str]:
        """The ``n`` perturbations whose passing cells lie farthest from the other passing ones, for their noise."""
        evidence = {}
        for name in pd.unique(self.failed_labels):
            own = self.passing[self.passing_labels == name]
            if len(own) > 1:
                error = self.passing.var(axis=0) / len(own)
                evidence[str(name)] = float(((own.mean(axis=0) - self.passing.mean(axis=0)) ** 2 / error).mean())
        return sorted(evidence, key=lambda name: -evidence[name])[:n]


def cell_map(
    before: AnnDataLike,
    after: AnnDataLike,
    perturbation_key: str | None,
    artifact_key: str | Sequence[str],
    layer: str | None,
) -> CellMap:
    """Project cells before and after cleaning; arguments as of :func:`cradlevae.pl.cleaned`."""
    keys = [artifact_key] if isinstance(artifact_key, str) else list(artifact_key)
    named = {"artifact_key": keys, "perturbation_key": [] if perturbation_key is None else [perturbation_key]}
    for argument, columns in named.items():
        for key in columns:
            if key not in before.obs:
                raise DataError(f"obs of the cells before cleaning has no column {key!r} ({argument})")
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
    reference = log_expression(counts.read(passing)[:, genes])
    pca = components_of(reference, N_COMPONENTS)
    n_components = pca.n_components
    failed = rows[cleaned]
    order = np.argsort(failed)
    measured = np.empty((len(failed), n_components))
    if len(failed):
        measured[order] = pca.transform(log_expression(counts.read(failed[order])[:, genes]))
        twins = pca.transform(log_expression(Counts(after).read(cleaned)))
    else:
        twins = measured
    labels = np.full(before.n_obs, "all", dtype=object)
    if perturbation_key is not None:
        labels = before.obs[perturbation_key].astype(str).to_numpy(dtype=object)
    return CellMap(
        pca.transform(reference),
        measured,
        twins,
        labels[passing],
        labels[failed],
        pca.explained_variance_ratio_,
    )


def _sample(rows: IndexArray, n: int, rng: np.random.Generator) -> IndexArray:
    return rows if len(rows) <= n else np.sort(rng.choice(rows, n, replace=False))


def components_of(expression: sp.csr_matrix, most: int) -> PCA:
    """Principal components of cells, (cells, genes): so many, or as many as there are."""
    from sklearn.decomposition import PCA

    n_components = min(most, *(size - 1 for size in expression.shape))
    return PCA(n_components, svd_solver="arpack", random_state=SEED).fit(expression)


def embedded(components: FloatArray) -> FloatArray:
    """UMAP of the cells by scanpy, (cells, 2); the first one of a session compiles for a while."""
    import anndata as ad
    import scanpy as sc

    cells = ad.AnnData(components.astype(np.float32))
    n_neighbours = min(N_NEIGHBOURS, len(components) - 1)

    def steps() -> Iterator[None]:
        yield
        sc.pp.neighbors(cells, n_neighbors=n_neighbours, use_rep="X", random_state=SEED)
        yield
        sc.tl.umap(cells, random_state=SEED)

    for _ in track_slow(steps(), 2, "UMAP"):
        pass
    return np.asarray(cells.obsm["X_umap"], dtype=np.float64)


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
    centroid = np.asarray(indicator(codes, len(names)) @ passing) / n[:, None]
    company = n[codes]
    spread = np.linalg.norm(passing - centroid[codes], axis=1)
    own = (spread * company / np.maximum(company - 1.0, 1.0))[company > 1]
    target = pd.Index(names).get_indexer(pd.Index(failed_labels)) if len(names) else np.full(len(failed_labels), -1)
    known = target >= 0
    return own, *(np.linalg.norm(version[known] - centroid[target[known]], axis=1) for version in failed)
