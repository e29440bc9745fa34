"""What Lightning calls around the steps: history, cells on the device, average of the weights, progress bar."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cradlevae.data.loading.device_cells import DeviceCells
from cradlevae.data.loading.loader import Minibatches
from cradlevae.model.training.row_adam import RowAdam
from cradlevae.utils.atomic import write_text
from cradlevae.utils.progress import ProgressBar


class History(Callback):
    """Keeps the mean of every loss term per epoch, in checkpoints and, written by the first process, as a CSV file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._started = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch; comes before checkpoints are written."""
        from cradlevae.model.training.lightning_module import TrainingModule

        assert isinstance(pl_module, TrainingModule)
        row: dict[str, float] = {"epoch": trainer.current_epoch}
        for part in ("train", "val"):
            means = pl_module.means(part)
            if means:
                row[f"{part}_loss"] = sum(means.values())
                row |= {f"{part}_{name}": value for name, value in means.items()}
        row["seconds"] = time.perf_counter() - self._started
        self.rows.append(row)
        self._write(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what a finished run, resumed, did not change."""
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            write_text(self.path, pd.DataFrame(self.rows).to_csv(index=False))

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = state_dict["rows"]


class RunFolder(Callback):
    """Makes a folder that of this run, when its first epoch is complete: until then an earlier run in it stays whole.

    It comes before the callbacks that write into the folder; the first process does it.

    Parameters
    ----------
    files
        Texts to write, by the path of their file.
    removed
        Files and folders of an earlier run.
    """

    def __init__(self, files: Mapping[Path, str], removed: Iterable[Path]) -> None:
        self._files = dict(files)
        self._removed = list(removed)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the earlier run and write the files, once."""
        if trainer.is_global_zero:
            for path in self._removed:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            for path, text in self._files.items():
                write_text(path, text)
        self._removed, self._files = [], {}


class DataOnDevice(Callback):
    """Puts the cells onto the device that trains; ``when`` as in :class:`.TrainConfig`."""

    def __init__(self, batches: Iterable[Minibatches], when: str) -> None:
        self._batches = list(batches)
        self._when = when

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put them there, once for all batches."""
        data = self._batches[0].data
        if self._when == "always" or (self._when == "auto" and DeviceCells.fits(data, pl_module.device)):
            cells = DeviceCells(data, pl_module.device)
            for batches in self._batches:
                batches.take_from(cells)


class Averaging(WeightAveraging):
    """Keeps an exponential moving average of the weights, which is validated and written into checkpoints.

    Lightning's, but for the update: one operation on all weights, on their device, that waits for nothing. The averages
    of tables whose rows are moved when they occur are the optimiser's business (:class:`.RowAdam`).

    Parameters
    ----------
    decay
        What of the average a step keeps; the first step's weights begin it.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the weights, once, and put the average beside them; Lightning made it before they were on a device."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)
        averages: dict[Tensor, Tensor] = dict(
            zip(pl_module.parameters(), self._average_model.module.parameters(), strict=True)
        )
        self._all = list(averages.values()), list(averages)
        adam = pl_module.optimizers(use_pl_optimizer=False)
        by_rows = adam.average(averages, self._decay) if isinstance(adam, RowAdam) and adam.tables else set()
        own = {weight: average for weight, average in averages.items() if weight not in by_rows}
        self._averages, self._weights = list(own.values()), list(own)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average."""
        if self._latest_update_step == 0:
            torch._foreach_copy_(*self._all)
        else:
            self._update(self._averages, self._weights, None)
        self._latest_update_step = trainer.global_step


class EpochProgress(Callback):
    """Progress over epochs, with the losses: a bar, or a line for each epoch where there is no terminal."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._bar: ProgressBar | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        self._bar = ProgressBar("training: epoch", trainer.max_epochs, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move it."""
        if self._bar is not None:
            last = self._history.rows[-1]
            text = f"loss {last['train_loss']:.2f}"
            if "val_loss" in last:
                text += f", validation {last['val_loss']:.2f}"
            self._bar.show(trainer.current_epoch + 1, text)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave it full, also where training stopped before the last epoch."""
        self._close(complete=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave it as it stands, and free the terminal."""
        self._close(complete=False)

    def _close(self, *, complete: bool) -> None:
        if self._bar is not None:
            self._bar.close(complete=complete)
            self._bar = None
