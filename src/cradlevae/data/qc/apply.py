"""Quality control of generated cells, by the thresholds that were found in real cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.qc.criteria import CRITERIA, QC_KEY, Spread, failing, mad_thresholds, measure
from cradlevae.data.qc.doublets import DoubletReference, DoubletsNotAssessable, fit_doublets
from cradlevae.data.qc.gene_families import GENE_FAMILIES
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray


def judge(
    cells: Any,
    qc: Mapping[str, Any],
    *,
    gene_names: Sequence[str] | None = None,
    layer: str | None = None,
    n_mads: float | None = None,
    batch: Sequence[str] | None = None,
    doublets: DoubletReference | None = None,
) -> pd.DataFrame:
    """Find which QC criteria generated cells fail, by the thresholds of real cells.

    The QC pass rate is ``1 - judge(...).any(axis=1).mean()``.

    Parameters
    ----------
    cells
        Generated counts: an AnnData or a CSR matrix, cells × genes, with the genes that the thresholds were found with.
        The counts are not checked.
    qc
        Annotation of the real cells by :func:`~cradlevae.data.qc.annotate.annotate_qc`:
        ``adata.uns["cradlevae_qc"]``.
    gene_names
        ``var_names`` of the real cells; needed with a CSR matrix.
    layer
        Layer of the AnnData with the counts; ``None`` reads ``X``. The layer of the annotation is not taken, because
        generated cells have their counts in ``X``.
    n_mads
        Number of MADs between median and threshold; ``None`` takes the number of the annotation.
    batch
        Experimental batch of each generated cell, (cells,), whose thresholds apply to it. By default, and for a batch
        in which a criterion was not assessed, the threshold is the median of the batches' thresholds.
    doublets
        Real cells to score doublets against, from :func:`doublet_reference`; without it ``doublet`` is not
        assessed. ``n_mads`` and ``batch`` have no influence on it.

    Returns
    -------
    pandas.DataFrame
        Boolean, true where a cell fails, cells × criteria. There is a column for each criterion that was assessed in
        the real cells and can be assessed here.

    Raises
    ------
    DataError
        If the genes are not those of the thresholds, a batch is unknown, or no criterion can be assessed.
    """
    blocks, names, index = _read(cells, gene_names, layer)
    if len(names) != int(qc["n_genes"]):
        raise DataError(
            f"the QC thresholds were learned on {int(qc['n_genes'])} genes, the cells have {len(names)}; run "
            "annotate_qc on the genes that are modelled"
        )
    assessed = [criterion for criterion in CRITERIA if qc["criteria"][criterion]["status"] == "assessed"]
    families = {
        criterion: _family(names, criterion, qc["criteria"][criterion]["genes"])
        for criterion in assessed
        if criterion in GENE_FAMILIES
    }
    values = measure(blocks, len(index), families)
    empty = values["umi"] == 0
    k = float(qc["n_mads"]) if n_mads is None else n_mads
    fails = {}
    for criterion in assessed:
        if criterion != "doublet":
            entry = qc["criteria"][criterion]
            by_batch, _ = mad_thresholds(criterion, Spread.of(entry), k, str(qc.get("scale", "raw")))
            by_batch = np.where([not str(reason) for reason in entry["reason"]], by_batch, np.nan)
            threshold = _per_cell(by_batch, qc, batch, len(index))
            fails[criterion] = failing(criterion, values[criterion], threshold, empty)
        elif doublets is not None:
            fails[criterion] = _score(cells, doublets, layer) > doublets.threshold
    if not fails:
        raise DataError("the real cells were annotated for doublets alone; pass doublets=doublet_reference(...)")
    return pd.DataFrame(fails, index=index)


def doublet_reference(adata: AnnDataLike, qc: Mapping[str, Any] | None = None) -> DoubletReference | None:
    """Fit real cells as a reference for doublets among generated cells.

    A generated cell belongs to no batch, so all batches are pooled: the simulated doublets, the scores and the
    threshold are those of the pool. With one batch they are the same as in the annotation.

    Parameters
    ----------
    adata
        The annotated real cells, cells × genes.
    qc
        Their annotation, if it is not in ``adata.uns["cradlevae_qc"]``.

    Returns
    -------
    DoubletReference or None
        ``None`` where doublets were not assessed, or cannot be assessed in these cells.

    Raises
    ------
    DataError
        If the cells are not annotated.
    """
    qc = adata.uns.get(QC_KEY) if qc is None else qc
    if qc is None:
        raise DataError(f"the AnnData has no uns[{QC_KEY!r}]; run annotate_qc first")
    if qc["criteria"]["doublet"]["status"] != "assessed":
        return None
    counts = Counts(adata, str(qc["layer"]) or None)
    filled = np.flatnonzero(measure(counts.blocks(), counts.shape[0], {})["umi"])
    try:
        return fit_doublets(counts.matrix(), filled, seed=int(qc["seed"]))
    except DoubletsNotAssessable:
        return None


def _read(
    cells: Any, gene_names: Sequence[str] | None, layer: str | None
) -> tuple[Iterator[tuple[slice, sp.csr_matrix]], pd.Index[Any], pd.Index[Any]]:
    """Return the blocks of counts, the names of the genes and the names of the cells."""
    if hasattr(cells, "var_names"):
        return Counts(cells, layer).blocks(), cells.var_names, cells.obs_names
    if gene_names is None or len(gene_names) != cells.shape[1]:
        given = "none are" if gene_names is None else f"{len(gene_names)} are"
        raise DataError(f"a matrix of {cells.shape[1]} genes needs as many gene_names=, but {given} given")
    whole = (slice(0, cells.shape[0]), sp.csr_matrix(cells))
    return iter([whole]), pd.Index(gene_names), pd.RangeIndex(cells.shape[0])


def _family(names: pd.Index[Any], criterion: str, genes: Sequence[str]) -> BoolArray:
    mask = np.asarray(names.isin(list(genes)))
    if mask.sum() != len(genes):
        raise DataError(
            f"only {int(mask.sum())} of the {len(genes)} {GENE_FAMILIES[criterion]} genes that the QC "
            "thresholds were learned on are among the genes of the cells; both must have the same gene names"
        )
    return mask


def _per_cell(by_batch: FloatArray, qc: Mapping[str, Any], batch: Sequence[str] | None, n_cells: int) -> FloatArray:
    """Return the threshold of each cell, (cells,)."""
    typical = float(np.nanmedian(by_batch))
    if batch is None:
        return np.full(n_cells, typical)
    known = pd.Index([str(name) for name in qc["batches"]])
    codes = known.get_indexer(pd.Index([str(name) for name in batch]))
    if (codes < 0).any():
        unknown = str(list(batch)[int(np.flatnonzero(codes < 0)[0])])
        raise DataError(f"batch {unknown!r} has no QC thresholds; the batches are {', '.join(map(repr, known))}")
    return np.where(np.isnan(by_batch), typical, by_batch)[codes]


def _score(cells: Any, doublets: DoubletReference, layer: str | None) -> FloatArray:
    if not hasattr(cells, "var_names"):
        return doublets.score(sp.csr_matrix(cells))
    return np.concatenate([doublets.score(block) for _, block in Counts(cells, layer).blocks()])
