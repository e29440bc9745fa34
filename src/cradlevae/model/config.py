"""What a model is made of, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from cradlevae.data.batches import ReferenceKind
from cradlevae.errors import DataError


@dataclass(frozen=True)
class ModelConfig:
    """Architecture, priors and objective of CRADLE-VAE.

    ``None`` is filled in from the data: whether it has combinations (Norman, Dixit) or single perturbations only
    (Adamson, Replogle).

    Parameters
    ----------
    n_latent
        Latent dimensions K; 200 with combinations, 100 without.
    width
        Hidden width of the networks.
    basal_width
        Hidden width of the basal encoder; 400 with combinations, 200 without.
    decode
        How basal state, perturbation effect and artifact meet in the decoder: ``concat`` or ``sum``.
    guide
        Variational posterior of the perturbation embedding: ``correlated`` (depends on the mask) or ``mean-field``.
    mask_prior
        Prior probability π that a latent is touched by a perturbation; 0.01 with combinations, 0.001 without.
    objective
        ``corrected`` (a bound, a true divergence, references of the opposite class) or ``released`` (the public
        implementation to float32 rounding).
    counterfactual_weight
        Weight β of the counterfactual term; 0.05, and for ``released`` 0.5 with combinations, 0.1 without.
    alpha
        ``released`` only: weight of passing cells' reconstruction; ``None`` is the batch's share of failed cells.
    reference
        What stands for "the same cell, had it been of the other class": ``mean``, ``median`` or a random ``cell``.
        ``released`` always takes medians of failed cells.
    balance_classes
        ``corrected`` only: weigh cells so that passing and failed ones count alike (weights of mean 1).
    linear_path
        ``corrected`` only: the latents also reach the log rates of the genes directly, past the decoder's hidden
        layers, so that effects which add up in the latent space add up in the genes.
    cell_artifact
        ``corrected`` only: a failed cell has an artifact state of its own beside the shared one, so that the basal
        state need not explain which kind of damage it took.
    weight_scale
        ``corrected`` only: smallest prior standard deviation of a column of the gene weights (each has a variance of
        its own); 0 is no prior.
    decoder_layers
        Hidden layers of the decoder.
    basal_layers
        Hidden layers of the basal encoder.
    embedding_layers
        Hidden layers of the embedding and artifact encoders.
    """

    n_latent: int | None = None
    width: int = 400
    basal_width: int | None = None
    decode: Literal["concat", "sum"] = "concat"
    guide: Literal["correlated", "mean-field"] = "correlated"
    mask_prior: float | None = None
    objective: Literal["corrected", "released"] = "corrected"
    counterfactual_weight: float | None = None
    alpha: float | None = None
    reference: ReferenceKind = "mean"
    balance_classes: bool = False
    linear_path: bool = True
    cell_artifact: bool = True
    weight_scale: float = 0.02
    decoder_layers: int = 2
    basal_layers: int = 1
    embedding_layers: int = 4

    def __post_init__(self) -> None:
        choices = {
            "decode": ("concat", "sum"),
            "guide": ("correlated", "mean-field"),
            "objective": ("corrected", "released"),
            "reference": ("mean", "median", "cell"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise DataError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        if self.mask_prior is not None and not 0 < self.mask_prior < 1:
            raise DataError(f"mask_prior is {self.mask_prior}; it must lie between 0 and 1")
        for name in (
            "n_latent",
            "width",
            "basal_width",
            "decoder_layers",
            "basal_layers",
            "embedding_layers",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")

    def resolved(self, *, combinations: bool) -> ModelConfig:
        """The configuration with every ``None`` that depends on the data filled in."""
        defaults: dict[str, Any] = {
            "n_latent": 200 if combinations else 100,
            "basal_width": 400 if combinations else 200,
            "mask_prior": 0.01 if combinations else 0.001,
            "counterfactual_weight": 0.05,
        }
        if self.objective == "released":
            defaults["counterfactual_weight"] = 0.5 if combinations else 0.1
        filled = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        if self.objective == "released":  # the published model has none of these
            filled |= {"linear_path": False, "cell_artifact": False, "weight_scale": 0.0, "balance_classes": False}
        return replace(self, **filled)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Parameters
    ----------
    max_epochs
        At most so many passes over the training cells.
    batch_size
        Cells a step.
    n_particles
        Monte-Carlo particles a step.
    learning_rate
        Of Adam.
    weight_decay
        Of Adam.
    averaging
        Decay, per step, of the exponential moving average of the weights that is validated and kept; 0 is none.
    gradient_clip
        Largest norm of the gradient.
    patience
        Epochs without a better validation loss before training stops; 0 never stops early.
    seed
        Seed of weights, batches and noise.
    accelerator
        As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``, ...
    devices
        Number of devices.
    precision
        As in Lightning: ``"32-true"``, ``"bf16-mixed"``, ...
    tensorboard
        Also log to TensorBoard (extra ``tensorboard``).
    progress
        Whether to show a progress bar.
    """

    max_epochs: int = 200
    batch_size: int = 128
    n_particles: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6
    averaging: float = 0.995
    gradient_clip: float = 100.0
    patience: int = 25
    seed: int = 0
    accelerator: str = "auto"
    devices: int | str = 1
    precision: str = "32-true"
    tensorboard: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("max_epochs", "batch_size", "n_particles"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.learning_rate <= 0:
            raise DataError(f"learning_rate is {self.learning_rate}; it must be above 0")
