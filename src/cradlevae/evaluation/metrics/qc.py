"""Metrics of the quality control of generated cells."""

from __future__ import annotations

import pandas as pd

from cradlevae.evaluation.metrics.kinds import MADS
from cradlevae.evaluation.metrics.registry import metric


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
