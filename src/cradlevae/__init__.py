"""Artifact-free predictions from Perturb-seq: CRADLE-VAE for AnnData, QC-failed cells included.

Names are imported when they are first used, so that ``import cradlevae`` takes no time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Torch looks for it when it makes its first array: large arrays then lie in large pages (Linux), of which a step of
# training touches hundreds instead of a hundred thousand.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from cradlevae.api import CPAVAE as CPAVAE
    from cradlevae.api import SAMSVAE as SAMSVAE
    from cradlevae.api import ConditionalVAE as ConditionalVAE
    from cradlevae.api import CradleVAE as CradleVAE
    from cradlevae.api import SVAEPlus as SVAEPlus
    from cradlevae.api import evaluate as evaluate
    from cradlevae.api import to_cell_eval as to_cell_eval
    from cradlevae.api.load import load as load
    from cradlevae.benchmarking.benchmark import benchmark as benchmark
    from cradlevae.benchmarking.plan import Plan as Plan
    from cradlevae.benchmarking.reproduce import reproduce as reproduce
    from cradlevae.catalogue import models as models
    from cradlevae.data import datasets as datasets
    from cradlevae.data.experiment import DataFields as DataFields
    from cradlevae.data.guides.assignment import assign_guides as assign_guides
    from cradlevae.data.guides.reading import read_10x as read_10x
    from cradlevae.data.qc.annotate import annotate_qc as annotate_qc
    from cradlevae.data.qc.confounding import confounding_alarm as confounding_alarm
    from cradlevae.data.simulation.plant import plant_artifacts as plant_artifacts
    from cradlevae.data.simulation.simulate import simulate as simulate
    from cradlevae.data.split import Split as Split
    from cradlevae.data.split import split as split
    from cradlevae.data.storage.stored_cells import StoredCells as StoredCells
    from cradlevae.data.storage.stored_cells import open_cells as open_cells
    from cradlevae.errors import CradleError as CradleError
    from cradlevae.errors import DataError as DataError
    from cradlevae.errors import TrainingError as TrainingError
    from cradlevae.evaluation.floors.model import FloorModel as FloorModel
    from cradlevae.model.config import ModelConfig as ModelConfig
    from cradlevae.model.training.settings import TrainConfig as TrainConfig
    from cradlevae.query.effects_table import effects_table as effects_table
    from cradlevae.query.guide_effects import guide_effects as guide_effects

_HOMES = {
    "cradlevae.api": (
        "CPAVAE",
        "ConditionalVAE",
        "CradleVAE",
        "SAMSVAE",
        "SVAEPlus",
        "evaluate",
        "load",
        "to_cell_eval",
    ),
    "cradlevae.benchmarking.plan": ("Plan",),
    "cradlevae.benchmarking.reproduce": ("reproduce",),
    "cradlevae.benchmarking.benchmark": ("benchmark",),
    "cradlevae.catalogue": ("models",),
    "cradlevae.data": ("datasets",),
    "cradlevae.data.experiment": ("DataFields",),
    "cradlevae.data.guides.assignment": ("assign_guides",),
    "cradlevae.data.guides.reading": ("read_10x",),
    "cradlevae.data.qc.annotate": ("annotate_qc",),
    "cradlevae.data.qc.confounding": ("confounding_alarm",),
    "cradlevae.data.simulation.plant": ("plant_artifacts",),
    "cradlevae.data.simulation.simulate": ("simulate",),
    "cradlevae.data.split": ("Split", "split"),
    "cradlevae.data.storage.stored_cells": ("StoredCells", "open_cells"),
    "cradlevae.errors": ("CradleError", "DataError", "TrainingError"),
    "cradlevae.evaluation.floors.model": ("FloorModel",),
    "cradlevae.model.config": ("ModelConfig",),
    "cradlevae.model.training.settings": ("TrainConfig",),
    "cradlevae.query.effects_table": ("effects_table",),
    "cradlevae.query.guide_effects": ("guide_effects",),
}
"""The public names by the module that defines them; a type checker reads the same in the imports above."""

_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cradlevae")
    if name not in _HOME:
        raise AttributeError(f"module 'cradlevae' has no attribute {name!r}")
    value = getattr(__import__(_HOME[name], fromlist=[name]), name)  # as `from HOME import name` does
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
