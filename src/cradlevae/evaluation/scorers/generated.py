"""Scores of generated cells: do they pass quality control, show the same DE genes as real ones, lie where those lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.data.qc.apply import doublet_reference, judge
from cradlevae.data.qc.criteria import CRITERIA, QC_KEY
from cradlevae.data.storage.stored_cells import StoredCells
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.errors import DataError
from cradlevae.evaluation.matched_cells import CellPair, generate_alike
from cradlevae.evaluation.metrics.de import DETest, de_direction, de_overlap, rank_sum_tests
from cradlevae.evaluation.metrics.pca_space import fit_space
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.evaluation.predictor import Predictor, generated_cells
from cradlevae.evaluation.score_table import MODEL, PUBLISHED, Scores
from cradlevae.evaluation.scorers.cells import score_cells
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import PUBLISHED_LIBRARY_SIZE
from cradlevae.query.predict import predict
from cradlevae.utils.types import AnnDataLike, IndexArray

MADS = (3.0, 4.0, 5.0)


def score_generated(
    scores: Scores,
    model: Predictor,
    adata: AnnDataLike,
    data: Experiment,
    passing: IndexArray,
    conditions: Sequence[str],
    *,
    n_cells: int,
    seed: int,
) -> None:
    """Add the rows of generated cells: QC pass rates, where the data are annotated, DE genes, and distances.

    Parameters
    ----------
    scores
        Table to add to.
    model, adata, data
        A trained model and the experiment.
    passing
        Passing reference cells.
    conditions
        Conditions that are scored.
    n_cells
        Generated cells per condition, for the QC pass rate.
    seed
        Seed of the draws.
    """
    if QC_KEY in adata.uns:
        predictors = {"model": MODEL, "published_library": PUBLISHED, "real_cells": "real cells"}
        for row in qc_pass_rates(model, adata, data, conditions, n_cells=n_cells, seed=seed).to_dict(orient="records"):
            name = f"qc_pass_rate_mad{row['n_mads']:.0f}"
            for column, predictor in predictors.items():
                if column not in row:  # a floor has no published protocol
                    continue
                scores.add("QC thresholds of the data", name, predictor, row[column], note=row["note"])
    pair = generate_alike(model, data, passing, conditions, seed=seed)
    if pair is not None:
        real, predicted = de_tests(pair)
        scores.add(scores.label("passing cells"), "de_overlap", MODEL, de_overlap(real, predicted))
        scores.add(scores.label("passing cells"), "de_direction", MODEL, de_direction(real, predicted))
        train = model.split.rows(data.cells, "train")
        space = fit_space(data.counts, train[~data.failed[train]], seed=seed)
        score_cells(scores, pair, space, seed=seed)


def pass_rate(fails: pd.DataFrame) -> float:
    """Share of cells that fail no criterion; NaN where none is assessed.

    Parameters
    ----------
    fails
        Which criteria each cell fails, cells × criteria.
    """
    return float(1 - fails.any(axis=1).mean()) if fails.shape[1] else float("nan")


for _n in MADS:
    metric(
        f"qc_pass_rate_mad{_n:.0f}",
        kind="qc",
        best=1.0,
        description=f"share of artifact-off cells that pass the QC thresholds of real cells at {_n:.0f} MAD",
    )(pass_rate)


def qc_pass_rates(
    model: Predictor, adata: AnnDataLike, data: Experiment, conditions: Sequence[str], *, n_cells: int, seed: int
) -> pd.DataFrame:
    """Share of generated artifact-off cells that pass the QC thresholds of the real data, by number of MADs.

    Parameters
    ----------
    model
        A trained model.
    adata
        The annotated real cells (``annotate_qc``).
    data
        The same cells as the model reads them.
    conditions
        Conditions to generate.
    n_cells
        Cells for each.
    seed
        Seed of the draws.

    Returns
    -------
    pandas.DataFrame
        ``n_mads`` and the share that passes for cells generated at the library sizes of real cells (``model``), of a
        model at the published 10,000 (``published_library``) and for the real cells themselves (``real_cells``). Where
        the thresholds were learned on other genes than the model's, generated cells cannot be judged: NaN, the reason
        in ``note``, and for real cells what the annotation says at its own number of MADs.
    """
    import anndata as ad

    qc = {**adata.uns[QC_KEY], "layer": ""}
    obs, var = adata.obs.loc[data.cells], pd.DataFrame(index=data.genes)
    real: AnnDataLike
    if isinstance(data.counts, StoredMatrix):
        real = StoredCells(getattr(adata, "path", Path()), obs, var, {}, {"X": data.counts}, {})
    else:
        real = ad.AnnData(X=data.counts, obs=obs, var=var)
    doublets = doublet_reference(real, qc) if int(qc["n_genes"]) == data.n_genes else None
    try:
        judge(real[:1], qc, doublets=doublets)
    except DataError as reason:
        return _as_annotated(real.obs, qc, str(reason))
    generated = {"model": generated_cells(model, conditions, n_cells=n_cells, seed=seed)}
    if isinstance(model, TrainedModel):
        generated["published_library"] = predict(
            model, conditions, n_cells=n_cells, library_size=PUBLISHED_LIBRARY_SIZE, basal="prior", seed=seed
        )
    rows = []
    for n_mads in MADS:
        rates = {
            name: pass_rate(judge(cells, qc, n_mads=n_mads, doublets=doublets)) for name, cells in generated.items()
        }
        rows.append({"n_mads": n_mads, **rates, "real_cells": pass_rate(_real_fails(real, qc, n_mads)), "note": ""})
    return pd.DataFrame(rows)


def _assessed(qc: Mapping[str, Any]) -> list[str]:
    return [criterion for criterion in CRITERIA if qc["criteria"][criterion]["status"] == "assessed"]


def _real_fails(real: AnnDataLike, qc: Mapping[str, Any], n_mads: float) -> pd.DataFrame:
    """Which criteria real cells fail; doublets as annotated, for a real cell must not be scored against itself."""
    fails = pd.DataFrame(index=real.obs_names)
    if set(_assessed(qc)) - {"doublet"}:
        fails = judge(real, qc, n_mads=n_mads)
    if "qc_doublet" in real.obs:
        fails["doublet"] = real.obs["qc_doublet"].to_numpy(dtype=bool)
    return fails


def _as_annotated(obs: pd.DataFrame, qc: Mapping[str, Any], reason: str) -> pd.DataFrame:
    """Pass rates where generated cells cannot be judged."""
    columns = [f"qc_{criterion}" for criterion in _assessed(qc) if f"qc_{criterion}" in obs]
    annotated = pass_rate(obs[columns].astype(bool))
    rates = [annotated if n_mads == float(qc["n_mads"]) else np.nan for n_mads in MADS]
    return pd.DataFrame(
        {"n_mads": MADS, "model": np.nan, "published_library": np.nan, "real_cells": rates, "note": reason}
    )


def de_tests(pair: CellPair) -> tuple[DETest, DETest]:
    """Rank-sum tests in real cells, and in as many generated cells of each condition."""
    real = rank_sum_tests(pair.real, pair.real_codes, pair.names)
    matched = pair.matched()
    return real, rank_sum_tests(pair.generated[matched], pair.generated_codes[matched], pair.names)
