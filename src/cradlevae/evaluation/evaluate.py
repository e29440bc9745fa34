"""The leak-proof harness: every score of a trained model with its floors, its ceiling and its interval.

Scores come as one tidy table: a row per reference, metric and predictor. ``fraction`` says where a score lies between
the best floor (0) and the ceiling (1).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.qc.confounding import confounding_alarm
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.training_moments import need_training_controls
from cradlevae.evaluation.predictor import Predictor, predicted_effects
from cradlevae.evaluation.reference_effects import (
    ALL_CELLS_NOTE,
    MAX_UNMARKED,
    NO_ANSWER,
    Reference,
    ReferenceCells,
    clean_counts,
    measured_reference,
    reference_rows,
    scored_conditions,
    simulated_reference,
)
from cradlevae.evaluation.score_table import COLUMNS, Scores, reference_label
from cradlevae.evaluation.scorers.calibration import score_calibration
from cradlevae.evaluation.scorers.effects import score_effects
from cradlevae.evaluation.scorers.generated import score_generated
from cradlevae.evaluation.scorers.truth import score_truth
from cradlevae.model.trained import TrainedModel
from cradlevae.utils.types import AnnDataLike, IndexArray

__all__ = ["ALL_CELLS_NOTE", "COLUMNS", "evaluate", "measured_effects_of"]


def evaluate(
    model: Predictor,
    adata: AnnDataLike,
    *,
    reference: ReferenceCells = "held-out",
    published: bool = False,
    generated: bool = True,
    truth: bool = True,
    n_cells: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a trained model on cells that it has not seen.

    Parameters
    ----------
    model
        A trained model, or a floor. What it cannot answer is left out: scores of latents and of damage of a floor,
        of the artifact of a model without one.
    adata
        The experiment: training cells make the floors, held-out cells the reference.
    reference
        ``"held-out"`` (test part, and cells unknown to the split), ``"validation"`` (to choose among models), or
        ``"all"``: the published all-cells reference, which contains training cells; the table then says so.
    published
        Also score the effects as the released evaluation takes them (library size 10,000, prior, unpaired).
    generated
        Also score generated cells: QC pass rate, DE genes, and their distance to real cells.
    truth
        Also score against the truth where the data hold it (``layers["clean"]``, ``uns["truth"]``), and the likelihood
        and leakage of held-out cells.
    n_cells
        Generated cells per condition.
    seed
        Seed of every draw.

    Returns
    -------
    pandas.DataFrame
        Tidy: ``reference``, ``metric``, ``predictor`` (``model``, or a floor), ``value``, ``low``, ``high`` (95 %,
        bootstrap over perturbations), ``floor`` and ``best_floor`` (best of the floors), ``ceiling``, ``fraction``,
        ``note``. ``attrs``: ``split_hash``, ``unanswered`` conditions, the ``confounding`` alarm and
        ``fingerprint_overlap``, the share of the reference cells that have the counts of a training cell.

    Raises
    ------
    DataError
        If no held-out cells are there, training cells are among them, or there are no training controls for floors.
    """
    data = model.read(adata)
    found = reference_rows(model, data, reference)
    rows = found.rows
    need_training_controls(model.split, data)
    answered, unanswered = scored_conditions(model, data, rows)
    if not answered:
        raise DataError(NO_ANSWER)
    scores = Scores(reference)
    references = _references(adata, data, rows, answered, reference, truth=truth, seed=seed)
    predicted = predicted_effects(model, answered, seed=seed)
    score_effects(scores, model, data, references, predicted, published=published, seed=seed)
    if "mc_error" in predicted.layers:  # floors have no posterior
        score_calibration(scores, model, references, predicted, seed=seed)
    if generated:
        passing = rows[~data.failed[rows]]
        score_generated(scores, model, adata, data, passing, answered, n_cells=n_cells, seed=seed)
    if truth and isinstance(model, TrainedModel):
        score_truth(scores, model, adata, data, rows, seed=seed)
    alarm = confounding_alarm(data.condition, data.conditions, data.failed)
    flagged = list(alarm.loc[alarm["flagged"], "perturbation"])
    scores.add("all cells", "confounded_perturbations", "data", float(len(flagged)), note=", ".join(flagged))
    table = scores.table()
    table.attrs = {
        "split_hash": model.split.hash,
        "unanswered": unanswered,
        "confounding": alarm.to_dict(orient="list"),
        "fingerprint_overlap": found.overlap,
    }
    _warn(unanswered, found.unmarked if reference != "all" else 0.0)
    return table


def _warn(unanswered: Sequence[str], unmarked: float) -> None:
    if unanswered:
        shown = ", ".join(unanswered[:5]) + (", …" if len(unanswered) > 5 else "")
        warnings.warn(
            f"{len(unanswered)} held-out conditions are not scored, because training cells that the model needs for "
            f"them are absent: {shown}",
            stacklevel=3,
        )
    if unmarked > MAX_UNMARKED:
        warnings.warn(
            f"{unmarked:.0%} of the reference cells have too few detected genes to be told apart by their counts: "
            "training cells under other names could not be recognised among them; make sure that there are none",
            stacklevel=3,
        )


def _references(
    adata: AnnDataLike,
    data: Experiment,
    rows: IndexArray,
    conditions: Sequence[str],
    cells: ReferenceCells,
    *,
    truth: bool,
    seed: int,
) -> list[Reference]:
    """Effects to score against: of the passing reference cells first, then what the truth says."""
    passing = rows[~data.failed[rows]]
    name = reference_label(cells, "passing cells")
    found = [measured_reference(name, data, sp.csr_matrix(data.counts[passing]), passing, conditions, seed=seed)]
    if truth:
        true_counts = clean_counts(adata, data)
        if true_counts is not None:
            counts = sp.csr_matrix(true_counts[rows])
            name = reference_label(cells, "clean counts (truth)")
            found.append(measured_reference(name, data, counts, rows, conditions, seed=seed))
        found.append(simulated_reference(adata, data, conditions))
    references = [reference for reference in found if reference is not None]
    if not references:
        raise DataError("no condition has two passing reference cells and two passing reference controls to measure in")
    return references


def measured_effects_of(model: Predictor, adata: AnnDataLike, *, reference: ReferenceCells = "held-out") -> Any:
    """Effects measured in the passing reference cells, as an AnnData: conditions × genes.

    Parameters
    ----------
    model
        A trained model.
    adata
        The experiment.
    reference
        As for :func:`evaluate`.
    """
    import anndata as ad

    data = model.read(adata)
    rows = reference_rows(model, data, reference).rows
    answered, _ = scored_conditions(model, data, rows)
    found = _references(adata, data, rows, answered, reference, truth=False, seed=0)[0]
    obs = pd.DataFrame(index=pd.Index(found.conditions, name="perturbation"))
    return ad.AnnData(X=found.effects, obs=obs, var=model.var.copy())
