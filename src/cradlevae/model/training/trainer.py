"""A run of training: what it needs, and Lightning's trainer around it; the same in each of several processes."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cradlevae.data.loading.loader import Minibatches
from cradlevae.data.loading.shard import Shard
from cradlevae.errors import DataError
from cradlevae.model.module import CradleModule
from cradlevae.model.objective_inputs import SplitSizes
from cradlevae.model.training.allocator import kept_memory
from cradlevae.model.training.settings import TrainConfig
from cradlevae.utils.accelerator import forked_random

MANY_TREATMENTS = 2
"""With more treatments than so many for each cell of a minibatch, a step moves the rows that occur and no others."""

CHECKPOINTS = "checkpoints"
HISTORY_FILE = "history.csv"

RUN_FILE = "run.json"
"""What determines a run, so that it is resumed as it was."""


def last_checkpoint(folder: Path) -> Path:
    """Where a run keeps its last epoch."""
    return folder / CHECKPOINTS / "last.ckpt"


@dataclass(frozen=True)
class TrainingRun:
    """A run of training.

    Attributes
    ----------
    module
        The module to train.
    minibatches
        Batches of ``train`` and, for early stopping, ``val``.
    sizes
        Numbers of training cells by treatment and class.
    config
        How to train.
    folder
        Folder of the checkpoints and the CSV log.
    record
        What determines the run (JSON values), for the folder.
    resume
        Whether to go on from the last checkpoint in ``folder``.
    replaces
        Whether an earlier run in ``folder`` is removed when the first epoch is complete.
    """

    module: CradleModule
    minibatches: dict[str, Minibatches]
    sizes: SplitSizes
    config: TrainConfig
    folder: Path
    record: dict[str, Any]
    resume: bool = False
    replaces: bool = False

    @property
    def monitored(self) -> bool:
        """Whether there are validation cells."""
        return "val" in self.minibatches

    @property
    def chosen(self) -> Path:
        """The checkpoint whose weights count."""
        return self.folder / CHECKPOINTS / "best.ckpt" if self.monitored else last_checkpoint(self.folder)

    def train(self, shard: Shard = Shard()) -> None:  # noqa: B008 (frozen)
        """Train, as one of several processes where ``shard`` says so; the first one writes the files."""
        from cradlevae.model.training.callbacks import DataOnDevice
        from cradlevae.model.training.lightning_module import TrainingModule

        config = self.config
        step = TrainingModule(
            self.module,
            self.sizes,
            n_particles=config.n_particles,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
            shard=shard,
            precision=config.precision,
        )
        parts = {part: minibatches.for_shard(shard) for part, minibatches in self.minibatches.items()}
        loaders = {part: minibatches.loader() for part, minibatches in parts.items()}
        with _quiet(), forked_random(), step.settings, kept_memory():
            trainer = self._trainer(
                [DataOnDevice(parts.values(), config.data_on_device), *self._callbacks(shard)], shard
            )
            on_one = shard.n == 1 and trainer.strategy.root_device.type in ("cpu", "cuda")
            step.by_rows = on_one and self.module.n_treatments > MANY_TREATMENTS * config.batch_size
            with _interrupts():
                trainer.fit(
                    step,
                    loaders["train"],
                    loaders.get("val"),
                    ckpt_path=str(last_checkpoint(self.folder)) if self.resume else None,
                    weights_only=True,
                )

    def _trainer(self, callbacks: list[Any], shard: Shard) -> Any:
        """Lightning's trainer; :class:`DataError` with Lightning's reason for settings that it does not take."""
        import lightning.pytorch as pl
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        from cradlevae.model.training.checkpoints import StreamedCheckpoints

        config = self.config
        logger = _tensorboard(self.folder) if config.tensorboard else False
        try:
            return pl.Trainer(
                max_epochs=config.max_epochs,
                accelerator=config.accelerator,
                devices=config.n_devices,
                strategy=_strategy() if shard.n > 1 else "auto",
                gradient_clip_val=config.gradient_clip,
                callbacks=callbacks,
                plugins=[StreamedCheckpoints()],
                logger=logger,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                default_root_dir=self.folder,
            )
        except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"accelerator={config.accelerator!r}, devices={config.devices!r} cannot be used here: {reason} "
                "(both are Lightning's settings)"
            ) from error

    def _callbacks(self, shard: Shard) -> list[Any]:
        from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

        from cradlevae.model.training.callbacks import Averaging, EpochProgress, History, RunFolder

        config = self.config
        history = History(self.folder / HISTORY_FILE)
        keep: dict[str, Any] = {
            "dirpath": self.folder / CHECKPOINTS,
            "enable_version_counter": False,
            "save_on_train_epoch_end": True,
        }
        callbacks: list[Any] = [
            RunFolder(
                {self.folder / RUN_FILE: json.dumps(self.record, indent=1)},
                [self.folder / HISTORY_FILE, self.folder / CHECKPOINTS] if self.replaces else [],
            ),
            history,
        ]
        if self.monitored:
            callbacks.append(ModelCheckpoint(filename="best", monitor="val_loss", **keep))
        # after the best, whose record it holds; Lightning's save_last would skip epochs that are not the best so far
        callbacks.append(ModelCheckpoint(filename="last", **keep))
        if config.progress and shard.rank == 0:
            callbacks.append(EpochProgress(history))
        if self.monitored and config.patience:
            callbacks.append(EarlyStopping("val_loss", patience=config.patience, check_on_train_epoch_end=True))
        if config.averaging:
            callbacks.append(Averaging(config.averaging))
        return callbacks


def _strategy() -> Any:
    """Lightning's DDP over processes of one machine, which :mod:`cradlevae.model.training.processes` has started."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    # the buffers never change, so that to send them around at every step would be waste
    return DDPStrategy(
        cluster_environment=LightningEnvironment(), broadcast_buffers=False, gradient_as_bucket_view=True
    )


def _tensorboard(folder: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise DataError("tensorboard is not installed; pip install 'cradlevae[tensorboard]'") from None


@contextmanager
def _interrupts() -> Iterator[None]:
    """Raise Lightning's exit on Ctrl-C as an interrupt; errors of a step keep their type and their traceback."""
    try:
        yield
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
