"""What several commands do with files: refuse to overwrite, load a run, give cells the labels of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.data.storage.stored_cells import StoredCells
from cradlevae.errors import DataError
from cradlevae.utils.atomic import make_folder

if TYPE_CHECKING:
    from cradlevae.api import PerturbationVAE

LABELS_FILE = "labels.csv"
"""Artifact labels that `cradlevae train` gave to the cells of a file without any."""

ARTIFACT = "artifact"
"""Column of ``obs`` that quality control fills where the data have no artifact column of their own."""


def refuse_file(path: Path) -> None:
    """Refuse to overwrite, and see that the folder can be written, before any long work."""
    if path.exists():
        raise DataError(f"{path} exists already; choose another name or remove it")
    make_folder(path.parent)


def wrote(*paths: Path) -> None:
    """Say which files a command has written."""
    print("wrote " + ", ".join(str(path) for path in paths))


def load_run(run: Path) -> PerturbationVAE:
    """The trained model of a run."""
    from cradlevae.api import load

    return load(run)


def with_labels(cells: StoredCells, model: PerturbationVAE, run: Path) -> StoredCells:
    """Cells with artifact labels: their own, or else those of the training, or else by its QC thresholds."""
    fields = model.trained.fields
    if fields.artifact_key != ARTIFACT or ARTIFACT in cells.obs:
        return cells
    if (run / LABELS_FILE).exists():
        import pandas as pd

        table = pd.read_csv(run / LABELS_FILE, converters={"cell": str})  # "NA" is a name, not a missing value
        labels = table.set_index("cell").reindex(cells.obs_names)
        if labels[ARTIFACT].notna().all():
            print(f"artifact labels as in training, from {run / LABELS_FILE}")
            cells.obs[labels.columns] = labels
            cells.uns.setdefault(QC_KEY, model.trained.qc)
            return cells
    from cradlevae.data.qc.apply import judge

    if model.trained.qc is None:
        raise DataError(f"no column {ARTIFACT!r} in obs, and the run in {run} holds no QC thresholds to make it by")
    print("artifact labels by the QC thresholds of the training data (doublets not assessed)")
    cells.obs[ARTIFACT] = judge(cells, model.trained.qc, layer=fields.layer).any(axis=1).to_numpy()
    return cells
