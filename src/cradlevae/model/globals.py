"""A draw of the global variables (mask, embedding, artifact), and the latent states of cells that follow from it.

Shapes: P particles, N cells, T treatments, C artifact classes, K latents, W width of z^p.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cradlevae.nn.mlp import Gaussian


@dataclass(frozen=True)
class GlobalNoise:
    """The random numbers behind a draw of the global variables; ``None`` for what a model does not draw.

    Attributes
    ----------
    mask
        Standard logistic, (P, T, K).
    embedding
        Standard normal, (P, T, K).
    artifact
        Standard normal, (P, C, K).
    """

    mask: Tensor | None
    embedding: Tensor | None
    artifact: Tensor | None

    def of(self, treatments: Tensor) -> GlobalNoise:
        """The random numbers of these treatments only, (treatments,) int64."""
        return GlobalNoise(
            None if self.mask is None else self.mask.index_select(1, treatments),
            None if self.embedding is None else self.embedding.index_select(1, treatments),
            self.artifact,
        )


@dataclass(frozen=True)
class Globals:
    """A draw of the global variables from the guide, with the posteriors that it came from.

    Attributes
    ----------
    mask
        M, (P, T, K); ``None`` where there is none.
    embedding
        E, (P, T, W); P is 1 where it is the same for all particles.
    artifact
        A, (P, C, K); ``None`` where there is none.
    q_embedding, q_artifact
        Their posteriors, of the same shapes; ``None`` where they are not drawn.
    """

    mask: Tensor | None
    embedding: Tensor
    artifact: Tensor | None
    q_embedding: Gaussian | None
    q_artifact: Gaussian | None

    @property
    def shift(self) -> Tensor:
        """What each treatment adds to z^p, M∘E, (P, T, W); P is 1 where it is the same for all particles."""
        return self.embedding if self.mask is None else self.mask * self.embedding


def perturbation_state(draw: Globals, dosage: Tensor, condition: Tensor) -> Tensor:
    """z^p of cells: (conditions, T) dosages and the condition of each of N cells → (P, N, W)."""
    return (dosage @ draw.shift).index_select(1, condition)


def artifact_state(draw: Globals, artifact: Tensor) -> Tensor | None:
    """z^a of cells: artifact indicators (N, C) → (P, N, K); ``None`` where a model has no artifact."""
    return None if draw.artifact is None else artifact @ draw.artifact
