"""Figures of batches and contexts for an AnnData: what the report draws of an experiment that is read already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cradlevae.data.experiment import read_experiment
from cradlevae.data.fields import DataFields, fields_of
from cradlevae.errors import DataError
from cradlevae.reporting.screen.balance import balance_figure, batches_figure, contexts_figure
from cradlevae.utils.checks import check_anndata
from cradlevae.utils.docs import documented_by
from cradlevae.utils.types import AnnDataLike

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from cradlevae.data.experiment import Experiment


def batches(adata: AnnDataLike, *, fields: DataFields | None = None, **field_options: Any) -> Figure:
    """Cells and controls of each batch, and how far its controls differ from the others'.

    Parameters
    ----------
    adata
        AnnData, or cells on disk, with raw counts and labels.
    fields
        Where labels, batches and artifact columns are (see :class:`cradlevae.DataFields`).
    **field_options
        Single fields, e.g. ``batch_key="batch"``, instead of ``fields`` or in addition.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each batch.

    Raises
    ------
    DataError
        If there are not two batches, or a column is absent.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=30, n_perturbations=4, n_combinations=0, n_batches=2, seed=0)
    >>> figure = cv.pl.batches(adata, artifact_key="true_artifact", batch_key="batch")
    """
    return _drawn(batches_figure, adata, fields, field_options, "batches; name their column with batch_key=")


@documented_by(batches)
def balance(adata: AnnDataLike, *, fields: DataFields | None = None, **field_options: Any) -> Figure:
    """Share of each perturbation's cells in each batch, against that of the controls.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each perturbation, a column for each batch.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=30, n_perturbations=4, n_combinations=0, n_batches=2, seed=0)
    >>> figure = cv.pl.balance(adata, artifact_key="true_artifact", batch_key="batch")
    """
    return _drawn(balance_figure, adata, fields, field_options, "batches; name their column with batch_key=")


@documented_by(batches)
def contexts(adata: AnnDataLike, *, fields: DataFields | None = None, **field_options: Any) -> Figure:
    """Passing cells of each perturbation in each context.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each perturbation, a column for each context.

    Raises
    ------
    DataError
        If there are not two contexts, or a column is absent.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=30, n_perturbations=4, n_combinations=0, n_contexts=2, seed=0)
    >>> figure = cv.pl.contexts(adata, artifact_key="true_artifact", context_key="context")
    """
    return _drawn(contexts_figure, adata, fields, field_options, "contexts; name their column with context_key=")


def _drawn(
    draw: Callable[[Experiment], Figure | None],
    adata: AnnDataLike,
    fields: DataFields | None,
    options: dict[str, Any],
    lacking: str,
) -> Figure:
    check_anndata(adata)
    figure = draw(read_experiment(adata, fields_of(fields, options)))
    if figure is None:
        raise DataError(f"there are not several {lacking}")
    return figure
