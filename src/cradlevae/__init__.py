"""Artifact-free predictions from Perturb-seq: CRADLE-VAE for AnnData, QC-failed cells included.

Names are imported when they are first used, so that ``import cradlevae`` takes no time.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Torch looks for it when it makes its first array: large arrays then lie in large pages (Linux), of which a step of
# training touches hundreds instead of a hundred thousand.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from cradlevae.api import CradleVAE, evaluate, to_cell_eval
    from cradlevae.data.cells import StoredCells, open_cells
    from cradlevae.data.confounding import confounding_alarm
    from cradlevae.data.contract import DataFields
    from cradlevae.data.plant import plant_artifacts
    from cradlevae.data.qc import annotate_qc
    from cradlevae.data.simulate import simulate
    from cradlevae.data.split import Split, split
    from cradlevae.errors import CradleError, DataError, TrainingError
    from cradlevae.model.config import ModelConfig, TrainConfig

_HOME = {
    "CradleVAE": "cradlevae.api",
    "CradleError": "cradlevae.errors",
    "DataError": "cradlevae.errors",
    "DataFields": "cradlevae.data.contract",
    "ModelConfig": "cradlevae.model.config",
    "Split": "cradlevae.data.split",
    "StoredCells": "cradlevae.data.cells",
    "TrainConfig": "cradlevae.model.config",
    "TrainingError": "cradlevae.errors",
    "annotate_qc": "cradlevae.data.qc",
    "confounding_alarm": "cradlevae.data.confounding",
    "evaluate": "cradlevae.api",
    "open_cells": "cradlevae.data.cells",
    "plant_artifacts": "cradlevae.data.plant",
    "simulate": "cradlevae.data.simulate",
    "split": "cradlevae.data.split",
    "to_cell_eval": "cradlevae.api",
}

__all__ = [
    "CradleError",
    "CradleVAE",
    "DataError",
    "DataFields",
    "ModelConfig",
    "Split",
    "StoredCells",
    "TrainConfig",
    "TrainingError",
    "annotate_qc",
    "confounding_alarm",
    "evaluate",
    "open_cells",
    "plant_artifacts",
    "simulate",
    "split",
    "to_cell_eval",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cradlevae")
    if name not in _HOME:
        raise AttributeError(f"module 'cradlevae' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
