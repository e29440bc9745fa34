"""What cells differ in beside their perturbation: experimental batches, covariates and contexts, read from ``obs``.

Each of these columns is a :class:`Factor`: categories, and the category of each cell. Cells that agree in all of them
are a *stratum*; treated cells are compared with the controls of their own stratum.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from cradlevae.data.fields import DataFields, obs_column
from cradlevae.errors import DataError
from cradlevae.utils.names import listed
from cradlevae.utils.types import AnnDataLike, AnyIntArray, BoolArray, IntArray

Role = Literal["batch", "covariate", "context"]

MAX_LEVELS = 1000
"""Most categories that a column may have; more are names of cells rather than batches."""


@dataclass(frozen=True)
class Factor:
    """A column of ``obs`` that cells differ in.

    Attributes
    ----------
    role
        What the column is: a ``batch``, a ``covariate``, or the ``context`` of effects.
    key
        Name of the column.
    levels
        Its categories.
    codes
        Position of each cell's category in ``levels``, (cells,).
    """

    role: Role
    key: str
    levels: tuple[str, ...]
    codes: IntArray

    def of(self, rows: AnyIntArray) -> Factor:
        """The factor of some cells; its levels stay."""
        return replace(self, codes=self.codes[rows])


def keys_of(fields: DataFields) -> list[tuple[Role, str]]:
    """The columns that the fields name, the batch first and the context last."""
    keys: list[tuple[Role, str]] = [("covariate", key) for key in fields.covariate_keys]
    if fields.batch_key is not None:
        keys.insert(0, ("batch", fields.batch_key))
    if fields.context_key is not None:
        keys.append(("context", fields.context_key))
    return keys


def read_factors(
    adata: AnnDataLike,
    fields: DataFields,
    *,
    usable: BoolArray | None = None,
    known: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Factor, ...]:
    """Read batches, covariates and contexts.

    Parameters
    ----------
    adata
        The cells.
    fields
        The columns.
    usable
        Which cells count, (cells,); those that do not may lack a value, and have code −1. ``None`` counts all.
    known
        Categories by column that a trained model knows; a cell of another one is an error. ``None`` takes those of
        the data.

    Raises
    ------
    DataError
        If a column is absent, lacks values, is no column of categories, or holds a category that is not known.
    """
    counted = np.ones(adata.n_obs, dtype=bool) if usable is None else usable
    factors = []
    for role, key in keys_of(fields):
        option = "covariate_keys" if role == "covariate" else f"{role}_key"
        column = obs_column(adata, key, f"name the column with {option}=")
        texts = _categories(column, counted, key, option)
        levels = _levels(texts[counted], key, option) if known is None else tuple(known[key])
        place = pd.Index(levels).get_indexer(pd.Index(texts))
        if known is not None:
            _check_known(texts, place, counted, key, role, levels)
        factors.append(Factor(role, key, levels, np.where(counted, place, -1).astype(np.int64)))
    if known is None:
        _check_distinct(factors)
    return tuple(factors)


def strata_codes(factors: Sequence[Factor], n_cells: int) -> IntArray:
    """Stratum of each cell, numbered by the categories of its factors, (cells,); −1 where a cell has none."""
    codes = np.zeros(n_cells, dtype=np.int64)
    missing = np.zeros(n_cells, dtype=bool)
    for factor in factors:
        codes = codes * len(factor.levels) + factor.codes
        missing |= factor.codes < 0
        codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return np.where(missing, -1, codes)


def stratum_name(factors: Sequence[Factor], cell: int) -> str:
    """The categories of a cell, for a message: ``lane 3``, or ``lane 3, D1`` where there are several columns."""
    return ", ".join(factor.levels[factor.codes[cell]] for factor in factors)


def factor_names(factors: Sequence[Factor]) -> str:
    """The columns of some factors, for a message: ``obs['lane']`` or ``obs['lane'] × obs['donor']``."""
    return " × ".join(f"obs[{factor.key!r}]" for factor in factors)


def _categories(column: pd.Series[Any], counted: BoolArray, key: str, option: str) -> Any:
    """The category of each cell as a text, (cells,); :class:`DataError` for missing values and fractions."""
    missing = np.asarray(column.isna().to_numpy(dtype=bool)) & counted
    if missing.any():
        first = column.index[int(np.flatnonzero(missing)[0])]
        raise DataError(
            f"obs[{key!r}] is missing for {int(missing.sum())} cells, first {first!r}; fill it, drop these cells, or "
            f"leave {option} out"
        )
    values = column.cat.categories.to_series() if isinstance(column.dtype, pd.CategoricalDtype) else column
    if pd.api.types.is_float_dtype(values.dtype):
        numbers = values.dropna().to_numpy(dtype=np.float64)
        if not (np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()):
            fraction = next(number for number in numbers if not np.isfinite(number) or number != round(number))
            raise DataError(
                f"obs[{key!r}] holds {fraction:g}: {option} takes categories, and whole numbers such as those of 10x "
                "lanes, but no measurements; put them into classes first, e.g. with pandas.cut"
            )
        numeric = column.astype(np.float64).fillna(-1).astype(np.int64)
        return numeric.astype(str).to_numpy(dtype=object)
    return column.astype(object).map(str).to_numpy(dtype=object)


def _levels(texts: Any, key: str, option: str) -> tuple[str, ...]:
    """The categories in order; :class:`DataError` where they are names of cells rather than categories."""
    blank = [text for text in pd.unique(texts) if not str(text).strip()]
    if blank:
        n = int(np.isin(texts, blank).sum())
        raise DataError(f"obs[{key!r}] is empty for {n} cells; fill it, drop these cells, or leave {option} out")
    levels = sorted({str(text) for text in texts}, key=_in_order)
    if len(levels) > MAX_LEVELS or (len(levels) > 2 and 2 * len(levels) > len(texts)):
        raise DataError(
            f"obs[{key!r}] has {len(levels):,} different values for {len(texts):,} cells, first {listed(levels, 2)}; "
            f"{option} takes a column with at most {MAX_LEVELS:,} categories that several cells share each. Is it a "
            "column of barcodes?"
        )
    return tuple(levels)


def _in_order(level: str) -> tuple[int, float, str]:
    """Whole numbers by their size, before texts."""
    try:
        return 0, float(int(level)), level
    except ValueError:
        return 1, 0.0, level


def _check_known(
    texts: Any, place: AnyIntArray, counted: BoolArray, key: str, role: Role, levels: tuple[str, ...]
) -> None:
    """Raise :class:`DataError` for cells of a category that a model does not know."""
    unknown = (place < 0) & counted
    if unknown.any():
        name = str(texts[int(np.flatnonzero(unknown)[0])])
        raise DataError(
            f"obs[{key!r}] holds the {role} {name!r}, which the model has not seen (cells of unknown ones: "
            f"{int(unknown.sum())}); known: {listed(levels, 8)}"
        )


def _check_distinct(factors: Sequence[Factor]) -> None:
    """Refuse a batch that is the context under another name; warn of covariates that tell what another column does."""
    for position, one in enumerate(factors):
        for other in factors[position + 1 :]:
            if len(one.levels) < 2 or len(one.levels) != len(other.levels):
                continue
            pairs = np.unique(np.stack([one.codes, other.codes]), axis=1).shape[1]
            if pairs - bool((one.codes < 0).any()) > len(one.levels):
                continue
            if {one.role, other.role} == {"batch", "context"}:
                raise DataError(
                    f"obs[{one.key!r}] (batch) and obs[{other.key!r}] (context) divide the cells alike, so what is "
                    "nuisance and what is of interest cannot be told apart; a context has its own controls in any "
                    "case: leave batch_key out"
                )
            warnings.warn(
                f"obs[{one.key!r}] and obs[{other.key!r}] divide the cells alike; one of them is enough", stacklevel=4
            )
