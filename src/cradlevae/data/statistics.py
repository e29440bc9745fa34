"""Statistics of the training cells that a model needs before it is trained, from one pass over the counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.fingerprint import block_fingerprints, gene_keys
from cradlevae.data.storage.stored_matrix import tracked_blocks
from cradlevae.utils.types import AnyIntArray, Float32Array, FloatArray, IndexArray, IntArray


@dataclass(frozen=True)
class CellStatistics:
    """Statistics over cells, gene by gene, and the fingerprint of each cell.

    Attributes
    ----------
    log_mean, log_std
        Mean and standard deviation (n − 1) of log(1 + count), (genes,).
    total
        Total counts, (genes,).
    fingerprints
        Fingerprint of each cell's counts (see :mod:`cradlevae.data.identity.fingerprint`), (cells,).
    """

    log_mean: Float32Array
    log_std: Float32Array
    total: FloatArray
    fingerprints: IntArray


def cell_statistics(data: Experiment, rows: IndexArray) -> CellStatistics:
    """Compute the statistics of these cells (positions, ascending)."""
    keys = gene_keys(list(data.genes))
    total, logs, squares = np.zeros((3, data.n_genes))
    prints = np.zeros(len(rows), dtype=np.int64)
    for part, block in tracked_blocks(data.counts, rows, "measuring the training cells"):
        prints[part] = block_fingerprints(block, keys)
        total += _by_gene(block.indices, block.data, data.n_genes)
        values = np.log1p(block.data.astype(np.float64))
        logs += _by_gene(block.indices, values, data.n_genes)
        squares += _by_gene(block.indices, values**2, data.n_genes)
    mean = logs / len(rows)
    variance = np.maximum(squares - len(rows) * mean**2, 0.0) / max(len(rows) - 1, 1)
    variance[variance < 1e-12 * np.maximum(mean**2, 1.0)] = 0.0  # rounding of a constant gene
    return CellStatistics(mean.astype(np.float32), np.sqrt(variance).astype(np.float32), total, prints)


def _by_gene(genes: AnyIntArray, values: npt.NDArray[np.floating], n_genes: int) -> FloatArray:
    return np.asarray(np.bincount(genes, values, minlength=n_genes), dtype=np.float64)
