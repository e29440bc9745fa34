"""Quality control of real cells: six criteria on counts, their thresholds kept to judge generated cells by.

The criteria and the thresholds, median ± k unscaled median absolute deviations (MAD), are those of
CRADLE-VAE (Baek et al., AAAI 2025, arXiv 2409.05484): a cell that fails any of them is an artifact.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.qc.criteria import (
    CRITERIA,
    QC_KEY,
    VALUE_COLUMNS,
    direction,
    failing,
    mad_threshold,
    measure,
)
from cradlevae.data.qc.doublets import DoubletsNotAssessable, fit_doublets
from cradlevae.data.qc.gene_families import GENE_FAMILIES, ensembl_hint, find_families, gene_symbols_of
from cradlevae.data.qc.table import qc_table
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IndexArray, IntArray

SWITCHED_OFF = "switched off"
NO_COUNTS = "no cell has counts"


@dataclass(frozen=True)
class _Batches:
    """Batches of the cells: names, (batches,), and the batch of each cell, (cells,)."""

    names: tuple[str, ...]
    codes: IndexArray


@dataclass(frozen=True)
class _Rule:
    """One criterion; the other fields are (batches,). A reason is empty where assessed."""

    criterion: str
    median: FloatArray
    mad: FloatArray
    threshold: FloatArray
    reasons: tuple[str, ...]

    @property
    def assessed(self) -> bool:
        return "" in self.reasons

    @classmethod
    def unassessed(cls, criterion: str, reasons: Sequence[str]) -> _Rule:
        nothing = np.full(len(reasons), np.nan)
        return cls(criterion, nothing, nothing, nothing, tuple(reasons))


def annotate_qc(
    adata: AnnDataLike,
    *,
    criteria: Sequence[str] = CRITERIA,
    n_mads: float = 3.0,
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
    Scrublet score is above Scrublet's own threshold. Cells without any count have no part in medians and
    doublets, fail ``umi`` and ``genes``, and have percentages of 0. A criterion that the data cannot answer
    is reported as not assessed.

    Parameters
    ----------
    adata
        Cells × genes, in memory, backed, or from :func:`cradlevae.open_cells`; ``obs`` and ``uns`` are modified in
        place. Counts on disk stay there, but for the (at most 20,000 in a batch) cells that doublets are found among.
    criteria
        Which criteria to assess.
    n_mads
        k, the number of MADs between median and threshold; does not act on ``doublet``.
    layer
        Layer with the raw counts; ``None`` reads ``X``.
    batch_key
        Column of ``obs``; thresholds are then found, and doublets simulated, within each of its levels.
    gene_symbols
        Column of ``var`` with gene symbols; ``None`` takes ``var_names``.
    max_fail_share
        Share of cells from which a criterion is warned about; it counts nevertheless.
    key_added
        Column of ``obs`` for the result.
    seed
        Seed of the simulated doublets.

    Returns
    -------
    pandas.DataFrame
        The report, see :func:`~cradlevae.data.qc.table.qc_table`. Written to the AnnData:
        ``obs[key_added]`` (fails any criterion); ``obs["qc_umi"]``, ``obs["qc_mito"]``, … per assessed
        criterion; the values ``obs["qc_total_counts"]``, ``qc_n_genes``, ``qc_pct_mito``, ``qc_pct_ribo``,
        ``qc_pct_haemo`` (percent) and ``qc_doublet_score`` where they can be had; ``uns["cradlevae_qc"]``
        with all that :func:`~cradlevae.data.qc.apply.judge` needs. Columns of an earlier annotation are
        replaced.

    Raises
    ------
    DataError
        If an argument or the counts cannot be used, or no criterion can be assessed. Nothing is written then.

    Warns
    -----
    UserWarning
        For each criterion that fails more than ``max_fail_share`` of the cells; where gene names are Ensembl
        ids; where ``key_added`` held something else.
    """
    _check_options(criteria, n_mads, max_fail_share)
    counts = Counts(adata, layer)
    batches = _batches(adata, batch_key)
    symbols = gene_symbols_of(adata, gene_symbols)

    hint = ensembl_hint(adata, symbols)
    families, absent = find_families(symbols, hint and f": {hint}")
    values = measure(counts.checked_blocks(), counts.shape[0], families)
    empty = values["umi"] == 0
    if empty.all():
        raise DataError(f"no cell of {counts.where} has a count")

    rules = {criterion: _Rule.unassessed(criterion, [SWITCHED_OFF] * len(batches.names)) for criterion in CRITERIA}
    for criterion in criteria:
        if criterion == "doublet":
            rules[criterion], values[criterion] = _doublet_rule(counts, batches, empty, seed)
        elif criterion in absent:
            rules[criterion] = _Rule.unassessed(criterion, [absent[criterion]] * len(batches.names))
        else:
            rules[criterion] = _mad_rule(criterion, values[criterion], batches, empty, n_mads)
    assessed = [criterion for criterion in CRITERIA if rules[criterion].assessed]
    if not assessed:
        why = "; ".join(f"{criterion}: {rules[criterion].reasons[0]}" for criterion in criteria)
        raise DataError(f"no QC criterion can be assessed: {why}")
    fails = {
        criterion: failing(criterion, values[criterion], rules[criterion].threshold[batches.codes], empty)
        for criterion in assessed
    }
    unnamed = [criterion for criterion in criteria if criterion in absent]
    if hint and unnamed:
        warnings.warn(f"not assessed: {', '.join(unnamed)}. No gene has a fitting name: {hint}", stacklevel=2)
    for criterion, failed in fails.items():
        if failed.mean() > max_fail_share:
            _warn_of_share(criterion, float(failed.mean()), max_fail_share)

    settings = {
        "n_mads": float(n_mads),
        "layer": layer or "",
        "batch_key": batch_key or "",
        "gene_symbols": gene_symbols or "",
        "seed": int(seed),
        "max_fail_share": float(max_fail_share),
        "key_added": key_added,
    }
    _write_obs(adata, key_added, values, fails)
    adata.uns[QC_KEY] = settings | _record(adata, rules, families, batches, fails)
    return qc_table(adata.uns[QC_KEY])


