"""Doublet scores of real cells, and of new cells measured against them (Scrublet; Wolock et al., 2019).

Scrublet adds up random pairs of real cells, embeds real cells and simulated doublets together and scores a
cell by the share of simulated doublets among its neighbours. Run on generated cells alone it would compare
them with doublets of *generated* cells; here a new cell is embedded among the real cells and their
simulated doublets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from cradlevae.data.storage.stored_matrix import CountMatrix, tracked_blocks
from cradlevae.errors import DataError
from cradlevae.utils.types import AnyIntArray, FloatArray, IndexArray

MIN_CELLS = 100
"""Fewer real cells than this give too few neighbours and too coarse a histogram of scores for a threshold."""
MAX_CELLS = 20_000
"""More real cells are scored against a sample: 20,000 take 17 s on one core, 50,000 160 s and 4 GB."""
MIN_GENES = 20
"""Fewer highly variable genes than this cannot tell a doublet from a cell in between two states."""

MIN_DETECTED = 0.02
"""Share of simulated doublets above the threshold below which doublets are not told from cells at all."""
MAX_RATE = 0.25
"""Highest doublet rate that is believed: no usual loading of a lane makes more doublets."""

# Defaults of scanpy.pp.scrublet, written down because new cells are scored with them too.
EXPECTED_RATE = 0.05
SIMULATED_PER_CELL = 2.0
N_COMPONENTS = 30
SIZE = 1e6


class DoubletsNotAssessable(DataError):
    """Doublets cannot be called in these real cells; the message is the reason."""


@dataclass(frozen=True)
class DoubletReference:
    """Real cells and their simulated doublets in one embedding, against which new cells are scored.

    :func:`fit_doublets` fits it.

    Attributes
    ----------
    scores
        Scrublet's doublet score of the real cells, in (0, 1), shape (cells,). NaN for a cell with fewer than
        three detected genes or no count in the highly variable ones.
    threshold
        Score above which a cell is called a doublet.
    n_genes
        Number of genes of the real counts.
    genes
        Columns of the highly variable genes, shape (variable,).
    loadings
        Map of size-normalised counts to the embedding, shape (variable, components).
    manifold
        Embedding of real cells, then of simulated doublets, shape (points, components).
    n_real
        Number of points that are real cells.
    n_neighbors
        Number of neighbours, the cell itself among them, that a score is computed from.
    """

    scores: FloatArray
    threshold: float
    n_genes: int
    genes: IndexArray
    loadings: FloatArray
    manifold: FloatArray
    n_real: int
    n_neighbors: int

    def score(self, counts: sp.csr_matrix) -> FloatArray:
        """Compute the doublet score of new cells among the real cells and their simulated doublets.

        A new cell counts as a real neighbour of itself, as a real cell does in Scrublet, so the scores are on
        the scale of ``scores`` and ``threshold`` applies to both. New cells had no part in the embedding,
        though, which raises their scores a little where real cells are few: of 500 held-out blood cells 1 %
        are called, of the 500 that were fitted 0.4 %; from 2,000 cells on there is no such difference.

        Parameters
        ----------
        counts
            Counts of the new cells, shape (new cells, genes), genes in the order of the real ones.

        Returns
        -------
        FloatArray
            Scores, shape (new cells,). NaN for a cell without a count in the highly variable genes.

        Raises
        ------
        DataError
            If the number of genes is not that of the real counts.
        """
        from sklearn.neighbors import NearestNeighbors

        if counts.shape[1] != self.n_genes:
            raise DataError(
                f"the new cells have {counts.shape[1]} genes, the real cells that doublets are judged "
                f"against {self.n_genes}; use the same genes in the same order"
            )
        variable = sp.csr_matrix(counts)[:, self.genes]
        filled = np.asarray(variable.sum(axis=1)).ravel() > 0
        scores = np.full(counts.shape[0], np.nan)
        if filled.any():
            search = NearestNeighbors(n_neighbors=self.n_neighbors - 1, algorithm="brute").fit(self.manifold)
            neighbors = search.kneighbors(
                _to_size(variable[filled]) @ self.loadings, return_distance=False
            )  # (new cells, neighbours)
            n_simulated = (neighbors >= self.n_real).sum(axis=1)
            scores[filled] = self._posterior(n_simulated)
        return scores

    def _posterior(self, n_simulated: AnyIntArray) -> FloatArray:
        """Compute Scrublet's posterior probability of a doublet from its number of simulated neighbours."""
        ratio = (len(self.manifold) - self.n_real) / self.n_real
        share = (n_simulated + 1.0) / (self.n_neighbors + 2.0)
        prior = EXPECTED_RATE
        return np.asarray(share * prior / ratio / (1 - prior - share * (1 - prior - prior / ratio)))


