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
    from cradlevae.api import CPAVAE, SAMSVAE, ConditionalVAE, CradleVAE, SVAEPlus, evaluate, load, to_cell_eval
    from cradlevae.benchmarking.benchmark import benchmark
    from cradlevae.benchmarking.plan import Plan
    from cradlevae.benchmarking.reproduce import reproduce
    from cradlevae.catalogue import models
    from cradlevae.data import datasets
    from cradlevae.data.experiment import DataFields
    from cradlevae.data.qc.annotate import annotate_qc
    from cradlevae.data.qc.confounding import confounding_alarm
    from cradlevae.data.simulation.plant import plant_artifacts
    from cradlevae.data.simulation.simulate import simulate
    from cradlevae.data.split import Split, split
    from cradlevae.data.storage.stored_cells import StoredCells, open_cells
    from cradlevae.errors import CradleError, DataError, TrainingError
    from cradlevae.evaluation.floors.model import FloorModel
    from cradlevae.model.config import ModelConfig, TrainConfig

_MODULES = {"datasets": "cradlevae.data.datasets"}

_HOME = {
    "CPAVAE": "cradlevae.api",
    "ConditionalVAE": "cradlevae.api",
    "CradleVAE": "cradlevae.api",
    "CradleError": "cradlevae.errors",
    "DataError": "cradlevae.errors",
    "DataFields": "cradlevae.data.experiment",
    "SAMSVAE": "cradlevae.api",
    "SVAEPlus": "cradlevae.api",
    "FloorModel": "cradlevae.evaluation.floors.model",
    "ModelConfig": "cradlevae.model.config",
    "Plan": "cradlevae.benchmarking.plan",
    "Split": "cradlevae.data.split",
    "StoredCells": "cradlevae.data.storage.stored_cells",
    "TrainConfig": "cradlevae.model.config",
    "TrainingError": "cradlevae.errors",
    "annotate_qc": "cradlevae.data.qc.annotate",
    "benchmark": "cradlevae.benchmarking.benchmark",
    "confounding_alarm": "cradlevae.data.qc.confounding",
    "evaluate": "cradlevae.api",
    "load": "cradlevae.api",
    "models": "cradlevae.catalogue",
    "open_cells": "cradlevae.data.storage.stored_cells",
    "plant_artifacts": "cradlevae.data.simulation.plant",
    "reproduce": "cradlevae.benchmarking.reproduce",
    "simulate": "cradlevae.data.simulation.simulate",
    "split": "cradlevae.data.split",
    "to_cell_eval": "cradlevae.api",
}

__all__ = [
    "CPAVAE",
    "SAMSVAE",
    "ConditionalVAE",
    "CradleError",
    "CradleVAE",
    "DataError",
    "DataFields",
    "FloorModel",
    "ModelConfig",
    "Plan",
    "SVAEPlus",
    "Split",
    "StoredCells",
    "TrainConfig",
    "TrainingError",
    "annotate_qc",
    "benchmark",
    "confounding_alarm",
    "datasets",
    "evaluate",
    "load",
    "models",
    "open_cells",
    "plant_artifacts",
    "reproduce",
    "simulate",
    "split",
    "to_cell_eval",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cradlevae")
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOME:
        raise AttributeError(f"module 'cradlevae' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
