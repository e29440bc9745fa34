"""The perturbations of each cell, read from a column of labels or from a matrix of guide-RNA counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.fields import DataFields, obs_column
from cradlevae.data.labels import Condition, condition_name, is_missing, parse_label
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, IndexArray

GUIDE_BLOCK = 10_000
"""Number of cells whose guide counts are dense in memory at a time."""

Singles = tuple[str, ...] | None
"""The single perturbations of a cell: none for a control, ``None`` where no guide RNA was detected."""


@dataclass(frozen=True)
class CellLabels:
    """The labels of the cells, read.

    Attributes
    ----------
    codes
        Position of each cell's label in ``conditions``, (cells,).
    conditions
        Condition of each distinct label, several of which may be equal; ``None`` stands for cells without a guide RNA.
    written
        Distinct labels as written, or names of the guide columns.
    """

    codes: IndexArray
    conditions: tuple[Condition | None, ...]
    written: tuple[str, ...]


def condition_labels(adata: AnnDataLike, fields: DataFields) -> pd.Series[str]:
    """Return the canonical condition of every cell of an AnnData; ``""`` where no guide RNA was detected."""
    labels = read_labels(adata, fields)
    names = np.array(["" if condition is None else condition for condition in labels.conditions], dtype=object)
    return pd.Series(names[labels.codes], index=pd.Index(adata.obs_names), dtype=object)


def read_labels(adata: AnnDataLike, fields: DataFields) -> CellLabels:
    """Read which perturbations each cell got.

    Raises
    ------
    DataError
        If the labels or guide counts are absent, or some of them cannot be read.
    """
    read = _from_column if fields.guides_key is None else _from_guides
    codes, singles, written = read(adata, fields)
    conditions = [None if names is None else condition_name(names, fields.separator) for names in singles]
    by_name: dict[str, Condition] = {}
    for condition in conditions:
        if condition is not None and by_name.setdefault(condition, condition).singles != condition.singles:
            raise DataError(
                f"{condition!r} means both {by_name[condition].singles} and {condition.singles}; rename one of them, "
                "or use a separator= that no name holds"
            )
    return CellLabels(codes, tuple(conditions), tuple(written))


def _from_column(adata: AnnDataLike, fields: DataFields) -> tuple[IndexArray, list[Singles], list[str]]:
    column = obs_column(adata, fields.perturbation_key, "name the label column with perturbation_key=")
    codes, unique = pd.factorize(column.astype(str))
    labels = [str(label) for label in unique]
    blank = np.array([_is_missing(label, fields) for label in labels], dtype=bool)
    empty = column.isna().to_numpy() | blank[codes]
    if empty.any():  # an empty label is no control: nobody said so
        first = int(np.flatnonzero(empty)[0])
        obs = f"obs[{fields.perturbation_key!r}]"
        mend = "name the text with control_labels= if it is a control"
        if column.isna().iloc[first]:  # no text that could be named
            mend = f"fill them with a text if they are controls: {obs} = {obs}.astype(object).fillna('control')"
        raise DataError(
            f"{obs} is empty for {int(empty.sum())} cells, first {adata.obs_names[first]!r} "
            f"({labels[codes[first]]!r}); label or drop them, or {mend}"
        )
    return codes, [_parsed(label, fields) for label in labels], labels


def _from_guides(adata: AnnDataLike, fields: DataFields) -> tuple[IndexArray, list[Singles], list[str]]:
    guides = _guide_table(adata, fields)
    singles_of_column = [_parsed(str(name), fields) for name in guides.columns]
    codes = np.empty(len(guides), dtype=np.intp)
    code: dict[Singles, int] = {}
    for start in range(0, len(guides), GUIDE_BLOCK):
        counts = guides.iloc[start : start + GUIDE_BLOCK].to_numpy(dtype=np.float64)
        detected = sp.csr_matrix(counts >= fields.guide_min_count)
        for row in range(detected.shape[0]):
            columns = detected.indices[detected.indptr[row] : detected.indptr[row + 1]]
            names = {single for column in columns for single in singles_of_column[column]}
            codes[start + row] = code.setdefault(tuple(sorted(names)) if len(columns) else None, len(code))
    return codes, list(code), [str(name) for name in guides.columns]


def _guide_table(adata: AnnDataLike, fields: DataFields) -> pd.DataFrame:
    """Return the guide counts, cells × target genes, every column of which has a name."""
    key = str(fields.guides_key)
    if key not in adata.obsm:
        known = ", ".join(map(repr, adata.obsm.keys())) or "none"
        raise DataError(f"no guide-count matrix {key!r} in obsm (there: {known}); name it with guides_key=")
    guides = adata.obsm[key]
    if not isinstance(guides, pd.DataFrame):
        raise DataError(
            f"obsm[{key!r}] has no column names; store the guide counts as a pandas DataFrame whose columns name "
            "the targeted genes (and the non-targeting guides as 'control')"
        )
    if any(_is_missing(str(name), fields) for name in guides.columns):
        raise DataError(f"obsm[{key!r}] has a column without a name; name the gene that it targets, or 'control'")
    return guides


def _parsed(label: str, fields: DataFields) -> tuple[str, ...]:
    return parse_label(label, separator=fields.separator, control_labels=fields.control_labels)


def _is_missing(label: str, fields: DataFields) -> bool:
    return is_missing(label, separator=fields.separator, control_labels=fields.control_labels)
