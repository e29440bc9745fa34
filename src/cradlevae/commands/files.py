"""What several commands do with files: check outputs, load a run, give cells the labels of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cradlevae.data.fields import DataFields
from cradlevae.data.identity.cell_sketch import sketch_values
from cradlevae.data.identity.known_cells import warn_of_other_counts
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.data.storage.cell_files import H5AD, ZARR
from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_cells import StoredCells
from cradlevae.data.storage.whole_files import whole_files
from cradlevae.errors import DataError
from cradlevae.utils.atomic import need_parquet, write_csv, write_h5ad, write_parquet
from cradlevae.utils.outputs import check_output

if TYPE_CHECKING:
    import pandas as pd

    from cradlevae.api import PerturbationVAE

LABELS_FILE = "labels.csv"
"""Artifact labels that `cradlevae train` gave to the cells of a file without any."""

ARTIFACT = "artifact"
"""Column of ``obs`` that quality control fills where the data have no artifact column of their own."""


EFFECTS = ".csv", ".parquet", ".h5ad"
"""Forms in which effects are written."""

PICTURES = ".png", ".svg", ".pdf"
"""Forms in which pictures are written."""


def check_outputs(*outputs: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Check, before any long work, that files can be written, replace nothing unasked and never what is read.

    Parameters
    ----------
    *outputs
        Files that the command writes.
    overwrite
        Replace outputs that are there already; what is read is never replaced.
    inputs
        Files, stores and folders that the command reads: cells, or models.
    """
    read = [file for path in inputs for file in files_read(path)]
    for output in outputs:
        check_output(output, overwrite=overwrite, inputs=read)


def check_suffix(output: Path, what: str, *suffixes: str) -> None:
    """Raise :class:`DataError` unless a file has one of these endings, as which something is written."""
    if output.suffix not in suffixes:
        *others, last = suffixes
        forms = f"{', '.join(others)} or {last}" if others else last
        raise DataError(f"{output} ends in {output.suffix!r}; {what} written as {forms}")


def check_effects_output(output: Path, run: Path, *, overwrite: bool) -> None:
    """Check, before any long work, that effects can be written into a file."""
    check_outputs(output, overwrite=overwrite, inputs=[run])
    check_suffix(output, "effects are", *EFFECTS)
    if output.suffix == ".parquet":
        need_parquet("effects")


def write_effects(effects: Any, output: Path, sort_by: str) -> None:
    """Write effects, or contrasts, as a table or an AnnData file, and say so."""
    from cradlevae.query.effects_table import effects_table

    if output.suffix == H5AD:
        write_h5ad(effects, output)
    else:
        (write_csv if output.suffix == ".csv" else write_parquet)(effects_table(effects, sort_by), output)
    wrote(output)


def check_picture(figure: Path | None, data: Path, *, overwrite: bool) -> None:
    """Check, before any long work, that a picture can be written, if there is to be one."""
    if figure is None:
        return
    check_outputs(figure, overwrite=overwrite, inputs=[data])
    check_suffix(figure, "pictures are", *PICTURES)


def files_read(path: Path) -> list[Path]:
    """What is read of an input: itself, and its files if it is a folder of cells or of a model."""
    from cradlevae.model.store import MODEL_FILES

    if not path.is_dir():
        return [path]
    cells = [entry for entry in path.iterdir() if entry.suffix in (H5AD, ZARR)] + whole_files(path)
    return [path, *cells, *(path / name for name in MODEL_FILES), path / LABELS_FILE]


