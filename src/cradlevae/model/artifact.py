"""What damage adds to a cell: artifact models, side by side with what a perturbation adds (:mod:`.effect`).

A cell that failed quality control has indicators of the criteria that it failed (its artifact classes). An artifact
model says what that does to its latent state z^a, which is 0 for cells that passed:

- the vector A_c of each class c, how it is drawn and what it costs (:meth:`Artifact.draw`, :meth:`Artifact.score`); the
  encoder of the basal state sees u_i A, the sum of the vectors of the classes of a cell;
- whether a failed cell also has a part s_i ~ Normal(0, I) of its own (:attr:`Artifact.has_own`), whose posterior is a
  head on the basal encoder's hidden layer; the decoder takes z^a_i = u_i A + s_i.

A query switches the artifact off: with indicators u of zero, z^a is 0. A new artifact model is a class with a ``key``
under :func:`register_artifact_model`. Shapes: P particles, N cells, C artifact classes, K latents.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.nn.mlp import Gaussian, GaussianMLP, standard_log_prob
from cradlevae.utils.names import closest


class Artifact(nn.Module):
    """A vector A_c ~ Normal(0, 1) for each artifact class, shared by all cells of the class; z^a_i = u_i A.

    The guide is a network of a vector of ones (of the one-hot class where there are several). Other artifact models
    derive from this one.

    Parameters
    ----------
    config
        A resolved configuration.
    n_classes
        C.
    """

    key: ClassVar[str] = "shared"
    """Name in settings and files."""

    description: ClassVar[str] = "one vector for each artifact class, shared by its cells"
    """One line."""

    has_own: ClassVar[bool] = False
    """Whether each failed cell has an artifact state of its own beside the shared one."""

    def __init__(self, config: ModelConfig, n_classes: int) -> None:
        super().__init__()
        assert config.n_latent is not None
        assert config.embedding_layers is not None
        self.n_classes = n_classes
        self.n_latent = config.n_latent
        n_inputs = config.n_latent if n_classes == 1 else n_classes
        self.encoder = GaussianMLP((n_inputs,), config.width, config.embedding_layers, config.n_latent)

    def draw(self, noise: Tensor) -> tuple[Tensor, Gaussian | None]:
        """A from standard normal ``noise``, (P, C, K), and the posterior that it comes from.

        A model without a posterior gives ``None`` for it; then nothing is scored.
        """
        posterior, p = self._posterior(noise), len(noise)
        posterior = Gaussian(posterior.loc.expand(p, -1, -1), posterior.scale.expand(p, -1, -1))
        return posterior.sample(noise), posterior

    def _posterior(self, like: Tensor) -> Gaussian:
        """q(A), (C, K)."""
        if self.n_classes == 1:
            return self.encoder(like.new_ones(1, self.n_latent))  # type: ignore[no-any-return]
        return self.encoder(torch.eye(self.n_classes, device=like.device, dtype=like.dtype))  # type: ignore[no-any-return]

    def score(self, posterior: Gaussian, value: Tensor, *, sampled: bool) -> Tensor:
        """Log p − log q of A, mean over particles, (C,): of the draw, or in expectation."""
        if sampled:
            return (standard_log_prob(value) - posterior.log_prob(value)).sum(-1).mean(0)
        return -posterior.kl_to_standard().sum(-1).mean(0)


ARTIFACT_MODELS: dict[str, type[Artifact]] = {}
"""Every artifact model by its key."""

Kind = TypeVar("Kind", bound=type[Artifact])


def register_artifact_model(kind: Kind) -> Kind:
    """Make an artifact model known by its key; a class decorator.

    Raises
    ------
    DataError
        If the key is taken.
    """
    if kind.key in ARTIFACT_MODELS:
        raise DataError(f"an artifact model {kind.key!r} is already registered; choose another key")
    ARTIFACT_MODELS[kind.key] = kind
    return kind


def artifact_model_of(key: str) -> type[Artifact]:
    """The artifact model with a key; :class:`DataError` if there is none."""
    if key not in ARTIFACT_MODELS:
        raise DataError(f"unknown artifact model {key!r}{closest(key, list(ARTIFACT_MODELS))}")
    return ARTIFACT_MODELS[key]


register_artifact_model(Artifact)


@register_artifact_model
class CellArtifact(Artifact):
    """The shared vectors, and for each failed cell a state of its own, s_i ~ Normal(0, I): z^a_i = u_i A + s_i.

    "Failed QC" is many things (dying, doublet, few counts), which one vector cannot describe; the basal state then need
    not explain which of them a cell took.
    """

    key: ClassVar[str] = "cell"
    description: ClassVar[str] = "a vector for each artifact class, and a state of its own for each failed cell"
    has_own: ClassVar[bool] = True


def make_artifact(config: ModelConfig, n_classes: int) -> Artifact | None:
    """The artifact model of a resolved configuration; ``None`` where its model has no artifact latent."""
    return None if config.artifact_model is None else artifact_model_of(config.artifact_model)(config, n_classes)
