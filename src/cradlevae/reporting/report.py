"""The report of an evaluated model: every figure as a file, and one page with figures and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.data.factors import factor_names
from cradlevae.data.qc.balance import batch_balance, cells_lost, perturbation_balance
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.evaluation.evaluate import measured_effects_of
from cradlevae.evaluation.reference_effects import ReferenceCells
from cradlevae.model.trained import TrainedModel
from cradlevae.query.counterfactual import clean
from cradlevae.query.effects import effects
from cradlevae.query.signature import artifact_signature
from cradlevae.reporting.figures import (
    balance_figure,
    batches_figure,
    cleaned_figure,
    confounding_figure,
    contexts_figure,
    damage_figure,
    effects_figure,
    own_scores_figure,
    qc_figure,
    save_figure,
    scores_figure,
    signature_figure,
    training_figure,
)
from cradlevae.reporting.page import write_page
from cradlevae.utils.types import AnnDataLike

PAGE_FILE = "report.html"

TITLES = (
    "Predicted against measured effects",
    "Scores",
    "Confounding alarm",
    "Training",
    "Own scores",
    "Artifact signature",
    "Cleaned cells",
    "Damage",
    "Quality control",
    "Batches",
    "Balance",
    "Contexts",
)
"""Titles of the figures; not every model and data set has all of them."""

MOST_CELLS = 3000
"""Largest number of cells that are cleaned for the figure."""


def figure_file(title: str) -> str:
    """Name of the file of a figure."""
    return f"{title.lower().replace(' ', '_')}.png"


REPORT_FILES = (PAGE_FILE, *map(figure_file, TITLES))
"""Files that a report may consist of."""


def write_report(
    model: TrainedModel,
    adata: AnnDataLike,
    scores: pd.DataFrame,
    folder: Path,
    *,
    reference: ReferenceCells = "held-out",
) -> list[Path]:
    """Write the figures and ``report.html`` of an evaluated model.

    Parameters
    ----------
    model
        A trained model.
    adata
        The experiment that it was evaluated on.
    scores
        The table that :func:`cradlevae.evaluate` returned.
    folder
        Folder to write into.
    reference
        Cells whose measured effects the figure of effects compares with.

    Returns
    -------
    list of Path
        The files written.
    """
    measured = measured_effects_of(model, adata, reference=reference)
    predicted = effects(model, list(measured.obs_names))
    figures = {
        "Predicted against measured effects": effects_figure(measured, predicted),
        "Scores": scores_figure(scores),
        "Confounding alarm": confounding_figure(pd.DataFrame(scores.attrs["confounding"])),
        "Training": training_figure(model.history),
    }
    own = own_scores_figure(scores)
    if own is not None:
        figures["Own scores"] = own
    if model.declaration.artifact:
        figures |= _artifact_figures(model, _sample(adata))
    if QC_KEY in adata.uns:
        figures["Quality control"] = qc_figure(adata)
    data = model.read(adata)
    figures |= _strata_figures(data)
    written = []
    for title, figure in figures.items():
        path = folder / figure_file(title)
        save_figure(figure, path)
        written.append(path)
    page = folder / PAGE_FILE
    summary = {
        "model": model.declaration.name,
        "genes": f"{len(model.genes):,}",
        "perturbations": f"{len(model.trained)}",
        "artifact classes": ", ".join(model.criteria),
        "split": f"{model.split.recipe}, seed {model.split.seed}, hash {model.split.hash[:12]}",
        "objective": model.config.objective,
        "epochs": f"{len(model.history)}",
        "reference": reference,
        "not scored (one of its perturbations had no training cells)": ", ".join(scores.attrs["unanswered"]) or "none",
    } | _strata_facts(data, scores)
    tables = {} if not data.varied else {"Sizes of batches": batch_balance(data)}
    if data.varied:
        tables["Cells of perturbations"] = perturbation_balance(data)
    main = scores[scores["predictor"].isin(["model", "ceiling", "data"])].dropna(axis=1, how="all")
    write_page(
        page,
        title="cradlevae report",
        summary=summary,
        tables={"Scores of the model": main, "All scores": scores} | tables,
        figures=figures,
    )
    return [*written, page]


def _strata_figures(data: Experiment) -> dict[str, Any]:
    """Figures of batches and contexts, where there are several."""
    figures = {
        "Batches": batches_figure(data),
        "Balance": balance_figure(data),
        "Contexts": contexts_figure(data),
    }
    return {title: figure for title, figure in figures.items() if figure is not None}


def _strata_facts(data: Experiment, scores: pd.DataFrame) -> dict[str, str]:
    """Facts of batches and contexts for the top of the page; none where there is one stratum."""
    if not data.varied:
        return {}
    facts = {factor_names([factor]): f"{len(factor.levels)} ({factor.role})" for factor in data.varied}
    facts["cells lost to uneven batches"] = f"{cells_lost(perturbation_balance(data)):.1%}"
    facts["not measured (no held-out controls in their batches)"] = ", ".join(scores.attrs["unmeasured"]) or "none"
    return facts


def _artifact_figures(model: TrainedModel, cells: AnnDataLike) -> dict[str, Any]:
    """Figures of the artifact signature and of cleaned cells."""
    figures = {}
    if model.trained_criteria:
        figures["Artifact signature"] = signature_figure(artifact_signature(model))
    cleaned = clean(model, cells)
    if cleaned.obs["failed_qc"].any():
        figures["Cleaned cells"] = cleaned_figure(
            cells,
            cleaned,
            perturbation_key=None if model.fields.guides_key else model.fields.perturbation_key,
            artifact_key=list(model.criteria),
            layer=model.fields.layer,
        )
        if "damage" in cleaned.obs and model.module.damage_guide is not None:
            figures["Damage"] = damage_figure(cleaned.obs[cleaned.obs["failed_qc"].to_numpy()])
    return figures


def _sample(adata: AnnDataLike) -> Any:
    """At most :data:`MOST_CELLS` cells, taken at equal distances."""
    step = max(1, -(-adata.n_obs // MOST_CELLS))
    return adata[::step]
