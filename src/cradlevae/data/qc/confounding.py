"""The confounding alarm: perturbations that change how often cells fail quality control.

A perturbation that kills cells makes them fail; what the model then calls an artifact is partly biology.
Every perturbation's failures are compared with those of the controls by Fisher's exact test.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cradlevae.data.labels import CONTROL
from cradlevae.errors import DataError
from cradlevae.utils.types import AnyIntArray, BoolArray

NORMAL_975 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def confounding_alarm(
    condition: AnyIntArray,
    names: Sequence[str],
    failed: BoolArray,
    *,
    control: str = CONTROL,
    fdr: float = 0.05,
) -> pd.DataFrame:
    """Test of P(fail | perturbation) against the controls, perturbation by perturbation.

    Parameters
    ----------
    condition
        Position of each cell's condition in ``names``, (cells,); a negative code leaves the cell out.
    names
        Canonical names of the conditions, the control among them.
    failed
        Which cells failed quality control, (cells,).
    control
        Name of the control condition.
    fdr
        False discovery rate (Benjamini-Hochberg over perturbations) below which a perturbation is flagged.

    Returns
    -------
    DataFrame with one row per perturbation that has cells: ``perturbation``, ``n_cells``, ``n_failed``,
    ``share_failed``, ``log_odds`` (natural log of the odds ratio of failing, against controls), its 95 %
    interval ``low`` and ``high``, ``p_value`` (Fisher, two-sided), ``q_value``, ``flagged``.

    Notes
    -----
    Log odds ratio and Wald interval are Haldane-corrected (½ added to each of the four counts), so they are
    finite where no cell, or every cell, fails. Both directions are flagged: a perturbation whose cells fail
    *less* often is as much entangled with the artifact; the sign of ``log_odds`` tells which.

    Raises
    ------
    DataError
        If there are no control cells, or the lengths do not fit.
    """
    from scipy.stats import false_discovery_control, fisher_exact

    condition, failed = np.asarray(condition), np.asarray(failed, dtype=bool)
    if condition.shape != failed.shape or condition.ndim != 1:
        raise DataError(f"{condition.shape} condition codes and {failed.shape} labels; give one of each per cell")
    if control not in names or not (condition == list(names).index(control)).any():
        raise DataError(f"no {control!r} cells: failures are compared with those of control cells")
    kept = condition >= 0
    n_cells = np.bincount(condition[kept], minlength=len(names))
    n_failed = np.bincount(condition[kept & failed], minlength=len(names))
    base = list(names).index(control)
    rows = [row for row in range(len(names)) if row != base and n_cells[row] > 0]

    fail, fine = n_failed[rows], (n_cells - n_failed)[rows]
    control_fail, control_fine = int(n_failed[base]), int(n_cells[base] - n_failed[base])
    log_odds = np.log(fail + 0.5) - np.log(fine + 0.5) - np.log((control_fail + 0.5) / (control_fine + 0.5))
    error = np.sqrt(1 / (fail + 0.5) + 1 / (fine + 0.5) + 1 / (control_fail + 0.5) + 1 / (control_fine + 0.5))
    p_value = np.array(
        [
            float(fisher_exact(np.array([[failing, passing], [control_fail, control_fine]]))[1])
            for failing, passing in zip(fail, fine, strict=True)
        ]
    )
    q_value = false_discovery_control(p_value) if len(p_value) else p_value
    return pd.DataFrame(
        {
            "perturbation": [names[row] for row in rows],
            "n_cells": n_cells[rows],
            "n_failed": fail,
            "share_failed": fail / n_cells[rows],
            "log_odds": log_odds,
            "low": log_odds - NORMAL_975 * error,
            "high": log_odds + NORMAL_975 * error,
            "p_value": p_value,
            "q_value": q_value,
            "flagged": q_value < fdr,
        }
    )
