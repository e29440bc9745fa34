"""The evaluation: every score of a trained model or a floor, with all floors, the ceiling and intervals.

This file reads the experiment, once, chooses the cells that make the reference (the predictor has not been trained on
them) and lets the scorers add their rows to one tidy table, a row per reference, metric and predictor. ``fraction``
says where a score lies between the best floor (0) and the ceiling (1).
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.known_cells import warn_of_namesakes
from cradlevae.data.identity.marks import known_truth, warn_if_made
from cradlevae.data.labels import singles_of
from cradlevae.data.qc.balance import cells_lost, perturbation_balance
from cradlevae.data.qc.confounding import confounding_test
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.training_moments import need_training_controls
from cradlevae.evaluation.inputs import ScoringInputs
from cradlevae.evaluation.predictor import Predictor, as_predictor
from cradlevae.evaluation.reference_effects import (
    ALL_CELLS_NOTE,
    MAX_UNMARKED,
    NO_ANSWER,
    NOT_MEASURABLE,
    Reference,
    ReferenceCells,
    check_reference,
    measured_reference,
    reference_rows,
    scored_conditions,
    simulated_reference,
    without_controls,
)
from cradlevae.evaluation.score_table import COLUMNS, Scores, reference_label
from cradlevae.evaluation.scorers.calibration import score_calibration
from cradlevae.evaluation.scorers.clean import score_clean
from cradlevae.evaluation.scorers.effects import score_effects
from cradlevae.evaluation.scorers.generated import score_generated
from cradlevae.evaluation.scorers.latents import sampled_cells, score_leakage, score_likelihood
from cradlevae.evaluation.scorers.mixing import score_mixing
from cradlevae.evaluation.scorers.qc import score_qc
from cradlevae.evaluation.scorers.simulated import score_mask, score_signature
from cradlevae.model.trained import TrainedModel
from cradlevae.utils.checks import flag, seed_number, whole_number
from cradlevae.utils.names import listed
from cradlevae.utils.types import AnnDataLike

__all__ = ["ALL_CELLS_NOTE", "COLUMNS", "evaluate", "measured_effects_of"]


DEFAULT_CELLS = 200
"""Generated cells per condition by default."""


def evaluate(
    model: TrainedModel | Predictor,
    adata: AnnDataLike,
    *,
    reference: ReferenceCells = "held-out",
    published: bool = False,
    generated: bool = True,
    truth: bool | str = "auto",
    n_cells: int = DEFAULT_CELLS,
    denoiser: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a trained model on cells that it has not seen.

    Parameters
    ----------
    model
        A trained model, or a floor. Scores of questions that it cannot answer are left out: those of latent states for
        a floor, those of the artifact for a model without one.
    adata
        The experiment: training cells make the floors, held-out cells the reference. It is read once.
    reference
        ``"held-out"`` (test part, and cells unknown to the split), ``"validation"`` (to choose among models), or
        ``"all"``: the published all-cells reference, which contains training cells; the table then says so.
    published
        Also score the effects as the released evaluation takes them (library size 10,000, prior, unpaired).
    generated
        Also score generated cells (QC pass rate, DE genes, and their distance to real cells) and how cleaned cells mix
        with passing ones.
    truth
        ``"auto"`` (or ``True``): also score against the truth of data that :func:`cradlevae.simulate` or
        :func:`cradlevae.plant_artifacts` has made (``layers["clean"]``, ``uns["truth"]``), and the likelihood and
        leakage of held-out cells. Other data need the name of the layer that holds their true artifact-free counts.
        ``False``: none of these.
    n_cells
        Generated cells per condition.
    denoiser
        Where cleaned cells are scored against their true counts: also train a plain denoiser on the passing training
        cells, a floor that takes half a minute with 300 genes and a minute or two with many.
    seed
        Seed of every draw.

    Returns
    -------
    pandas.DataFrame
        Tidy: ``reference``, ``metric``, ``predictor`` (``model``, or a floor), ``value``, ``low``, ``high`` (95 %,
        bootstrap over perturbations), ``floor`` and ``best_floor`` (best of the floors), ``ceiling``, ``fraction``,
        ``note``. Metrics of your own appear in it as soon as they are registered
        (:mod:`cradlevae.evaluation.metrics.registry`). ``attrs``: ``split_hash``, ``unanswered`` conditions, those
        that are ``unmeasured`` because no controls share a batch (or context) with them, the test for ``confounding``
        and ``fingerprint_overlap``, the share of the reference cells that have the counts of a
        training cell; and what :func:`cradlevae.verdict` judges beside the rows: ``conditions`` (scored ones with their
        passing training and reference cells), ``leads`` (intervals of the model's score minus the best floor's),
        ``cells_lost`` (share of the cells that uneven batches cost), ``history`` (losses by epoch) and ``cleans``
        (whether the model can clean cells).

    Raises
    ------
    DataError
        If no held-out cells are there, training cells are among them, there are no training controls for floors, or
        ``truth`` names a layer that is absent or holds no counts.

    Warns
    -----
    UserWarning
        Where conditions cannot be measured, because no controls are in their batches; where cells have the name of a
        cell of the model's split but other counts, or the data hold a
        ``layers["clean"]`` or ``uns["truth"]`` of unknown origin, which is not taken for the truth.
    """
    check_reference(reference)
    published, generated = flag("published", published), flag("generated", generated)
    denoiser = flag("denoiser", denoiser)
    n_cells, seed = whole_number("n_cells", n_cells, 1), seed_number(seed)
    if not generated and n_cells != DEFAULT_CELLS:
        raise DataError("no cells are generated, so n_cells means nothing; leave it out, or set generated=True")
    predictor = as_predictor(model)
    _check_genes(predictor)
    warn_if_made(adata, "evaluate")
    data = predictor.read(adata)
    known = known_truth(adata, data, truth)
    warn_of_namesakes(predictor.split, data)
    chosen = reference_rows(predictor, data, reference)
    need_training_controls(predictor.split, data)
    answered, unanswered = scored_conditions(predictor, data, chosen.rows)
    if not answered:
        raise DataError(NO_ANSWER)
    inputs = ScoringInputs(predictor, adata, data, chosen.rows, tuple(answered), seed, known, denoiser)
    scores = Scores(reference)
    _score_effects(scores, inputs, reference, published=published)
    if generated:
        score_qc(scores, inputs, n_cells=n_cells)
        score_generated(scores, inputs)
        if predictor.latent_model is not None:
            score_mixing(scores, inputs, predictor.latent_model)
    if truth is not False and predictor.latent_model is not None:
        _score_latents(scores, inputs, predictor.latent_model)
    confounding = _score_confounding(scores, data)
    unmeasured = without_controls(data, inputs.passing, answered)
    table = scores.table()
    facts: dict[Hashable | None, Any] = {
        "split_hash": predictor.split.hash,
        "unanswered": [str(name) for name in unanswered],
        "unmeasured": [str(name) for name in unmeasured],
        "confounding": confounding.to_dict(orient="list"),
        "fingerprint_overlap": chosen.overlap,
        "conditions": _scored_cells(inputs).to_dict(orient="list"),
        "leads": pd.DataFrame(scores.leads).to_dict(orient="list"),
        "cells_lost": cells_lost(perturbation_balance(data)),
    }
    table.attrs = facts | _of_model(predictor.latent_model)
    _warn(unanswered, unmeasured, chosen.unmarked if reference != "all" else 0.0)
    return table


