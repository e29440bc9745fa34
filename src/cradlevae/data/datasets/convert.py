"""Conversion of a published file into the form that the package reads.

The counts (CSR or dense, in ``X``, a layer or ``raw``) are copied block by block, so that memory does not grow with the
number of cells. (Counts that are stored by genes can only be read as a whole.)
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

from cradlevae.data.datasets.guide_labels import Singles
from cradlevae.data.datasets.published import Layout, Published
from cradlevae.data.datasets.raw_counts import find_counts, gene_table, unique_names
from cradlevae.data.labels import CONTROL, condition_name, singles_of
from cradlevae.data.storage.block_writer import Block, from_blocks
from cradlevae.data.storage.cell_files import unreadable
from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_cells import StoredCells, open_cells
from cradlevae.errors import DataError
from cradlevae.utils.names import listed
from cradlevae.utils.outputs import refuse_inputs
from cradlevae.utils.types import BoolArray

KEY = "dataset"
"""Key of ``uns`` under which a converted file describes its origin."""

FORM = 1
"""Version of the conversion; a new version makes files that were converted before be converted again."""

_log = logging.getLogger(__name__)


def convert(source: Path, data: Published, output: Path) -> None:
    """Write the cells of a published file in the form that the package reads.

    ``X`` holds the counts (CSR), ``obs`` the columns ``perturbation`` (``control``, ``A``, ``A+B``), ``batch`` (the 10x
    lane, ``all`` where it is unknown) and ``label`` (as published), ``var_names`` the gene symbols, each once, and
    ``var["ensembl_id"]`` the ids where there are any. ``uns["dataset"]`` describes the origin and counts the cells
    that were left out, by reason.

    Parameters
    ----------
    source
        File as published (or in another layout that the declaration names).
    data
        Declaration of the data set.
    output
        ``.h5ad`` file to write; it appears when it is complete, and replaces an earlier one, but never the source.

    Raises
    ------
    DataError
        If the file is not in a known layout (the message names the present and the expected columns), a label cannot be
        read, the counts are not integer, or the disk is full.
    """
    refuse_inputs(output, [source])
    cells = open_cells(source)
    obs, selected, dropped, layout = read_cells(cells, data)
    counts, place, var = find_counts(cells)
    record = source_state(source) | {
        "name": data.name,
        "about": data.about,
        "citation": data.citation,
        "accession": data.accession,
        "split": data.split,
        "labels": f"obs[{layout.column!r}]",
        "counts": place,
        "published_cells": len(selected),
        "left_out": dropped,
    }
    try:
        from_blocks(
            _blocks(counts, selected, source), lambda: obs, gene_table(var), len(obs), output, uns={KEY: record},
            overwrite=True,
        )  # fmt: skip
    except OSError as error:
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        mend = f"; about {source.stat().st_size / 1e9:.1f} GB must be free in {output.parent}" if full else ""
        raise DataError(f"cannot write {output}: {error.strerror or error}{mend}") from None
    for reason, number in dropped.items():
        _log.info("%s: %d of %d cells left out: %s", data.name, number, len(selected), reason)


def source_state(source: Path) -> dict[str, Any]:
    """Return what identifies the file that was converted."""
    state = source.stat()
    return {"source": str(source.absolute()), "bytes": state.st_size, "changed": state.st_mtime_ns, "form": FORM}


def read_cells(cells: StoredCells, data: Published) -> tuple[pd.DataFrame, BoolArray, dict[str, int], Layout]:
    """Read the labels and select the cells that can be used.

    Returns
    -------
    obs
        Annotation of the selected cells.
    selected
        Whether each cell is selected, (cells,).
    dropped
        Number of cells that are left out, by reason.
    layout
        The layout that fits the file.

    Raises
    ------
    DataError
        If the labels are in no known layout, cannot be read, or are those of another experiment.
    """
    layout, labels = _labels(cells, data)
    code, unique = pd.factorize(labels)
    singles = _read(list(unique), layout, data)
    names = np.array(["" if names is None else condition_name(names) for names in singles], dtype=object)
    condition = names[code]
    selected = np.ones(len(condition), dtype=bool)
    dropped: dict[str, int] = {}

    def leave_out(reason: str, wrong: BoolArray) -> None:
        if (selected & wrong).any():
            dropped[reason] = int((selected & wrong).sum())
            selected[wrong] = False

    leave_out("no guide RNA assigned", np.asarray(condition == "", dtype=bool))
    if not data.combinations:
        several = np.array([names is not None and len(names) > 1 for names in singles], dtype=bool)
        leave_out("guide RNAs of several genes", several[code])
    for drop in data.drops:
        if drop.column in cells.obs:
            leave_out(drop.reason, drop.wrong(cells.obs[drop.column]).to_numpy(dtype=bool))
    _check_conditions(set(condition[selected]), layout, data)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(condition[selected]),
            "batch": pd.Categorical(_batch(cells.obs, data)[selected]),
            "label": pd.Categorical(labels.to_numpy()[selected]),
        },
        index=unique_names(pd.Index(cells.obs_names[selected].astype(str))),
    )
    return obs, selected, dropped, layout


def _labels(cells: StoredCells, data: Published) -> tuple[Layout, pd.Series[str]]:
    """Return the layout that fits the file, and the label of each cell."""
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


def _read(labels: list[str], layout: Layout, data: Published) -> list[Singles]:
    """Read the single perturbations of each label; :class:`DataError` names the labels that cannot be read."""
    singles: list[Singles] = []
    unreadable = []
    for label in labels:
        try:
            singles.append(layout.read(label))
        except ValueError:
            unreadable.append(label)
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of the {len(labels)} labels in obs[{layout.column!r}] cannot be read as those of "
            f"{data.name}: {listed(unreadable)}{_caution(data)}"
        )
    return singles


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
    """Return the 10x lane of each cell: from a column, or from the barcodes where all of them end in a number."""
    column = next((name for name in data.batch if name in obs), None)
    if column is not None:
        return obs[column].astype(str).to_numpy(dtype=object)
    lanes = [re.fullmatch(r"[ACGTN]+-(\d+)", str(name)) for name in obs.index]
    known = [lane[1] for lane in lanes if lane is not None]
    return np.array(known if len(known) == len(lanes) else ["all"] * len(lanes), dtype=object)


def _blocks(counts: Counts, selected: BoolArray, source: Path) -> Iterator[Block]:
    """Yield the counts of the selected cells, checked."""
    try:
        for part, block in counts.checked_blocks():
            rows = np.flatnonzero(selected[part])
            if len(rows):
                yield {"X": block[rows]}
    except OSError as error:
        raise unreadable(source, error) from None
