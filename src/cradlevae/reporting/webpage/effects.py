"""Effects of all conditions for the page: packed so that those of thousands of conditions stay small.

Where there are few values, the page holds all. Of more, it holds the genes of best rank of each condition, and for
each gene the conditions in which it ranks best, so that a gene that is searched for is always found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cradlevae.data.naming.gene_names import target_columns
from cradlevae.query.effects_table import false_share, surest_first
from cradlevae.reporting.webpage.packing import packed
from cradlevae.utils.types import AnnDataLike, BoolArray, Float32Array, FloatArray, IntArray

MOST_VALUES = 1_500_000
"""Largest number of pairs of condition and gene in a page."""

STEP = 0.002
"""Effects are rounded to it, log2 units."""

RATE_STEP = 0.0005
"""Rates (lfsr, q) are rounded to it, in powers of ten: to 0.1 %."""

SMALLEST_RATE = 1e-12
"""Smaller rates are written as this one."""

MAP_ROWS, MAP_COLUMNS = 60, 80
"""Largest numbers of conditions and of genes in the heat map."""


def packed_effects(effects: AnnDataLike, symbols: Sequence[str], conditions: Sequence[str]) -> dict[str, Any]:
    """Effects as the page reads them.

    Parameters
    ----------
    effects
        Effects of conditions, as :meth:`cradlevae.CradleVAE.effects` returns them.
    symbols
        Symbol of each gene, (genes,).
    conditions
        Canonical name of each row, whose single perturbations tell the targets.

    Returns
    -------
    dict
        ``perturbations``, their ``cells`` (passing training cells), ``genes``, ``credible`` (probability of the
        intervals), ``complete`` (whether all values are there), and packed, in the order of the ranks of each
        condition: ``gene``, ``rank``, ``effect``, ``low``, ``high`` (as distances from the effect), ``lfsr``, ``q``
        (negative log10) and ``target`` (0 or 1); and ``start``, of each condition among these values.
    """
    x = np.asarray(effects.X)
    n_conditions = len(x)
    lfsr = np.asarray(effects.layers["lfsr"])
    order, rank = ranked(x, lfsr)
    kept = _kept(rank)
    flat = lfsr.ravel()
    q = false_share(flat, surest_first(flat, np.abs(x).ravel())).reshape(x.shape)
    genes = [order[row][kept[row, order[row]]] for row in range(n_conditions)]
    gene = np.concatenate(genes)
    row: IntArray = np.repeat(np.arange(n_conditions), [len(part) for part in genes])
    targets = target_columns(conditions, list(effects.var_names), symbols)
    is_target = np.concatenate([np.isin(at, columns) for at, columns in zip(genes, targets, strict=True)])
    low, high = (np.asarray(effects.layers[name]) for name in ("low", "high"))
    value = x[row, gene]
    return {
        "perturbations": [str(name) for name in effects.obs_names],
        "cells": [int(n) for n in effects.obs["n_cells"]],
        "genes": list(symbols),
        "credible": float(effects.uns["effects"]["credible"]),
        "complete": bool(kept.all()),
        "start": packed(np.concatenate([[0], np.cumsum([len(part) for part in genes])]), delta=True),
        "gene": packed(gene),
        "rank": packed(rank[row, gene], delta=True),
        "effect": packed(value, STEP),
        "low": packed(value - low[row, gene], STEP),
        "high": packed(high[row, gene] - value, STEP),
        "lfsr": packed(_logarithm(lfsr[row, gene]), RATE_STEP, delta=True),
        "q": packed(_logarithm(q[row, gene]), RATE_STEP, delta=True),
        "target": packed(is_target),
    }


def ranked(x: Float32Array, lfsr: Float32Array) -> tuple[IntArray, IntArray]:
    """Genes of each condition by local false sign rate, then by size of effect; and the rank of each, from 1."""
    order = surest_first(lfsr, np.abs(x))
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(1, x.shape[1] + 1)[None, :], axis=1)
    return order, rank


def _kept(rank: IntArray) -> BoolArray:
    """Which values go into the page, (conditions, genes): all, or those of best rank by condition and by gene."""
    n_conditions, n_genes = rank.shape
    if rank.size <= MOST_VALUES:
        return np.ones(rank.shape, dtype=bool)
    of_condition = max(20, MOST_VALUES // (2 * n_conditions))
    of_gene = min(max(5, MOST_VALUES // (2 * n_genes)), n_conditions)
    kept = rank <= of_condition
    best = np.argpartition(rank, of_gene - 1, axis=0)[:of_gene]
    np.put_along_axis(kept, best, True, axis=0)
    return np.asarray(kept)


def _logarithm(rate: Float32Array) -> FloatArray:
    return -np.log10(np.maximum(rate.astype(np.float64), SMALLEST_RATE))


def effect_map(effects: AnnDataLike, symbols: Sequence[str]) -> dict[str, Any] | None:
    """The heat map: conditions of the strongest effects and their most affected genes, both clustered.

    Returns
    -------
    dict
        ``rows`` and ``columns`` (names)and ``values`` (packed, row by row); ``None`` for one condition or gene.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    x = np.where(np.asarray(effects.layers["lfsr"]) <= 0.05, np.asarray(effects.X), 0.0)
    if min(x.shape) < 2:
        return None
    rows = np.sort(np.argsort(-np.square(x).sum(axis=1), kind="stable")[:MAP_ROWS])
    columns = np.sort(np.argsort(-np.square(x[rows]).sum(axis=0), kind="stable")[:MAP_COLUMNS])
    values = np.asarray(effects.X)[np.ix_(rows, columns)].astype(np.float64)
    rows_order = leaves_list(linkage(values, "average", optimal_ordering=True))
    columns_order = leaves_list(linkage(values.T, "average", optimal_ordering=True))
    return {
        "rows": [str(effects.obs_names[rows[at]]) for at in rows_order],
        "columns": [symbols[columns[at]] for at in columns_order],
        "values": packed(values[np.ix_(rows_order, columns_order)], STEP),
    }