def fit_doublets(counts: CountMatrix, rows: IndexArray | None = None, *, seed: int = 0) -> DoubletReference:
    """Score real cells for doublets with ``scanpy.pp.scrublet``, and return what is needed to score new cells.

    Genes seen in fewer than three cells and cells with fewer than three genes are left out and the highly
    variable genes are chosen as scanpy does. Unlike its defaults, the embedding is a truncated SVD of the
    *uncentred* counts, so that no dense cells × genes matrix is made, and the neighbours are exact, which
    takes time and memory with the square of the cells: of more than :data:`MAX_CELLS` cells, a random
    sample of that many is fitted, and the others are scored against it, block by block. So memory does not grow with
    the cells beyond that, wherever the counts are.

    Parameters
    ----------
    counts
        Counts of the real cells, shape (cells, genes), in memory or on disk.
    rows
        Positions of the cells to use (those of one batch), ascending; ``None`` uses all.
    seed
        Seed of the simulated doublets and of the neighbour search.

    Returns
    -------
    DoubletReference
        Scores (of ``rows``), threshold and embedding.

    Raises
    ------
    DoubletsNotAssessable
        If there are too few cells or variable genes, or the simulated scores show no threshold, or one that does not
        tell doublets from cells.
    """
    rows = np.arange(counts.shape[0]) if rows is None else rows
    if len(rows) <= MAX_CELLS:
        with _same_threads():
            return _fit(sp.csr_matrix(counts[rows]), seed)
    sampled = np.zeros(len(rows), dtype=bool)
    sampled[np.random.default_rng(seed).choice(len(rows), MAX_CELLS, replace=False)] = True
    with _same_threads():
        reference = _fit(sp.csr_matrix(counts[rows[sampled]]), seed)
    scores = np.empty(len(rows))
    scores[sampled] = reference.scores
    others = tracked_blocks(counts, rows[~sampled], "scoring doublets")
    scores[~sampled] = np.concatenate([reference.score(block) for _, block in others])
    return replace(reference, scores=scores)