def open_data(data: Path, fields: DataFields, guide_targets: Path | None = None) -> StoredCells:
    """Open cells with perturbation labels, by their guide RNAs where no column holds them, and say so.

    Parameters
    ----------
    data
        Raw counts: an AnnData file (.h5ad), a zarr store, a folder of several; a 10x file (.h5) or folder, or a MuData
        file (.h5mu).
    fields
        Where they hold their labels.
    guide_targets
        Table (.csv) with the columns guide and target, for files that count guide RNAs and have no perturbation column;
        by default the file says the targets, or the names of the guide RNAs (STAT1_2 → STAT1, NT_1 → control).
    """
    from cradlevae.data.guides.automatic import open_labelled

    cells, sentences = open_labelled(data, fields, guide_targets)
    for sentence in sentences:
        print(sentence)
    return cells


def drawn(figure: Path | None, draw: Callable[[Any], Any]) -> list[Path]:
    """Draw and write a picture, if there is to be one; the files that were written.

    Parameters
    ----------
    figure
        File to write.
    draw
        Function that draws, given the module of figures, which is imported only where there is something to draw.
    """
    if figure is None:
        return []
    from cradlevae.reporting import figures

    figures.save_figure(draw(figures), figure)
    return [figure]


def wrote(*paths: Path) -> None:
    """Say which files a command has written."""
    print("wrote " + ", ".join(str(path) for path in paths))


def load_run(run: Path) -> PerturbationVAE:
    """The trained model of a run."""
    from cradlevae.api import load

    return load(run)


def load_with_cells(run: Path, data: Path, guide_targets: Path | None) -> tuple[PerturbationVAE, StoredCells]:
    """The trained model of a run, and cells (as of :func:`open_data`) with the labels that it reads.

    Parameters
    ----------
    run
        Folder of a trained model.
    guide_targets
        Table of the targets of guide RNAs, as in training.
    """
    model = load_run(run)
    return model, with_labels(open_data(data, model.trained.fields, guide_targets), model, run)


def with_labels(cells: StoredCells, model: PerturbationVAE, run: Path) -> StoredCells:
    """Cells with artifact labels: their own, or else those of the training, or else by its QC thresholds."""
    fields = model.trained.fields
    if fields.artifact_key != ARTIFACT or ARTIFACT in cells.obs:
        return cells
    labels = _labels_of_training(cells, model, run)
    known = labels[ARTIFACT].notna().to_numpy()
    if known.any():
        print(f"artifact labels of {int(known.sum()):,} cells as in training, from {run / LABELS_FILE}")
    if known.all():
        cells.obs[labels.columns] = labels
        cells.uns.setdefault(QC_KEY, model.trained.qc)
        return cells
    from cradlevae.data.qc.apply import judge

    if model.trained.qc is None:
        raise DataError(f"no column {ARTIFACT!r} in obs, and the run in {run} holds no QC thresholds to make it by")
    print(
        f"artifact labels of {int((~known).sum()):,} cells by the QC thresholds of the training data (doublets not "
        "assessed)"
    )
    fails = judge(cells, model.trained.qc, layer=fields.layer).any(axis=1).to_numpy()
    fails[known] = labels[ARTIFACT][known].to_numpy(dtype=bool)
    cells.obs[ARTIFACT] = fails
    return cells


def _labels_of_training(cells: StoredCells, model: PerturbationVAE, run: Path) -> pd.DataFrame:
    """Labels of the cells that were in training, by name and counts; missing for others."""
    import pandas as pd

    if not (run / LABELS_FILE).exists():
        return pd.DataFrame({ARTIFACT: None}, index=cells.obs_names)
    table = pd.read_csv(run / LABELS_FILE, converters={"cell": str})  # "NA" is a name, not a missing value
    labels = table.set_index("cell").reindex(cells.obs_names)
    split = model.split
    if split.sketch is not None:
        counts = Counts(cells, split.sketch.layer)
        values = sketch_values(counts.blocks(), cells.n_obs, cells.var_names, split.probes)
        other = split.other_cells(cells.obs_names, cells.var_names, values) & labels[ARTIFACT].notna().to_numpy()
        warn_of_other_counts(other, "they do not get the labels of the training")
        labels = labels[~other].reindex(cells.obs_names)
    return labels
