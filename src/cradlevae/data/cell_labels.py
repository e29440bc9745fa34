"""The perturbations of each cell, read from a column of labels or from a matrix of guide-RNA counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.fields import DataFields, obs_column
from cradlevae.data.labels import condition_name, parse_label
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, IndexArray

GUIDE_BLOCK = 10_000
"""Number of cells whose guide counts are dense in memory at a time."""

Singles = tuple[str, ...] | None
"""The single perturbations of a cell: none for a control, ``None`` where no guide RNA was detected."""


def condition_labels(adata: AnnDataLike, fields: DataFields) -> pd.Series[str]:
    """Return the canonical condition of every cell of an AnnData; ``""`` where no guide RNA was detected."""
    codes, singles = read_labels(adata, fields)
    names = np.array(condition_names(singles), dtype=object)
    return pd.Series(names[codes], index=pd.Index(adata.obs_names), dtype=object)


def condition_names(singles: list[Singles]) -> list[str]:
    """Return the canonical name of each set of single perturbations; ``""`` where no guide RNA was detected."""
    return ["" if names is None else condition_name(names) for names in singles]


def read_labels(adata: AnnDataLike, fields: DataFields) -> tuple[IndexArray, list[Singles]]:
    """Read which perturbations each cell got.

    Returns
    -------
    codes
        Position of each cell's label in ``singles``, (cells,).
    singles
        The single perturbations of each distinct label; ``None`` stands for cells without a guide RNA.

    Raises
    ------
    DataError
        If the labels or guide counts are absent, or some of them cannot be read.
    """
    return _from_column(adata, fields) if fields.guides_key is None else _from_guides(adata, fields)


def _from_column(adata: AnnDataLike, fields: DataFields) -> tuple[IndexArray, list[Singles]]:
    column = obs_column(adata, fields.perturbation_key, "name the label column with perturbation_key=")
    codes, labels = pd.factorize(column.astype(str))
    blank = np.array([_is_blank(label, fields.separator) for label in labels], dtype=bool)
    empty = column.isna().to_numpy() | blank[codes]
    if empty.any():  # an empty label is no control: nobody said so
        cell = adata.obs_names[np.flatnonzero(empty)[0]]
        raise DataError(
            f"obs[{fields.perturbation_key!r}] is empty for {int(empty.sum())} cells, first {cell!r}; "
            "label or drop them"
        )
    singles = [_parsed(label, fields) for label in labels]
    for label, names in zip(labels, singles, strict=True):
        if fields.separator != "+" and any("+" in name for name in names):
            raise DataError(
                f"label {label!r} in obs[{fields.perturbation_key!r}] holds '+', but separator is "
                f"{fields.separator!r}; use one separator in all labels"
            )
    return codes, list(singles)


def _from_guides(adata: AnnDataLike, fields: DataFields) -> tuple[IndexArray, list[Singles]]:
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
    return codes, list(code)


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
    if any(_is_blank(str(name), fields.separator) for name in guides.columns):
        raise DataError(f"obsm[{key!r}] has a column without a name; name the gene that it targets, or 'control'")
    return guides


def _parsed(label: str, fields: DataFields) -> tuple[str, ...]:
    return parse_label(label, separator=fields.separator, control_labels=fields.control_labels)


def _is_blank(label: str, separator: str) -> bool:
    return not label.replace(separator, " ").strip()
