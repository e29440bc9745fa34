"""Scores that need to know what the artifact did: simulated data, or real data with planted artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.storage.stored_matrix import group_sums
from cradlevae.evaluation.metrics.effects import pearson
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.evaluation.reference_effects import truth_columns
from cradlevae.utils.types import BoolArray, FloatArray, IndexArray

LATENTS = ("z_basal", "z_perturbation")
"""Latent states that should not tell whether a cell is damaged."""

SMOOTHING = 1.0
"""Total of the pseudo-counts, spread like the mean profile of all passing cells, that smooth a cell's own profile."""


def poisson_deviance(counts: sp.csr_matrix, profile: FloatArray) -> FloatArray:
    """Poisson deviance of each cell's counts under a profile scaled to the cell's total, (cells,).

    Parameters
    ----------
    counts
        True counts, (cells, genes).
    profile
        Expected share of each gene, (cells, genes) or (1, genes); rows are normalised here.
    """
    total = np.asarray(counts.sum(axis=1)).ravel()
    shares = profile / profile.sum(axis=1, keepdims=True)
    coo = counts.tocoo()
    rows = coo.row if len(shares) > 1 else np.zeros_like(coo.row)
    expected = total[coo.row] * np.maximum(shares[rows, coo.col], 1e-12)
    # both totals agree, so the terms linear in counts and mean cancel
    terms = coo.data * np.log(coo.data / expected)
    return np.asarray(2 * np.bincount(coo.row, terms, minlength=counts.shape[0]), dtype=np.float64)


def deviance_floors(
    data: Experiment, train: IndexArray, rows: IndexArray, true_counts: sp.csr_matrix
) -> dict[str, FloatArray]:
    """Deviance of true counts under three predictions without a model, (cells,) each.

    ``own_damaged_profile`` (smoothed), ``perturbation_mean`` and ``overall_mean`` of the passing training cells.
    """
    passing = train[~data.failed[train]]
    sums = group_sums(data.counts, passing, data.condition[passing], len(data.conditions), "averaging training cells")
    overall = sums.sum(axis=0, dtype=np.float64) + 1e-3
    overall /= overall.sum()
    own = data.counts[rows].toarray().astype(np.float64) + SMOOTHING * overall
    present = np.bincount(data.condition[passing], minlength=len(data.conditions))[:, None] > 0
    by_condition = np.where(present, sums + SMOOTHING * overall, overall)
    return {
        "own_damaged_profile": poisson_deviance(true_counts, own),
        "perturbation_mean": poisson_deviance(true_counts, by_condition[data.condition[rows]]),
        "overall_mean": poisson_deviance(true_counts, overall[None]),
    }


def leakage(states: FloatArray, failed: BoolArray, *, standardise: bool = True, seed: int = 0) -> float:
    """How well the artifact can be read from latent states: balanced accuracy of a logistic regression.

    Five-fold cross-validated over cells; 0.5 is none. NaN where a class has fewer than five cells. A posterior mean
    moves, by nothing that matters, along latents that carry no information, and a standardised mean would count that as
    if it did. So either draws from the posterior are standardised (several of each cell let the regression learn the
    more), or means are left in units of the prior's standard deviation.

    Parameters
    ----------
    states
        Latent states, (draws, cells, K); means are one draw.
    failed
        Artifact indicator, (cells,).
    standardise
        Whether columns are brought to unit variance.
    seed
        Seed of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if min(int(failed.sum()), int((~failed).sum())) < 5:
        return float("nan")
    logistic = LogisticRegression(class_weight="balanced", max_iter=1000)
    regression = make_pipeline(StandardScaler(), logistic) if standardise else logistic
    n_draws, n_cells, n_latent = states.shape
    label, cell = np.tile(failed, n_draws), np.tile(np.arange(n_cells), n_draws)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    predicted = cross_val_predict(regression, states.reshape(-1, n_latent), label, cv=folds, groups=cell)
    return float(balanced_accuracy_score(label, predicted))


for _latent in LATENTS:
    for _name, _how in ((f"leakage_{_latent}", "posterior draws"), (f"leakage_{_latent}_mean", "posterior means")):
        metric(
            _name,
            kind="leakage",
            best=0.5,
            description=f"balanced accuracy of reading the artifact from {_how} of {_latent}; 0.5 is none",
        )(leakage)


@metric("mask_f1", kind="mask", best=1.0, description="F1 of the perturbation masks, latents matched one to one")
def mask_f1(true_mask: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """F1 of the inferred mask against the true one.

    Latent dimensions have no order: inferred ones are matched to true ones so that most active entries agree, and those
    left over count as false positives.

    Parameters
    ----------
    true_mask
        0/1, (perturbations, true latents).
    probability
        Posterior mask probabilities, (perturbations, latents); active above ½.
    """
    from scipy.optimize import linear_sum_assignment

    truth, inferred = np.asarray(true_mask) > 0.5, np.asarray(probability) > 0.5
    agreement = truth.T.astype(int) @ inferred.astype(int)  # (true latents, latents)
    rows, columns = linear_sum_assignment(agreement, maximize=True)
    found = int(agreement[rows, columns].sum())
    total = int(truth.sum() + inferred.sum())
    return 2 * found / total if total else 1.0


@metric("signature_correlation", kind="signature", best=1.0, description="Pearson correlation of artifact signatures")
def signature_correlation(truth: npt.ArrayLike, log2_fold_change: npt.ArrayLike) -> float:
    """Pearson correlation of the artifact signature with the true one, both log2 fold changes, (genes,)."""
    return pearson(np.asarray(truth, dtype=np.float64), np.asarray(log2_fold_change, dtype=np.float64))


def true_signature(truth: Any, genes: Sequence[str]) -> FloatArray | None:
    """True artifact signature of these genes in simulated data, (genes,); ``None`` where it is not known.

    Parameters
    ----------
    truth
        ``uns["truth"]`` of simulated data, or ``None``.
    genes
        Names of the genes.
    """
    columns = truth_columns(truth, genes)
    if columns is None or "artifact_signature" not in truth:
        return None
    return np.asarray(truth["artifact_signature"], dtype=np.float64)[columns]


@metric("clean_deviance", kind="clean", best=0.0, description="Poisson deviance of true clean counts per failed cell")
def mean_deviance(per_cell: npt.ArrayLike) -> float:
    """Mean over cells of :func:`poisson_deviance`."""
    return float(np.asarray(per_cell, dtype=np.float64).mean())


@metric("iwelbo", kind="likelihood", best=np.inf, description="importance-weighted bound on log p(x), nats per cell")
def mean_iwelbo(per_cell: npt.ArrayLike) -> float:
    """Mean over cells of the bound."""
    return float(np.asarray(per_cell, dtype=np.float64).mean())
