"""The confounding test: which perturbations change how often cells fail quality control.

Where a perturbation kills cells, its cells fail more often, and what the model treats as an artifact is partly biology.
Fisher's exact test compares the failures of every perturbation with those of the controls; where cells come from
several strata (batches), an exact Cochran–Mantel–Haenszel test compares them within each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.artifact_columns import artifact_indicators
from cradlevae.data.experiment import condition_labels
from cradlevae.data.factors import read_factors, strata_codes
from cradlevae.data.fields import DataFields, fields_of
from cradlevae.data.labels import CONTROL
from cradlevae.data.qc.mantel_haenszel import common_log_odds, exact_p_value
from cradlevae.errors import DataError
from cradlevae.utils.checks import check_anndata, probability
from cradlevae.utils.types import AnnDataLike, AnyIntArray, BoolArray, FloatArray, IntArray

NORMAL_975 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def confounding_alarm(
    adata: AnnDataLike, *, fdr: float = 0.05, fields: DataFields | None = None, **field_options: Any
) -> pd.DataFrame:
    """Test for each perturbation whether its cells fail quality control more or less often than the controls.

    Where a perturbation kills cells, its cells fail more often, and what a model treats as an artifact is partly
    biology. Where the fields name batches, covariates or contexts, cells are compared within them.

    Parameters
    ----------
    adata
        AnnData, or cells on disk, with perturbation labels and an artifact column; the counts are not read.
    fdr
        False discovery rate (Benjamini-Hochberg over perturbations) below which a perturbation is flagged.
    fields
        Where the labels and the artifact columns are (see :class:`cradlevae.DataFields`).
    **field_options
        Single fields, e.g. ``perturbation_key="gene"``, instead of ``fields`` or in addition.

    Returns
    -------
    pandas.DataFrame
        A row for each perturbed condition, see :func:`~cradlevae.data.qc.confounding.confounding_test`. Cells without
        a guide RNA are left out.

    Raises
    ------
    DataError
        If a column is absent, or there are no control cells.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, confounded=4, seed=0)
    >>> table = cv.confounding_alarm(adata, artifact_key="true_artifact")
    >>> list(table.loc[table["flagged"], "perturbation"])
    ['A', 'A+C', 'A+D']
    """
    fdr = probability("fdr", fdr, 0.05)
    fields = fields_of(fields, field_options)
    check_anndata(adata)
    labels = condition_labels(adata, fields)
    failed = np.asarray(artifact_indicators(adata, fields).any(axis=1))
    codes, names = pd.factorize(labels, sort=True)
    has_label = (labels != "").to_numpy()
    codes = np.where(has_label, codes, -1)
    strata = strata_codes(read_factors(adata, fields, usable=has_label), len(labels))
    return confounding_test(codes, [str(name) for name in names], failed, strata=strata, fdr=fdr)


def confounding_test(
    condition: AnyIntArray,
    names: Sequence[str],
    failed: BoolArray,
    *,
    strata: AnyIntArray | None = None,
    control: str = CONTROL,
    fdr: float = 0.05,
) -> pd.DataFrame:
    """Test for each perturbation whether its cells fail quality control more or less often than the controls.

    Parameters
    ----------
    condition
        Position of each cell's condition in ``names``, (cells,); a negative code leaves the cell out.
    names
        Canonical names of the conditions, (conditions,), the control among them.
    failed
        Whether each cell failed quality control, boolean, (cells,).
    strata
        Code of each cell's stratum (batch), any whole numbers, (cells,): cells are compared with controls of the same
        stratum. ``None`` compares all cells.
    control
        Name of the control condition.
    fdr
        False discovery rate (Benjamini-Hochberg over perturbations) below which a perturbation is flagged.

    Returns
    -------
    pandas.DataFrame
        One row per perturbed condition that has cells: ``perturbation``, ``n_cells``, ``n_failed``, ``share_failed``,
        ``log_odds`` (natural log of the odds ratio of failing, against the controls), its 95 % interval ``low`` and
        ``high``, ``p_value`` (two-sided), ``q_value``, ``flagged``.

    Notes
    -----
    Log odds ratio and Wald interval are Haldane-corrected (½ added to each of the four counts), so they are
    finite where no cell, or every cell, fails. Both directions are flagged: a perturbation whose cells fail *less*
    often is confounded with the artifact as well. The sign of ``log_odds`` gives the direction.

    With one stratum, p is Fisher's. With several it is that of the exact Cochran–Mantel–Haenszel test, which is right
    however sparse the strata are; ``log_odds`` is the Mantel–Haenszel odds ratio common to all strata with the variance
    of Robins, Breslow and Greenland (see :mod:`cradlevae.data.qc.mantel_haenszel`). A stratum without controls, or
    without cells of the perturbation, tells nothing about it. A perturbation without any stratum that tells something
    is not compared: ``log_odds``, ``low``, ``high``, ``p_value`` and ``q_value`` are NaN, and it is not flagged.
    ``n_cells``, ``n_failed`` and ``share_failed`` are those of all its cells.

    Raises
    ------
    DataError
        If there are no control cells, or the lengths do not fit.

    Examples
    --------
    Of 20 control cells 2 failed, of 20 cells with the perturbation A 12 failed:

    >>> import numpy as np
    >>> from cradlevae.data.qc.confounding import confounding_test
    >>> condition = np.repeat([0, 1], 20)
    >>> failed = np.r_[np.arange(20) < 2, np.arange(20) < 12]
    >>> table = confounding_test(condition, ["control", "A"], failed)
    >>> table[["perturbation", "n_failed", "share_failed", "flagged"]]
      perturbation  n_failed  share_failed  flagged
    0            A        12           0.6     True
    """
    condition, failed = np.asarray(condition), np.asarray(failed, dtype=bool)
    strata = np.zeros(condition.shape, dtype=np.int64) if strata is None else np.asarray(strata)
    if condition.shape != failed.shape or condition.shape != strata.shape or condition.ndim != 1:
        raise DataError(
            f"{condition.shape} condition codes, {failed.shape} labels and {strata.shape} strata; "
            "give one of each per cell"
        )
    if control not in names or not (condition == list(names).index(control)).any():
        raise DataError(f"no {control!r} cells: failures are compared with those of control cells")
    counts = _counts(condition, failed, strata, len(names))
    n_failed, n_cells = counts[:, 0].sum(axis=1), counts.sum(axis=(1, 2))
    base = list(names).index(control)
    rows = [row for row in range(len(names)) if row != base and n_cells[row] > 0]
    compare = _fisher if counts.shape[2] == 1 else _mantel_haenszel
    log_odds, error, p_value = compare(counts[rows], counts[base])
    q_value = _adjusted(p_value)
    return pd.DataFrame(
        {
            "perturbation": [names[row] for row in rows],
            "n_cells": n_cells[rows],
            "n_failed": n_failed[rows],
            "share_failed": n_failed[rows] / n_cells[rows],
            "log_odds": log_odds,
            "low": log_odds - NORMAL_975 * error,
            "high": log_odds + NORMAL_975 * error,
            "p_value": p_value,
            "q_value": q_value,
            "flagged": q_value < fdr,
        }
    )


def _counts(condition: AnyIntArray, failed: BoolArray, strata: AnyIntArray, n_conditions: int) -> IntArray:
    """Numbers of cells that have a condition, (conditions, failed and passed, strata)."""
    included = condition >= 0
    _, stratum = np.unique(strata[included], return_inverse=True)
    shape = n_conditions, 2, int(stratum.max()) + 1
    place = np.ravel_multi_index((condition[included], 1 - failed[included].astype(np.int64), stratum), shape)
    return np.asarray(np.bincount(place, minlength=int(np.prod(shape))).reshape(shape))


def _fisher(perturbed: IntArray, control: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log odds ratio, its standard error and p of each perturbation in one stratum, (perturbations,).

    Parameters
    ----------
    perturbed, control
        Numbers of failed and passed cells, (perturbations, 2, 1) and (2, 1).
    """
    from scipy.stats import fisher_exact

    fail, fine = perturbed[:, 0, 0], perturbed[:, 1, 0]
    control_fail, control_fine = int(control[0, 0]), int(control[1, 0])
    log_odds = np.log(fail + 0.5) - np.log(fine + 0.5) - np.log((control_fail + 0.5) / (control_fine + 0.5))
    error = np.sqrt(1 / (fail + 0.5) + 1 / (fine + 0.5) + 1 / (control_fail + 0.5) + 1 / (control_fine + 0.5))
    p_value = np.array(
        [
            float(fisher_exact(np.array([[failing, passing], [control_fail, control_fine]]))[1])
            for failing, passing in zip(fail, fine, strict=True)
        ]
    )
    return log_odds, error, p_value


def _mantel_haenszel(perturbed: IntArray, control: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The same within strata; parameters as :func:`_fisher`, but (perturbations, 2, strata) and (2, strata)."""
    values = [(*common_log_odds(own, control), exact_p_value(own, control)) for own in perturbed]
    log_odds, error, p_value = np.array(values, dtype=np.float64).reshape(-1, 3).T
    return log_odds, error, p_value


def _adjusted(p_value: FloatArray) -> FloatArray:
    """Benjamini-Hochberg over the perturbations that are compared; NaN for the others, (perturbations,)."""
    from scipy.stats import false_discovery_control

    compared = ~np.isnan(p_value)
    q_value = np.full(len(p_value), np.nan)
    if compared.any():
        q_value[compared] = false_discovery_control(p_value[compared])
    return q_value
