"""A published file of cells, written again as the package reads it.

The counts are copied block by block, so that memory does not grow with the cells: CSR or dense, in ``X``, a layer or
``raw``. (Counts that are stored by genes can only be read as a whole.)
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cradlevae.data.datasets.guide_labels import Members
from cradlevae.data.datasets.published import Layout, Published
from cradlevae.data.labels import CONTROL, condition_name, listed, singles_of
from cradlevae.data.qc.gene_families import SYMBOL_COLUMNS, are_ensembl_ids
from cradlevae.data.storage.block_writer import Block, from_blocks
from cradlevae.data.storage.cell_files import cell_files, open_group, read_element, unreadable
from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_cells import StoredCells, open_cells
from cradlevae.data.storage.stored_matrix import stored_matrix
from cradlevae.errors import DataError
from cradlevae.utils.types import BoolArray

KEY = "dataset"
"""Key of ``uns`` under which a converted file says what it is."""

FORM = 1
"""Raised when conversion changes, so that what was converted before is converted again."""

COUNT_LAYERS = ("counts", "count", "raw_counts")
ENSEMBL_COLUMNS = ("ensembl_id", "gene_id", "gene_ids", "ensembl")

_log = logging.getLogger(__name__)


def convert(source: Path, data: Published, output: Path) -> None:
    """Write the cells of a published file as the data contract wants them.

    ``X`` holds the counts (CSR), ``obs`` the columns ``perturbation`` (``control``, ``A``, ``A+B``), ``batch`` (the 10x
    lane, ``all`` where it is unknown) and ``label`` (as published), ``var_names`` the gene symbols, each once, and
    ``var["ensembl_id"]`` the ids where there are any. ``uns["dataset"]`` says where all this comes from and how many
    cells were left out, by reason.

    Parameters
    ----------
    source
        File as published (or in another of the layouts that the declaration names).
    data
        What is published.
    output
        ``.h5ad`` file to write; it appears when it is whole.

    Raises
    ------
    DataError
        If the file is not in a known layout (the message names the columns found and expected), a label cannot be
        read, the counts are not integer, or the disk is full.
    """
    cells = open_cells(source)
    obs, kept, dropped, layout = read_cells(cells, data)
    counts, place, var = find_counts(cells)
    said = source_state(source) | {
        "name": data.name,
        "about": data.about,
        "citation": data.citation,
        "accession": data.accession,
        "split": data.split,
        "labels": f"obs[{layout.column!r}]",
        "counts": place,
        "published_cells": len(kept),
        "left_out": dropped,
    }
    try:
        from_blocks(_blocks(counts, kept, source), lambda: obs, gene_table(var), len(obs), output, uns={KEY: said})
    except OSError as error:
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        mend = f"; about {source.stat().st_size / 1e9:.1f} GB must be free in {output.parent}" if full else ""
        raise DataError(f"cannot write {output}: {error.strerror or error}{mend}") from None
    for reason, number in dropped.items():
        _log.info("%s: %d of %d cells left out: %s", data.name, number, len(kept), reason)


def source_state(source: Path) -> dict[str, Any]:
    """What tells whether a file is still the one that was converted."""
    found = source.stat()
    return {"source": str(source.absolute()), "bytes": found.st_size, "changed": found.st_mtime_ns, "form": FORM}


def read_cells(cells: StoredCells, data: Published) -> tuple[pd.DataFrame, BoolArray, dict[str, int], Layout]:
    """Annotation of the cells that are kept, which those are, and how many are left out, by reason.

    Raises
    ------
    DataError
        If the labels are in no known layout, cannot be read, or are those of another experiment.
    """
    layout, labels = _labels(cells, data)
    code, unique = pd.factorize(labels)
    members = _read(list(unique), layout, data)
    names = np.array(["" if single is None else condition_name(single) for single in members], dtype=object)
    condition = names[code]
    kept = np.ones(len(condition), dtype=bool)
    dropped: dict[str, int] = {}

    def leave_out(reason: str, wrong: BoolArray) -> None:
        if (kept & wrong).any():
            dropped[reason] = int((kept & wrong).sum())
            kept[wrong] = False

    leave_out("no guide RNA assigned", np.asarray(condition == "", dtype=bool))
    if not data.combinations:
        several = np.array([single is not None and len(single) > 1 for single in members], dtype=bool)
        leave_out("guide RNAs of several genes", several[code])
    for drop in data.drops:
        if drop.column in cells.obs:
            leave_out(drop.reason, drop.wrong(cells.obs[drop.column]).to_numpy(dtype=bool))
    _check_conditions(set(condition[kept]), layout, data)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(condition[kept]),
            "batch": pd.Categorical(_batch(cells.obs, data)[kept]),
            "label": pd.Categorical(labels.to_numpy()[kept]),
        },
        index=_unique(pd.Index(cells.obs_names[kept].astype(str))),
    )
    return obs, kept, dropped, layout


def find_counts(cells: StoredCells) -> tuple[Counts, str, pd.DataFrame]:
    """The raw counts of a file, where they lie (a layer, ``X`` or ``raw``), and the genes that they are of.

    Raises
    ------
    DataError
        If none of these holds integers.
    """
    looked = []
    for place, holder, layer in _places(cells):
        counts = Counts(holder, layer)
        _, block = next(counts.blocks())
        if np.isfinite(block.data).all() and (block.data >= 0).all() and (block.data == np.round(block.data)).all():
            return counts, place, holder.var
        looked.append(place)
    raise DataError(
        f"{cells.path} holds no raw counts: {' and '.join(looked) or 'X, which is absent,'} hold other numbers than "
        "non-negative integers; get the file with the raw UMI counts"
    )


def gene_table(var: pd.DataFrame) -> pd.DataFrame:
    """Gene symbols, each once, as the index, and their Ensembl ids where there are any.

    A symbol that occurs again has its Ensembl id (else a number) behind it.

    Raises
    ------
    DataError
        If the genes have ids only.
    """
    names = pd.Index(var.index.astype(str))
    ids = next((var[name].astype(str) for name in ENSEMBL_COLUMNS if name in var), None)
    if are_ensembl_ids(list(names)):
        column = next((name for name in SYMBOL_COLUMNS if name in var), None)
        if column is None:
            raise DataError(
                f"the genes are Ensembl ids, and none of the columns {listed(SYMBOL_COLUMNS, 9)} of var holds their "
                f"symbols (there: {listed([str(name) for name in var], 9) or 'none'}); add one"
            )
        ids = pd.Series(names, index=var.index)
        symbols = var[column].astype(object).where(var[column].notna(), "").astype(str)
        names = pd.Index(np.where(symbols == "", ids, symbols))
    table = pd.DataFrame(index=_unique(names, ids))
    if ids is not None:
        table["ensembl_id"] = ids.to_numpy()
    return table


def _labels(cells: StoredCells, data: Published) -> tuple[Layout, pd.Series[str]]:
    """The layout that fits, and the labels that it finds."""
    for layout in data.layouts:
        if layout.column not in cells.obs:
            continue
        if layout.labels is not None:
            labels = layout.labels(cells.obs)
            if labels is None:
                continue
        else:
            column = cells.obs[layout.column].astype(object)
            labels = column.where(column.notna(), "nan").astype(str).str.strip()
        return layout, labels
    expected = list(dict.fromkeys(layout.column for layout in data.layouts))
    raise DataError(
        f"{cells.path} is in no known layout of {data.name}: obs has none of the columns {listed(expected, 9)} "
        f"(there: {listed([str(name) for name in cells.obs], 12) or 'none'}){_caution(data)}"
    )


def _read(labels: list[str], layout: Layout, data: Published) -> list[Members]:
    found: list[Members] = []
    unreadable = []
    for label in labels:
        try:
            found.append(layout.read(label))
        except ValueError:
            unreadable.append(label)
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of the {len(labels)} labels in obs[{layout.column!r}] cannot be read as those of "
            f"{data.name}: {listed(unreadable)}{_caution(data)}"
        )
    return found


def _check_conditions(conditions: set[str], layout: Layout, data: Published) -> None:
    where = f"obs[{layout.column!r}] of this {data.name} file"
    if not conditions:
        raise DataError(f"no cell is left: {where} assigns no guide RNA{_caution(data)}")
    genes = {single for name in conditions for single in singles_of(name)}
    others = sorted(genes - data.targets) if data.targets else []
    if others:
        raise DataError(
            f"{where} perturbs {listed(others)}, which {data.name} does not "
            f"(but {', '.join(sorted(data.targets))}){_caution(data)}"
        )
    if CONTROL not in conditions:
        raise DataError(f"no control cells: {where} holds {listed(sorted(conditions))}{_caution(data)}")


def _caution(data: Published) -> str:
    return f"; {data.caution}" if data.caution else ""


def _batch(obs: pd.DataFrame, data: Published) -> npt.NDArray[Any]:
    """The 10x lane of each cell: a column, or the number behind the barcodes where all have one."""
    column = next((name for name in data.batch if name in obs), None)
    if column is not None:
        return obs[column].astype(str).to_numpy(dtype=object)
    lanes = [re.fullmatch(r"[ACGTN]+-(\d+)", str(name)) for name in obs.index]
    known = [lane[1] for lane in lanes if lane is not None]
    return np.array(known if len(known) == len(lanes) else ["all"] * len(lanes), dtype=object)


def _blocks(counts: Counts, kept: BoolArray, source: Path) -> Iterator[Block]:
    """The counts of the cells that are kept, checked."""
    try:
        for part, block in counts.checked_blocks():
            rows = np.flatnonzero(kept[part])
            if len(rows):
                yield {"X": block[rows]}
    except OSError as error:
        raise unreadable(source, error) from None


def _places(cells: StoredCells) -> Iterator[tuple[str, StoredCells, str | None]]:
    """Where counts may lie, the likeliest first."""
    for layer in COUNT_LAYERS:
        if layer in cells.layers:
            yield f"layers[{layer!r}]", cells, layer
    if cells.X is not None:
        yield "X", cells, None
    file, *others = cell_files(cells.path)
    group = open_group(file)
    if "raw/X" in group and not others:
        matrix = stored_matrix(group["raw/X"])
        if matrix is None:
            from anndata.io import sparse_dataset

            matrix = sparse_dataset(group["raw/X"])
        var = read_element(group, file, "raw/var")
        yield "raw", StoredCells(cells.path, cells.obs, var, {}, {"X": matrix}, {}), None


def _unique(names: pd.Index[str], ids: pd.Series[str] | None = None) -> pd.Index[str]:
    """Names, those that occur again with their id or a number behind them."""
    found: list[str] = []
    taken = set(names)
    seen: set[str] = set()
    for place, name in enumerate(names):
        new, number = name, 0
        while new in seen or (new in taken and new != name):
            number += 1
            new = f"{name}_{ids.iloc[place]}" if ids is not None and number == 1 else f"{name}-{number}"
        seen.add(new)
        found.append(new)
    return pd.Index(found)
