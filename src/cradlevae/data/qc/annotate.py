"""Quality control of real cells by six criteria; the thresholds are stored, so that generated cells can be judged too.

The criteria and the thresholds, median ± k unscaled median absolute deviations (MAD), are those of
CRADLE-VAE (Baek et al., AAAI 2025, arXiv 2409.05484): a cell that fails any of them counts as an artifact.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.identity.marks import warn_if_made
from cradlevae.data.naming.gene_names import are_ensembl_ids, symbol_advice, symbols_of
from cradlevae.data.qc.alarms import warn_of_absent_genes, warn_of_shares, warn_of_small_batches
from cradlevae.data.qc.criteria import CRITERIA, LOW, QC_KEY, SCALES, VALUE_COLUMNS, Scale, direction, failing, measure
from cradlevae.data.qc.gene_families import GENE_FAMILIES, find_families
from cradlevae.data.qc.rules import Batches, Rule, criterion_rules, read_batches
from cradlevae.data.qc.table import qc_table
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.checks import check_anndata, check_choice, optional_text, real_number, seed_number, text, texts
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IntArray

OWN_COLUMNS = (*(f"qc_{criterion}" for criterion in CRITERIA), *VALUE_COLUMNS.values())
"""Columns of ``obs`` that quality control writes beside the result: which cells fail a criterion, and its value."""


def annotate_qc(
    adata: AnnDataLike,
    *,
    criteria: Sequence[str] = CRITERIA,
    n_mads: float = 3.0,
    scale: Scale = "auto",
    layer: str | None = None,
    batch_key: str | None = None,
    gene_symbols: str | None = None,
    max_fail_share: float = 0.2,
    key_added: str = "artifact",
    seed: int = 0,
) -> pd.DataFrame:
    """Find the cells that fail quality control and write them, with the thresholds, into the AnnData.

    A cell fails ``umi`` (total counts) or ``genes`` (detected genes) when its value is below median −
    k·MAD, and ``mito``, ``ribo`` or ``haemo`` (percentage of its counts in mitochondrial, ribosomal,
    haemoglobin genes) when it is above median + k·MAD; the MAD is not scaled. It fails ``doublet`` when its
    Scrublet score is above Scrublet's own threshold. Cells without any count are left out of medians and
    doublets, fail ``umi`` and ``genes``, and have percentages of 0.

    A criterion that the data do not allow to assess is reported as not assessed, with the reason: its MAD is 0, its
    gene family has fewer than three genes, Scrublet cannot tell doublets from cells, or there are fewer than 20 cells
    with counts. A batch of fewer than 20 cells gets the thresholds of all cells together.
    docs/quality_control.md says more.

    Parameters
    ----------
    adata
        Raw counts, cells × genes, in memory, backed, or from :func:`cradlevae.open_cells`; ``obs`` and ``uns`` are
        modified in place. Counts on disk stay on disk, except those of the cells (at most 20,000 per batch) that
        Scrublet is fitted to.
    criteria
        Which criteria to assess.
    n_mads
        k, the number of MADs between median and threshold; does not act on ``doublet``.
    scale
        ``"auto"`` takes median and MAD of the logarithm for ``umi`` and ``genes`` where those of the values give a
        threshold so low that no cell with counts could fail; ``"raw"`` always takes those of the values.
    layer
        Layer with the raw counts; ``None`` reads ``X``.
    batch_key
        Column of ``obs`` with the experimental batches; thresholds are then computed, and doublets simulated, within
        each batch.
    gene_symbols
        Column of ``var`` with gene symbols; ``None`` takes ``var_names``.
    max_fail_share
        A warning names each criterion that fails more than this share of the cells, or suspiciously many
        (:func:`~cradlevae.data.qc.alarms.warn_of_shares`); the criterion counts all the same. 1 warns of none.
    key_added
        Column of ``obs`` for the result. Of the columns that are there, only an earlier result or one of booleans is
        replaced.
    seed
        Seed of the simulated doublets.

    Returns
    -------
    pandas.DataFrame
        The report, see :func:`~cradlevae.data.qc.table.qc_table`. Written to the AnnData:
        ``obs[key_added]`` (fails any criterion); ``obs["qc_umi"]``, ``obs["qc_mito"]``, … per assessed
        criterion; the values ``obs["qc_total_counts"]``, ``qc_n_genes``, ``qc_pct_mito``, ``qc_pct_ribo``,
        ``qc_pct_haemo`` (percent) and ``qc_doublet_score`` (0 to 1) where they can be computed; ``uns["cradlevae_qc"]``
        with everything that :func:`~cradlevae.data.qc.apply.judge` needs. Columns of an earlier annotation are
        replaced.

    Raises
    ------
    DataError
        If an argument or the counts cannot be used, ``key_added`` names a column that holds something else than true
        and false or that quality control writes itself, or no criterion can be assessed. The AnnData is then unchanged.

    Warns
    -----
    UserWarning
        For each criterion that fails more than ``max_fail_share`` of the cells, or suspiciously many; where no gene
        of a family is found; of batches that are too small for thresholds of their own; where the column ``key_added``
        contained booleans of another origin.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=200, n_genes=80, n_perturbations=3, n_combinations=2)
    >>> report = cv.annotate_qc(adata, criteria=("umi", "mito"))
    >>> list(report["criterion"])
    ['umi', 'genes', 'mito', 'ribo', 'haemo', 'doublet', 'any']
    >>> adata.obs["artifact"].dtype, bool(adata.obs["qc_mito"].any())
    (dtype('bool'), True)
    """
    criteria = _checked_criteria(criteria)
    n_mads = real_number("n_mads", n_mads, above=0)
    max_fail_share = real_number("max_fail_share", max_fail_share, least=0, most=1)
    layer, batch_key = optional_text("layer", layer), optional_text("batch_key", batch_key)
    gene_symbols, key_added = optional_text("gene_symbols", gene_symbols), text("key_added", key_added)
    seed = seed_number(seed)
    check_anndata(adata)
    _check_writable(adata)
    check_choice("scale", scale, SCALES)
    _check_key_added(adata, key_added, batch_key)
    warn_if_made(adata, "annotate_qc")
    counts = Counts(adata, layer)
    batches = read_batches(adata, batch_key)
    symbols = symbols_of(adata, gene_symbols)
    advice = symbol_advice(list(adata.var.columns), symbols)
    families, absent = find_families(symbols, f": {advice}" if are_ensembl_ids(symbols) else "")
    values = measure(counts.checked_blocks(), counts.shape[0], families)
    empty = values["umi"] == 0
    if empty.all():
        raise DataError(f"no cell of {counts.where} has a count")
    rules = criterion_rules(criteria, counts, values, absent, batches, n_mads=n_mads, scale=scale, seed=seed)
    fails = {
        criterion: failing(criterion, values[criterion], rule.threshold[batches.codes], empty)
        for criterion, rule in rules.items()
        if rule.assessed
    }
    failed = np.any(list(fails.values()), axis=0)
    if LOW.intersection(criteria):
        failed |= empty  # also where these criteria cannot be assessed
    warn_of_absent_genes(criteria, absent, advice)
    warn_of_small_batches(batches, empty)
    warn_of_shares(fails, values, n_mads, max_fail_share)
    settings = {
        "n_mads": n_mads,
        "scale": scale,
        "layer": layer or "",
        "batch_key": batch_key or "",
        "gene_symbols": gene_symbols or "",
        "seed": seed,
        "max_fail_share": max_fail_share,
        "key_added": key_added,
    }
    _write_obs(adata, key_added, values, fails, failed)
    adata.uns[QC_KEY] = settings | _record(adata, rules, families, batches, fails, failed)
    return qc_table(adata.uns[QC_KEY])


def _checked_criteria(criteria: Sequence[str]) -> tuple[str, ...]:
    """Return the criteria to assess; :class:`DataError` where there are none, or one is unknown."""
    chosen = texts("criteria", criteria)
    unknown = sorted(set(chosen) - set(CRITERIA))
    if unknown or not chosen:
        named = f"unknown QC criteria: {', '.join(unknown)}" if unknown else "no QC criteria are given"
        raise DataError(f"{named}; criteria= takes any of {', '.join(CRITERIA)}")
    return tuple(dict.fromkeys(chosen))


def _check_writable(adata: AnnDataLike) -> None:
    """Raise :class:`DataError` where nothing can be written into an AnnData."""
    if getattr(adata, "is_view", False) and getattr(adata, "isbacked", False):
        raise DataError(
            "adata is a view of an AnnData on disk, into which nothing can be written; annotate the whole AnnData, or "
            "read the view into memory first: adata = adata.to_memory()"
        )


def _check_key_added(adata: AnnDataLike, key_added: str, batch_key: str | None) -> None:
    """Raise :class:`DataError` where the result would replace a column of QC, of batches, or one that is no result."""
    if key_added in OWN_COLUMNS:
        raise DataError(
            f"key_added is {key_added!r}, a column that quality control writes itself ({', '.join(OWN_COLUMNS)}); "
            "choose another name, e.g. 'artifact'"
        )
    if key_added == batch_key:
        raise DataError(f"key_added and batch_key are both {key_added!r}; the result needs a column of its own")
    if key_added not in adata.obs or _is_own(adata, key_added):
        return
    held = adata.obs[key_added].dropna()
    if not all(isinstance(value, bool | np.bool_) for value in held.astype(object).unique()):
        raise DataError(
            f"obs[{key_added!r}] holds other values than true and false, e.g. {held.iloc[0]!r}, which would be lost; "
            "choose another column with key_added=, or drop this one first"
        )


def _is_own(adata: AnnDataLike, key_added: str) -> bool:
    """Whether an earlier annotation wrote this column."""
    return bool(adata.uns.get(QC_KEY, {}).get("key_added") == key_added)


def _write_obs(
    adata: AnnDataLike,
    key_added: str,
    values: Mapping[str, FloatArray],
    fails: Mapping[str, BoolArray],
    failed: BoolArray,
) -> None:
    if key_added in adata.obs and not _is_own(adata, key_added):
        warnings.warn(
            f"obs[{key_added!r}] held other values, which are replaced; key_added= writes to another column",
            stacklevel=3,
        )
    old = {*OWN_COLUMNS, key_added}
    obs = adata.obs.drop(columns=[column for column in adata.obs if column in old])
    for criterion in CRITERIA:
        if criterion in values and not np.isnan(values[criterion]).all():
            obs[VALUE_COLUMNS[criterion]] = values[criterion]
    for criterion, failing_cells in fails.items():
        obs[f"qc_{criterion}"] = failing_cells
    obs[key_added] = failed
    adata.obs = obs


def _record(
    adata: AnnDataLike,
    rules: Mapping[str, Rule],
    families: Mapping[str, BoolArray],
    batches: Batches,
    fails: Mapping[str, BoolArray],
    failed: BoolArray,
) -> dict[str, Any]:
    """Return thresholds and results as types that an ``.h5ad`` file stores: text, numbers, arrays, mappings of them."""

    def by_batch(cells: BoolArray) -> IntArray:
        return np.bincount(batches.codes[cells], minlength=len(batches.names)).astype(np.int64)

    everyone = np.ones(len(batches.codes), dtype=bool)
    nobody = ~everyone
    criteria: dict[str, dict[str, Any]] = {}
    for criterion, rule in rules.items():
        criteria[criterion] = {
            "direction": direction(criterion),
            "status": "assessed" if rule.assessed else "not assessed",
            "reason": np.array(rule.reasons, dtype=object),
            "note": np.array(rule.notes, dtype=object),
            **vars(rule.spread),
            "threshold": rule.threshold,
            "logarithmic": rule.logarithmic,
            "n_failing": by_batch(fails.get(criterion, nobody)),
        }
        if criterion in GENE_FAMILIES and rule.assessed:
            criteria[criterion]["genes"] = np.array(adata.var_names[families[criterion]].astype(str), dtype=object)
    return {
        "n_genes": int(adata.n_vars),
        "batches": np.array(batches.names, dtype=object),
        "n_cells": by_batch(everyone),
        "n_failing": int(failed.sum()),
        "criteria": criteria,
    }
