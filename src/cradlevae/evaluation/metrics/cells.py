"""Metrics of generated cells: the distance of two samples of one size, real and generated, and quality control.

E-distance and MMD compare distributions, the others mean expression. All are 0 for two samples of one distribution: the
former two on average, the errors of means only in the limit of many cells.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cradlevae.evaluation.metrics.distances import unbiased_gap_of_sums
from cradlevae.evaluation.metrics.kinds import MADS
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.evaluation.metrics.samples import CellSample


@metric("e_distance", kind="cells", best=0.0, description="E-distance of generated to real cells, unbiased")
def e_distance(real: CellSample, generated: CellSample) -> float:
    """E-distance; see :func:`~cradlevae.evaluation.metrics.distances.energy_distance`."""
    return _gap(real, generated, real.summed_distances, generated.summed_distances, own=0.0)


@metric("mmd2", kind="cells", best=0.0, description="squared MMD of generated to real cells, unbiased")
def mmd2(real: CellSample, generated: CellSample) -> float:
    """Squared maximum mean discrepancy; see :func:`~cradlevae.evaluation.metrics.distances.squared_mmd`."""
    return -_gap(real, generated, real.summed_kernel, generated.summed_kernel, own=1.0)


def _gap(
    real: CellSample, generated: CellSample, of_real: np.ndarray, of_generated: np.ndarray, *, own: float
) -> float:
    """The unbiased gap of two samples, from the sums of every cell's values with each; ``own`` is that with itself.

    Cells are compared with those of their group; the groups' gaps are averaged, weighted by their real cells.
    """
    groups = real.series.pool.groups
    gaps, weights = [], []
    for group in np.unique(groups):
        cells = groups == group
        one, other = real.membership[cells], generated.membership[cells]
        if min(one.sum(), other.sum()) < 2:
            continue
        sums = of_real[cells][None], of_generated[cells][None]
        gaps.append(float(unbiased_gap_of_sums(one[None], other[None], *sums, np.full(one.shape, own))[0]))
        weights.append(float(one.sum()))
    return gaps[0] if len(gaps) == 1 else float(np.average(gaps, weights=weights))


@metric("mse_mean", kind="cells", best=0.0, description="mean squared error of mean expression of generated cells")
def mse_mean(real: CellSample, generated: CellSample) -> float:
    """Mean squared difference of mean log2 expression over genes."""
    return float(((real.mean_expression - generated.mean_expression) ** 2).mean())


@metric("mae_mean", kind="cells", best=0.0, description="mean absolute error of mean expression of generated cells")
def mae_mean(real: CellSample, generated: CellSample) -> float:
    """Mean absolute difference of mean log2 expression over genes."""
    return float(np.abs(real.mean_expression - generated.mean_expression).mean())


def pass_rate(fails: pd.DataFrame) -> float:
    """Share of cells that fail no criterion; NaN where none is assessed.

    Parameters
    ----------
    fails
        Which criteria each cell fails, cells × criteria.
    """
    return float(1 - fails.any(axis=1).mean()) if fails.shape[1] else float("nan")


for _n in MADS:
    metric(
        f"qc_pass_rate_mad{_n:.0f}",
        kind="qc",
        best=1.0,
        on=_n,
        description=f"share of artifact-off cells that pass the QC thresholds of real cells at {_n:.0f} MAD",
    )(pass_rate)
