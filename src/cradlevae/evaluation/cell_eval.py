"""Files for `cell-eval` (Arc Institute): real and generated cells, which it scores in its own way.

Our effects on log2 scale are its effects on natural-log scale, divided by ln 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.identity.marks import made_by, warn_if_made
from cradlevae.data.storage.input_files import refuse_read
from cradlevae.errors import DataError
from cradlevae.evaluation.matched_cells import generate_alike
from cradlevae.evaluation.metrics.pca_space import log_normalised
from cradlevae.evaluation.predictor import Learner, Predictor, as_predictor
from cradlevae.evaluation.reference_effects import ReferenceCells, check_reference, reference_rows, scored_conditions
from cradlevae.model.trained import TrainedModel
from cradlevae.utils.atomic import make_folder, write_h5ad
from cradlevae.utils.checks import check_anndata, flag, output_folder, seed_number
from cradlevae.utils.outputs import check_output
from cradlevae.utils.types import AnnDataLike, IntArray

REAL_FILE = "real.h5ad"
PREDICTED_FILE = "predicted.h5ad"


def to_cell_eval(
    model: TrainedModel | Predictor,
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
        A trained model or a floor.
    adata
        The experiment; it is read once.
    folder
        Where ``real.h5ad`` and ``predicted.h5ad`` go; made where it is missing.
    reference
        Which cells are the real ones, as for :func:`cradlevae.evaluate`.
    overwrite
        Whether to replace files that are there; a file that ``adata`` is read from never is.
    seed
        Seed of the generated cells.

    Returns
    -------
    Paths of the predicted and of the real cells, in `cell-eval`'s order.

    Raises
    ------
    DataError
        If a file is there already or is one that is read, or no condition has two passing reference cells and two
        controls.
    """
    check_reference(reference)
    seed, overwrite = seed_number(seed), flag("overwrite", overwrite)
    check_anndata(adata)
    folder = make_folder(output_folder("folder", folder))
    predicted, real = folder / PREDICTED_FILE, folder / REAL_FILE
    for path in (predicted, real):
        refuse_read(path, adata)
        check_output(path, overwrite=overwrite)
    predictor = as_predictor(model)
    warn_if_made(adata, "to_cell_eval")
    data = predictor.read(adata)
    rows = reference_rows(predictor, data, reference).rows
    passing = rows[~data.failed[rows]]
    pair = generate_alike(predictor, data, passing, scored_conditions(predictor, data, passing)[0], seed=seed)
    if pair is None:
        raise DataError("no condition has two passing reference cells and two passing reference controls to write")
    chosen = np.flatnonzero(pair.real_codes >= 0)
    real_cells = _cells(pair.real[chosen], pair.real_codes[chosen], pair.names, data.cells[passing[chosen]], predictor)
    matched = pair.matched()
    names = pd.Index([f"predicted{cell}" for cell in range(len(matched))])
    generated = _cells(pair.generated[matched], pair.generated_codes[matched], pair.names, names, predictor)
    generated.uns.update(made_by("predict"))
    write_h5ad(real_cells, real)
    write_h5ad(generated, predicted)
    return predicted, real


def _cells(counts: sp.csr_matrix, codes: IntArray, names: tuple[str, ...], cells: pd.Index[str], model: Learner) -> Any:
    import anndata as ad

    obs = pd.DataFrame({"perturbation": pd.Categorical(np.array(names, dtype=object)[codes])}, index=cells)
    var = pd.DataFrame(index=pd.Index(model.genes))
    return ad.AnnData(X=log_normalised(counts).astype(np.float32), obs=obs, var=var)