def _check_genes(predictor: Predictor) -> None:
    """Raise :class:`DataError` for one gene, whose share of the counts is always 1."""
    if len(predictor.genes) < 2:
        raise DataError(
            "the model has one gene, whose share of a cell's counts is always 1: there is no effect to score; use at "
            "least two genes"
        )


def _score_effects(scores: Scores, inputs: ScoringInputs, cells: ReferenceCells, *, published: bool) -> None:
    """Add the rows of effects, and of their intervals where the predictor has them."""
    references = _references(inputs, cells)
    predicted = inputs.predictor.effects(list(inputs.conditions), seed=inputs.seed)
    score_effects(scores, inputs, references, predicted, published=published)
    if "mc_error" in predicted.layers:  # the intervals of floors are not from a posterior
        score_calibration(scores, inputs, references, predicted)


def _score_latents(scores: Scores, inputs: ScoringInputs, model: TrainedModel) -> None:
    """Add the rows of likelihood and leakage, and of the truth where the data hold it."""
    cells = sampled_cells(inputs)
    score_likelihood(scores, model, cells, seed=inputs.seed)
    score_leakage(scores, model, cells, seed=inputs.seed)
    score_mask(scores, inputs, model)
    score_signature(scores, inputs, model)
    score_clean(scores, inputs, model)


def _score_confounding(scores: Scores, data: Experiment) -> pd.DataFrame:
    """Add the number of perturbations that change the failure rate, and return the test of each."""
    codes, names = data.plain
    confounding = confounding_test(codes, names, data.failed, strata=data.strata)
    flagged = list(confounding.loc[confounding["flagged"], "perturbation"])
    scores.add("all cells", "confounded_perturbations", "data", float(len(flagged)), note=", ".join(flagged))
    return confounding


