"""Files for `cell-eval` (Arc Institute), so that its scores can be had beside ours.

Our effects on log2 scale are its effects on natural-log scale, divided by ln 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.errors import DataError
from cradlevae.evaluation.matched_cells import generate_alike
from cradlevae.evaluation.metrics.pca_space import log_normalised
from cradlevae.evaluation.predictor import Predictor
from cradlevae.evaluation.reference_effects import ReferenceCells, reference_rows, scored_conditions
from cradlevae.utils.atomic import make_folder, write_h5ad
from cradlevae.utils.types import AnnDataLike, IntArray

REAL_FILE = "real.h5ad"
PREDICTED_FILE = "predicted.h5ad"


def to_cell_eval(
    model: Predictor,
    adata: AnnDataLike,
    folder: str | Path,
    *,
    reference: ReferenceCells = "held-out",
    overwrite: bool = False,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write real reference cells and as many generated ones of each condition.

    Both files have ``X`` = ln(1 + 1e4·x/Σx) (CSR, float32), the same genes in the same order, and the same conditions
    in ``obs["perturbation"]``, ``control`` among them: those that the model can answer for and of which at least two
    passing reference cells are there. Score them with::

        cell-eval run -ap predicted.h5ad -ar real.h5ad --pert-col perturbation --control-pert control

    Parameters
    ----------
    model
        A trained model.
    adata
        The experiment.
    folder
        Where ``real.h5ad`` and ``predicted.h5ad`` go; made where it is missing.
    reference
        Which cells are the real ones, as for :func:`cradlevae.evaluate`.
    overwrite
        Whether to replace files that are there.
    seed
        Seed of the generated cells.

    Returns
    -------
    Paths of the predicted and of the real cells, in `cell-eval`'s order.

    Raises
    ------
    DataError
        If a file is there already, or no condition has two passing reference cells and two controls.
    """
    folder = make_folder(folder)
    predicted, real = folder / PREDICTED_FILE, folder / REAL_FILE
    for path in (predicted, real):
        if path.exists() and not overwrite:
            raise DataError(f"{path} exists already; choose another folder, or overwrite=True")
    data = model.read(adata)
    rows = reference_rows(model, data, reference).rows
    passing = rows[~data.failed[rows]]
    pair = generate_alike(model, data, passing, scored_conditions(model, data, passing)[0], seed=seed)
    if pair is None:
        raise DataError("no condition has two passing reference cells and two passing reference controls to write")
    known = np.flatnonzero(pair.real_codes >= 0)
    of_real = _cells(pair.real[known], pair.real_codes[known], pair.names, data.cells[passing[known]], model)
    matched = pair.matched()
    names = pd.Index([f"predicted{cell}" for cell in range(len(matched))])
    of_model = _cells(pair.generated[matched], pair.generated_codes[matched], pair.names, names, model)
    write_h5ad(of_real, real)
    write_h5ad(of_model, predicted)
    return predicted, real


def _cells(
    counts: sp.csr_matrix, codes: IntArray, names: tuple[str, ...], cells: pd.Index[str], model: Predictor
) -> Any:
    import anndata as ad

    obs = pd.DataFrame({"perturbation": pd.Categorical(np.array(names, dtype=object)[codes])}, index=cells)
    var = pd.DataFrame(index=pd.Index(model.genes))
    return ad.AnnData(X=log_normalised(counts).astype(np.float32), obs=obs, var=var)
