"""What the harness asks of whatever it scores: a trained model of the family, or a floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cradlevae.evaluation.floors.model import FittedFloor
from cradlevae.model.trained import TrainedModel
from cradlevae.query.effects import effects
from cradlevae.query.library_sizes import LibrarySize
from cradlevae.query.predict import predict

Predictor = TrainedModel | FittedFloor
"""Both know their genes, their split and the fingerprints of their training cells, and which conditions they answer."""


def predicted_effects(model: Predictor, conditions: Sequence[str], *, seed: int, credible: float = 0.9) -> Any:
    """Effects of conditions that it can answer, with intervals where it has them, an AnnData: conditions × genes."""
    if isinstance(model, FittedFloor):
        return model.effects(conditions, credible)
    return effects(model, conditions, credible=credible, seed=seed)


def generated_cells(
    model: Predictor, conditions: Sequence[str], *, n_cells: int, seed: int, library_size: LibrarySize = "controls"
) -> Any:
    """Artifact-free cells of such conditions, an AnnData of counts."""
    if isinstance(model, FittedFloor):
        return model.predict(conditions, n_cells, library_size=library_size, seed=seed)
    return predict(model, conditions, n_cells=n_cells, library_size=library_size, seed=seed)
