"""The report of a model: one page in words, tables and plots, and every figure as a file where it was evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.data.factors import factor_names
from cradlevae.data.labels import singles_of
from cradlevae.data.qc.balance import batch_balance, cells_lost, perturbation_balance
from cradlevae.data.qc.confounding import confounding_test
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.errors import DataError
from cradlevae.evaluation.evaluate import evaluate, measured_effects_of
from cradlevae.evaluation.reference_effects import ReferenceCells, check_reference
from cradlevae.evaluation.score_table import check_scores
from cradlevae.evaluation.verdict import verdict
from cradlevae.model.trained import TrainedModel
from cradlevae.query.counterfactual import clean
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
from cradlevae.reporting.webpage.all_effects import all_effects
from cradlevae.reporting.webpage.cells import packed_cells
from cradlevae.reporting.webpage.document import write_page
from cradlevae.reporting.webpage.effects import effect_map, packed_effects
from cradlevae.reporting.webpage.sections import Content, sections_of
from cradlevae.utils.checks import flag, output_file, seed_number
from cradlevae.utils.names import listed
from cradlevae.utils.outputs import check_output
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
"""Largest number of cells that are cleaned for figure and plot."""


def figure_file(title: str) -> str:
    """Name of the file of a figure."""
    return f"{title.lower().replace(' ', '_')}.png"


REPORT_FILES = (PAGE_FILE, *map(figure_file, TITLES))
"""Files that a report may consist of."""


def report(
    model: TrainedModel,
    adata: AnnDataLike,
    path: str | Path = PAGE_FILE,
    scores: pd.DataFrame | None = None,
    *,
    reference: ReferenceCells = "held-out",
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write the report of a trained model: one HTML file that opens in any browser and loads nothing.

    It opens with a verdict in words and the next steps; then come the effects of all conditions (a table to search,
    sort and filter, and plots), cells before and after cleaning, kinds of damage, quality control, scores, training,
    and a technical record. Where there are more than 1.5 million pairs of condition and gene, the page holds the genes
    of best rank of each condition and for each gene the conditions in which it ranks best.

    Parameters
    ----------
    model
        A trained model.
    adata
        The experiment that it was trained on, held-out cells included.
    path
        The file.
    scores
        The table that :func:`cradlevae.evaluate` returned; without one, the model is scored first, which takes minutes.
        Where there are no held-out cells to score it on, the page says so.
    reference
        Cells that it is scored on, as for :func:`cradlevae.evaluate`.
    seed
        Seed of every draw.
    overwrite
        Replace a file that is there.

    Returns
    -------
    Path of the file.

    Raises
    ------
    DataError
        If the data do not fit the model, or the file is there already or cannot be written.
    """
    seed = seed_number(seed)
    if scores is not None:
        check_scores(scores)
    path = check_output(output_file("path", path), overwrite=flag("overwrite", overwrite))
    check_reference(reference)
    model.bank()  # an untrained model has none, and says so
    data = model.read(adata)
    unscored = ""
    if scores is None:
        try:
            scores = evaluate(model, adata, reference=reference, seed=seed)
        except DataError as error:
            unscored = f"The model could not be scored: {error}."
    content = _content(model, adata, data, scores, reference=reference, seed=seed, unscored=unscored)
    return _write(path, model, data, content)


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
    data = model.read(adata)
    content = _content(model, adata, data, scores, reference=reference)
    written = []
    for title, figure in content.figures.items():
        path = folder / figure_file(title)
        save_figure(figure, path)
        written.append(path)
    return [*written, _write(folder / PAGE_FILE, model, data, content)]


def _write(path: Path, model: TrainedModel, data: Experiment, content: Content) -> Path:
    lead = (
        f"{model.declaration.name} of {len(model.trained):,} perturbations and {len(model.genes):,} genes; "
        f"{data.n_cells:,} cells, {int(data.failed.sum()):,} of which failed quality control."
    )
    return write_page(
        path, title=f"{model.declaration.name} report", lead=lead, sections=sections_of(content), data=content.data
    )


def _content(
    model: TrainedModel,
    adata: AnnDataLike,
    data: Experiment,
    scores: pd.DataFrame | None,
    *,
    reference: ReferenceCells,
    seed: int = 0,
    unscored: str = "",
) -> Content:
    """Everything that the page shows; effects and cleaned cells are computed once."""
    measured = None if scores is None else measured_effects_of(model, adata, reference=reference)
    predicted, conditions = all_effects(model, data, () if measured is None else list(measured.obs_names), seed=seed)
    symbols = list(data.symbols) or [str(name) for name in data.genes]
    confounding = confounding_test(*data.plain, data.failed, strata=data.strata)
    figures: dict[str, Any] = {
        "Confounding alarm": confounding_figure(confounding),
        "Training": training_figure(model.history),
    }
    if scores is not None and measured is not None:
        figures["Predicted against measured effects"] = effects_figure(measured, predicted)
        figures["Scores"] = scores_figure(scores)
        own = own_scores_figure(scores)
        if own is not None:
            figures["Own scores"] = own
    cells = None
    if model.declaration.artifact:
        drawn, cells = _artifact(model, _sample(adata))
        figures |= drawn
    if QC_KEY in adata.uns:
        figures["Quality control"] = qc_figure(adata)
    figures |= _strata_figures(data)
    tables = {"Perturbations and how often their cells fail": confounding}
    if data.varied:
        tables |= {"Sizes of batches": batch_balance(data), "Cells of perturbations": perturbation_balance(data)}
    payload = {"effects": packed_effects(predicted, symbols, conditions), "map": effect_map(predicted, symbols)}
    return Content(
        scores, unscored, figures, tables, _steps(model, data, confounding, scores), _drawn(adata),
        payload | {"cells": cells}, _record(model, data, scores, reference),
    )  # fmt: skip


