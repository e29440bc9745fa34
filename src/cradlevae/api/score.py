"""Score a model on held-out cells, or write the files by which another program scores it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cradlevae.api.perturbation_vae import PerturbationVAE
from cradlevae.errors import DataError
from cradlevae.evaluation import cell_eval
from cradlevae.evaluation import evaluate as scoring
from cradlevae.evaluation.floors.fitted import FittedFloor
from cradlevae.evaluation.floors.model import FloorModel
from cradlevae.evaluation.reference_effects import ReferenceCells
from cradlevae.model.trained import TrainedModel
from cradlevae.utils.checks import shown
from cradlevae.utils.default_dtype import float32_default
from cradlevae.utils.docs import documented_by
from cradlevae.utils.types import AnnDataLike


@documented_by(scoring.evaluate)
def evaluate(
    model: PerturbationVAE | FloorModel,
    adata: AnnDataLike,
    *,
    reference: ReferenceCells = "held-out",
    published: bool = False,
    generated: bool = True,
    truth: bool | str = "auto",
    n_cells: int = 200,
    denoiser: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a trained model, or a floor, on cells that it has not seen, with floors, ceiling and fraction.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> adata.obs["artifact"] = adata.obs["true_artifact"]
    >>> floor = cv.FloorModel("shrunk_mean", adata)
    >>> floor.train()
    >>> scores = cv.evaluate(floor, adata, generated=False)
    >>> list(scores.columns)[:4]
    ['reference', 'metric', 'predictor', 'value']
    """
    with float32_default():
        return scoring.evaluate(
            _trained(model), adata, reference=reference, published=published, generated=generated, truth=truth,
            n_cells=n_cells, denoiser=denoiser, seed=seed,
        )  # fmt: skip


@documented_by(cell_eval.to_cell_eval)
def to_cell_eval(
    model: PerturbationVAE | FloorModel,
    adata: AnnDataLike,
    folder: str | Path,
    *,
    reference: ReferenceCells = "held-out",
    counts: bool = False,
    targets: Mapping[str, str] | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write the pair of files that ``cell-eval`` or ``cell-eval2`` reads: real held-out cells and generated ones.

    Examples
    --------
    >>> import tempfile
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> adata.obs["artifact"] = adata.obs["true_artifact"]
    >>> floor = cv.FloorModel("shrunk_mean", adata)
    >>> floor.train()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in cv.to_cell_eval(floor, adata, folder)]
    ['predicted.h5ad', 'real.h5ad']
    """
    with float32_default():
        return cell_eval.to_cell_eval(
            _trained(model), adata, folder, reference=reference, counts=counts, targets=targets, overwrite=overwrite,
            seed=seed,
        )  # fmt: skip


def _trained(model: PerturbationVAE | FloorModel) -> TrainedModel | FittedFloor:
    """What answers for a model or a floor; :class:`DataError` where it is neither, or has not been trained."""
    if not isinstance(model, PerturbationVAE | FloorModel):
        raise DataError(
            f"model is {shown(model)}; it must be a model such as cradlevae.CradleVAE, or a cradlevae.FloorModel "
            "(cradlevae.load reads a model from its folder)"
        )
    if isinstance(model, PerturbationVAE):
        model.trained.bank()  # an untrained model has none, and says so
    return model.trained
