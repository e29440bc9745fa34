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

from cradlevae.data.marks import warn_if_made
from cradlevae.data.qc.criteria import CRITERIA, QC_KEY, VALUE_COLUMNS, direction, failing, measure
from cradlevae.data.qc.gene_families import GENE_FAMILIES, ensembl_hint, find_families, gene_symbols_of
from cradlevae.data.qc.rules import Batches, Rule, criterion_rules, read_batches
from cradlevae.data.qc.table import qc_table
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IntArray


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
    Scrublet score is above Scrublet's own threshold. Cells without any count are left out of medians and
    doublets, fail ``umi`` and ``genes``, and have percentages of 0. A criterion that the data do not allow to assess
    is reported as not assessed.

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
    layer
        Layer with the raw counts; ``None`` reads ``X``.
    batch_key
        Column of ``obs`` with the experimental batches; thresholds are then computed, and doublets simulated, within
        each batch.
    gene_symbols
        Column of ``var`` with gene symbols; ``None`` takes ``var_names``.
    max_fail_share
        A warning names each criterion that fails more than this share of the cells; the criterion counts all the same.
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
        ``qc_pct_haemo`` (percent) and ``qc_doublet_score`` (0 to 1) where they can be computed; ``uns["cradlevae_qc"]``
        with everything that :func:`~cradlevae.data.qc.apply.judge` needs. Columns of an earlier annotation are
        replaced.

    Raises
    ------
    DataError
        If an argument or the counts cannot be used, or no criterion can be assessed. The AnnData is then unchanged.

    Warns
    -----
    UserWarning
        For each criterion that fails more than ``max_fail_share`` of the cells; where gene names are Ensembl
        ids; where the column ``key_added`` contained other values.

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
    _check_options(criteria, n_mads, max_fail_share)
    warn_if_made(adata, "annotate_qc")
    counts = Counts(adata, layer)
    batches = read_batches(adata, batch_key)
    symbols = gene_symbols_of(adata, gene_symbols)
    hint = ensembl_hint(adata, symbols)
    families, absent = find_families(symbols, hint and f": {hint}")
    values = measure(counts.checked_blocks(), counts.shape[0], families)
    empty = values["umi"] == 0
    if empty.all():
        raise DataError(f"no cell of {counts.where} has a count")
    rules = criterion_rules(criteria, counts, values, absent, batches, n_mads=n_mads, seed=seed)
    fails = {
        criterion: failing(criterion, values[criterion], rule.threshold[batches.codes], empty)
        for criterion, rule in rules.items()
        if rule.assessed
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
    rules: Mapping[str, Rule],
    families: Mapping[str, BoolArray],
    batches: Batches,
    fails: Mapping[str, BoolArray],
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
