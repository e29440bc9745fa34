"""The arrays of a Perturb-seq experiment, and the one place that reads them from an AnnData.

:func:`read_experiment` turns an AnnData into an :class:`Experiment`: sparse counts, the condition of every cell and
its artifact indicator. It checks all of them before any long work starts; the rest of the package deals with arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.artifact_columns import artifact_indicators
from cradlevae.data.dosage import treatment_dosage
from cradlevae.data.factors import Factor, Role, read_factors, strata_codes
from cradlevae.data.fields import DataFields
from cradlevae.data.identity.cell_sketch import SketchArray, Sketcher, sketch_values
from cradlevae.data.labels import (
    UNASSIGNED,
    Condition,
    base_of,
    condition_name,
    in_context,
)
from cradlevae.data.naming.cell_labels import CellLabels, condition_labels, read_labels, without_labels
from cradlevae.data.naming.gene_names import symbols_of
from cradlevae.data.naming.label_advice import warn_of_labels
from cradlevae.data.naming.label_checks import check_controls, check_labels, occurring_conditions
from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_matrix import CountMatrix, row_blocks, subset_rows
from cradlevae.errors import DataError
from cradlevae.utils.checks import check_anndata
from cradlevae.utils.types import AnnDataLike, AnyIntArray, BoolArray, Float32Array, IndexArray, IntArray

__all__ = ["DataFields", "Experiment", "check_unique", "condition_labels", "read_experiment"]


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
        The conditions, by their canonical names; ``conditions[0]`` is ``control``.
    perturbations
        Names of the single perturbations, in the order of the model's treatments.
    artifact
        Artifact indicator, cells × classes, float32 0/1.
    criteria
        Names of the artifact classes.
    library_size
        Total count of each cell, (cells,).
    treatments
        Conditions that each are a treatment of their own, whatever they consist of; ``None`` where the single
        perturbations are the treatments.
    obs
        Annotation of the cells as the AnnData holds it, one row for each cell; the model does not read it.
    symbols
        Symbols of the genes, where the fields name a column of them and the AnnData has it; else empty.
    factors
        Experimental batch, covariates and context of the cells, as far as the fields name such columns. With several
        contexts, the conditions are those of each context, as ``A in D1``; the control is one condition.
    pairs
        Treatments and contexts that have an effect of their own beside the treatment's; each is a further treatment.
    """

    cells: pd.Index[str]
    genes: pd.Index[str]
    counts: CountMatrix
    condition: IntArray
    conditions: tuple[Condition, ...]
    perturbations: tuple[str, ...]
    artifact: Float32Array
    criteria: tuple[str, ...]
    library_size: Float32Array
    treatments: tuple[str, ...] | None = None
    obs: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    symbols: tuple[str, ...] = field(default=(), repr=False)
    factors: tuple[Factor, ...] = field(default=(), repr=False)
    pairs: tuple[tuple[str, str], ...] = ()
    _sketches: dict[tuple[str, ...], SketchArray] = field(default_factory=dict, repr=False)

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
        """Dosage of each perturbation, or treatment, and of each pair in each condition, (conditions, T)."""
        return treatment_dosage(self.conditions, self.perturbations, self.treatments, self.pairs)

    @cached_property
    def failed(self) -> BoolArray:
        """Whether each cell failed any criterion, (cells,)."""
        return np.asarray(self.artifact.any(axis=1))

    @property
    def is_control(self) -> BoolArray:
        """Whether each cell is unperturbed, (cells,)."""
        return np.asarray(self.condition == 0)

    @cached_property
    def strata(self) -> IntArray:
        """Stratum of each cell: cells of one stratum agree in batch, covariates and context, (cells,)."""
        return strata_codes(self.factors, self.n_cells)

    @property
    def varied(self) -> tuple[Factor, ...]:
        """The factors of two levels or more: a model learns what each of their levels adds."""
        return tuple(factor for factor in self.factors if len(factor.levels) > 1)

    def varied_by(self, role: Role) -> Factor | None:
        """The batch, or the context, where cells are of two levels of it or more; else ``None``."""
        return next((factor for factor in self.varied if factor.role == role), None)

    @property
    def n_levels(self) -> int:
        """Number of levels of all varied factors."""
        return sum(len(factor.levels) for factor in self.varied)

    @property
    def own_treatments(self) -> tuple[str, ...]:
        """The treatments without the pairs: single perturbations, or conditions where each is a treatment."""
        return self.perturbations if self.treatments is None else self.treatments

    @cached_property
    def levels(self) -> IntArray:
        """Level of each cell in each of the varied factors, (cells, factors); those of all factors are numbered on."""
        first = np.cumsum([0, *(len(factor.levels) for factor in self.varied)])
        codes = [factor.codes + start for factor, start in zip(self.varied, first, strict=False)]
        return np.stack(codes, axis=1) if codes else np.zeros((self.n_cells, 0), dtype=np.int64)

    @property
    def context(self) -> Factor | None:
        """The contexts of the cells; ``None`` where the fields name none."""
        return next((factor for factor in self.factors if factor.role == "context"), None)

    @property
    def batch(self) -> Factor | None:
        """The experimental batches of the cells; ``None`` where the fields name none."""
        return next((factor for factor in self.factors if factor.role == "batch"), None)

    @cached_property
    def plain(self) -> tuple[IntArray, tuple[Condition, ...]]:
        """Condition of each cell whatever its context, and the names of these conditions, the control first."""
        names = tuple(dict.fromkeys(in_context(name, None) for name in self.conditions))
        place = {str(name): code for code, name in enumerate(names)}
        return np.array([place[base_of(name)] for name in self.conditions], dtype=np.int64)[self.condition], names

    def sketch(self, probes: tuple[str, ...]) -> SketchArray:
        """Sketches of the cells by probe genes, (cells, probes + print): :mod:`cradlevae.data.identity.cell_sketch`."""
        if probes not in self._sketches:
            self._sketches[probes] = sketch_values(row_blocks(self.counts), self.n_cells, self.genes, probes)
        return self._sketches[probes]

    def unlabelled(self) -> Experiment:
        """Return the experiment with all cells as controls."""
        return replace(self, condition=np.zeros(self.n_cells, dtype=np.int64), conditions=self.conditions[:1])

    def subset(self, rows: AnyIntArray) -> Experiment:
        """Return the experiment with these cells only; the conditions and perturbations stay those of the whole."""
        return replace(
            self,
            cells=self.cells[rows],
            counts=subset_rows(self.counts, rows),
            condition=self.condition[rows],
            artifact=self.artifact[rows],
            library_size=self.library_size[rows],
            obs=self.obs.iloc[rows] if len(self.obs) else self.obs,
            factors=tuple(factor.of(rows) for factor in self.factors),
            _sketches={probes: values[rows] for probes, values in self._sketches.items()},
        )


