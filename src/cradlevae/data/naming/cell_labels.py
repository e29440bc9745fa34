"""The perturbations of each cell, read from a column of labels or from a matrix of guide-RNA counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.fields import DataFields, obs_column
from cradlevae.data.labels import TARGET, UNASSIGNED, Condition, condition_name, is_missing, parse_label
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, IndexArray

GUIDE_BLOCK = 10_000
"""Number of cells whose guide counts are dense in memory at a time."""

Singles = tuple[str, ...] | None
"""The single perturbations of a cell: none for a control, ``None`` where its guide RNAs do not tell them."""


@dataclass(frozen=True)
class CellLabels:
    """The labels of the cells, read.

    Attributes
    ----------
    codes
        Position of each cell's label in ``conditions``, (cells,).
    conditions
        Condition of each distinct label, several of which may be equal; ``None`` stands for cells whose
        guide RNAs do not tell it.
    written
        Distinct labels as written, or names of the guide columns.
    """

    codes: IndexArray
    conditions: tuple[Condition | None, ...]
    written: tuple[str, ...]


def condition_labels(adata: AnnDataLike, fields: DataFields) -> pd.Series[str]:
    """Return the canonical condition of every cell of an AnnData; ``""`` where guide RNAs do not tell it."""
    labels = read_labels(adata, fields)
    names = np.array(["" if condition is None else condition for condition in labels.conditions], dtype=object)
    return pd.Series(names[labels.codes], index=pd.Index(adata.obs_names), dtype=object)


def without_labels(n_cells: int) -> CellLabels:
    """Labels of so many cells whose labels are not looked at: all stand as controls."""
    return CellLabels(np.zeros(n_cells, dtype=np.intp), (condition_name(()),), ())


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
    return codes, [None if _is_unassigned(label, fields) else _parsed(label, fields) for label in labels], labels


def _from_guides(adata: AnnDataLike, fields: DataFields) -> tuple[IndexArray, list[Singles], list[str]]:
    guides, names = _guide_columns(adata, fields)
    singles_of_column = [_parsed(name, fields) for name in names]
    codes = np.empty(guides.shape[0], dtype=np.intp)
    code: dict[Singles, int] = {}
    for start in range(0, guides.shape[0], GUIDE_BLOCK):
        part = slice(start, start + GUIDE_BLOCK)
        counts = guides.iloc[part].to_numpy(dtype=np.float64) if isinstance(guides, pd.DataFrame) else guides[part]
        detected = sp.csr_matrix(counts >= fields.guide_min_count)
        for row in range(detected.shape[0]):
            columns = detected.indices[detected.indptr[row] : detected.indptr[row + 1]]
            singles = {single for column in columns for single in singles_of_column[column]}
            codes[start + row] = code.setdefault(tuple(sorted(singles)) if len(columns) else None, len(code))
    return codes, list(code), names


def _guide_columns(adata: AnnDataLike, fields: DataFields) -> tuple[pd.DataFrame | sp.csr_matrix, list[str]]:
    """Return the counts of guide RNAs, (cells, columns), and the target of each column."""
    key = str(fields.guides_key)
    if key not in adata.obsm:
        known = ", ".join(map(repr, adata.obsm.keys())) or "none"
        raise DataError(f"no guide-count matrix {key!r} in obsm (there: {known}); name it with guides_key=")
    guides = adata.obsm[key]
    table: Any = adata.uns.get(key)
    described = isinstance(table, pd.DataFrame) and TARGET in table and len(table) == guides.shape[1]
    if described and (not isinstance(guides, pd.DataFrame) or list(guides.columns) == list(table.index)):
        names = [str(target) for target in table[TARGET]]
    elif isinstance(guides, pd.DataFrame):
        names = [str(name) for name in guides.columns]
    else:
        raise DataError(
            f"obsm[{key!r}] has no column names; store the guide counts as a pandas DataFrame whose columns name "
            f"the targeted genes (and the non-targeting guides as 'control'), or their targets in uns[{key!r}], as "
            "cradlevae.read_10x does"
        )
    if any(_is_missing(name, fields) for name in names):
        raise DataError(f"obsm[{key!r}] has a column without a name; name the gene that it targets, or 'control'")
    return guides if isinstance(guides, pd.DataFrame) else sp.csr_matrix(guides), names


def _parsed(label: str, fields: DataFields) -> tuple[str, ...]:
    return parse_label(label, separator=fields.separator, control_labels=fields.control_labels)


def _is_unassigned(label: str, fields: DataFields) -> bool:
    """Whether a label says that the guide RNAs of a cell do not tell its perturbation; a control label never does."""
    return label == UNASSIGNED and UNASSIGNED not in fields.control_labels


def _is_missing(label: str, fields: DataFields) -> bool:
    return is_missing(label, separator=fields.separator, control_labels=fields.control_labels)
