"""Metrics of cleaned cells: how well a predicted profile explains the true artifact-free counts of a damaged cell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.storage.stored_matrix import group_sums
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.utils.types import FloatArray, IndexArray

SMOOTHING = 1.0
"""Total of the pseudo-counts, spread like the mean profile of all passing cells, that smooth a cell's own profile."""


@metric(
    "clean_deviance",
    kind="clean",
    best=0.0,
    description="Poisson deviance of true clean counts per failed cell",
    note="Poisson deviance per failed cell; lower is better",
)
def poisson_deviance(counts: sp.csr_matrix, profile: FloatArray) -> FloatArray:
    """Poisson deviance of each cell's counts under a profile scaled to the cell's total, (cells,).

    Parameters
    ----------
    counts
        True counts, (cells, genes).
    profile
        Expected share of each gene, (cells, genes) or (1, genes); rows need not sum to 1.
    """
    total = np.asarray(counts.sum(axis=1)).ravel()
    shares = profile / profile.sum(axis=1, keepdims=True)
    coo = counts.tocoo()
    rows = coo.row if len(shares) > 1 else np.zeros_like(coo.row)
    expected = total[coo.row] * np.maximum(shares[rows, coo.col], 1e-12)
    # both totals agree, so the terms linear in counts and mean cancel
    terms = coo.data * np.log(coo.data / expected)
    return np.asarray(2 * np.bincount(coo.row, terms, minlength=counts.shape[0]), dtype=np.float64)


def profile_floors(data: Experiment, train: IndexArray, rows: IndexArray) -> Iterator[tuple[str, FloatArray]]:
    """Profiles of damaged cells that need no model: name and profile, (cells, genes) or (1, genes), one after another.

    ``own_damaged_profile`` (a cell's own counts, smoothed), and ``perturbation_mean`` and ``overall_mean`` of the
    passing training cells.

    Parameters
    ----------
    data
        The experiment.
    train
        Training cells.
    rows
        Damaged cells.
    """
    passing = train[~data.failed[train]]
    sums = group_sums(data.counts, passing, data.condition[passing], len(data.conditions), "averaging training cells")
    overall = sums.sum(axis=0, dtype=np.float64) + 1e-3
    overall /= overall.sum()
    yield "own_damaged_profile", data.counts[rows].toarray().astype(np.float64) + SMOOTHING * overall
    present = np.bincount(data.condition[passing], minlength=len(data.conditions))[:, None] > 0
    by_condition = np.where(present, sums + SMOOTHING * overall, overall)
    yield "perturbation_mean", by_condition[data.condition[rows]]
    yield "overall_mean", overall[None]
