"""The commands that make data ready for training: simulate, download, qc and split."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cradlevae.commands.files import check_outputs, check_picture, drawn, files_read, open_data, wrote
from cradlevae.data.experiment import DataFields
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.data.storage.stored_cells import open_cells
from cradlevae.errors import DataError
from cradlevae.reporting.tables import show
from cradlevae.utils.atomic import write_h5ad


def qc(
    data: Path,
    *,
    output: Path,
    criteria: list[str] | None = None,
    n_mads: float = 3.0,
    scale: Literal["auto", "raw"] = "auto",
    layer: str | None = None,
    batch_key: str | None = None,
    gene_symbols: str | None = None,
    max_fail_share: float = 0.2,
    key_added: str = "artifact",
    figure: Path | None = None,
    guide_targets: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Annotate cells that fail quality control.

    Parameters
    ----------
    output
        Annotated copy to write: a file (.h5ad), or a folder for a zarr store or a folder of cells.
    criteria
        Which of umi, genes, mito, ribo, haemo and doublet to assess; all by default.
    scale
        "auto": thresholds of umi and genes are found on the log scale where no cell could fail otherwise; "raw": never.
    figure
        Picture of the criteria with their thresholds to write (.png, .svg, .pdf).
    guide_targets
        Table (.csv) with the columns guide and target, kept with the counts of guide RNAs of a 10x or MuData file.
    """
    from cradlevae.data.qc.annotate import annotate_qc
    from cradlevae.data.qc.criteria import CRITERIA
    from cradlevae.data.storage.annotated_copy import check_copy, write_annotated

    check_copy(data, output, files_read(data), overwrite=overwrite)
    check_picture(figure, data, overwrite=overwrite)
    cells = open_cells(data, guide_targets=guide_targets)
    report = annotate_qc(
        cells, criteria=tuple(criteria) if criteria else CRITERIA, n_mads=n_mads, scale=scale, layer=layer,
        batch_key=batch_key, gene_symbols=gene_symbols, max_fail_share=max_fail_share, key_added=key_added, seed=seed,
    )  # fmt: skip
    show(report, "quality control")
    write_annotated(cells, output, [QC_KEY], overwrite=overwrite)
    wrote(output, *drawn(figure, lambda figures: figures.qc_figure(cells)))


def split(
    data: Path,
    *,
    output: Path,
    recipe: Literal["cells", "combinations", "combinations_published", "perturbations", "contexts", "column"] = "cells",
    seed: int = 0,
    n_shared: int = 0,
    column: str | None = None,
    held_out: list[str] | None = None,
    guide_targets: Path | None = None,
    overwrite: bool = False,
    fields: DataFields = DataFields(),  # noqa: B008
) -> None:
    """Assign cells to train, validation and test, and write the manifest.

    Parameters
    ----------
    data
        An AnnData file (.h5ad), a zarr store, a folder of several; a 10x file (.h5) or folder, or a MuData file
        (.h5mu).
    output
        Manifest to write (.json).
    held_out
        For the recipe "contexts": perturbations and the contexts that they are held out in, e.g. A:D1 B:D2; by default
        a random quarter of all such pairs.
    """
    from cradlevae.data.split import split as make_split

    check_outputs(output, overwrite=overwrite, inputs=[data])
    cells = open_data(data, fields, guide_targets)
    manifest = make_split(
        cells, recipe, seed=seed, n_shared=n_shared, column=column, held_out=held_out or (), fields=fields
    )
    manifest.save(output, overwrite=overwrite)
    print(manifest)
    for note in manifest.notes:
        print(note)
    wrote(output)


def simulate(
    *,
    output: Path,
    n_cells: int = 6000,
    n_genes: int = 600,
    n_perturbations: int = 16,
    n_combinations: int = 24,
    artifact_rate: float = 0.2,
    confounded: float = 0.0,
    n_batches: int = 1,
    batch_sd: float = 0.28,
    confounding: float = 0.0,
    n_contexts: int = 1,
    context_sd: float = 0.0,
    escaping: float | dict[str, float] = 0.0,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Simulate a Perturb-seq experiment with known artifacts; the file holds the truth as well.

    Parameters
    ----------
    output
        AnnData file (.h5ad) to write.
    n_cells
        Number of cells.
    n_genes
        Number of genes.
    overwrite
        Replace a file that is there already.
    """
    from cradlevae.data.simulation.simulate import simulate as make

    check_outputs(output, overwrite=overwrite)
    adata = make(
        n_cells=n_cells, n_genes=n_genes, n_perturbations=n_perturbations, n_combinations=n_combinations,
        artifact_rate=artifact_rate, confounded=confounded, n_batches=n_batches, batch_sd=batch_sd,
        confounding=confounding, n_contexts=n_contexts, context_sd=context_sd, escaping=escaping, seed=seed,
    )  # fmt: skip
    write_h5ad(adata, output)
    print(f"{adata.n_obs:,} cells × {adata.n_vars:,} genes")
    wrote(output)


def download(
    dataset: Literal["norman", "dixit", "adamson", "replogle"],
    *,
    output: Path,
    path: Path | None = None,
    cache: Path | None = None,
    mirror: str | None = None,
    overwrite: bool = False,
) -> None:
    """Download a published data set, once, and convert it into what the other commands read.

    Parameters
    ----------
    dataset
        Name of the data set.
    output
        AnnData file (.h5ad) to write.
    path
        The published file, where it is here already; nothing is downloaded then.
    cache
        Folder to keep the download in; by default CRADLEVAE_CACHE, or the system's.
    mirror
        Address to download from instead of the published one; by default CRADLEVAE_MIRROR.
    """
    import pandas as pd

    from cradlevae.data.datasets.convert import KEY, convert
    from cradlevae.data.datasets.download import cache_folder, fetch
    from cradlevae.data.datasets.published import published

    check_outputs(output, overwrite=overwrite, inputs=[path] if path else [])
    if path is not None and (cache or mirror):
        raise DataError("path names the published file, so nothing is downloaded; leave cache and mirror out")
    declared = published(dataset)
    source = path or fetch(declared, cache_folder(cache), mirror)
    check_outputs(output, overwrite=overwrite, inputs=[source])
    convert(source, declared, output)
    cells = open_cells(output)
    conversion = cells.uns[KEY]
    print(f"{declared.citation}\n{cells.n_obs:,} cells × {cells.n_vars:,} genes; counts from {conversion['counts']}")
    if conversion["left_out"]:
        show(pd.DataFrame(conversion["left_out"].items(), columns=["left out", "cells"]), "")
    wrote(output)
