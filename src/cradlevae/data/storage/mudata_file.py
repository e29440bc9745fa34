"""Files of MuData (``.h5mu``), which hold an AnnData of gene expression and one of guide RNAs; AnnData reads them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.storage.cell_files import open_group, read_element, read_table
from cradlevae.data.storage.feature_files import EXPRESSION, GUIDE_CAPTURE
from cradlevae.errors import DataError
from cradlevae.utils.types import IndexArray

KIND_COLUMNS = ("feature_types", "feature_type")
"""Columns of ``var`` with the type of each feature, as readers of 10x files name them."""

NAMES = {
    EXPRESSION: ("rna", "gex", "expression", "gene_expression", "mrna", "transcriptome"),
    GUIDE_CAPTURE: ("gdo", "guide", "guides", "grna", "sgrna", "crispr", "crispr_guide_capture", "perturbation"),
}
"""Names of modalities by the type of their features, for modalities that do not say it themselves; in lower case."""


@dataclass(frozen=True)
class Modality:
    """Features of one type in a file.

    Attributes
    ----------
    name
        Name of the modality that holds them.
    var
        Their annotation, a row for each.
    columns
        Their positions among the features of the modality.
    """

    name: str
    var: pd.DataFrame
    columns: IndexArray


@dataclass(frozen=True)
class MuData:
    """What is read of a file.

    Attributes
    ----------
    expression, layers
        Counts of genes, and other matrices of their shape, (cells, genes).
    obs, var
        Annotation of the cells that have gene expression, and of the genes.
    guides
        Counts of guide RNAs, (cells, guide RNAs); ``None`` where there are none.
    guide_var
        Their annotation.
    left_out
        Number of features of other modalities, by the name of the modality.
    """

    expression: sp.csr_matrix
    layers: dict[str, sp.csr_matrix]
    obs: pd.DataFrame
    var: pd.DataFrame
    guides: sp.csr_matrix | None
    guide_var: pd.DataFrame
    left_out: dict[str, int]


def read_mudata(path: Path) -> MuData:
    """Read the modalities of gene expression and of guide RNAs.

    They are known by ``var["feature_types"]``, or else by the name of the modality (:data:`NAMES`).

    Raises
    ------
    DataError
        If the file cannot be read, or has no modality of gene expression, or several of one type.

    Warns
    -----
    UserWarning
        Where cells have no counts of guide RNAs in their modality.
    """
    file = open_group(path)
    try:
        if "mod" not in file:
            raise DataError(f"{path} is no MuData file: it has no group 'mod'")
        tables = {name: read_table(file, path, f"mod/{name}/var") for name in file["mod"]}
        expression = _modality(tables, EXPRESSION, path)
        if expression is None:
            raise DataError(
                f"{path} has no modality of gene expression (there: {', '.join(tables)}); name it 'rna', or its "
                f"features {EXPRESSION!r} in var['feature_types']"
            )
        guides = _modality(tables, GUIDE_CAPTURE, path)
        obs = _obs(file, path, expression.name)
        where = f"mod/{expression.name}"
        layers = file[f"{where}/layers"] if "layers" in file[where] else ()
        counted = None if guides is None else _guide_counts(file, path, guides, obs.index)
        used = {expression.name} | ({guides.name} if guides else set())
        return MuData(
            _matrix(file, path, f"{where}/X", expression.columns),
            {name: _matrix(file, path, f"{where}/layers/{name}", expression.columns) for name in layers},
            obs,
            expression.var,
            counted,
            pd.DataFrame() if guides is None else guides.var,
            {name: len(table) for name, table in tables.items() if name not in used},
        )
    finally:
        file.close()


def _modality(tables: dict[str, pd.DataFrame], kind: str, path: Path) -> Modality | None:
    found = []
    for name, var in tables.items():
        column = next((column for column in KIND_COLUMNS if column in var), None)
        if column is not None:
            columns = np.flatnonzero((var[column].astype(str) == kind).to_numpy())
        else:
            known = name.casefold().replace(" ", "_") in NAMES[kind]
            columns = np.arange(len(var) if known else 0)
        if len(columns):
            found.append(Modality(name, var.iloc[columns], columns))
    if len(found) > 1:
        names = ", ".join(repr(one.name) for one in found)
        raise DataError(f"{path} has several modalities of {kind}: {names}; write a file with one of them")
    return found[0] if found else None


def _obs(file: Any, path: Path, name: str) -> pd.DataFrame:
    """Annotation of the cells: of their modality, and that of the file which belongs to no modality."""
    obs = read_table(file, path, f"mod/{name}/obs")
    if not obs.index.is_unique:
        raise DataError(f"{path}: cell {obs.index[obs.index.duplicated()][0]!r} occurs twice in {name!r}")
    if "obs" not in file:
        return obs
    common = read_table(file, path, "obs")
    own = [column for column in common if ":" not in str(column) and column not in obs]
    return obs.join(common[own]) if own and common.index.is_unique else obs


def _matrix(file: Any, path: Path, name: str, columns: IndexArray) -> sp.csr_matrix:
    matrix = sp.csr_matrix(read_element(file, path, name))
    whole = len(columns) == matrix.shape[1]
    return matrix if whole else sp.csr_matrix(matrix[:, columns])


def _guide_counts(file: Any, path: Path, guides: Modality, cells: pd.Index[str]) -> sp.csr_matrix:
    counts = _matrix(file, path, f"mod/{guides.name}/X", guides.columns)
    own = read_table(file, path, f"mod/{guides.name}/obs").index
    if own.equals(cells):
        return counts
    if not own.is_unique:
        raise DataError(f"{path}: cell {own[own.duplicated()][0]!r} occurs twice in {guides.name!r}")
    rows = own.get_indexer(cells)
    absent = rows < 0
    if absent.any():
        warnings.warn(
            f"{int(absent.sum()):,} of {len(cells):,} cells are not in the modality {guides.name!r}, and count as "
            "cells without a guide RNA",
            stacklevel=4,
        )
    picked = sp.csr_matrix(
        (np.ones(int((~absent).sum())), (np.flatnonzero(~absent), rows[~absent])), (len(cells), len(own))
    )
    return sp.csr_matrix(picked @ counts)
