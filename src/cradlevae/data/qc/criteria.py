"""The QC criteria: what each of them measures in a cell, and which values fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import scipy.sparse as sp

from cradlevae.utils.types import BoolArray, FloatArray

CRITERIA = ("umi", "genes", "mito", "ribo", "haemo", "doublet")
"""All QC criteria, in the order of the reports."""

LOW = frozenset({"umi", "genes"})
"""Criteria that a cell fails when its value is low; all other criteria fail cells with high values."""

VALUE_COLUMNS = {
    "umi": "qc_total_counts",
    "genes": "qc_n_genes",
    "mito": "qc_pct_mito",
    "ribo": "qc_pct_ribo",
    "haemo": "qc_pct_haemo",
    "doublet": "qc_doublet_score",
}
"""Column of ``obs`` that holds the value of each criterion."""

QC_KEY = "cradlevae_qc"
"""Key of ``uns`` under which the thresholds are stored."""


def direction(criterion: str) -> str:
    """Return which values fail: ``"low"`` or ``"high"``."""
    return "low" if criterion in LOW else "high"


def measure(
    blocks: Iterable[tuple[slice, sp.csr_matrix]], n_cells: int, families: Mapping[str, BoolArray]
) -> dict[str, FloatArray]:
    """Measure total counts, detected genes and percentages of counts in gene families.

    Parameters
    ----------
    blocks
        Slices of the cells with their counts, (cells of the block, genes).
    n_cells
        Number of cells in all blocks.
    families
        Which genes belong to each family, (genes,).

    Returns
    -------
    dict
        Values by criterion, each (cells,). The percentages of a cell without counts are 0.
    """
    total, n_genes = np.zeros(n_cells), np.zeros(n_cells)
    within = np.zeros((n_cells, len(families)))
    for part, block in blocks:
        total[part] = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        # Not the number of stored entries: explicit zeros are no detected genes.
        n_genes[part] = np.diff(np.concatenate([[0], np.cumsum(block.data > 0)])[block.indptr])
        if families:
            within[part] = block @ np.column_stack(list(families.values())).astype(np.float64)
    percent = 100.0 * within / np.maximum(total, 1.0)[:, None]  # counts are integers: below 1 means none
    return {"umi": total, "genes": n_genes, **dict(zip(families, percent.T, strict=True))}


def mad_threshold(criterion: str, median: FloatArray, mad: FloatArray, n_mads: float) -> FloatArray:
    """Return the median − (or +) ``n_mads`` unscaled median absolute deviations, (batches,)."""
    return median - n_mads * mad if criterion in LOW else median + n_mads * mad


def failing(criterion: str, values: FloatArray, threshold: FloatArray, empty: BoolArray) -> BoolArray:
    """Return which cells fail a criterion, (cells,).

    A value equal to the threshold passes. Cells without counts (``empty``) fail the low criteria whatever the
    threshold, which may be negative. A NaN value or threshold fails nothing.
    """
    if criterion in LOW:
        return (values < threshold) | empty
    return values > threshold
