"""Which cells failed quality control, read from columns of ``obs``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.fields import DataFields, obs_column
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, Float32Array


def artifact_indicators(adata: AnnDataLike, fields: DataFields) -> Float32Array:
    """Return 1 for cells that failed quality control, (cells, criteria).

    Raises
    ------
    DataError
        If a column is absent or holds something else than true and false.
    """
    columns = []
    for key in fields.criteria:
        mend = "run cradlevae.annotate_qc(adata) first, or name your own boolean column with artifact_key="
        column = obs_column(adata, key, mend)
        if column.dtype == bool:
            columns.append(column.to_numpy(dtype=np.float32))
            continue
        values = pd.to_numeric(column.astype(object).map(_truth), errors="coerce")
        if values.isna().any():
            value = column.iloc[int(np.flatnonzero(values.isna())[0])]
            raise DataError(f"obs[{key!r}] must be boolean or 0/1, but holds {value!r}; {mend}")
        columns.append(values.to_numpy(dtype=np.float32))
    return np.stack(columns, axis=1)


def _truth(value: Any) -> float | None:
    """Return 1 or 0 for a text that means true or false, ``None`` for any other."""
    text = str(value).strip().casefold()
    return {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}.get(text)
