"""The QC criteria: what each of them measures in a cell, and which values fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

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


Scale = Literal["auto", "raw"]
SCALES = get_args(Scale)
"""Where thresholds of :data:`LOW` criteria are found: on the values, or on their logarithm where that is needed."""

LEAST_COUNT = 1.0
"""Lowest UMI count, and lowest number of detected genes, of a cell that is not empty."""


@dataclass(frozen=True)
class Spread:
    """Median and median absolute deviation (MAD) of a criterion in each batch, of its values and of their logarithm.

    Attributes
    ----------
    median, mad
        Of the values, (batches,); NaN where there are none.
    log_median, log_mad
        Of the natural logarithm of the values, (batches,); NaN for criteria whose values may be 0.
    """

    median: FloatArray
    mad: FloatArray
    log_median: FloatArray
    log_mad: FloatArray

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Spread:
        """Return the spread in a stored annotation; one of an earlier version has no logarithms."""
        unknown = np.full(np.shape(entry["median"]), np.nan)
        return cls(
            *(np.asarray(entry.get(name, unknown)) for name in ("median", "mad", "log_median", "log_mad")),
        )


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


def mad_thresholds(criterion: str, spread: Spread, n_mads: float, scale: str) -> tuple[FloatArray, BoolArray]:
    """Return the median − (or +) ``n_mads`` unscaled median absolute deviations of each batch.

    Parameters
    ----------
    criterion
        Name of the criterion.
    spread
        Medians and MADs of the batches.
    n_mads
        Number of MADs.
    scale
        ``"auto"`` takes medians and MADs of the logarithm in batches whose threshold would be so low that no cell with
        counts could fail; ``"raw"`` never does.

    Returns
    -------
    threshold
        In units of the values, (batches,).
    logarithmic
        Whether it was found on the logarithm, (batches,).
    """
    if criterion not in LOW:
        return spread.median + n_mads * spread.mad, np.zeros(len(spread.median), dtype=bool)
    raw = spread.median - n_mads * spread.mad
    logarithmic = (raw <= LEAST_COUNT) & np.isfinite(spread.log_mad) & (scale == "auto")
    on_log = np.exp(spread.log_median - n_mads * spread.log_mad)
    return np.where(logarithmic, on_log, raw), logarithmic


def failing(criterion: str, values: FloatArray, threshold: FloatArray, empty: BoolArray) -> BoolArray:
    """Return which cells fail a criterion, (cells,).

    A value equal to the threshold passes. Cells without counts (``empty``) fail the low criteria whatever the
    threshold, which may be negative. A NaN value or threshold fails nothing.
    """
    if criterion in LOW:
        return (values < threshold) | empty
    return values > threshold
