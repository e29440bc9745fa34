"""Rows of quality control: do generated artifact-free cells pass the QC thresholds that real cells were judged by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.data.qc.apply import doublet_reference, judge
from cradlevae.data.qc.criteria import CRITERIA, QC_KEY
from cradlevae.data.storage.stored_cells import StoredCells
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.errors import DataError
from cradlevae.evaluation.inputs import ScoringInputs
from cradlevae.evaluation.metrics.kinds import MADS
from cradlevae.evaluation.metrics.registry import metrics_of
from cradlevae.evaluation.score_table import MODEL, PUBLISHED, REAL, Scores, join_notes
from cradlevae.query.arguments import PUBLISHED_LIBRARY_SIZE
from cradlevae.query.predict import predict
from cradlevae.utils.types import AnnDataLike

REFERENCE = "QC thresholds of the data"

Failures = dict[str, dict[float, pd.DataFrame]]
"""By predictor and number of MADs: which criteria each of its cells fails, cells × criteria."""


def score_qc(scores: Scores, inputs: ScoringInputs, *, n_cells: int) -> None:
    """Add the rows of metrics of kind ``"qc"``, where the data are annotated (``annotate_qc``).

    Scored are cells generated at the library sizes of real cells, those of a trained model at the published 10,000, and
    the real cells themselves. Where the thresholds were learned on other genes than the model's, generated cells cannot
    be judged: they score NaN, the note says why, and real cells have the score of their annotation at its own number of
    MADs.

    Parameters
    ----------
    scores
        Table to add to.
    inputs
        What is scored.
    n_cells
        Generated cells per condition.
    """
    if QC_KEY not in inputs.adata.uns:
        return
    failures, reason = qc_failures(inputs, n_cells)
    for entry in metrics_of("qc"):
        for predictor, tables in failures.items():
            value = entry.value(tables[entry.on]) if entry.on in tables else float("nan")
            scores.add(REFERENCE, entry.name, predictor, value, note=join_notes(reason, entry.note))


def qc_failures(inputs: ScoringInputs, n_cells: int) -> tuple[Failures, str]:
    """Criteria that generated and real cells fail, and why generated cells cannot be judged (or nothing).

    Parameters
    ----------
    inputs
        What is scored; the data are annotated.
    n_cells
        Generated cells per condition.
    """
    qc = {**inputs.adata.uns[QC_KEY], "layer": ""}
    real = _real_cells(inputs.adata, inputs.data)
    doublets = doublet_reference(real, qc) if int(qc["n_genes"]) == inputs.data.n_genes else None
    try:
        judge(real[:1], qc, doublets=doublets)
    except DataError as error:
        unjudged: Failures = {MODEL: {}}
        if inputs.predictor.latent_model is not None:
            unjudged[PUBLISHED] = {}
        return unjudged | {REAL: {float(qc["n_mads"]): _annotated_failures(real.obs, qc)}}, str(error)
    failures: Failures = {
        name: {n_mads: judge(cells, qc, n_mads=n_mads, doublets=doublets) for n_mads in MADS}
        for name, cells in _generated(inputs, n_cells).items()
    }
    return failures | {REAL: {n_mads: _real_failures(real, qc, n_mads) for n_mads in MADS}}, ""


def _real_cells(adata: AnnDataLike, data: Experiment) -> AnnDataLike:
    """The cells of the experiment with the model's genes; counts on disk stay there."""
    import anndata as ad

    var = pd.DataFrame(index=data.genes)
    if isinstance(data.counts, StoredMatrix):
        return StoredCells(getattr(adata, "path", Path()), data.obs, var, {}, {"X": data.counts}, {})
    cells: AnnDataLike = ad.AnnData(X=data.counts, obs=data.obs, var=var)
    return cells


def _generated(inputs: ScoringInputs, n_cells: int) -> dict[str, Any]:
    """Generated cells by predictor."""
    conditions, seed = list(inputs.generated_conditions), inputs.seed
    cells = {MODEL: inputs.predictor.predict(conditions, n_cells, seed=seed)}
    model = inputs.predictor.latent_model
    if model is not None:
        cells[PUBLISHED] = predict(
            model, conditions, n_cells=n_cells, library_size=PUBLISHED_LIBRARY_SIZE, basal="prior", seed=seed
        )
    return cells


def _assessed(qc: Mapping[str, Any]) -> list[str]:
    return [criterion for criterion in CRITERIA if qc["criteria"][criterion]["status"] == "assessed"]


def _real_failures(real: AnnDataLike, qc: Mapping[str, Any], n_mads: float) -> pd.DataFrame:
    """Which criteria real cells fail; doublets as annotated, for a real cell must not be scored against itself."""
    fails = pd.DataFrame(index=real.obs_names)
    if set(_assessed(qc)) - {"doublet"}:
        fails = judge(real, qc, n_mads=n_mads)
    if "qc_doublet" in real.obs:
        fails["doublet"] = real.obs["qc_doublet"].to_numpy(dtype=bool)
    return fails


def _annotated_failures(obs: pd.DataFrame, qc: Mapping[str, Any]) -> pd.DataFrame:
    """Which criteria real cells fail, as annotated."""
    columns = [f"qc_{criterion}" for criterion in _assessed(qc) if f"qc_{criterion}" in obs]
    return obs[columns].astype(bool)
