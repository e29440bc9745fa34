"""Cells of a path with perturbation labels: those of the file, or else those that its guide RNAs give."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cradlevae.data.fields import DataFields
from cradlevae.data.guides.assignment import ASSIGNMENT_KEY, assign_guides
from cradlevae.data.guides.targets import GUIDES, target_examples
from cradlevae.data.labels import TARGET
from cradlevae.data.storage.stored_cells import StoredCells, open_cells
from cradlevae.data.storage.whole_files import form_of
from cradlevae.errors import DataError


def open_labelled(path: Path, fields: DataFields, guide_targets: Path | None = None) -> tuple[StoredCells, list[str]]:
    """Open cells; where no column names the perturbations, assign the guide RNAs that the file counts.

    Parameters
    ----------
    path
        As in :func:`cradlevae.open_cells`.
    fields
        Where the labels are. Guide RNAs are assigned where ``obs`` has no ``perturbation_key``, no ``guides_key`` is
        named, and the file has the table of guide RNAs that :func:`cradlevae.read_10x` makes.
    guide_targets
        As in :func:`cradlevae.read_10x`.

    Returns
    -------
    tuple of StoredCells and list of str
        The cells, and sentences that say what was done; none where nothing was.

    Raises
    ------
    DataError
        If ``guide_targets`` is given and no guide RNAs are assigned, or they cannot be.
    """
    whole = form_of(path) is not None
    cells = open_cells(path, guide_targets=guide_targets if whole else None)
    counted = GUIDES in cells.obsm and isinstance(cells.uns.get(GUIDES), pd.DataFrame)
    if fields.guides_key is not None or fields.perturbation_key in cells.obs or not counted:
        if guide_targets is not None and fields.guides_key is None:
            reason = "has no counts of guide RNAs" if not counted else f"has obs[{fields.perturbation_key!r}] already"
            raise DataError(
                f"guide_targets is given, but {path} {reason}, so that no guide RNA is assigned; leave it out"
            )
        return cells, []
    report = assign_guides(
        cells, perturbation_key=fields.perturbation_key, guide_targets=None if whole else guide_targets
    )
    return cells, _sentences(cells, report, fields)


def _sentences(cells: StoredCells, report: pd.DataFrame, fields: DataFields) -> list[str]:
    table = cells.uns[GUIDES]
    low, high = (int(bound) for bound in (table["threshold"].min(), table["threshold"].max()))
    used = report[report["used"]].iloc[0]
    method = cells.uns[ASSIGNMENT_KEY]["method"]
    n_targets = table[TARGET].nunique()
    return [
        f"no obs[{fields.perturbation_key!r}]: perturbations by guide RNAs ({method}; present "
        f"from {low} to {high} counts)",
        f"{cells.n_obs - used['lost']:,} of {cells.n_obs:,} cells assigned ({used['controls']:,} controls, "
        f"{used['singles']:,} with one target, {used['combinations']:,} with several), {used['ambiguous']:,} "
        f"ambiguous, {used['missing']:,} missing",
        f"{len(table):,} guide RNAs of {n_targets:,} targets: {target_examples(table)}",
    ]
