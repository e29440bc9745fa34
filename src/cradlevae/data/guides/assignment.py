"""Which guide RNAs a cell holds, from their counts, and so which perturbation it got."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.guides.mixture import mixture_thresholds
from cradlevae.data.guides.present import Present, guide_counts
from cradlevae.data.guides.targets import GUIDES
from cradlevae.data.labels import TARGET, UNASSIGNED
from cradlevae.errors import DataError
from cradlevae.utils.checks import check_anndata, check_choice, shown, text, whole_number
from cradlevae.utils.names import listed
from cradlevae.utils.types import AnnDataLike, IntArray, TextArray

Method = Literal["mixture", "umi"]
"""How the count is found from which a guide RNA counts as present."""

LEAST_COUNTS: dict[str, int] = {"mixture": 2, "umi": 5}
"""Smallest count of a guide RNA that is present, by method, where the caller names none."""

METHODS: dict[str, str] = {"mixture": "mixture", "umi": "umi ≥ {}"}
"""Names of the rules in the report, by method; ``{}`` is the threshold."""

COMPARED = tuple(range(1, 11))
"""Thresholds that the report compares."""

ASSIGNMENT_KEY = "cradlevae_guides"
"""Key of ``uns`` with how guide RNAs were assigned, and the report."""

THIN_PAIR = 5
"""Cells of a pair of targets below which the pair looks like two cells in a droplet."""

THIN_CELLS = 20
"""Cells of such pairs from which a warning says so."""


def assign_guides(
    adata: AnnDataLike,
    *,
    method: Method = "mixture",
    min_count: int | None = None,
    max_targets: int = 2,
    guides_key: str = GUIDES,
    guide_targets: str | Path | Mapping[str, str] | None = None,
    guide_key: str = "guide",
    perturbation_key: str = "perturbation",
) -> pd.DataFrame:
    """Find which guide RNAs each cell holds, and write them and the perturbation into ``obs``.

    A guide RNA is present in a cell that has at least so many counts of it: ``min_count`` of every guide RNA with
    ``method="umi"``, and with ``"mixture"`` a threshold for each guide RNA, from which a count is more likely real than
    ambient (:mod:`cradlevae.data.guides.mixture`). The perturbation is what the present guide RNAs target: ``A`` for
    one of A, or several of A, or one of A and a control; ``A+B`` for guide RNAs of A and B; ``control`` for control
    guide RNAs only.

    Cells without a guide RNA (missing) and with guide RNAs of more than ``max_targets`` genes (ambiguous) get the label
    ``unassigned``. All functions of this package leave cells of this label out, with a warning that counts them.

    Parameters
    ----------
    adata
        AnnData or cells of :func:`cradlevae.open_cells` with counts of guide RNAs; modified in place.
    method
        ``"mixture"`` adapts to how deep guide RNAs were sequenced, and to how much of each is ambient. ``"umi"`` is the
        same threshold for all.
    min_count
        Threshold of ``"umi"``, and the smallest threshold of ``"mixture"``. ``None``: 5 and 2.
    max_targets
        Largest number of genes whose guide RNAs a cell may hold. Two, because screens of pairs are common; in a screen
        of single perturbations a cell with two targets is two cells in one droplet, and 1 leaves it out.
    guides_key
        Key of ``obsm`` with the counts, (cells, guide RNAs): a sparse matrix or array whose columns are the rows of the
        table ``uns[guides_key]`` (as :func:`cradlevae.read_10x` makes them), or a DataFrame.
    guide_targets
        As in :func:`cradlevae.read_10x`; replaces the targets in ``uns[guides_key]``.
    guide_key
        Column of ``obs`` to write the names of the present guide RNAs into, joined with ``+``; ``unassigned`` where
        there is none.
    perturbation_key
        Column of ``obs`` to write the perturbation into. A column of another origin is never replaced.

    Returns
    -------
    pandas.DataFrame
        How many cells each rule assigns and loses; a row for each of the thresholds 1 to 10 and one for the mixture:
        ``rule``, ``controls``, ``singles``, ``combinations``, ``ambiguous``, ``missing``, ``lost`` (the last two
        together) and ``used``. Written to the AnnData: the two columns of ``obs``; the columns ``threshold`` and
        ``n_cells`` of ``uns[guides_key]``; ``uns["cradlevae_guides"]`` with the arguments and the report
        (:func:`cradlevae.reporting.figures.guides_figure` shows it).

    Raises
    ------
    DataError
        If there are no counts of guide RNAs, they are not whole numbers, a column would be replaced, or ambient and
        real counts cannot be told apart. The AnnData is then unchanged.

    Warns
    -----
    UserWarning
        Of ambiguous and missing cells; of guide RNAs that no cell holds; where cells with two targets look like two
        cells in a droplet; where targets are read from names.

    Examples
    --------
    >>> import warnings
    >>> import anndata, numpy, pandas
    >>> import cradlevae as cv
    >>> counts = {"NT_1": [9, 0, 0, 1], "A_1": [0, 8, 7, 0], "B_1": [1, 0, 6, 1]}
    >>> counts = pandas.DataFrame(counts, index=["cell1", "cell2", "cell3", "cell4"])
    >>> adata = anndata.AnnData(numpy.ones((4, 2)), obs=pandas.DataFrame(index=counts.index), obsm={"guides": counts})
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # the missing cell, and targets that are read from names
    ...     report = cv.assign_guides(adata, method="umi")
    >>> adata.obs["perturbation"].tolist()
    ['control', 'A', 'A+B', 'unassigned']
    >>> report.loc[report["used"], ["rule", "ambiguous", "missing", "lost"]].values.tolist()
    [['umi ≥ 5', 0, 1, 1]]
    """
    check_anndata(adata)
    check_choice("method", method, tuple(LEAST_COUNTS))
    least = LEAST_COUNTS[method] if min_count is None else whole_number("min_count", min_count, 1)
    max_targets = whole_number("max_targets", max_targets, 1)
    guides_key, guide_key = text("guides_key", guides_key), text("guide_key", guide_key)
    perturbation_key = text("perturbation_key", perturbation_key)
    _check_columns(adata, guide_key, perturbation_key)
    if guide_targets is not None and not isinstance(guide_targets, str | Path | Mapping):
        raise DataError(f"guide_targets is {shown(guide_targets)}; it must be the path of a table, or a mapping")
    counts, table = guide_counts(adata, guides_key, guide_targets)
    rules = _rules(counts, method, least)
    used = METHODS[method].format(least)
    targets = table[TARGET].astype(str).tolist()
    by_rule = {rule: Present.of_counts(counts, own, targets).counted(max_targets) for rule, own in rules.items()}
    report = pd.DataFrame([{"rule": rule, **counted, "used": rule == used} for rule, counted in by_rule.items()])
    present = Present.of_counts(counts, rules[used], targets)
    labels = present.labels(max_targets)
    _write(adata, guide_key, present.names(table.index.astype(str).tolist()), perturbation_key, labels)
    adata.uns[guides_key] = table.assign(threshold=rules[used], n_cells=present.n_cells(labels != UNASSIGNED))
    adata.uns[ASSIGNMENT_KEY] = {
        "method": method, "min_count": least, "max_targets": max_targets, "guides_key": guides_key,
        "guide_key": guide_key, "perturbation_key": perturbation_key, "report": report,
    }  # fmt: skip
    _warn(adata.uns[guides_key], report[report["used"]].iloc[0], labels, max_targets)
    return report


def _rules(counts: sp.csr_matrix, method: Method, least: int) -> dict[str, IntArray]:
    """The thresholds of the guide RNAs, (guide RNAs,), by each rule that the report compares, and by the rule used."""
    same = sorted({*COMPARED, *([least] if method == "umi" else [])})
    rules = {METHODS["umi"].format(count): np.full(counts.shape[1], count, dtype=np.int64) for count in same}
    if method == "mixture":
        return rules | {METHODS["mixture"]: mixture_thresholds(counts, least)}
    with suppress(DataError):  # it is only compared, and cannot be fitted to all counts
        rules[METHODS["mixture"]] = mixture_thresholds(counts, LEAST_COUNTS["mixture"])
    return rules


def _check_columns(adata: AnnDataLike, guide_key: str, perturbation_key: str) -> None:
    """Raise :class:`DataError` where a column would be replaced that no earlier assignment wrote."""
    if guide_key == perturbation_key:
        raise DataError(f"guide_key and perturbation_key are both {guide_key!r}; each needs a column of its own")
    earlier = adata.uns.get(ASSIGNMENT_KEY, {})
    for name, key in (("guide_key", guide_key), ("perturbation_key", perturbation_key)):
        if key in adata.obs and earlier.get(name) != key:
            raise DataError(
                f"obs[{key!r}] is there already; choose another column with {name}=, or drop this one first: "
                f"del adata.obs[{key!r}]"
            )


def _write(adata: AnnDataLike, guide_key: str, guides: list[str], perturbation_key: str, labels: TextArray) -> None:
    obs = adata.obs.copy()
    obs[guide_key] = pd.Categorical(guides)
    obs[perturbation_key] = pd.Categorical(labels)
    adata.obs = obs


def _warn(table: pd.DataFrame, used: pd.Series[Any], labels: TextArray, max_targets: int) -> None:
    if used["lost"]:
        shares = [f"{used[name]:,} ({used[name] / len(labels):.1%})" for name in ("missing", "ambiguous")]
        genes = "one gene" if max_targets == 1 else f"{max_targets} genes"
        warnings.warn(
            f"{used['lost']:,} of {len(labels):,} cells are {UNASSIGNED}: {shares[0]} without a guide RNA (missing), "
            f"{shares[1]} with guide RNAs of more than {genes} (ambiguous)",
            stacklevel=3,
        )
    unseen = table.index[table["n_cells"] == 0].astype(str).tolist()
    if unseen:
        warnings.warn(
            f"{len(unseen):,} of {len(table):,} guide RNAs are in no assigned cell: {listed(unseen)}", stacklevel=3
        )
    sizes = pd.Series(labels[[label.count("+") == 1 for label in labels]]).value_counts()
    thin = int(sizes[sizes < THIN_PAIR].sum())
    if thin >= THIN_CELLS and 2 * thin > sizes.sum():
        warnings.warn(
            f"{int(sizes.sum()):,} cells have guide RNAs of two genes, most of them of pairs with fewer than "
            f"{THIN_PAIR} cells; in a screen of single perturbations these are two cells in one droplet, which "
            "max_targets=1 leaves out",
            stacklevel=3,
        )
