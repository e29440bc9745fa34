"""Metrics of what a model has inferred: latent states, likelihood of cells, mask and artifact signature."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cradlevae.evaluation.metrics.effects import pearson
from cradlevae.evaluation.metrics.kinds import DRAWS, LATENTS, LEAKAGE_DRAWS, MEANS
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.utils.types import BoolArray, FloatArray


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


def leakage_of_means(states: FloatArray, failed: BoolArray, *, seed: int = 0) -> float:
    """Leakage of posterior means, left in units of the prior's standard deviation; parameters as :func:`leakage`."""
    return leakage(states, failed, standardise=False, seed=seed)


for _latent in LATENTS:
    metric(
        f"leakage_{_latent}",
        kind="leakage",
        best=0.5,
        on=(_latent, DRAWS),
        description=f"balanced accuracy of reading the artifact from posterior draws of {_latent}; 0.5 is none",
        note=f"{LEAKAGE_DRAWS} posterior draws per cell, columns standardised; 0.5 is none",
    )(leakage)
    metric(
        f"leakage_{_latent}_mean",
        kind="leakage",
        best=0.5,
        on=(_latent, MEANS),
        description=f"balanced accuracy of reading the artifact from posterior means of {_latent}; 0.5 is none",
        note="posterior means in units of the prior's standard deviation; 0.5 is none",
    )(leakage_of_means)


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
    n_agreeing = int(agreement[rows, columns].sum())
    total = int(truth.sum() + inferred.sum())
    return 2 * n_agreeing / total if total else 1.0


@metric("signature_correlation", kind="signature", best=1.0, description="Pearson correlation of artifact signatures")
def signature_correlation(truth: npt.ArrayLike, log2_fold_change: npt.ArrayLike) -> float:
    """Pearson correlation of the artifact signature with the true one, both log2 fold changes, (genes,)."""
    return pearson(np.asarray(truth, dtype=np.float64), np.asarray(log2_fold_change, dtype=np.float64))


@metric(
    "iwelbo",
    kind="likelihood",
    best=np.inf,
    description="importance-weighted bound on log p(x), nats per cell",
    note="nats per cell, 100 particles",
)
def mean_iwelbo(log_likelihood: npt.ArrayLike) -> float:
    """Mean over cells of the importance-weighted bound on log p(x), (cells,), in nats."""
    return float(np.asarray(log_likelihood, dtype=np.float64).mean())
