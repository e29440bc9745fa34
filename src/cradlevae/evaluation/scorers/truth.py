"""Rows of what held-out cells and the truth say about latents, likelihood, mask, signature and cleaned cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.evaluation.metrics.latents import (
    LATENTS,
    deviance_floors,
    leakage,
    mask_f1,
    mean_deviance,
    mean_iwelbo,
    poisson_deviance,
    signature_correlation,
    true_signature,
)
from cradlevae.evaluation.reference_effects import clean_counts, scored_conditions
from cradlevae.evaluation.score_table import MODEL, Scores, best_of
from cradlevae.model.trained import TrainedModel
from cradlevae.query.counterfactual import clean
from cradlevae.query.latents import latents, log_likelihood, mask_probabilities
from cradlevae.query.signature import artifact_signature
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IndexArray

LEAKAGE_DRAWS = 5
SCORED_CELLS = 2000
"""At most so many cells are scored by IWELBO, and so many read for leakage."""


def score_truth(
    scores: Scores,
    model: TrainedModel,
    adata: AnnDataLike,
    data: Experiment,
    rows: IndexArray,
    *,
    seed: int,
) -> None:
    """Add the rows of likelihood and leakage, and of the truth where the data hold it.

    Parameters
    ----------
    scores
        Table to add to.
    model, adata, data
        A trained model and the experiment.
    rows
        Reference cells, passing and failed ones.
    seed
        Seed of the draws.
    """
    known = set(scored_conditions(model, data, rows)[0])
    usable = rows[[data.is_control[row] or data.conditions[data.condition[row]] in known for row in rows]]
    chosen = np.sort(np.random.default_rng(seed).permutation(usable)[:SCORED_CELLS])
    cells = adata[data.cells[chosen]]
    likelihood = log_likelihood(model, cells, seed=seed).to_numpy()
    scores.add(scores.label("cells"), "iwelbo", MODEL, mean_iwelbo(likelihood), note="nats per cell, 100 particles")
    _score_leakage(scores, model, cells, data.failed[chosen], seed=seed)
    _score_simulated(scores, model, adata.uns.get("truth"), seed=seed)
    if not model.declaration.artifact:
        return
    true_counts = clean_counts(adata, data)
    damaged = usable[data.failed[usable]]
    if true_counts is not None and len(damaged):
        _score_clean(scores, model, adata, data, damaged, sp.csr_matrix(true_counts[damaged]), seed=seed)


def _score_leakage(scores: Scores, model: TrainedModel, cells: AnnDataLike, failed: BoolArray, *, seed: int) -> None:
    draws = [latents(model, cells, sample=True, seed=seed + draw).obsm for draw in range(LEAKAGE_DRAWS)]
    means = latents(model, cells, seed=seed).obsm
    for name in LATENTS:
        drawn = np.stack([draw[name] for draw in draws])
        scores.add(
            scores.label("cells"), f"leakage_{name}", MODEL, leakage(drawn, failed, seed=seed),
            note=f"{LEAKAGE_DRAWS} posterior draws per cell, columns standardised; 0.5 is none",
        )  # fmt: skip
        value = leakage(means[name][None], failed, standardise=False, seed=seed)
        scores.add(
            scores.label("cells"), f"leakage_{name}_mean", MODEL, value,
            note="posterior means in units of the prior's standard deviation; 0.5 is none",
        )  # fmt: skip


def _score_simulated(scores: Scores, model: TrainedModel, truth: Any, *, seed: int) -> None:
    if truth is not None and "mask" in truth and model.module.mask is not None:
        names = [str(name) for name in truth["perturbations"]]
        inferred = mask_probabilities(model).reindex(names).fillna(0.0).to_numpy()
        scores.add("simulated truth", "mask_f1", MODEL, mask_f1(truth["mask"], inferred))
    if not model.declaration.artifact:
        return
    signature = true_signature(truth, list(model.genes))
    if signature is not None and len(model.criteria) == 1:
        change = artifact_signature(model, seed=seed)["log2_fold_change"].to_numpy()
        scores.add("simulated truth", "signature_correlation", MODEL, signature_correlation(signature, change))


def _score_clean(
    scores: Scores,
    model: TrainedModel,
    adata: AnnDataLike,
    data: Experiment,
    damaged: IndexArray,
    true_counts: sp.csr_matrix,
    *,
    seed: int,
) -> None:
    cleaned = clean(model, adata[data.cells[damaged]], cells="failed", seed=seed)
    per_cell = {MODEL: poisson_deviance(true_counts, np.asarray(cleaned.X, dtype=np.float64))}
    train = model.split.rows(data.cells, "train")
    per_cell |= deviance_floors(data, train, damaged, true_counts)
    kinds = damage_kinds(adata, data.cells[damaged])
    for kind in ("", *sorted(set(kinds))):
        of_kind = np.ones(len(damaged), dtype=bool) if not kind else kinds == kind
        reference = scores.label("clean counts (truth)") + (f", {kind}" if kind else "")
        _add_deviances(scores, {name: values[of_kind] for name, values in per_cell.items()}, reference)


def damage_kinds(adata: AnnDataLike, cells: pd.Index[str]) -> npt.NDArray[np.str_]:
    """What was done to damaged cells, where the data tell (planted or simulated), ``(cells,)``; empty where not."""
    for column in ("artifact_kind", "true_artifact_kind"):
        if column in adata.obs:
            return np.asarray(adata.obs.loc[cells, column].astype(str), dtype=np.str_)
    return np.zeros(0, dtype=np.str_)


def _add_deviances(scores: Scores, per_cell: dict[str, FloatArray], reference: str) -> None:
    """A row for each prediction of some cells, (cells,)."""
    means = {name: mean_deviance(values) for name, values in per_cell.items()}
    floors = {name: value for name, value in means.items() if name != MODEL}
    floor_value, best_floor = best_of("clean_deviance", floors)
    for name, value in means.items():
        error = 1.96 * per_cell[name].std() / np.sqrt(len(per_cell[name]))
        scores.add(
            reference, "clean_deviance", name, value, low=value - error, high=value + error,
            floor=floor_value, best_floor=best_floor, note="Poisson deviance per failed cell; lower is better",
        )  # fmt: skip
