"""Lightning's side of training: the steps, the optimiser, the record of every epoch and its progress bar."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from cradlevae.data.batches import Batch
from cradlevae.data.files import write_text
from cradlevae.errors import TrainingError
from cradlevae.model.module import CradleModule
from cradlevae.model.objective import SplitSizes, draw_noise, loss_terms

VALIDATION_SEED = 20_250_227
"""The same noise scores every epoch's validation, so that epochs differ by their weights only."""


class TrainingPlan(pl.LightningModule):
    """Steps and optimiser around a :class:`CradleModule`.

    Random numbers depend on the seed and the epoch alone, so a resumed run repeats the uninterrupted one.
    """

    def __init__(
        self,
        module: CradleModule,
        sizes: SplitSizes,
        *,
        n_particles: int,
        learning_rate: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.module = module
        self.sizes = sizes
        self.n_particles = n_particles
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seed = seed
        self._sums: dict[str, dict[str, Tensor]] = {}
        self._cells: dict[str, int] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as published."""
        return torch.optim.Adam(
            self.module.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )

    def on_train_epoch_start(self) -> None:
        """Seed the epoch."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)
        self._reset("train")

    def on_validation_epoch_start(self) -> None:
        """Seed the validation, always alike."""
        torch.manual_seed(VALIDATION_SEED)
        self._reset("val")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        return self._step("train", batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation loss."""
        self._step("val", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Make the validation loss known to early stopping and checkpoints."""
        self.log("val_loss", sum(self.means("val").values()))

    def means(self, part: str) -> dict[str, float]:
        """Mean of each loss term over the cells of the epoch."""
        return {name: float(value) / self._cells[part] for name, value in self._sums.get(part, {}).items()}

    def _reset(self, part: str) -> None:
        self._sums[part] = {}
        self._cells[part] = 0

    def _step(self, part: str, batch: Batch, batch_idx: int) -> Tensor:
        noise = draw_noise(self.module, batch.n_cells, self.n_particles)
        terms = loss_terms(self.module, batch, self.sizes.to(self.device), noise)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            self._refuse(part, terms, batch_idx)
        sums = self._sums[part]
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.detach() * batch.n_cells
        self._cells[part] += batch.n_cells
        return loss

    def _refuse(self, part: str, terms: dict[str, Tensor], batch_idx: int) -> None:
        wrong = [f"{name} = {value.item():g}" for name, value in terms.items() if not torch.isfinite(value)]
        where = {"train": "training", "val": "validation"}[part]
        raise TrainingError(
            f"the loss is not finite in epoch {self.current_epoch}, {where} batch {batch_idx}: {', '.join(wrong)}. "
            "Try a smaller learning_rate (a third), a smaller gradient_clip (1), or look for cells of extreme counts; "
            "the checkpoints of earlier epochs are kept"
        )


class History(Callback):
    """Keeps the mean of every loss term per epoch, in checkpoints and as a CSV file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._started = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch; comes before checkpoints are written."""
        assert isinstance(pl_module, TrainingPlan)
        row: dict[str, float] = {"epoch": trainer.current_epoch}
        for part in ("train", "val"):
            means = pl_module.means(part)
            if means:
                row[f"{part}_loss"] = sum(means.values())
                row |= {f"{part}_{name}": value for name, value in means.items()}
        row["seconds"] = time.perf_counter() - self._started
        self.rows.append(row)
        write_text(self.path, self.table().to_csv(index=False))

    def table(self) -> pd.DataFrame:
        """One row per epoch."""
        return pd.DataFrame(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = state_dict["rows"]


class EpochProgress(Callback):
    """A progress bar over epochs, with the losses."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        self._progress = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
            TimeRemainingColumn(), TextColumn("{task.description}"),
        )  # fmt: skip
        self._progress.start()
        self._task = self._progress.add_task("", total=trainer.max_epochs, completed=trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move it."""
        if self._progress is not None:
            last = self._history.rows[-1]
            text = f"loss {last['train_loss']:.2f}"
            if "val_loss" in last:
                text += f", validation {last['val_loss']:.2f}"
            self._progress.update(self._task, advance=1, description=text)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave it as it stands."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Free the terminal."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
