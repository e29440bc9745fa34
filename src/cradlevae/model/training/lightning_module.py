"""Lightning's side of training: the steps, the optimiser, the record of every epoch and its progress bar."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from cradlevae.data.loading.minibatch import Minibatch
from cradlevae.data.loading.shard import Shard
from cradlevae.errors import TrainingError
from cradlevae.model.module import CradleModule
from cradlevae.model.objective import draw_noise, loss_terms
from cradlevae.model.objective_inputs import SplitSizes
from cradlevae.model.training.row_adam import RowAdam, clip_gradients
from cradlevae.nn.matmul import Precision, matmul_precision
from cradlevae.nn.rows import sparse_row_gradients

VALIDATION_SEED = 20_250_227
"""The same noise scores every epoch's validation, so that epochs differ by their weights only."""

CHECK_EVERY = 50
"""Steps between two looks at the losses on an accelerator, which each look makes wait; on the CPU it is every step."""


class TrainingModule(pl.LightningModule):
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
        shard: Shard = Shard(),  # noqa: B008 (frozen)
        precision: Precision = "float32",
        by_rows: bool = False,
    ) -> None:
        super().__init__()
        self.by_rows = by_rows
        self.settings = ExitStack()
        self.precision = precision
        self.module = module
        self.sizes = sizes
        self.n_particles = n_particles
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seed = seed
        self.shard = shard
        self._records = {part: EpochRecord() for part in ("train", "val")}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as published; ``by_rows`` does the same for tables of treatments at the cost of those that occur.

        It goes over the weights in one pass where torch has that for the device.
        """
        settings: dict[str, Any] = {
            "tables": self.module.tables() if self.by_rows else [],
            "lr": self.learning_rate,
            "weight_decay": self.weight_decay,
        }
        try:
            self.adam = RowAdam(self.module.parameters(), **settings, fused=True)
        except RuntimeError:  # torch's answer where it does not
            self.adam = RowAdam(self.module.parameters(), **settings, fused=False)
        return self.adam

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient, of which some may be sparse."""
        if gradient_clip_val:
            clip_gradients(self.module.parameters(), gradient_clip_val)

    def on_fit_start(self) -> None:
        """Put the sizes where the model is, and set the precision of products, until ``settings`` is closed.

        Not before: Lightning looks at torch's own setting when it sets up a GPU, which torch refuses while ours is on.
        """
        self.sizes = self.sizes.to(self.device)
        self.settings.enter_context(matmul_precision(self.precision))

    def on_train_epoch_start(self) -> None:
        """Seed the epoch."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)
        self._records["train"] = EpochRecord()

    def on_validation_epoch_start(self) -> None:
        """Seed the validation, always alike."""
        self._check("train")  # before it is scored, a model must be sound
        torch.manual_seed(VALIDATION_SEED)
        self._records["val"] = EpochRecord()

    def on_train_batch_start(self, batch: Minibatch, batch_idx: int) -> None:
        """Drop the last step's gradients, which would lie beside this one's.

        The likelihood makes its gradients together with the loss.
        """
        self.zero_grad()

    def training_step(self, batch: Minibatch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        if not self.by_rows:
            return self._step("train", batch, batch_idx)
        rows = [batch.treatments] if batch.pairs is None else [batch.treatments, batch.pairs.treatments]
        self.adam.catch_up(torch.unique(torch.cat(rows)))
        with sparse_row_gradients():
            return self._step("train", batch, batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Minibatch, batch_idx: int) -> None:
        """Bring all rows up to date at the end of an epoch, before the model is scored and saved."""
        if self.by_rows and self.trainer.is_last_batch:
            self.adam.catch_up_all()

    def validation_step(self, batch: Minibatch, batch_idx: int) -> None:
        """Add a batch to the validation loss."""
        self._step("val", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Make the validation loss known to early stopping and checkpoints."""
        self.log("val_loss", sum(self.means("val").values()))

    def means(self, part: str) -> dict[str, float]:
        """Mean of each loss term over the cells of the epoch, those of the other processes included."""
        self._check(part)
        return self._records[part].means(over_processes=self.shard.n > 1)

    def _step(self, part: str, batch: Minibatch, batch_idx: int) -> Tensor:
        """The loss of a batch, as a term of the mean over processes."""
        # every process draws the noise of the whole batch and takes that of its cells
        noise = draw_noise(self.module, batch.whole, self.n_particles).of(self.shard.computed(batch.whole))
        terms = loss_terms(self.module, batch, self.sizes, noise)
        values = torch.stack(list(terms.values()))
        own = self.shard.cells(batch.whole)
        n_own = own.stop - own.start
        self._records[part].add(tuple(terms), values.detach(), n_own)
        if self.device.type == "cpu" or (batch_idx + 1) % CHECK_EVERY == 0:
            self._check(part)
        share = n_own * self.shard.n / batch.whole
        loss = values.sum()
        return loss if share == 1 else loss * share

    def _check(self, part: str) -> None:
        """Raise :class:`TrainingError` if a loss since the last check is not finite."""
        not_finite = self._records[part].first_not_finite()
        if not_finite is None:
            return
        batch_idx, terms = not_finite
        wrong = [f"{name} = {value:g}" for name, value in terms.items() if not math.isfinite(value)]
        where = {"train": "training", "val": "validation"}[part]
        raise TrainingError(
            f"the loss is not finite in epoch {self.current_epoch}, {where} batch {batch_idx}: {', '.join(wrong)}. "
            "Try a smaller learning_rate (a third), a smaller gradient_clip (1), or look for cells of extreme counts; "
            "the checkpoints of earlier epochs are kept"
        )


class EpochRecord:
    """The loss terms of the batches of an epoch, on the device that they were computed on until they are asked for."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._fresh: list[Tensor] = []
        self._read = 0
        self._sums: Tensor | None = None
        self._cells = 0
        self._means: dict[str, float] | None = None

    def add(self, names: tuple[str, ...], values: Tensor, n_cells: int) -> None:
        """Add the terms of a batch, (terms,), each a mean over ``n_cells`` cells."""
        self._names = names
        self._fresh.append(values)
        self._sums = values * n_cells if self._sums is None else self._sums.add_(values, alpha=n_cells)
        self._cells += n_cells

    def first_not_finite(self) -> tuple[int, dict[str, float]] | None:
        """Index and terms of the first batch since the last call with a term that is not finite."""
        if not self._fresh:
            return None
        fresh = torch.stack(self._fresh) if len(self._fresh) > 1 else self._fresh[0].unsqueeze(0)
        before = self._read
        self._read += len(self._fresh)
        self._fresh = []
        if math.isfinite(fresh.sum().item()):  # the one wait for the device
            return None
        wrong = (~fresh.isfinite().all(dim=1)).nonzero()
        if len(wrong) == 0:  # large but finite terms
            return None
        first = int(wrong[0])
        return before + first, dict(zip(self._names, fresh[first].tolist(), strict=True))

    def means(self, *, over_processes: bool = False) -> dict[str, float]:
        """Mean of each term over the cells; over those of all processes, each of them has to ask."""
        if self._means is None:
            if self._sums is None:
                return {}
            sums = torch.cat([self._sums, self._sums.new_tensor([self._cells])])
            if over_processes:
                torch.distributed.all_reduce(sums)
            *totals, n_cells = sums.tolist()
            self._means = {name: total / n_cells for name, total in zip(self._names, totals, strict=True)}
        return self._means
