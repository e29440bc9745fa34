"""The QC annotation as a table to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.qc.criteria import CRITERIA


def qc_table(qc: Mapping[str, Any]) -> pd.DataFrame:
    """Write a QC annotation as a table.

    Parameters
    ----------
    qc
        Annotation by :func:`~cradlevae.data.qc.annotate.annotate_qc`: ``adata.uns["cradlevae_qc"]``.

    Returns
    -------
    pandas.DataFrame
        One row per criterion and batch (``"all"`` without a batch column) and a last row ``"any"``.
        Columns: ``criterion``, ``batch``, ``direction`` (which values fail), ``threshold``, ``n_cells``,
        ``n_failing`` and ``share_failing`` (missing where not assessed), ``status`` (``"assessed"``, ``"not
        assessed"``), ``reason`` (why it was not), ``note`` (thresholds on the log scale, small batches).
    """
    rows = []
    for criterion in CRITERIA:
        entry = qc["criteria"][criterion]
        for index, batch in enumerate(qc["batches"]):
            reason, n_cells = str(entry["reason"][index]), int(qc["n_cells"][index])
            n_failing = None if reason else int(entry["n_failing"][index])
            rows.append(
                {
                    "criterion": criterion,
                    "batch": str(batch),
                    "direction": str(entry["direction"]),
                    "threshold": float(entry["threshold"][index]),
                    "n_cells": n_cells,
                    "n_failing": n_failing,
                    "share_failing": np.nan if n_failing is None else n_failing / n_cells,
                    "status": "not assessed" if reason else "assessed",
                    "reason": reason,
                    "note": _note(entry, index),
                }
            )
    n_all, n_any = int(np.sum(qc["n_cells"])), int(qc["n_failing"])
    rows.append(
        {
            "criterion": "any",
            "batch": "all",
            "direction": "",
            "threshold": np.nan,
            "n_cells": n_all,
            "n_failing": n_any,
            "share_failing": n_any / n_all,
            "status": "assessed",
            "reason": "",
            "note": "",
        }
    )
    return pd.DataFrame(rows).astype({"n_failing": "Int64"})


def _note(entry: Mapping[str, Any], index: int) -> str:
    """What else there is to know of a criterion in a batch; annotations of earlier versions have no notes."""
    notes = [str(entry["note"][index])] if "note" in entry else []
    if "logarithmic" in entry and bool(entry["logarithmic"][index]):
        notes.append("threshold on the log scale")
    return "; ".join(filter(None, notes))