@contextmanager
def _same_threads() -> Iterator[None]:
    """Restore torch's number of threads: numba (in scanpy) sets it for the whole process."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(counts: sp.csr_matrix, seed: int) -> DoubletReference:
    import scanpy as sc
    from anndata import AnnData

    cells, genes = _usable(counts)
    raw = _chosen(counts, cells, genes)
    observed = AnnData(raw)
    simulated = sc.pp.scrublet_simulate_doublets(observed, sim_doublet_ratio=SIMULATED_PER_CELL, random_seed=seed)
    observed.X = _to_size(raw)
    simulated.X = _to_size(sp.csr_matrix(simulated.X))
    n_components = min(N_COMPONENTS, len(genes) - 1)
    sc.pp.scrublet(
        observed,
        adata_sim=simulated,
        mean_center=False,
        n_prin_comps=n_components,
        expected_doublet_rate=EXPECTED_RATE,
        use_approx_neighbors=False,
        random_state=seed,
        verbose=False,
    )
    scrublet = observed.uns["scrublet"]
    if "threshold" not in scrublet:
        raise DoubletsNotAssessable("the scores of simulated doublets are not bimodal, so scrublet finds no threshold")
    _check_separation(
        observed.obs["doublet_score"].to_numpy(), np.asarray(scrublet["doublet_scores_sim"]), scrublet["threshold"]
    )
    scores = np.full(counts.shape[0], np.nan)
    scores[cells] = observed.obs["doublet_score"].to_numpy()
    loadings = _loadings(observed.X, n_components, seed)
    return DoubletReference(
        scores=scores,
        threshold=float(scrublet["threshold"]),
        n_genes=int(counts.shape[1]),
        genes=genes,
        loadings=loadings,
        manifold=np.concatenate([observed.X @ loadings, simulated.X @ loadings]),
        n_real=len(cells),
        n_neighbors=round(scrublet["parameters"]["n_neighbors"] * (1 + simulated.n_obs / observed.n_obs)),
    )


def _check_separation(observed: FloatArray, simulated: FloatArray, threshold: float) -> None:
    """Raise :class:`DoubletsNotAssessable` where a threshold does not tell simulated doublets from the real cells.

    In cells without structure, a doublet looks like a cell. The threshold then lies anywhere: so high that hardly a
    simulated doublet is above it, or so low that real cells are above it as often as simulated doublets. The share of
    real cells above it, divided by that of simulated doublets, is the doublet rate that it stands for (Wolock et al.).
    """
    called, detected = float((observed > threshold).mean()), float((simulated > threshold).mean())
    if detected < MIN_DETECTED:
        raise DoubletsNotAssessable(
            f"only {detected:.1%} of the simulated doublets score above the threshold: the cells have too little "
            "structure to tell a doublet from a cell"
        )
    if called > MAX_RATE * detected:
        raise DoubletsNotAssessable(
            f"{called:.1%} of the cells score above the threshold, and {detected:.1%} of the simulated doublets: the "
            "cells have too little structure to tell a doublet from a cell"
        )


def _usable(counts: sp.csr_matrix) -> tuple[IndexArray, IndexArray]:
    """Return the rows and columns that scrublet works on: cells with enough genes, and highly variable genes."""
    import scanpy as sc
    from anndata import AnnData

    detected = sp.csr_matrix((counts.data > 0, counts.indices, counts.indptr), shape=counts.shape)  # shares the indices
    seen = np.bincount(counts.indices[detected.data], minlength=counts.shape[1])
    genes = np.flatnonzero(seen >= 3)
    cells = np.flatnonzero(detected @ (seen >= 3).astype(np.float64) >= 3)
    if len(cells) < MIN_CELLS:
        raise DoubletsNotAssessable(f"{len(cells)} cells with at least three genes; scrublet needs {MIN_CELLS}")
    if len(genes) >= MIN_GENES:
        logged = AnnData(_chosen(counts, cells, genes))
        sc.pp.normalize_total(logged)
        sc.pp.log1p(logged)
        sc.pp.highly_variable_genes(logged)
        genes = genes[logged.var["highly_variable"].to_numpy()]
    if len(genes) < MIN_GENES:
        raise DoubletsNotAssessable(f"{len(genes)} highly variable genes; scrublet needs {MIN_GENES}")
    filled = np.asarray(_chosen(counts, cells, genes).sum(axis=1)).ravel() > 0
    return cells[filled], genes


def _chosen(counts: sp.csr_matrix, cells: IndexArray, genes: IndexArray) -> sp.csr_matrix:
    """Return some genes of some cells; the genes are selected first, so that at most one small copy is made."""
    of_genes = counts[:, genes]
    return sp.csr_matrix(of_genes if len(cells) == counts.shape[0] else of_genes[cells])


def _to_size(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Scale counts, float64, to the same total in every cell; no cell may be empty."""
    total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    return sp.csr_matrix(sp.diags_array(SIZE / total) @ counts.astype(np.float64))


def _loadings(observed: sp.csr_matrix, n_components: int, seed: int) -> FloatArray:
    """Embed unit-variance counts by a truncated SVD, as scrublet does, and fold the scaling in."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(with_mean=False).fit(observed)
    svd = TruncatedSVD(n_components, algorithm="arpack", random_state=seed).fit(scaler.transform(observed))
    return np.asarray((svd.components_ / scaler.scale_).T)