def _check_options(criteria: Sequence[str], n_mads: float, max_fail_share: float) -> None:
    unknown = sorted(set(criteria) - set(CRITERIA))
    if unknown or not criteria:
        named = f"unknown QC criteria: {', '.join(unknown)}" if unknown else "no QC criteria are given"
        raise DataError(f"{named}; criteria= takes any of {', '.join(CRITERIA)}")
    if not 0 < n_mads < np.inf:
        raise DataError(f"n_mads must be a positive number, not {n_mads}")
    if not 0 <= max_fail_share <= 1:
        raise DataError(f"max_fail_share must lie between 0 and 1, not {max_fail_share}")


def _batches(adata: AnnDataLike, batch_key: str | None) -> _Batches:
    if batch_key is None:
        return _Batches(("all",), np.zeros(adata.n_obs, dtype=np.intp))
    if batch_key not in adata.obs:
        known = ", ".join(map(repr, adata.obs.columns)) or "none"
        raise DataError(f"obs has no column {batch_key!r} (batch_key=); its columns: {known}")
    column = adata.obs[batch_key]
    if column.isna().any():
        raise DataError(f"obs[{batch_key!r}] (batch_key=) is missing for {int(column.isna().sum())} cells")
    codes, names = pd.factorize(column.astype(str), sort=True)
    return _Batches(tuple(names), codes)


def _mad_rule(criterion: str, values: FloatArray, batches: _Batches, empty: BoolArray, n_mads: float) -> _Rule:
    median, mad = np.full((2, len(batches.names)), np.nan)
    reasons = []
    for index in range(len(batches.names)):
        counted = values[(batches.codes == index) & ~empty]
        if len(counted):
            median[index] = np.median(counted)
            mad[index] = np.median(np.abs(counted - median[index]))
        # Where all cells are empty they still fail the low criteria: only the high ones cannot be assessed.
        reasons.append("" if len(counted) or direction(criterion) == "low" else NO_COUNTS)
    return _Rule(criterion, median, mad, mad_threshold(criterion, median, mad, n_mads), tuple(reasons))


def _doublet_rule(counts: Counts, batches: _Batches, empty: BoolArray, seed: int) -> tuple[_Rule, FloatArray]:
    """Threshold of each batch and the score of each cell: two cells in a droplet come from one batch."""
    matrix = counts.matrix()
    scores = np.full(len(empty), np.nan)
    threshold, nothing = np.full((2, len(batches.names)), np.nan)
    reasons = []
    for index in range(len(batches.names)):
        rows = np.flatnonzero((batches.codes == index) & ~empty)
        try:
            reference = fit_doublets(matrix, rows, seed=seed)
        except DoubletsNotAssessable as error:
            reasons.append(str(error))
            continue
        scores[rows], threshold[index] = reference.scores, reference.threshold
        reasons.append("")
    return _Rule("doublet", nothing, nothing, threshold, tuple(reasons)), scores


def _warn_of_share(criterion: str, share: float, limit: float) -> None:
    warnings.warn(
        f"QC criterion {criterion!r} fails {share:.0%} of the cells, more than {limit:.0%} (max_fail_share). "
        "That may be biology and not damage: K562 cells, for one, express haemoglobin. "
        "It counts; to switch it off, leave it out of criteria=",
        stacklevel=3,
    )


def _write_obs(
    adata: AnnDataLike, key_added: str, values: Mapping[str, FloatArray], fails: Mapping[str, BoolArray]
) -> None:
    if key_added in adata.obs and adata.uns.get(QC_KEY, {}).get("key_added") != key_added:
        warnings.warn(
            f"obs[{key_added!r}] held other values, which are replaced; key_added= writes to another column",
            stacklevel=3,
        )
    old = {f"qc_{criterion}" for criterion in CRITERIA} | set(VALUE_COLUMNS.values()) | {key_added}
    obs = adata.obs.drop(columns=[column for column in adata.obs if column in old])
    for criterion in CRITERIA:
        if criterion in values and not np.isnan(values[criterion]).all():
            obs[VALUE_COLUMNS[criterion]] = values[criterion]
    for criterion, failed in fails.items():
        obs[f"qc_{criterion}"] = failed
    obs[key_added] = np.any(list(fails.values()), axis=0)
    adata.obs = obs


def _record(
    adata: AnnDataLike,
    rules: Mapping[str, _Rule],
    families: Mapping[str, BoolArray],
    batches: _Batches,
    fails: Mapping[str, BoolArray],
) -> dict[str, Any]:
    """Thresholds and results as types that an ``.h5ad`` holds: text, numbers, arrays and mappings of them."""

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
            "median": rule.median,
            "mad": rule.mad,
            "threshold": rule.threshold,
            "n_failing": by_batch(fails.get(criterion, nobody)),
        }
        if criterion in GENE_FAMILIES and rule.assessed:
            criteria[criterion]["genes"] = np.array(adata.var_names[families[criterion]].astype(str), dtype=object)
    return {
        "n_genes": int(adata.n_vars),
        "batches": np.array(batches.names, dtype=object),
        "n_cells": by_batch(everyone),
        "n_failing": int(np.any(list(fails.values()), axis=0).sum()),
        "criteria": criteria,
    }