def read_experiment(
    adata: AnnDataLike,
    fields: DataFields,
    *,
    genes: Sequence[str] | None = None,
    perturbations: Sequence[str] | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
    probes: tuple[str, ...] = (),
    labelled: bool = True,
) -> Experiment:
    """Read and check an AnnData.

    Parameters
    ----------
    adata
        AnnData of raw counts, in memory or backed, or the cells that
        :func:`~cradlevae.data.storage.stored_cells.open_cells` opens; counts on disk stay on disk.
    fields
        Where the AnnData holds labels, artifact columns and counts.
    genes, perturbations
        Names that a trained model knows: the genes are put into this order, and the perturbations get these
        positions. ``None`` takes both from the data.
    levels
        Batches, categories of covariates and contexts that a trained model knows, by column.
    probes
        Genes by which the cells are to be sketched; it is done in the same pass over the counts.
    labelled
        Whether labels are read; if not, all cells stand as controls, whatever their labels say.

    Returns
    -------
    Experiment
        The cells that have a count and a perturbation (or are controls).

    Raises
    ------
    DataError
        If the data cannot be used; the message names the column, the value and the mend.
    """
    check_anndata(adata)
    counts = Counts(adata, fields.layer)
    check_unique(adata.obs_names, "cell", "adata.obs_names_make_unique()")
    check_unique(adata.var_names, "gene", "adata.var_names_make_unique()")
    labels = read_labels(adata, fields) if labelled else without_labels(adata.n_obs)
    _check_characters(adata, labels)
    artifact = artifact_indicators(adata, fields)
    columns = _gene_columns(adata, genes)
    assigned = np.array([condition is not None for condition in labels.conditions], dtype=bool)[labels.codes]
    check_labels(labels, assigned, perturbations, fields)  # before the counts are read, which may take long
    factors = read_factors(adata, fields, usable=assigned, known=levels)
    sketcher = Sketcher(adata.var_names, probes, None if genes is None else pd.Index(genes))
    sketch = np.zeros((adata.n_obs if probes else 0, sketcher.width), dtype=np.uint8)

    def sketch_block(part: slice, block: sp.csr_matrix) -> None:
        sketch[part] = sketcher.of_block(block)

    library_size = counts.library_sizes(columns, sketch_block if probes else None)

    counted = library_size > 0
    usable = assigned & counted
    if not usable.any():
        raise DataError("no cell has both a count and a perturbation")
    _warn_left_out(counted, assigned, fields)

    if not counted[assigned].all():  # levels are those of usable cells
        factors = read_factors(adata, fields, usable=usable, known=levels)
    conditions = occurring_conditions(labels, usable)
    own = sorted({single for condition in conditions for single in condition.singles})
    if perturbations is None:
        symbols = symbols_of(adata, fields.gene_symbols)
        check_controls(labels, usable, fields)
        warn_of_labels(labels.written, symbols, fields)
    position = {condition: index for index, condition in enumerate(conditions)}
    condition = np.array([-1 if name is None else position.get(name, -1) for name in labels.conditions], dtype=np.int64)
    data = Experiment(
        cells=pd.Index(adata.obs_names),
        genes=pd.Index(genes if genes is not None else adata.var_names),
        counts=counts.matrix(columns),
        condition=condition[labels.codes],
        conditions=conditions,
        perturbations=tuple(perturbations) if perturbations is not None else tuple(own),
        artifact=artifact,
        criteria=fields.criteria,
        library_size=library_size,
        obs=adata.obs,
        symbols=_symbols(adata, fields, columns),
        factors=factors,
        _sketches={probes: sketch} if probes else {},
    )
    return by_context(data if usable.all() else data.subset(np.flatnonzero(usable)))


