"""What an AnnData must hold, and the one place that reads it.

:func:`read_experiment` turns an AnnData into an :class:`Experiment`: sparse counts, the condition of every cell and
its artifact indicator, checked before any long work. Everything after it deals with arrays only.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.labels import (
    CONTROL,
    DEFAULT_CONTROLS,
    closest,
    condition_name,
    dosage_table,
    indicator_table,
    parse_label,
    singles_of,
)
from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_matrix import CountMatrix, subset_rows
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, AnyIntArray, BoolArray, Float32Array, IndexArray, IntArray

GUIDE_BLOCK = 10_000
"""Cells whose guide counts are looked at together."""


@dataclass(frozen=True)
class DataFields:
    """Where an AnnData holds what the model needs.

    Parameters
    ----------
    perturbation_key
        Column of ``obs`` with the perturbation labels.
    artifact_key
        Boolean (or 0/1) column of ``obs``, true for cells that failed quality control; or several columns, one per
        QC criterion.
    layer
        Layer with the raw counts; ``None`` reads ``X``.
    control_labels
        Labels of unperturbed cells; case does not matter.
    separator
        What stands between the members of a combination in a label.
    guides_key
        Key of ``obsm`` with a guide-count matrix (a DataFrame, cells × target genes), read instead of
        ``perturbation_key``; columns named like a control label are non-targeting guide RNAs.
    guide_min_count
        Counts from which a guide RNA is taken as present.
    """

    perturbation_key: str = "perturbation"
    artifact_key: str | tuple[str, ...] = "artifact"
    layer: str | None = None
    control_labels: tuple[str, ...] = DEFAULT_CONTROLS
    separator: str = "+"
    guides_key: str | None = None
    guide_min_count: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.control_labels, str):  # one label, not its letters
            object.__setattr__(self, "control_labels", (self.control_labels,))
        for name in ("control_labels", "artifact_key"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.separator:
            raise DataError("separator is empty; name what stands between the members of a combination, e.g. '+'")

    @property
    def criteria(self) -> tuple[str, ...]:
        """Names of the artifact classes: one ``obs`` column each."""
        return (self.artifact_key,) if isinstance(self.artifact_key, str) else tuple(self.artifact_key)


@dataclass(frozen=True)
class Experiment:
    """A Perturb-seq experiment as arrays.

    Attributes
    ----------
    cells, genes
        Names of the cells and genes.
    counts
        Cells × genes, float32 holding integers: CSR in memory, or on disk. ``counts[rows]`` is CSR in either case.
    condition
        Index into ``conditions`` per cell, (cells,).
    conditions
        Canonical condition names; ``conditions[0]`` is ``control``.
    perturbations
        Names of the single perturbations.
    artifact
        Artifact indicator, cells × classes, float32 0/1.
    criteria
        Names of the artifact classes.
    library_size
        Total count of each cell, (cells,).
    treatments
        Conditions that count as treatments of their own, whatever their members; ``None`` where the single
        perturbations are what was done to a cell.
    obs
        Annotation of the cells as the AnnData holds it, a row per cell; the model reads nothing of it.
    """

    cells: pd.Index[str]
    genes: pd.Index[str]
    counts: CountMatrix
    condition: IntArray
    conditions: tuple[str, ...]
    perturbations: tuple[str, ...]
    artifact: Float32Array
    criteria: tuple[str, ...]
    library_size: Float32Array
    treatments: tuple[str, ...] | None = None
    obs: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.cells)

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.genes)

    @cached_property
    def dosage(self) -> Float32Array:
        """Dosage of each perturbation, or treatment, in each condition, (conditions, perturbations)."""
        if self.treatments is not None:
            return indicator_table(self.conditions, self.treatments)
        return dosage_table(self.conditions, self.perturbations)

    @cached_property
    def failed(self) -> BoolArray:
        """Whether each cell failed any criterion, (cells,)."""
        return np.asarray(self.artifact.any(axis=1))

    @property
    def is_control(self) -> BoolArray:
        """Whether each cell is unperturbed, (cells,)."""
        return np.asarray(self.condition == 0)

    def subset(self, rows: AnyIntArray) -> Experiment:
        """The experiment with these cells only; conditions and perturbations keep their places."""
        return replace(
            self,
            cells=self.cells[rows],
            counts=subset_rows(self.counts, rows),
            condition=self.condition[rows],
            artifact=self.artifact[rows],
            library_size=self.library_size[rows],
            obs=self.obs.iloc[rows] if len(self.obs) else self.obs,
        )


def read_experiment(
    adata: AnnDataLike,
    fields: DataFields,
    *,
    genes: Sequence[str] | None = None,
    perturbations: Sequence[str] | None = None,
) -> Experiment:
    """Read and check an AnnData.

    Parameters
    ----------
    adata
        AnnData of raw counts, in memory or backed, or what
        :func:`~cradlevae.data.storage.stored_cells.open_cells` gives; counts on disk stay there.
    fields
        Where it holds what is needed.
    genes, perturbations
        Names that a trained model knows: genes are put into that order, perturbations into those places. ``None``
        takes them from the data.

    Raises
    ------
    DataError
        If anything does not fit; the message names the column, the value and the mend.
    """
    counts = Counts(adata, fields.layer)
    check_unique(adata.obs_names, "cell", "adata.obs_names_make_unique()")
    check_unique(adata.var_names, "gene", "adata.var_names_make_unique()")
    labels, singles = _cell_members(adata, fields)
    artifact = _artifact(adata, fields)
    columns = _gene_columns(adata, genes)
    library_size = counts.library_sizes(columns)

    assigned = np.array([single is not None for single in singles], dtype=bool)[labels]
    counted = library_size > 0
    keep = assigned & counted
    if not keep.any():
        raise DataError("no cell has both a count and a perturbation")
    _warn_left_out(counted, assigned, fields)

    names = ["" if single is None else condition_name(single) for single in singles]
    found = sorted({names[label] for label in np.unique(labels[keep])} - {CONTROL})
    own = sorted({single for name in found for single in singles_of(name)})
    if perturbations is not None:
        known = set(perturbations)
        for single in own:
            if single not in known:
                raise DataError(
                    f"perturbation {single!r} in obs[{fields.perturbation_key!r}] is unknown to the model"
                    + closest(single, list(perturbations))
                )
    elif not any(names[label] == CONTROL for label in np.unique(labels[keep])):
        shown = ", ".join(map(repr, found[:5]))
        raise DataError(
            f"no control cells: none of {', '.join(map(repr, fields.control_labels))} is in "
            f"obs[{fields.perturbation_key!r}] (labels there: {shown}, …); name yours with control_labels="
        )
    conditions = (CONTROL, *found)
    code = {name: index for index, name in enumerate(conditions)}
    condition = np.array([code.get(name, -1) for name in names], dtype=np.int64)[labels]
    data = Experiment(
        cells=pd.Index(adata.obs_names),
        genes=pd.Index(genes if genes is not None else adata.var_names),
        counts=counts.matrix(columns),
        condition=condition,
        conditions=conditions,
        perturbations=tuple(perturbations) if perturbations is not None else tuple(own),
        artifact=artifact,
        criteria=fields.criteria,
        library_size=library_size,
        obs=adata.obs,
    )
    return data if keep.all() else data.subset(np.flatnonzero(keep))


def condition_labels(adata: AnnDataLike, fields: DataFields) -> pd.Series[str]:
    """Canonical condition of every cell of an AnnData; ``""`` where no guide RNA was found."""
    labels, singles = _cell_members(adata, fields)
    names = np.array(["" if single is None else condition_name(single) for single in singles], dtype=object)
    return pd.Series(names[labels], index=pd.Index(adata.obs_names), dtype=object)


def check_unique(names: pd.Index[str], what: str, mend: str) -> None:
    """Raise :class:`DataError` if a name occurs twice; ``mend`` tells what to run."""
    if not names.is_unique:
        twice = names[names.duplicated()][0]
        raise DataError(f"duplicate {what} name {twice!r}; make them unique: {mend}")


def _column(adata: AnnDataLike, key: str, mend: str) -> pd.Series[Any]:
    if key not in adata.obs:
        raise DataError(f"no column {key!r} in obs{closest(key, list(adata.obs.columns))}; {mend}")
    column: pd.Series[Any] = adata.obs[key]
    return column


def _cell_members(adata: AnnDataLike, fields: DataFields) -> tuple[IndexArray, list[tuple[str, ...] | None]]:
    """Label of each cell, (cells,), and the single perturbations of each label; ``None``: no guide RNA was found."""
    if fields.guides_key is not None:
        return _guide_members(adata, fields)
    column = _column(adata, fields.perturbation_key, "name the label column with perturbation_key=")
    codes, labels = pd.factorize(column.astype(str))
    blank = np.array([_is_blank(label, fields.separator) for label in labels], dtype=bool)
    empty = column.isna().to_numpy() | blank[codes]
    if empty.any():  # an empty label is no control: nobody said so
        cell = adata.obs_names[np.flatnonzero(empty)[0]]
        raise DataError(
            f"obs[{fields.perturbation_key!r}] is empty for {int(empty.sum())} cells, first {cell!r}; "
            "label or drop them"
        )
    parsed = [parse_label(label, separator=fields.separator, control_labels=fields.control_labels) for label in labels]
    for label, single in zip(labels, parsed, strict=True):
        if fields.separator != "+" and any("+" in name for name in single):
            raise DataError(
                f"label {label!r} in obs[{fields.perturbation_key!r}] holds '+', but separator is "
                f"{fields.separator!r}; use one separator in all labels"
            )
    return codes, list(parsed)


def _is_blank(label: str, separator: str) -> bool:
    return not label.replace(separator, " ").strip()


def _guide_members(adata: AnnDataLike, fields: DataFields) -> tuple[IndexArray, list[tuple[str, ...] | None]]:
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
    per_column = [
        parse_label(str(name), separator=fields.separator, control_labels=fields.control_labels)
        for name in guides.columns
    ]
    codes = np.empty(len(guides), dtype=np.intp)
    code: dict[tuple[str, ...] | None, int] = {}
    for start in range(0, len(guides), GUIDE_BLOCK):
        block = guides.iloc[start : start + GUIDE_BLOCK].to_numpy(dtype=np.float64)
        found = sp.csr_matrix(block >= fields.guide_min_count)
        for row in range(found.shape[0]):
            present = found.indices[found.indptr[row] : found.indptr[row + 1]]
            names = {single for column in present for single in per_column[column]}
            codes[start + row] = code.setdefault(tuple(sorted(names)) if len(present) else None, len(code))
    return codes, list(code)


def _artifact(adata: AnnDataLike, fields: DataFields) -> Float32Array:
    columns = []
    for key in fields.criteria:
        mend = "run cradlevae.annotate_qc(adata) first, or name your own boolean column with artifact_key="
        column = _column(adata, key, mend)
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
    """0/1 for what people write for a boolean, ``None`` for anything else."""
    text = str(value).strip().casefold()
    return {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}.get(text)


def _gene_columns(adata: AnnDataLike, genes: Sequence[str] | None) -> IndexArray | None:
    """Columns of the AnnData that hold ``genes``; ``None`` where they are its genes in its order."""
    if genes is None or list(adata.var_names) == list(genes):
        return None
    columns = pd.Index(adata.var_names).get_indexer(pd.Index(genes))
    if (columns < 0).any():
        absent = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
        raise DataError(
            f"{len(absent)} of the model's {len(genes)} genes are not in the data, first: "
            f"{', '.join(map(repr, absent[:5]))}; the data must hold the genes that the model was trained on"
        )
    return np.asarray(columns)


def _warn_left_out(counted: BoolArray, assigned: BoolArray, fields: DataFields) -> None:
    if not counted.all():
        warnings.warn(f"{int((~counted).sum())} cells without a count are left out", stacklevel=3)
    if not assigned.all():
        warnings.warn(
            f"{int((~assigned).sum())} cells without a guide RNA in obsm[{fields.guides_key!r}] are left out",
            stacklevel=3,
        )
