"""The commands for guide RNAs: assign finds those of each cell, guides compares those of one target."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cradlevae.commands.files import (
    ARTIFACT,
    check_outputs,
    check_picture,
    check_suffix,
    drawn,
    files_read,
    open_data,
    wrote,
)
from cradlevae.data.experiment import DataFields
from cradlevae.data.storage.stored_cells import open_cells
from cradlevae.reporting.tables import show
from cradlevae.utils.atomic import write_csv, write_h5ad


def assign(
    data: Path,
    *,
    output: Path,
    method: Literal["mixture", "umi"] = "mixture",
    min_count: int | None = None,
    max_targets: int = 2,
    guides_key: str = "guides",
    guide_targets: Path | None = None,
    guide_key: str = "guide",
    perturbation_key: str = "perturbation",
    figure: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Assign guide RNAs to cells, and show how many cells each rule would lose.

    Parameters
    ----------
    data
        Raw counts of genes and guide RNAs: a 10x file (.h5) or folder, a MuData file (.h5mu), or an AnnData file
        (.h5ad), zarr store or folder of several with the counts of guide RNAs in obsm.
    output
        Annotated copy to write: a file (.h5ad), or a folder for a zarr store or a folder of cells.
    guide_targets
        Table (.csv) with the columns guide and target, or a feature reference of Cell Ranger; by default the file says
        the targets, or the names of the guide RNAs (STAT1_2 → STAT1, NT_1 → control).
    figure
        Picture of the rules to write (.png, .svg, .pdf).
    """
    from cradlevae.data.guides.assignment import ASSIGNMENT_KEY, assign_guides
    from cradlevae.data.guides.targets import target_examples
    from cradlevae.data.storage.annotated_copy import check_copy, write_annotated
    from cradlevae.data.storage.whole_files import form_of

    check_copy(data, output, files_read(data), overwrite=overwrite)
    check_picture(figure, data, overwrite=overwrite)
    whole = form_of(data) is not None
    cells = open_cells(data, guide_targets=guide_targets if whole else None)
    report = assign_guides(
        cells, method=method, min_count=min_count, max_targets=max_targets, guides_key=guides_key,
        guide_targets=None if whole else guide_targets, guide_key=guide_key, perturbation_key=perturbation_key,
    )  # fmt: skip
    show(report, "cells by rule")
    print(f"targets: {target_examples(cells.uns[guides_key])}")
    write_annotated(cells, output, [ASSIGNMENT_KEY, guides_key], overwrite=overwrite)
    wrote(output, *drawn(figure, lambda figures: figures.guides_figure(cells)))


def guides(
    data: Path,
    *,
    output: Path,
    guide_key: str = "guide",
    credible: float = 0.9,
    fdr: float = 0.05,
    min_cells: int = 10,
    guide_targets: Path | None = None,
    overwrite: bool = False,
    fields: DataFields = DataFields(),  # noqa: B008
) -> None:
    """Compare the guide RNAs of each target, and flag those unlike their siblings.

    Effects are measured within batches, covariates and contexts where these are named (--batch_key). Guide RNAs are
    assigned first where the file counts them (10x, MuData) and has no perturbation column.

    Parameters
    ----------
    output
        Table (.csv) with a row for each guide RNA: guide, target, n_cells, n_siblings, deviation, p_value, q_value,
        flagged; or AnnData file (.h5ad) with the same in obs and the effect on each gene.
    """
    from cradlevae.query.guide_effects import guide_effects

    check_outputs(output, overwrite=overwrite, inputs=[data])
    check_suffix(output, "guide RNAs are", ".csv", ".h5ad")
    cells = open_data(data, fields, guide_targets)
    if fields.artifact_key == ARTIFACT and ARTIFACT not in cells.obs:
        print(f"no obs[{ARTIFACT!r}]: all cells count as passing quality control")
    effects = guide_effects(cells, guide_key=guide_key, credible=credible, fdr=fdr, min_cells=min_cells, fields=fields)
    table = effects.obs.reset_index()
    flagged = table[table["flagged"]].drop(columns="flagged").sort_values("p_value", kind="stable")
    print(
        f"{len(table):,} guide RNAs of {table['target'].nunique():,} targets, {int(table['p_value'].notna().sum()):,} "
        f"with siblings to compare; {len(flagged):,} flagged"
    )
    if len(flagged):
        show(flagged, "unlike their siblings")
    if output.suffix == ".h5ad":
        write_h5ad(effects, output)
    else:
        write_csv(table, output)
    wrote(output)
