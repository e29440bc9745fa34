"""Fitting a module to the cells of a split, on any accelerator, resumable after a kill."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cradlevae.data.batches import CellBatches, References
from cradlevae.data.contract import Experiment
from cradlevae.data.files import make_folder
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig, TrainConfig
from cradlevae.model.module import CradleModule
from cradlevae.model.objective import SplitSizes

CHECKPOINTS = "checkpoints"
HISTORY_FILE = "history.csv"


def fit(
    module: CradleModule,
    data: Experiment,
    rows: dict[str, npt.NDArray[np.intp]],
    config: TrainConfig,
    *,
    output: Path | None = None,
    resume: bool = False,
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

    Returns
    -------
    pandas.DataFrame
        One row per epoch: mean of each loss term over training and validation cells.
    """
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    from cradlevae.model.plan import EpochProgress, History, TrainingPlan

    with tempfile.TemporaryDirectory(prefix="cradlevae-") as temporary:
        folder = make_folder(output or Path(temporary))
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
        with _quiet(), torch.random.fork_rng():
            trainer = pl.Trainer(
                max_epochs=config.max_epochs,
                accelerator=config.accelerator,
                devices=config.devices,
                precision=config.precision,  # type: ignore[arg-type]
                gradient_clip_val=config.gradient_clip,
                callbacks=callbacks,
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
                ckpt_path=str(last_file) if resume and last_file.exists() else None,
                weights_only=True,
            )
            chosen = best_file if monitored else last_file
            state = torch.load(chosen, map_location="cpu", weights_only=True)["state_dict"]
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