def _scored_cells(inputs: ScoringInputs) -> pd.DataFrame:
    """Cells by which the scored conditions are known, a row for each.

    Columns: ``condition``, ``n_singles``, ``n_train`` (passing training cells), ``n_parts`` (passing training cells
    with the rarest of its perturbations, whatever else was done to them) and ``n_reference`` (passing reference cells).
    """
    data, n = inputs.data, len(inputs.data.conditions)
    train = inputs.training_rows
    of_train, of_reference = (
        np.bincount(data.condition[rows], minlength=n) for rows in (train[~data.failed[train]], inputs.passing)
    )
    has = data.dosage != 0
    of_parts = of_train @ has
    place = {str(name): row for row, name in enumerate(data.conditions)}
    rows = [place[name] for name in map(str, inputs.conditions)]
    return pd.DataFrame(
        {
            "condition": [str(name) for name in inputs.conditions],
            "n_singles": [len(singles_of(name)) for name in inputs.conditions],
            "n_train": of_train[rows],
            "n_parts": [int(of_parts[has[row]].min(initial=len(train))) for row in rows],
            "n_reference": of_reference[rows],
        }
    )


def _of_model(model: TrainedModel | None) -> dict[Hashable | None, Any]:
    """What a verdict needs to know of a trained model; of a floor, nothing."""
    if model is None:
        return {"cleans": False}
    losses = [name for name in ("train_loss", "val_loss") if name in model.history]
    history = model.history[losses].dropna().to_dict(orient="list")
    return {"cleans": bool(model.declaration.artifact), "history": history}


def _warn(unanswered: Sequence[str], unmeasured: Sequence[str], unmarked: float) -> None:
    if unmeasured:
        warnings.warn(
            f"{len(unmeasured)} held-out conditions cannot be measured, because no held-out controls are in their "
            f"batches (or contexts): {listed(unmeasured)}",
            stacklevel=3,
        )
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


def _references(inputs: ScoringInputs, cells: ReferenceCells) -> list[Reference]:
    """Effects to score against: of the passing reference cells first, then what the truth says."""
    data, rows, conditions, seed = inputs.data, inputs.rows, inputs.conditions, inputs.seed
    references = [_measured_reference(inputs, cells)]
    if inputs.true_counts is not None:
        name = reference_label(cells, "clean counts (truth)")
        counts = sp.csr_matrix(inputs.true_counts[rows])
        references.append(measured_reference(name, data, counts, rows, conditions, seed=seed))
    references.append(simulated_reference(inputs.truth, list(data.genes), conditions))
    measurable = [reference for reference in references if reference is not None]
    if not measurable:
        raise DataError(NOT_MEASURABLE)
    return measurable


def _measured_reference(inputs: ScoringInputs, cells: ReferenceCells) -> Reference | None:
    """Effects in the passing reference cells; ``None`` where they cannot be measured."""
    name = reference_label(cells, "passing cells")
    counts = sp.csr_matrix(inputs.data.counts[inputs.passing])
    return measured_reference(name, inputs.data, counts, inputs.passing, inputs.conditions, seed=inputs.seed)


def measured_effects_of(
    model: TrainedModel | Predictor, adata: AnnDataLike, *, reference: ReferenceCells = "held-out"
) -> Any:
    """Effects measured in the passing reference cells, as an AnnData: conditions × genes.

    ``obs["n_cells"]`` is the number of cells that each effect is worth, the layer ``standard_error`` its noise.

    Parameters
    ----------
    model
        A trained model or a floor.
    adata
        The experiment; it is read once.
    reference
        As for :func:`evaluate`.

    Raises
    ------
    DataError
        If no condition has two passing reference cells and two passing reference controls.
    """
    import anndata as ad

    predictor = as_predictor(model)
    data = predictor.read(adata)
    rows = reference_rows(predictor, data, reference).rows
    answered, _ = scored_conditions(predictor, data, rows)
    measured = _measured_reference(ScoringInputs(predictor, adata, data, rows, tuple(answered), seed=0), reference)
    if measured is None:
        raise DataError(NOT_MEASURABLE)
    obs = pd.DataFrame(index=pd.Index(measured.conditions, name="perturbation"))
    layers = {}
    if measured.noise is not None:
        obs["n_cells"] = measured.noise.n_cells
        layers["standard_error"] = measured.noise.standard_error
    return ad.AnnData(X=measured.effects, obs=obs, var=predictor.var.copy(), layers=layers)
