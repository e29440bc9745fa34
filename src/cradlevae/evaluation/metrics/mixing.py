"""Metrics of cleaned cells among passing ones: whether they still stand apart, and stand by their perturbation.

As many failed cells as passing ones, of the same conditions and strata, are laid into one space. Where failed cells are
like passing ones, half of a failed cell's neighbours failed as well, and no classifier tells the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cradlevae.evaluation.metrics.pca_space import nearest_others
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.utils.types import BoolArray, FloatArray, IndexArray, IntArray

NEIGHBOURS = 15
"""Neighbours of a cell, as many as scanpy takes."""

TREES = 50
FOLDS = 5


@dataclass(frozen=True)
class Mixture:
    """Passing cells, and as many failed ones after cleaning, in one space.

    Attributes
    ----------
    coordinates
        Coordinates, (cells, components).
    failed
        Which cells failed quality control, (cells,).
    condition
        Code of each cell's condition, (cells,).
    """

    coordinates: FloatArray
    failed: BoolArray
    condition: IntArray

    @cached_property
    def neighbours(self) -> IndexArray:
        """Nearest other cells of each failed cell, (failed cells, neighbours)."""
        every = np.arange(len(self.failed))
        return nearest_others(self.coordinates, every[self.failed], every, min(NEIGHBOURS, len(every) - 1))


@metric(
    "mixing_failed_neighbours",
    kind="mixing",
    best=0.5,
    description=f"share of the {NEIGHBOURS} nearest cells of a failed cell that failed too; 0.5 is perfect mixing",
    note="as many failed as passing cells; 0.5 is perfect mixing",
)
def failed_neighbours(cells: Mixture) -> float:
    """Share of the nearest cells of a cleaned cell that are cleaned as well."""
    return float(cells.failed[cells.neighbours].mean())


@metric(
    "mixing_own_neighbours",
    kind="mixing",
    best=1.0,
    description=f"share of the {NEIGHBOURS} nearest cells of a failed cell that are of its perturbation",
    note="what real cells reach is the ceiling; twins that were decoded with their labels may be above it",
)
def own_neighbours(cells: Mixture) -> float:
    """Share of the nearest cells of a cleaned cell that are of its condition."""
    own = cells.condition[cells.failed]
    return float((cells.condition[cells.neighbours] == own[:, None]).mean())


@metric(
    "mixing_auc",
    kind="mixing",
    best=0.5,
    description="AUC of a classifier that tells failed cells from passing ones, by cross-validation; 0.5 is not at all",
    note="extremely randomised trees, five-fold; 0.5 is not at all",
)
def two_sample_auc(cells: Mixture, *, seed: int = 0) -> float:
    """Area under the ROC curve of a classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017), cross-validated."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if int(cells.failed.sum()) < FOLDS:
        return float("nan")
    trees = ExtraTreesClassifier(TREES, min_samples_leaf=5, random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    probability = cross_val_predict(trees, cells.coordinates, cells.failed, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(cells.failed, probability))