def by_context(data: Experiment) -> Experiment:
    """The experiment with the conditions of each context for conditions; as it is where there is one context."""
    context = data.varied_by("context")
    if context is None:
        return data
    code = data.condition * len(context.levels) + context.codes
    code[data.condition == 0] = 0  # the controls of all contexts are one condition
    present, condition = np.unique(code, return_inverse=True)
    names = [
        in_context(data.conditions[number // len(context.levels)], context.levels[number % len(context.levels)])
        for number in present.tolist()
    ]
    if present[0] != 0:  # no control among these cells
        names, condition = [condition_name(()), *names], condition + 1
    return replace(data, conditions=tuple(names), condition=condition.astype(np.int64))


def check_unique(names: pd.Index[str], what: str, mend: str) -> None:
    """Raise :class:`DataError` if a name occurs twice; the message ends with the ``mend``."""
    if not names.is_unique:
        twice = names[names.duplicated()][0]
        raise DataError(f"duplicate {what} name {twice!r}; make them unique: {mend}")


def _check_characters(adata: AnnDataLike, labels: CellLabels) -> None:
    """Raise :class:`DataError` if a name holds the character NUL, which no file of a model or of cells can hold."""
    named: dict[str, Iterable[object]] = {
        "cell name": adata.obs_names,
        "gene name": adata.var_names,
        "perturbation label": labels.written,
    }
    for what, names in named.items():
        if "\0" in "".join(map(str, names)):
            name = next(str(name) for name in names if "\0" in str(name))
            raise DataError(f"{what} {name!r} holds the character NUL, which files cannot hold; rename it")


def check_experiment(adata: AnnDataLike, fields: DataFields) -> None:
    """Raise :class:`DataError` if labels, control labels or the counts matrix are absent; no counts are read."""
    check_anndata(adata)
    Counts(adata, fields.layer)
    check_unique(adata.obs_names, "cell", "adata.obs_names_make_unique()")
    check_unique(adata.var_names, "gene", "adata.var_names_make_unique()")
    labels = read_labels(adata, fields)
    _check_characters(adata, labels)
    assigned = np.array([condition is not None for condition in labels.conditions], dtype=bool)[labels.codes]
    check_labels(labels, assigned, None, fields)
    read_factors(adata, fields, usable=assigned)


def _gene_columns(adata: AnnDataLike, genes: Sequence[str] | None) -> IndexArray | None:
    """Return the columns of ``genes`` in the AnnData; ``None`` where these are all its genes in its order."""
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


def _symbols(adata: AnnDataLike, fields: DataFields, columns: IndexArray | None) -> tuple[str, ...]:
    """Return the symbols of these genes; empty where no column is named, or data for a trained model lack it."""
    if fields.gene_symbols is None or fields.gene_symbols not in adata.var:
        return ()
    symbols = np.array(symbols_of(adata, fields.gene_symbols), dtype=object)
    return tuple(symbols if columns is None else symbols[columns])


def _warn_left_out(counted: BoolArray, assigned: BoolArray, fields: DataFields) -> None:
    if not counted.all():
        warnings.warn(f"{int((~counted).sum())} cells without a count are left out", stacklevel=3)
    if not assigned.all():
        where = f"without a guide RNA in obsm[{fields.guides_key!r}]"
        if fields.guides_key is None:
            where = f"that are {UNASSIGNED!r} in obs[{fields.perturbation_key!r}]"
        warnings.warn(f"{int((~assigned).sum())} cells {where} are left out", stacklevel=3)
