"""Counts that a trained model predicts for any combination of known perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from cradlevae.data.checks import check_at_least
from cradlevae.data.progress import track_slow
from cradlevae.errors import DataError
from cradlevae.model.trained import TrainedModel
from cradlevae.nn.likelihood import sample_gamma_poisson
from cradlevae.query.states import (
    Basal,
    artifact_indicator,
    canonical_conditions,
    draw_basal,
    draw_cell_artifact,
    draw_globals,
    seeded,
)

CELLS_AT_A_TIME = 500


def predict(
    model: TrainedModel,
    perturbations: str | Sequence[str],
    *,
    n_cells: int = 500,
    artifact: bool | str | Sequence[str] = False,
    library_size: float | str = "controls",
    basal: Basal = "controls",
    seed: int = 0,
) -> ad.AnnData:
    """Generate cells.

    Parameters
    ----------
    model
        A trained model.
    perturbations
        Conditions, e.g. ``["A+B", "C", "control"]``; combinations need not have been seen.
    n_cells
        Cells for each condition.
    artifact
        ``False`` for artifact-free cells, ``True`` for damaged ones, or the names of artifact classes.
    library_size
        Total count that each cell is expected to have: a number, or ``"controls"`` to draw those of real passing
        training controls.
    basal
        Basal states: of real passing controls, or from the ``"prior"``.
    seed
        Seed of the draws.

    Returns
    -------
    anndata.AnnData
        Counts (CSR), ``obs``: ``perturbation``, ``artifact``, ``library_size``; ``var`` as in training.

    Raises
    ------
    DataError
        If a perturbation is unknown or had no training cells.
    """
    conditions = canonical_conditions(model, perturbations)
    check_at_least(1, n_cells=n_cells)
    check_at_least(0, seed=seed)
    fixed = None if library_size == "controls" else _positive(library_size)
    indicator = artifact_indicator(model, artifact)
    dosage = model.dosage(conditions)
    generator = np.random.default_rng(seed)
    blocks: list[sp.csr_matrix] = []
    sizes: list[Any] = []
    steps = [
        (row, min(CELLS_AT_A_TIME, n_cells - start))
        for row in range(len(conditions))
        for start in range(0, n_cells, CELLS_AT_A_TIME)
    ]
    with seeded(seed):
        for row, n in track_slow(steps, len(steps), "predicting"):
            draw = draw_globals(model, n)
            z_b, library = draw_basal(model, (n, 1), basal, generator)
            if fixed is not None:
                library = np.full_like(library, fixed)
            z_p = torch.einsum("t,ntk->nk", dosage[row], draw.shift).unsqueeze(1)
            z_a = (indicator @ draw.artifact).unsqueeze(1)
            if indicator.any():
                z_a = draw_cell_artifact(model, z_a, indicator)
            share = model.module.decode_share(z_b, z_p, z_a)[:, 0]
            mean = share * torch.from_numpy(library)
            counts = sample_gamma_poisson(mean, model.module.concentration)
            blocks.append(sp.csr_matrix(counts.numpy()))
            sizes.append(library[:, 0])
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(np.repeat(np.array(conditions, dtype=object), n_cells)),
            "artifact": bool(indicator.any()),
            "library_size": np.concatenate(sizes),
        },
        index=[f"predicted{i}" for i in range(n_cells * len(conditions))],
    )
    return ad.AnnData(X=sp.csr_matrix(sp.vstack(blocks, format="csr")), obs=obs, var=model.var.copy())


def _positive(library_size: float | str) -> float:
    try:
        value = float(library_size)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 < value < float("inf"):
        raise DataError(f"library_size is {library_size!r}; give a positive number or 'controls'")
    return value
