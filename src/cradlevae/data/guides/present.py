"""Counts of guide RNAs as an AnnData holds them, and what follows for each cell once thresholds are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.guides.targets import GuideTargets, guide_table
from cradlevae.data.labels import CONTROL, MISSING, TARGET, UNASSIGNED
from cradlevae.errors import DataError
from cradlevae.utils.names import listed
from cradlevae.utils.types import AnnDataLike, AnyIntArray, BoolArray, IntArray, TextArray

DENSE_CELLS = 10_000
"""Number of cells whose counts are dense in memory at a time, where they are not stored as a sparse matrix."""


@dataclass(frozen=True)
class Present:
    """The guide RNAs that each cell holds, and the genes that they target.

    Attributes
    ----------
    guides
        True where a guide RNA is present, (cells, guide RNAs), sparse.
    targets
        True where a guide RNA of a gene is present, (cells, genes), sparse; controls are no gene.
    genes
        Names of these genes, sorted.
    """

    guides: sp.csr_matrix
    targets: sp.csr_matrix
    genes: tuple[str, ...]

    @classmethod
    def of_counts(cls, counts: sp.csr_matrix, thresholds: AnyIntArray, targets: Sequence[str]) -> Present:
        """The guide RNAs whose counts, (cells, guide RNAs), reach their thresholds, (guide RNAs,)."""
        kept = counts.data >= thresholds[counts.indices]
        indptr = np.concatenate([[0], np.cumsum(kept)])[counts.indptr]
        guides = sp.csr_matrix((np.ones(int(kept.sum()), dtype=bool), counts.indices[kept], indptr), counts.shape)
        genes = tuple(sorted({target for target in targets if target != CONTROL}))
        position = {gene: column for column, gene in enumerate(genes)}
        rows = np.array([row for row, target in enumerate(targets) if target != CONTROL], dtype=np.intp)
        columns = np.array([position[targets[row]] for row in rows], dtype=np.intp)
        member = sp.csr_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), (len(targets), len(genes)))
        of_genes = sp.csr_matrix(guides @ member)
        of_genes.sort_indices()
        guides.sort_indices()
        return cls(guides, of_genes, genes)

    @property
    def n_guides(self) -> IntArray:
        """Number of guide RNAs of each cell, (cells,)."""
        return np.diff(self.guides.indptr).astype(np.int64)

    @property
    def n_targets(self) -> IntArray:
        """Number of genes that they target, (cells,)."""
        return np.diff(self.targets.indptr).astype(np.int64)

    def counted(self, max_targets: int) -> dict[str, int]:
        """Number of cells that are controls, have one target, have several, and get no label for either reason."""
        some, n_targets = self.n_guides > 0, self.n_targets
        ambiguous, missing = int((n_targets > max_targets).sum()), int((~some).sum())
        return {
            "controls": int((some & (n_targets == 0)).sum()),
            "singles": int((n_targets == 1).sum()),
            "combinations": int(((n_targets > 1) & (n_targets <= max_targets)).sum()),
            "ambiguous": ambiguous,
            "missing": missing,
            "lost": ambiguous + missing,
        }

    def labels(self, max_targets: int) -> TextArray:
        """The perturbation of each cell: ``control``, ``A``, ``A+B`` or ``unassigned``, (cells,)."""
        labels = np.array(_joined(self.targets, self.genes, CONTROL), dtype=object)
        labels[(self.n_guides == 0) | (self.n_targets > max_targets)] = UNASSIGNED
        return labels

    def names(self, guides: Sequence[str]) -> list[str]:
        """The names of each cell's guide RNAs, joined with ``+``, (cells,)."""
        return _joined(self.guides, guides, UNASSIGNED)

    def n_cells(self, cells: BoolArray) -> IntArray:
        """Number of some cells that hold each guide RNA, (guide RNAs,)."""
        rows = np.repeat(cells, self.n_guides)
        return np.bincount(self.guides.indices[rows], minlength=self.guides.shape[1]).astype(np.int64)


