"""Checks of what a user gives to a model: its options, its split, its data, its folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cradlevae.data.experiment import DataFields, Experiment
from cradlevae.data.factors import factor_names, stratum_name
from cradlevae.data.split import Split
from cradlevae.data.strata import told_by_controls
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.model.store import MODEL_FILE
from cradlevae.model.trained import TrainedModel, rows_of_parts, training_rows
from cradlevae.model.training.content import PARTS, differences, training_content
from cradlevae.model.training.settings import TrainConfig
from cradlevae.model.training.trainer import CHECKPOINTS, HISTORY_FILE, RUN_FILE
from cradlevae.utils.checks import output_folder
from cradlevae.utils.names import closest, listed
from cradlevae.utils.outputs import NOT_A_FILE, refuse_existing, refuse_folders
from cradlevae.utils.types import AnnDataLike, IndexArray


def model_config(options: dict[str, Any]) -> ModelConfig:
    """A configuration of a model from keyword arguments; :class:`DataError` names one that does not exist."""
    _refuse_unknown(options, ModelConfig)
    return ModelConfig(**options)


def train_config(options: dict[str, Any]) -> TrainConfig:
    """Settings of training from keyword arguments; :class:`DataError` names one that does not exist."""
    _refuse_unknown(options, TrainConfig)
    return TrainConfig(**options)


def _refuse_unknown(options: dict[str, Any], kind: Any) -> None:
    for name in options:
        if name not in kind.__dataclass_fields__:
            raise DataError(f"unknown option {name!r}{closest(name, list(kind.__dataclass_fields__))}")


def check_criteria(config: ModelConfig, fields: DataFields) -> None:
    """Raise :class:`DataError` if a model does not take so many artifact columns."""
    if config.objective == "released" and len(fields.criteria) > 1:
        raise DataError(
            f"objective='released' knows one artifact class, but artifact_key names {len(fields.criteria)}; "
            "give one column, or use objective='corrected'"
        )


def refuse_existing_run(folder: Path) -> None:
    """Raise :class:`DataError` if a folder already holds a model, the checkpoints of one, or a file of such a name."""
    if (folder / MODEL_FILE).exists() or (folder / CHECKPOINTS).exists():
        raise DataError(
            f"{folder} already holds a run; choose another folder, resume it, "
            "or replace it (overwrite=True, --overwrite)"
        )
    refuse_existing([folder / HISTORY_FILE, folder / RUN_FILE], overwrite=False)


def check_run_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that a folder may take the files of training; nothing in it is changed.

    A run that is replaced stays until the first epoch of the new one is complete, a model until the new one is saved.

    Raises
    ------
    DataError
        If the folder holds a run that is neither resumed nor replaced, or files of another origin.
    """
    refuse_folders([folder / RUN_FILE, folder / HISTORY_FILE], NOT_A_FILE)
    output_folder(CHECKPOINTS, folder / CHECKPOINTS)
    own = (folder / RUN_FILE).exists() or (folder / CHECKPOINTS).exists()
    if resume and own:
        return
    if resume and not overwrite:
        refuse_existing([folder / HISTORY_FILE], overwrite=False)
    elif not overwrite:
        refuse_existing_run(folder)


def check_split(data: Experiment, split: Split, config: ModelConfig) -> None:
    """Raise :class:`DataError` if a model cannot be trained on a split; warn of what it will not be able to do."""
    train = training_rows(data, split, config)
    passing = "" if config.trained_on == "all" else "passing "
    if not data.is_control[train].any():
        raise DataError(f"no {passing}control cells are in the training part of the split; move some there")
    if data.is_control[train].all():
        raise DataError(
            "all training cells are controls, so there is no perturbation to learn; is it the right column?"
        )
    _check_unseen(data, split, train, config)
    if config.objective != "released":  # the published model knows no batches
        _warn_of_strata(data, train)
    failed = data.failed[train]
    if config.declaration.artifact and config.trained_on == "all" and (failed.all() or not failed.any()):
        outcome = "failed" if failed.any() else "passed"
        warnings.warn(
            f"all training cells {outcome} QC: there is no artifact to disentangle, and `clean` will change nothing",
            stacklevel=3,
        )


def _warn_of_strata(data: Experiment, train: IndexArray) -> None:
    """Warn of batches and contexts without training controls, and of what cannot be told of their conditions."""
    strata = data.strata[train]
    told = told_by_controls(data.condition[train], strata)
    if told.all():
        return
    first = train[~told][np.unique(strata[~told], return_index=True)[1]]
    names = [stratum_name(data.factors, row) for row in first]
    without = [data.conditions[code] for code in np.unique(data.condition[train[~told]])]
    lost = sorted(set(without) - {data.conditions[code] for code in np.unique(data.condition[train[told]])})
    text = (
        f"no training controls in {listed(names)} of {factor_names(data.factors)}: effects of {listed(without)} lean "
        "on their cells elsewhere"
    )
    if lost:
        text += f"; {listed(lost)} ({len(lost)} conditions) are in no batch with controls, so their effects are missing"
    warnings.warn(text, stacklevel=4)


def _check_unseen(data: Experiment, split: Split, train: IndexArray, config: ModelConfig) -> None:
    """Warn of treatments without training cells; single perturbations of a split by cell are an error."""
    dosage = data.dosage[np.unique(data.condition[train])]
    names = data.treatments or data.perturbations
    unseen = [name for name, seen in zip(names, (dosage != 0).any(axis=0), strict=True) if not seen]
    if not unseen:
        return
    if data.treatments is not None:
        text = f"no training cells for {listed(unseen)} ({len(unseen)} conditions)"
        warnings.warn(f"{text}: {config.declaration.name} cannot predict conditions that it has not seen", stacklevel=4)
        return
    text = f"no training cells for {listed(unseen)} ({len(unseen)} perturbations)"
    if config.trained_on == "all" and split.recipe in ("cells", "column"):
        raise DataError(f"{text} in the split {split.recipe!r}; move some of their cells to train, or drop them")
    warnings.warn(f"{text}: the model cannot predict them or their combinations", stacklevel=4)


def attached(trained: TrainedModel, adata: AnnDataLike) -> Experiment:
    """The experiment that a model was trained on, read again.

    Raises
    ------
    DataError
        If it is another one; the message names what differs.
    """
    data = trained.read(adata)
    rows = rows_of_parts(data, trained.split, trained.config)
    missing = len(trained.fingerprints) - len(rows["train"])
    if missing > 0:
        raise DataError(
            f"{missing} of the {len(trained.fingerprints)} cells that the model was trained on are not in the data; "
            "give the whole experiment"
        )
    other = [text for text in differences(trained.content, training_content(data, rows)) if text != PARTS["order"]]
    if other:
        raise DataError(
            f"the model was trained on other data: {', '.join(other)} differ; give the data of the training"
        )
    return data
