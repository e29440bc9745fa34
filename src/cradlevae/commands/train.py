"""The command that trains a model and writes its run: the model, its checkpoints and what it used."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import pandas as pd

from cradlevae.commands.files import ARTIFACT, LABELS_FILE, files_read, open_data, wrote
from cradlevae.commands.registry import SETTINGS_FILE
from cradlevae.data.artifact_columns import artifact_indicators
from cradlevae.data.experiment import DataFields, check_experiment
from cradlevae.data.split import Split
from cradlevae.data.storage.stored_cells import StoredCells
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.model.training.settings import TrainConfig
from cradlevae.reporting.tables import show
from cradlevae.utils.atomic import make_folder, write_csv
from cradlevae.utils.outputs import refuse_existing, refuse_inputs, refuse_store

FIGURE_FILE = "training.png"
"""Picture of the learning curves."""

ENOUGH_COMBINATIONS = 4
"""Combinations from which the split "auto" holds some of them out."""

MEMORY_SHARE = 1 / 3
"""Share of the machine's memory above which counts stay on disk."""


def train(
    data: Path,
    *,
    output: Path,
    split: str = "auto",
    split_seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    backed: bool | Literal["auto"] = "auto",
    guide_targets: Path | None = None,
    fields: DataFields = DataFields(),  # noqa: B008
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainConfig = TrainConfig(),  # noqa: B008
) -> None:
    """Train CRADLE-VAE or a sibling (--model).

    Quality control is annotated first where the artifact column is absent, and guide RNAs are assigned first where the
    file counts them (10x, MuData) and has no perturbation column.

    Parameters
    ----------
    output
        Folder of the run; it must not hold another one.
    split
        A manifest (.json), a recipe ("cells", "combinations", "combinations_published", "perturbations", "contexts"),
        or "auto": "combinations" where there are at least four, else "cells".
    split_seed
        Seed of the recipe.
    resume
        Go on from the last checkpoint in the output folder.
    overwrite
        Replace the run that the output folder holds; its model stays until the new one is trained. What is read is
        never replaced.
    backed
        Leave the counts on disk, so that memory does not grow with the cells; "auto": where they would take
        more than a third of the machine's memory. Cells then come in another random order.
    model
        Key of a model of the family: cradle_vae, sams_vae, svae_plus, cpa_vae or conditional_vae.
    """
    from cradlevae.api import CLASSES
    from cradlevae.api.checks import check_criteria, refuse_existing_run
    from cradlevae.model.store import MODEL_FILE, SPLIT_FILE
    from cradlevae.model.training.fit import check_devices
    from cradlevae.reporting.figures import save_figure, training_figure

    refuse_store(output)
    refuse_inputs(output, files_read(data)[:1])
    if not overwrite and not resume:
        refuse_existing_run(output)
    elif not overwrite and (output / MODEL_FILE).exists():
        raise DataError(f"the run in {output} is complete; there is nothing to resume")
    check_criteria(model, fields)
    check_devices(model, training)
    others = LABELS_FILE, FIGURE_FILE, SETTINGS_FILE, *(() if split.endswith(".json") else (SPLIT_FILE,))
    refuse_existing([output / name for name in others], overwrite=overwrite or resume)
    cells = open_data(data, fields, guide_targets)
    check_experiment(cells, fields)
    if not _lacks_artifact(cells, fields):
        artifact_indicators(cells, fields)
    manifest = _split(cells, split, split_seed, fields)
    make_folder(output)
    print(manifest)
    for note in manifest.notes:
        print(note)
    _load_counts(cells, fields.layer, backed)
    labels = _annotate(cells, fields)
    vae = CLASSES[model.model](cells, split=manifest, seed=training.seed, **asdict(fields), **asdict(model))
    if not (output / MODEL_FILE).exists():  # else it is that model's until the new one is saved
        vae.split.save(output / SPLIT_FILE, overwrite=True)
    if labels is not None:
        write_csv(labels.reset_index(names="cell"), output / LABELS_FILE)
    options = asdict(training)
    vae.train(options.pop("max_epochs"), output=output, resume=resume, overwrite=overwrite, **options)
    vae.save(output, overwrite=overwrite or resume)
    save_figure(training_figure(vae.history), output / FIGURE_FILE)
    print(vae)
    wrote(output)


def _load_counts(cells: StoredCells, layer: str | None, backed: bool | Literal["auto"]) -> None:
    """Read the counts into memory unless they are to stay on disk, and say which of the two happens and why."""
    from cradlevae.utils.machine import machine_memory

    size = cells.memory(layer)
    if backed is False or (backed == "auto" and size < machine_memory() * MEMORY_SHARE):
        cells.load(layer)
    elif cells.by_genes(layer):
        print(
            f"counts are stored by genes (CSC), so they are read whole ({size / 1e9:.1f} GB); "
            "written as CSR they could stay on disk"
        )
        cells.load(layer)
    else:
        print(f"counts stay on disk (in memory they would take {size / 1e9:.1f} GB)")


def _lacks_artifact(cells: StoredCells, fields: DataFields) -> bool:
    """Whether quality control has to fill the artifact column."""
    return fields.artifact_key == ARTIFACT and ARTIFACT not in cells.obs


def _annotate(cells: StoredCells, fields: DataFields) -> pd.DataFrame | None:
    """Annotate quality control where the artifact column is absent; the labels, or ``None`` where it was there."""
    if not _lacks_artifact(cells, fields):
        return None
    from cradlevae.data.qc.annotate import annotate_qc

    print(f"no obs[{ARTIFACT!r}]: annotating quality control")
    report = annotate_qc(cells, layer=fields.layer, gene_symbols=fields.gene_symbols, batch_key=fields.batch_key)
    show(report, "quality control")
    labels: pd.DataFrame = cells.obs[[name for name in cells.obs if name == ARTIFACT or str(name).startswith("qc_")]]
    return labels


def _split(cells: StoredCells, split: str, seed: int, fields: DataFields) -> Split:
    """The manifest of a file, or one by a recipe."""
    from cradlevae.data.experiment import condition_labels
    from cradlevae.data.labels import singles_of
    from cradlevae.data.split import split as make_split
    from cradlevae.utils.checks import seed_number

    seed_number(seed)
    if split.endswith(".json"):
        if seed:
            raise DataError(f"split is the manifest {split}, from which nothing is drawn; leave split_seed out")
        return Split.load(split)
    if split == "auto":
        conditions = condition_labels(cells, fields).unique()
        n_combinations = sum(len(singles_of(name)) > 1 for name in conditions)
        split = "combinations" if n_combinations >= ENOUGH_COMBINATIONS else "cells"
    return make_split(cells, split, seed=seed, fields=fields)
