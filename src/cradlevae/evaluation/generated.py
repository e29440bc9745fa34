"""Scores of generated cells: do they pass quality control, and do they show the same DE genes as real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.contract import Experiment
from cradlevae.data.judge import doublet_reference, judge
from cradlevae.data.labels import CONTROL
from cradlevae.evaluation.de import DETest, rank_sum_tests
from cradlevae.model.trained import TrainedModel
from cradlevae.query.predict import predict
from cradlevae.query.states import PUBLISHED_LIBRARY_SIZE

MADS = (3.0, 4.0, 5.0)


def qc_pass_rates(
    model: TrainedModel, adata: Any, conditions: Sequence[str], *, n_cells: int, seed: int
) -> pd.DataFrame:
    """Share of generated artifact-off cells that pass the QC thresholds of the real data, by number of MADs.

    Parameters
    ----------
    model
        A trained model.
    adata
        The annotated real cells (``annotate_qc``).
    conditions
        Conditions to generate.
    n_cells
        Cells for each.
    seed
        Seed of the draws.

    Returns
    -------
    pandas.DataFrame
        ``n_mads`` and the share that passes for cells generated at the library sizes of real cells (``model``), at the
        published 10,000 (``published_library``) and for the real cells themselves (``real_cells``).
    """
    qc = adata.uns["cradlevae_qc"]
    doublets = doublet_reference(adata)
    kinds = {
        "model": predict(model, conditions, n_cells=n_cells, seed=seed),
        "published_library": predict(
            model, conditions, n_cells=n_cells, library_size=PUBLISHED_LIBRARY_SIZE, basal="prior", seed=seed
        ),
        "real_cells": adata[:, list(model.genes)],
    }
    rows = []
    for n_mads in MADS:
        row = {"n_mads": n_mads}
        for name, cells in kinds.items():
            used = None if name == "real_cells" else doublets
            fails = judge(cells, qc, n_mads=n_mads, doublets=used)
            if name == "real_cells" and "qc_doublet" in adata.obs:
                fails["doublet"] = adata.obs["qc_doublet"].to_numpy(dtype=bool)
            row[name] = float(1 - fails.any(axis=1).mean())
        rows.append(row)
    return pd.DataFrame(rows)


def de_tests(
    model: TrainedModel, data: Experiment, rows: Any, conditions: Sequence[str], *, seed: int
) -> tuple[DETest, DETest]:
    """Rank-sum tests in real cells, and in as many generated cells of each condition.

    Parameters
    ----------
    model
        A trained model.
    data, rows
        The experiment and its reference cells (passing ones).
    conditions
        Perturbed conditions.
    seed
        Seed of the draws.
    """
    names = [CONTROL, *conditions]
    position = {name: index for index, name in enumerate(names)}
    codes = np.array([position.get(name, -1) for name in data.conditions])[data.condition[rows]]
    real = rank_sum_tests(sp.csr_matrix(data.counts[rows]), codes, names)
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    generated = predict(model, names, n_cells=int(sizes.max()), seed=seed)
    each = np.repeat(np.arange(len(names)), int(sizes.max()))
    rank = np.tile(np.arange(int(sizes.max())), len(names))
    kept = rank < sizes[each]
    predicted = rank_sum_tests(sp.csr_matrix(generated.X[kept]), each[kept], names)
    return real, predicted
