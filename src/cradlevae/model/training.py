"""Fitting a module to the cells of a split, on any accelerator, resumable after a kill."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cradlevae.data.batches import CellBatches, References
from cradlevae.data.contract import Experiment
from cradlevae.data.files import make_folder, write_text
from cradlevae.errors import CradleError, DataError
from cradlevae.model.config import ModelConfig, TrainConfig
from cradlevae.model.module import CradleModule
from cradlevae.model.objective import SplitSizes

CHECKPOINTS = "checkpoints"
HISTORY_FILE = "history.csv"
RUN_FILE = "run.json"
"""What determines a run, so that it is resumed as it was."""


def fit(
    module: CradleModule,
    data: Experiment,
    rows: dict[str, npt.NDArray[np.intp]],
    config: TrainConfig,
    *,
    output: Path | None = None,
    resume: bool = False,
    record: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Train a module; it holds the weights of the best epoch afterwards.

    Parameters
    ----------
    module
        The module, freshly made; on resuming, its weights are replaced.
    data
        The experiment.
    rows
        Rows of the cells of ``train`` and, for early stopping, ``val``.
    config
        How to train.
    output
        Folder of checkpoints and the CSV log; ``None`` uses a temporary one.
    resume
        Go on from the last checkpoint in ``output``, where there is one.
    record
        What determines the run beside ``config`` (JSON values); a run of another record is not resumed.

    Returns
    -------
    pandas.DataFrame
        One row per epoch: mean of each loss term over training and validation cells.
    """
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    from cradlevae.model.checkpoints import StreamedCheckpoints
    from cradlevae.model.plan import EpochProgress, History, TrainingPlan

    with tempfile.TemporaryDirectory(prefix="cradlevae-") as temporary:
        folder = make_folder(output or Path(temporary))
        record = {**(record or {}), "training": _determining(config)}
        if resume and (folder / RUN_FILE).exists():
            _refuse_other_run(folder / RUN_FILE, record)
        write_text(folder / RUN_FILE, json.dumps(record, indent=1))
        best_file, last_file = (folder / CHECKPOINTS / f"{name}.ckpt" for name in ("best", "last"))
        loaders = {
            part: CellBatches(
                data, rows[part], config.batch_size, make_references(data, rows[part], module.config, config.seed),
                shuffle=part == "train", seed=config.seed,
            )
            for part in ("train", "val")
            if len(rows[part])
        }  # fmt: skip
        plan = TrainingPlan(
            module,
            split_sizes(data, rows["train"], module.config),
            n_particles=config.n_particles,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
        )
        history = History(folder / HISTORY_FILE)
        monitored = "val" in loaders
        callbacks: list[Any] = [history]
        keep: dict[str, Any] = {
            "dirpath": last_file.parent,
            "enable_version_counter": False,
            "save_on_train_epoch_end": True,
        }
        if monitored:
            callbacks.append(ModelCheckpoint(filename=best_file.stem, monitor="val_loss", **keep))
        # after the best, whose record it holds; Lightning's save_last would skip epochs that are not the best so far
        callbacks.append(ModelCheckpoint(filename=last_file.stem, **keep))
        if config.progress:
            callbacks.append(EpochProgress(history))
        if monitored and config.patience:
            callbacks.append(EarlyStopping("val_loss", patience=config.patience, check_on_train_epoch_end=True))
        if config.averaging:
            from lightning.pytorch.callbacks import EMAWeightAveraging

            callbacks.append(EMAWeightAveraging(decay=config.averaging))
        checkpoint = str(last_file) if resume and last_file.exists() else None
        if checkpoint is not None:
            _check_checkpoint(last_file, config.max_epochs)
        with _quiet(), torch.random.fork_rng(), _explained():
            trainer = pl.Trainer(
                max_epochs=config.max_epochs,
                accelerator=config.accelerator,
                devices=1,
                precision=config.precision,  # type: ignore[arg-type]
                gradient_clip_val=config.gradient_clip,
                callbacks=callbacks,
                plugins=[StreamedCheckpoints()],
                logger=_tensorboard(folder) if config.tensorboard else False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                default_root_dir=folder,
            )
            trainer.fit(
                plan,
                loaders["train"].loader(),
                loaders["val"].loader() if monitored else None,
                ckpt_path=checkpoint,
                weights_only=True,
            )
            chosen = best_file if monitored else last_file
            state = torch.load(chosen, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        module.cpu().load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
        module.eval()
        return history.table()


def make_references(data: Experiment, rows: npt.NDArray[np.intp], config: ModelConfig, seed: int) -> References | None:
    """Reference profiles as the objective wants them; ``None`` where it does not use any."""
    if not config.counterfactual_weight:
        return None
    released = config.objective == "released"
    return References(data, rows, kind="median" if released else config.reference, opposite=not released, seed=seed)


def split_sizes(data: Experiment, rows: npt.NDArray[np.intp], config: ModelConfig) -> SplitSizes:
    """Cells per perturbation and per class among ``rows``, and the weights of passing and failed cells."""
    per_condition = np.bincount(data.condition[rows], minlength=len(data.conditions))
    failed = data.failed[rows]
    weight = np.ones(2)
    if config.balance_classes and 0 < failed.sum() < len(rows):
        weight = len(rows) / (2 * np.array([(~failed).sum(), failed.sum()]))
    return SplitSizes(
        torch.as_tensor(per_condition @ (data.dosage != 0), dtype=torch.float32),
        torch.as_tensor((data.artifact[rows] != 0).sum(axis=0), dtype=torch.float32),
        torch.as_tensor(weight, dtype=torch.float32),
        len(rows),
    )


def _tensorboard(folder: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise DataError("tensorboard is not installed; pip install 'cradlevae[tensorboard]'") from None


def _determining(config: TrainConfig) -> dict[str, Any]:
    """What of a training configuration changes the numbers of an epoch."""
    free = ("max_epochs", "patience", "accelerator", "tensorboard", "progress")
    return {name: value for name, value in asdict(config).items() if name not in free}


def _refuse_other_run(path: Path, record: dict[str, Any]) -> None:
    """Raise :class:`DataError` if the run in a folder was of other data, another split or other settings."""
    try:
        earlier = json.loads(path.read_text())
        before, now = _flat(earlier), _flat(json.loads(json.dumps(record)))
    except (ValueError, AttributeError):
        raise DataError(f"{path} is damaged; the run cannot be resumed, train anew in another folder") from None
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if differing:
        shown = "; ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in differing[:4])
        raise DataError(
            f"the run in {path.parent} was another one ({shown}); resume it as it was, or choose another folder"
        )


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Nested settings by their last name."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _check_checkpoint(path: Path, max_epochs: int) -> None:
    """Raise :class:`DataError` unless a checkpoint can be read and leaves epochs to train."""
    try:
        epochs = int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"]) + 1
    except Exception as error:  # what a damaged file raises is torch's business
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is damaged or not a checkpoint ({reason}); train anew in another folder") from None
    if epochs > max_epochs:
        raise DataError(f"the run already has {epochs} epochs; set max_epochs above that to go on (it is {max_epochs})")


@contextmanager
def _explained() -> Iterator[None]:
    """Lightning's complaints about settings as errors of this package; its exit on Ctrl-C as an interrupt."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except (MisconfigurationException, ValueError) as error:
        if isinstance(error, CradleError):
            raise
        raise DataError(f"{str(error).splitlines()[0]} (accelerator and precision are Lightning's)") from None
    except SystemExit:
        raise KeyboardInterrupt from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on loaders and hardware, which are of no use to a user of this package."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*(LeafSpec|treespec).*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