def _steps(
    model: TrainedModel, data: Experiment, confounding: pd.DataFrame, scores: pd.DataFrame | None
) -> list[tuple[str, str]]:
    """What to do next with this model."""
    steps = []
    findings = [] if scores is None else verdict(scores)
    if any(finding.topic == "training" and finding.level == "warning" for finding in findings):
        steps.append(("Train on before you rely on the numbers of this page (the verdict says why):", "model.train()"))
    steps.append(("Rank the genes of your perturbations: the section Effects, or", "cv.effects_table(model.effects())"))
    flagged = [str(name) for name in confounding.loc[confounding["flagged"], "perturbation"]]
    if flagged:
        steps.append(
            (f"Look at the failed cells of {listed(flagged)} before you trust their twins: these perturbations change "
             "how often cells fail, so that their “artifact” may be biology (the section Quality control).", "")
        )  # fmt: skip
    if model.declaration.artifact and data.failed.any():
        steps.append(("Give failed cells back to the analysis (the section Cells says which twin serves what):",
                      "model.clean(adata, use_label=False)"))  # fmt: skip
    combined = any(len(singles_of(name)) > 1 for name in data.conditions)
    if combined and model.declaration.treatments != "conditions" and len(model.trained) > 1:
        pair = "+".join(model.trained[:2])
        steps.append(("Ask for combinations that nobody has measured:", f'model.effects(["{pair}"])'))
    return steps


def _record(
    model: TrainedModel, data: Experiment, scores: pd.DataFrame | None, reference: ReferenceCells
) -> dict[str, str]:
    """Facts about model, training and data."""
    facts = {
        "model": model.declaration.name,
        "genes": f"{len(model.genes):,}",
        "perturbations": f"{len(model.trained):,}",
        "cells": f"{data.n_cells:,}",
        "artifact classes": ", ".join(model.criteria),
        "split": f"{model.split.recipe}, seed {model.split.seed}, hash {model.split.hash[:12]}",
        "objective": model.config.objective,
        "epochs": f"{len(model.history)}",
        "reference": reference,
    }
    facts |= {factor_names([factor]): f"{len(factor.levels)} ({factor.role})" for factor in data.varied}
    if data.varied:
        facts["cells lost to uneven batches"] = f"{cells_lost(perturbation_balance(data)):.1%}"
    notes = {
        "unanswered": "not scored (one of its perturbations had no training cells)",
        "unmeasured": "not measured (no held-out controls in their batches)",
    }
    for name, text in notes.items():
        if scores is not None and name in scores.attrs:
            facts[text] = ", ".join(scores.attrs[name]) or "none"
    return facts


def _strata_figures(data: Experiment) -> dict[str, Any]:
    """Figures of batches and contexts, where there are several."""
    figures = {
        "Batches": batches_figure(data),
        "Balance": balance_figure(data),
        "Contexts": contexts_figure(data),
    }
    return {title: figure for title, figure in figures.items() if figure is not None}


def _artifact(model: TrainedModel, cells: AnnDataLike) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Figures of the artifact signature, of cleaned cells and of damage, and the cells for the page's own plot."""
    figures = {}
    if model.trained_criteria:
        figures["Artifact signature"] = signature_figure(artifact_signature(model))
    cleaned = clean(model, cells, use_label=False)  # with labels, colours by perturbation would show the model's belief
    if not cleaned.obs["failed_qc"].any():
        return figures, None
    figures["Cleaned cells"] = cleaned_figure(
        cells,
        cleaned,
        perturbation_key=None if model.fields.guides_key else model.fields.perturbation_key,
        artifact_key=list(model.criteria),
        layer=model.fields.layer,
    )
    if "damage" in cleaned.obs:
        figures["Damage"] = damage_figure(cleaned.obs[cleaned.obs["failed_qc"].to_numpy()])
    return figures, packed_cells(model.read(cells), cleaned)


def _sample(adata: AnnDataLike) -> Any:
    """At most :data:`MOST_CELLS` cells, taken at equal distances."""
    return adata[np.arange(0, adata.n_obs, _every(adata))]  # scipy takes no steps where index types differ


def _every(adata: AnnDataLike) -> int:
    return max(1, -(-adata.n_obs // MOST_CELLS))


def _drawn(adata: AnnDataLike) -> str:
    """Which cells are drawn, where not all are."""
    step = _every(adata)
    return "" if step == 1 else f"One cell in {step} of all {adata.n_obs:,} is drawn, passing and failed alike."