def guide_counts(adata: AnnDataLike, key: str, guide_targets: GuideTargets) -> tuple[sp.csr_matrix, pd.DataFrame]:
    """Return the counts of guide RNAs, (cells, guide RNAs), and the table of guide RNAs with their targets.

    Raises
    ------
    DataError
        If there are none, no table says what the columns are, or the counts are not whole numbers.
    """
    if key not in adata.obsm:
        known = ", ".join(map(repr, adata.obsm.keys())) or "none"
        raise DataError(
            f"no counts of guide RNAs {key!r} in obsm (there: {known}); name them with guides_key=, or read a file "
            "with features of type 'CRISPR Guide Capture' with cradlevae.read_10x"
        )
    stored = adata.obsm[key]
    counts = _sparse(stored)
    table = adata.uns.get(key)
    columns = [str(name) for name in stored.columns] if isinstance(stored, pd.DataFrame) else None
    if not isinstance(table, pd.DataFrame) or TARGET not in table or len(table) != counts.shape[1]:
        if columns is None:
            raise DataError(
                f"obsm[{key!r}] has {counts.shape[1]:,} columns without names: uns[{key!r}] must be a table with the "
                f"guide RNAs as its index, in this order, and a column {TARGET!r}"
            )
        table = guide_table(columns, columns, [*map(str, adata.var_names)], guide_targets)
    elif guide_targets is not None:
        names = [*map(str, table.index)]
        ids = [*map(str, table["id"])] if "id" in table else names
        table = table.assign(target=guide_table(names, ids, [*map(str, adata.var_names)], guide_targets)[TARGET])
    _check(counts, table, columns, adata, key)
    return counts, table


def _check(counts: sp.csr_matrix, table: pd.DataFrame, columns: list[str] | None, adata: AnnDataLike, key: str) -> None:
    if columns is not None and columns != [*map(str, table.index)]:
        raise DataError(f"the columns of obsm[{key!r}] and the rows of uns[{key!r}] are not the same guide RNAs")
    if not table.index.is_unique:
        raise DataError(f"guide RNA {table.index[table.index.duplicated()][0]!r} occurs twice in uns[{key!r}]")
    names = [str(name) for name in table.index]
    empty = [name for name in names if name == UNASSIGNED or name.strip().casefold() in MISSING]
    if empty:
        raise DataError(
            f"guide RNAs are called {listed(empty)}, which stands for cells without one; rename them in uns[{key!r}]"
        )
    known = set(names)
    pairs = [name for name in names if "+" in name and set(name.split("+")) <= known]
    if pairs:
        raise DataError(f"guide RNAs are called like several others together: {listed(pairs)}; rename them")
    joined = [target for target in table[TARGET].astype(str) if "+" in target]
    if joined:
        raise DataError(f"targets hold '+', which joins perturbations: {listed(joined)}; rename them in uns[{key!r}]")
    wrong = ~np.isfinite(counts.data) | (counts.data < 0) | (counts.data != np.round(counts.data))
    if wrong.any():
        entry = int(np.flatnonzero(wrong)[0])
        cell = adata.obs_names[int(np.searchsorted(counts.indptr, entry, side="right")) - 1]
        raise DataError(
            f"obsm[{key!r}] holds {counts.data[entry]:g} for cell {cell!r}; guides_key= must name raw UMI counts"
        )


def _sparse(stored: Any) -> sp.csr_matrix:
    """Counts as a CSR matrix without a dense copy of them all."""
    if hasattr(stored, "tocsr"):
        counts: sp.csr_matrix = sp.csr_matrix(stored.tocsr(), copy=True)
    else:
        table = stored if isinstance(stored, pd.DataFrame) else pd.DataFrame(np.asarray(stored))
        starts = range(0, max(len(table), 1), DENSE_CELLS)
        blocks = [sp.csr_matrix(table.iloc[start : start + DENSE_CELLS].to_numpy(dtype=np.float64)) for start in starts]
        counts = sp.csr_matrix(sp.vstack(blocks, format="csr"))
    counts.sum_duplicates()
    return counts


def _joined(matrix: sp.csr_matrix, names: Sequence[str], empty: str) -> list[str]:
    """Join the names of the columns that are set in each row with ``+``; ``empty`` where there are none."""
    known: dict[bytes, str] = {}
    joined = []
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        columns = matrix.indices[start:stop]
        code = columns.tobytes()
        if code not in known:
            known[code] = "+".join(names[column] for column in columns) or empty
        joined.append(known[code])
    return joined
