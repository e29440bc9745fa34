"""Score a model on held-out cells, or write the files by which another program scores it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cradlevae.api.perturbation_vae import PerturbationVAE
from cradlevae.evaluation import cell_eval
from cradlevae.evaluation import evaluate as scoring
from cradlevae.evaluation.reference_effects import ReferenceCells
from cradlevae.utils.docs import documented_by
from cradlevae.utils.types import AnnDataLike

if TYPE_CHECKING:
    from cradlevae.evaluation.floors.model import FloorModel


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
    return scoring.evaluate(
        model.trained, adata, reference=reference, published=published, generated=generated, truth=truth,
        n_cells=n_cells, seed=seed,
    )  # fmt: skip


@documented_by(cell_eval.to_cell_eval)
def to_cell_eval(
    model: PerturbationVAE | FloorModel,
    adata: AnnDataLike,
    folder: str | Path,
    *,
    reference: ReferenceCells = "held-out",
    overwrite: bool = False,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write the pair of files that ``cell-eval`` reads: real held-out cells and generated ones.

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
    return cell_eval.to_cell_eval(model.trained, adata, folder, reference=reference, overwrite=overwrite, seed=seed)
