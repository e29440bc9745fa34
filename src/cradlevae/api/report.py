"""The report of a trained model as one HTML file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cradlevae.api.perturbation_vae import PerturbationVAE
from cradlevae.errors import DataError
from cradlevae.evaluation.reference_effects import ReferenceCells
from cradlevae.reporting import report as reporting
from cradlevae.utils.checks import check_anndata, shown
from cradlevae.utils.default_dtype import float32_default
from cradlevae.utils.docs import documented_by
from cradlevae.utils.types import AnnDataLike


@documented_by(reporting.report)
def report(
    model: PerturbationVAE,
    adata: AnnDataLike,
    path: str | Path = reporting.PAGE_FILE,
    scores: pd.DataFrame | None = None,
    *,
    reference: ReferenceCells = "held-out",
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write the report of a trained model: verdict, effects, cells, quality control and scores on one page.

    Examples
    --------
    >>> import tempfile
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=400, n_genes=40, n_perturbations=3, n_combinations=0, seed=0)
    >>> adata.obs["artifact"] = adata.obs["true_artifact"]
    >>> model = cv.SAMSVAE(adata, split=cv.split(adata, "cells", seed=0), n_latent=8, width=16)
    >>> model.train(max_epochs=1, progress=False)
    >>> scores = cv.evaluate(model, adata, generated=False, truth=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cv.report(model, adata, f"{folder}/report.html", scores).name
    'report.html'
    """
    if not isinstance(model, PerturbationVAE):
        raise DataError(
            f"model is {shown(model)}; it must be a model such as cradlevae.CradleVAE (cradlevae.load reads one from "
            "its folder)"
        )
    check_anndata(adata)
    with float32_default():
        return reporting.report(model.trained, adata, path, scores, reference=reference, seed=seed, overwrite=overwrite)
