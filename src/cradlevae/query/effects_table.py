"""Effects as a tidy table in which genes can be called: by the local false sign rate, and its mean down to a rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.fields import DataFields
from cradlevae.data.labels import Condition
from cradlevae.data.naming.gene_names import target_columns
from cradlevae.errors import DataError
from cradlevae.utils.checks import check_anndata, check_choice
from cradlevae.utils.types import AnnDataLike, Float32Array, IntArray

COLUMNS = (
    "perturbation", "gene", "effect", "low", "high", "sd", "lfsr", "q", "rank", "n_cells", "is_target"
)  # fmt: skip
"""Columns of the table of effects."""

LARGEST_FIRST = "n_cells", "is_target"
"""Columns that are sorted from the largest value down; ``effect`` is sorted by its size."""


def effects_table(effects: AnnDataLike, sort_by: str | None = "rank") -> pd.DataFrame:
    """Effects as a table, a row for each perturbation and gene, with what it takes to call genes.

    Parameters
    ----------
    effects
        Effects, contrasts or interactions, as models and floors give them; or some rows and columns of these, as
        ``effects[["A", "B"], genes]``.
    sort_by
        Column that rows are sorted by: ``"rank"`` (the surest sign first), ``"effect"`` (the largest effect first, of
        either sign) or any other; ``None`` leaves them in the order of the effects.

    Returns
    -------
    pandas.DataFrame
        The columns are

        - ``perturbation``, ``gene``; ``effect``, ``low``, ``high`` and ``sd`` in units of the effect (log2);
        - ``lfsr``: the local false sign rate, the probability that the effect has another sign, or none;
        - ``q``: the mean of ``lfsr`` from the surest row of the table down to this one, i.e. which share of the signs
          is expected to be false if all these rows are called (Stephens, Biostatistics 2017: the s-value);
        - ``rank``: place of the row in that order, from 1; rows of equal ``lfsr`` by effect over ``sd``;
        - ``n_cells``: passing training cells of the perturbation; 0 for one that was not measured;
        - ``is_target``: whether the gene is one that the perturbation targets;
        - ``context`` and ``measured_in_context``, where a context was asked for.

        Floors that do not know their error have no ``low``, ``high``, ``sd``, ``lfsr`` and ``q``, and ranks by the size
        of the effect.

    Raises
    ------
    DataError
        If these are no effects, or there is no such column.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=50, n_perturbations=3, n_combinations=0, n_latent=3)
    >>> adata.obs["artifact"] = adata.obs["true_artifact"]
    >>> floor = cv.FloorModel("hierarchical_mean", adata)
    >>> floor.train()
    >>> table = cv.effects_table(floor.effects())
    >>> table.loc[table["q"] <= 0.05, ["perturbation", "gene", "effect"]].shape[1]
    3
    """
    check_anndata(effects, "effects")
    if "targets" not in effects.uns:
        raise DataError(
            "effects has no uns['targets']; give what model.effects(), contrast() or interactions() returns"
        )
    n_rows, n_genes = effects.shape
    names, genes = effects.obs_names.astype(str), effects.var_names.astype(str)

    def of_layer(name: str) -> Any:
        return np.asarray(effects.layers[name]).ravel() if name in effects.layers else np.float32("nan")

    effect, lfsr = np.asarray(effects.X).ravel(), of_layer("lfsr")
    known = np.ndim(lfsr) > 0
    if known:
        sd = of_layer("sd")
        order = surest_first(lfsr, np.divide(np.abs(effect), sd, out=np.zeros_like(effect), where=sd > 0))
    else:
        order = np.argsort(-np.abs(effect), kind="stable")
    ranks = np.empty(len(effect), dtype=np.int64)
    ranks[order] = np.arange(1, len(effect) + 1)
    table = pd.DataFrame(
        {
            "perturbation": np.repeat(names.to_numpy(dtype=object), n_genes),
            "gene": np.tile(genes.to_numpy(dtype=object), n_rows),
            "effect": effect,
            **{name: of_layer(name) for name in ("low", "high", "sd", "lfsr")},
            "q": false_share(lfsr, order) if known else np.float32("nan"),
            "rank": ranks,
            "n_cells": np.repeat(effects.obs["n_cells"].to_numpy(), n_genes),
            "is_target": _is_target(effects.uns["targets"], names, genes),
            **{
                name: np.repeat(effects.obs[name].to_numpy(), n_genes)
                for name in ("context", "measured_in_context")
                if name in effects.obs
            },
        }
    )
    if sort_by is None:
        return table
    check_choice("sort_by", sort_by, tuple(table.columns))
    table = table.iloc[order]
    key = table["effect"].abs() if sort_by == "effect" else table[sort_by]
    falling = sort_by in ("effect", *LARGEST_FIRST)
    return table.loc[key.sort_values(ascending=not falling, kind="stable").index].reset_index(drop=True)


def targets_of(fields: DataFields, var: pd.DataFrame, asked: Mapping[str, Condition]) -> dict[str, Any]:
    """The genes that perturbations target: names of perturbations and genes, a pair for each target.

    Parameters
    ----------
    fields
        Where the data held symbols of genes.
    var
        Annotation of the genes.
    asked
        Canonical conditions by the names of their rows.
    """
    column = fields.gene_symbols
    symbols = None if column is None or column not in var else [str(name) for name in var[column]]
    genes = [str(name) for name in var.index]
    columns = target_columns(list(asked.values()), genes, symbols)
    pairs = [(name, genes[gene]) for name, of_row in zip(asked, columns, strict=True) for gene in of_row]
    return {
        name: np.array([pair[place] for pair in pairs], dtype=str)
        for place, name in enumerate(("perturbation", "gene"))
    }


def surest_first(lfsr: Any, surety: Any) -> IntArray:
    """Order along the last axis: the lowest local false sign rate first, and of equal ones the greatest surety."""
    return np.lexsort((-surety, lfsr))


def false_share(lfsr: Any, order: IntArray) -> Float32Array:
    """q: mean of the local false sign rates, (n,), from the first one of an order down to each, float32."""
    q = np.empty(len(order), dtype=np.float32)
    q[order] = np.cumsum(lfsr[order], dtype=np.float64) / np.arange(1, len(order) + 1)
    return q


def _is_target(targets: Mapping[str, Sequence[str]], names: pd.Index[str], genes: pd.Index[str]) -> Any:
    """Whether each gene is a target of each perturbation, (perturbations × genes,)."""
    found = np.zeros((len(names), len(genes)), dtype=bool)
    rows, columns = names.get_indexer(pd.Index(targets["perturbation"])), genes.get_indexer(pd.Index(targets["gene"]))
    there = (rows >= 0) & (columns >= 0)
    found[rows[there], columns[there]] = True
    return found.ravel()
