"""How a model is trained, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from cradlevae.errors import DataError
from cradlevae.utils.accelerator import accelerator_count
from cradlevae.utils.checks import check_at_least, check_choice, seed_number, whole_number
from cradlevae.utils.fields import normalise_fields

STEPS = 3000
"""Steps of training by default: validation improves little after them."""


EPOCHS = 30, 200
"""Fewest and most epochs by default."""


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Parameters
    ----------
    max_epochs
        At most so many passes over the training cells; ``None`` takes as many as make 3,000 steps, between 30 and 200.
    batch_size
        Cells a step, over all devices.
    n_particles
        Monte-Carlo particles a step.
    learning_rate
        Adam's learning rate.
    weight_decay
        Adam's weight decay.
    averaging
        Decay, per step, of the exponential moving average of the weights that is validated and saved; 0 is none.
    gradient_clip
        Largest norm of the gradient.
    patience
        Epochs without a better validation loss before training stops; 0 never stops early.
    seed
        Seed of batches and noise (that of the weights is the model's own).
    accelerator
        As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``, ...
    devices
        Devices to train on, a process each; on the CPU, so many processes. ``"auto"`` takes all GPUs where training
        runs on GPUs, and one process on the CPU. Each takes its part of every batch, and the result is that of one
        device up to rounding. Not for the objective ``released``, whose terms depend on the
        whole batch.
    precision
        Precision of matrix products: ``"float32"``, or ``"bf16"`` (see :func:`cradlevae.nn.matmul.matmul_precision`).
    data_on_device
        Whether all cells are kept on the device, so that a step copies no counts there: ``auto`` does where they fit
        into half of its free memory, ``always`` and ``never`` do as they say.
    tensorboard
        Also log to TensorBoard (extra ``tensorboard``).
    progress
        Whether to show a progress bar.

    Examples
    --------
    >>> import cradlevae as cv
    >>> cv.TrainConfig(batch_size=500).of_cells(10_000).max_epochs
    150
    """

    max_epochs: int | None = None
    batch_size: int = 256
    n_particles: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-6
    averaging: float = 0.99
    gradient_clip: float = 100.0
    patience: int = 25
    seed: int = 0
    accelerator: str = "auto"
    devices: int | Literal["auto"] = 1
    precision: Literal["float32", "bf16"] = "float32"
    data_on_device: Literal["auto", "always", "never"] = "auto"
    tensorboard: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        normalise_fields(self)
        check_at_least(
            1, batch_size=self.batch_size, **({} if self.max_epochs is None else {"max_epochs": self.max_epochs})
        )
        check_at_least(1, n_particles=self.n_particles)
        if isinstance(self.devices, str):
            check_choice("devices", self.devices, ("auto",))
        else:
            whole_number("devices", self.devices, 1)  # true fits Literal too
        check_choice("precision", self.precision, ("float32", "bf16"))
        check_at_least(0, weight_decay=self.weight_decay, patience=self.patience)
        seed_number(self.seed)
        check_choice("data_on_device", self.data_on_device, ("auto", "always", "never"))
        for name in ("learning_rate", "gradient_clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise DataError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.averaging < 1:
            raise DataError(f"averaging is {self.averaging}; it must be at least 0 and below 1")

    @property
    def n_devices(self) -> int:
        """Number of devices to train on, with ``"auto"`` counted on this machine."""
        if self.devices != "auto":
            return self.devices
        kind = {"auto": None, "gpu": None}.get(self.accelerator, self.accelerator)
        return max(1, accelerator_count(kind))

    def of_cells(self, n_cells: int) -> TrainConfig:
        """These settings with ``max_epochs`` filled in for so many training cells."""
        if self.max_epochs is not None:
            return self
        steps = max(1, math.ceil(n_cells / self.batch_size))
        fewest, most = EPOCHS
        return replace(self, max_epochs=min(max(math.ceil(STEPS / steps), fewest), most))
