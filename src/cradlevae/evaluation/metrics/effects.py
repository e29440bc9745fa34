"""Metrics of kind "effect": predicted effects against real ones, (perturbations, genes) each.

Conventions, so that no score is undefined and none warns: a correlation with a constant is 0; a prediction that is
missing (NaN) for any perturbation scores NaN, because a mean over fewer perturbations is another score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cradlevae.data.naming.gene_names import target_columns
from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.effect_distances import CONSTANT, Distance, places
from cradlevae.evaluation.metrics.registry import REGISTRY, metric, metrics_of
from cradlevae.utils.types import FloatArray, IndexArray


def effect_scores(
    real: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    perturbations: Sequence[str],
    genes: Sequence[str],
    symbols: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Every effect metric, or those in ``names``, of one prediction.

    Parameters
    ----------
    real, predicted
        Effects, (perturbations, genes).
    perturbations, genes
        Names of the rows (canonical, ``A+B`` for a combination) and of the columns.
    symbols
        Symbols of the columns, where their names are others (Ensembl ids).
    names
        Which metrics; all of kind ``"effect"`` by default.

    Raises
    ------
    DataError
        If a metric is unknown or of another kind, or shapes do not agree.
    """
    known = [entry.name for entry in metrics_of("effect")]
    available: dict[str, Sequence[str]] = {
        "perturbations": perturbations,
        "genes": genes,
        "symbols": genes if symbols is None else symbols,
    }
    scores: dict[str, float] = {}
    for name in known if names is None else names:
        if name not in known:
            raise DataError(f"unknown effect metric {name!r}; known: {', '.join(sorted(known))}")
        scores[name] = REGISTRY[name].value(real, predicted, **available)
    return scores


def pearson(first: FloatArray, second: FloatArray) -> float:
    """Pearson correlation of two vectors; 0 where either is constant."""
    a, b = _centred(first), _centred(second)
    norm = np.sqrt(a @ a) * np.sqrt(b @ b)
    return float(np.clip(a @ b / norm, -1.0, 1.0)) if norm > 0 else 0.0


def _centred(values: FloatArray) -> FloatArray:
    """Values minus their mean, scaled to at most 1; exactly 0 where they are constant up to rounding."""
    size = np.abs(values).max()
    if size == 0:
        return np.zeros_like(values)
    scaled = values / size
    centred = scaled - scaled.mean()
    return centred if np.abs(centred).max() > CONSTANT else np.zeros_like(values)


def _r2(real: FloatArray, predicted: FloatArray) -> float:
    """Coefficient of determination as ``sklearn.metrics.r2_score``: a constant truth gives 1 or 0."""
    residual = float(((real - predicted) ** 2).sum())
    if not _centred(real).any():
        return 1.0 if residual == 0 else 0.0
    return 1.0 - residual / float(((real - real.mean()) ** 2).sum())


def _largest(effects: FloatArray, k: int) -> IndexArray:
    """Columns of the ``k`` largest |effect| of every row (all, where there are fewer); ties by gene order."""
    return np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :k]


def _at_largest(real: FloatArray, predicted: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    columns = _largest(real, k)
    return (
        np.take_along_axis(real, columns, axis=1).ravel(),
        np.take_along_axis(predicted, columns, axis=1).ravel(),
    )


def _jaccard(real: FloatArray, predicted: FloatArray, k: int) -> float:
    overlaps = []
    for truth, guess, in_truth, in_guess in zip(
        real, predicted, _largest(real, k), _largest(predicted, k), strict=True
    ):
        # A gene without any effect is not among the affected, however few those are.
        first, second = set(in_truth[truth[in_truth] != 0]), set(in_guess[guess[in_guess] != 0])
        union = first | second
        overlaps.append(len(first & second) / len(union) if union else 1.0)
    return float(np.mean(overlaps))


@metric("ate_rho", best=1.0, description="Pearson correlation of effects over all perturbations and genes")
def ate_rho(real: FloatArray, predicted: FloatArray) -> float:
    """ATE-ρ: Pearson correlation over the flattened perturbation × gene matrix."""
    return pearson(real.ravel(), predicted.ravel())


@metric("ate_r2", best=1.0, description="R² of effects over all perturbations and genes")
def ate_r2(real: FloatArray, predicted: FloatArray) -> float:
    """ATE-R²: ``r2_score(real, predicted)`` over the flattened perturbation × gene matrix."""
    return _r2(real.ravel(), predicted.ravel())


@metric("ate_rho_top20", best=1.0, description="ATE-rho on each perturbation's 20 genes of largest real effect")
def ate_rho_top20(real: FloatArray, predicted: FloatArray) -> float:
    """ATE-ρ on each perturbation's 20 genes of largest real |effect|."""
    return pearson(*_at_largest(real, predicted, 20))


@metric("ate_r2_top20", best=1.0, description="ATE-R² on each perturbation's 20 genes of largest real effect")
def ate_r2_top20(real: FloatArray, predicted: FloatArray) -> float:
    """ATE-R² on each perturbation's 20 genes of largest real |effect|."""
    return _r2(*_at_largest(real, predicted, 20))


@metric("jaccard_20", best=1.0, description="overlap of the 20 genes of largest effect, mean over perturbations")
def jaccard_20(real: FloatArray, predicted: FloatArray) -> float:
    """Jaccard@20: |A∩B|/|A∪B| of the genes of largest |effect|, mean over perturbations."""
    return _jaccard(real, predicted, 20)


@metric("jaccard_50", best=1.0, description="overlap of the 50 genes of largest effect, mean over perturbations")
def jaccard_50(real: FloatArray, predicted: FloatArray) -> float:
    """Jaccard@50: |A∩B|/|A∪B| of the genes of largest |effect|, mean over perturbations."""
    return _jaccard(real, predicted, 50)


@metric("pearson_delta", best=1.0, description="Pearson correlation of effects per perturbation, mean")
def pearson_delta(real: FloatArray, predicted: FloatArray) -> float:
    """Pearson-Δ: correlation over genes within each perturbation, mean over perturbations."""
    return float(np.mean([pearson(truth, guess) for truth, guess in zip(real, predicted, strict=True)]))


@metric(
    "pearson_delta_systema",
    best=1.0,
    description="Pearson-delta against the centroid of all perturbed means instead of the controls",
)
def pearson_delta_systema(real: FloatArray, predicted: FloatArray) -> float:
    """Pearson-Δ with the mean of all perturbed centroids as reference (Systema).

    Subtracts the mean over perturbations of the *real* effects from both, so that what all perturbations
    share earns nothing. With one perturbation nothing is left to score: 0.
    """
    reference = real.mean(axis=0)
    return pearson_delta(_beyond_rounding(real, reference), _beyond_rounding(predicted, reference))


def _beyond_rounding(effects: FloatArray, reference: FloatArray) -> FloatArray:
    """Effects minus a reference, exactly 0 where the difference is rounding."""
    difference = effects - reference
    return np.where(np.abs(difference) > CONSTANT * np.abs(reference).max(), difference, 0.0)


@metric("mse_delta", best=0.0, description="mean squared error of effects")
def mse_delta(real: FloatArray, predicted: FloatArray) -> float:
    """Mean squared error over perturbations and genes, in squared units of the effects."""
    return float(((real - predicted) ** 2).mean())


@metric("mae_delta", best=0.0, description="mean absolute error of effects")
def mae_delta(real: FloatArray, predicted: FloatArray) -> float:
    """Mean absolute error over perturbations and genes, in units of the effects."""
    return float(np.abs(real - predicted).mean())


@metric("discrimination_l1", best=1.0, description="perturbation discrimination score, L1 distance")
def discrimination_l1(
    real: FloatArray,
    predicted: FloatArray,
    *,
    perturbations: Sequence[str],
    genes: Sequence[str],
    symbols: Sequence[str] | None = None,
) -> float:
    """Perturbation discrimination score by L1 distance; see :func:`discrimination`."""
    return discrimination(real, predicted, perturbations, genes, "l1", symbols)


@metric("discrimination_l2", best=1.0, description="perturbation discrimination score, L2 distance")
def discrimination_l2(
    real: FloatArray,
    predicted: FloatArray,
    *,
    perturbations: Sequence[str],
    genes: Sequence[str],
    symbols: Sequence[str] | None = None,
) -> float:
    """Perturbation discrimination score by L2 distance; see :func:`discrimination`."""
    return discrimination(real, predicted, perturbations, genes, "l2", symbols)


@metric("discrimination_cosine", best=1.0, description="perturbation discrimination score, cosine distance")
def discrimination_cosine(
    real: FloatArray,
    predicted: FloatArray,
    *,
    perturbations: Sequence[str],
    genes: Sequence[str],
    symbols: Sequence[str] | None = None,
) -> float:
    """Perturbation discrimination score by cosine distance; see :func:`discrimination`."""
    return discrimination(real, predicted, perturbations, genes, "cosine", symbols)


@metric("nearest_centroid", best=1.0, description="share of perturbations whose own centroid is the nearest")
def nearest_centroid(real: FloatArray, predicted: FloatArray) -> float:
    """Share of perturbations whose prediction is nearest (L2) to their own real effect.

    Of several that are equally near, each counts its part. One prediction for all perturbations is right once: 1/N.
    """
    found = places(real, predicted, "l2")
    return float(np.mean([0.0 if nearer else 1 / (1 + equal) for nearer, equal in found]))


@metric("centroid_accuracy", best=1.0, description="share of other perturbations' centroids that are further away")
def centroid_accuracy(real: FloatArray, predicted: FloatArray) -> float:
    """Share of the *other* real effects further from the prediction (L2) than its own, mean (Systema).

    Ties count half; one perturbation alone has nothing to be confused with and scores 1.
    """
    n = len(real)
    if n == 1:
        return 1.0
    ranks = [_rank(*place) for place in places(real, predicted, "l2")]
    return float(1.0 - np.mean(ranks) / (n - 1))


def discrimination(
    real: FloatArray,
    predicted: FloatArray,
    perturbations: Sequence[str],
    genes: Sequence[str],
    distance: Distance,
    symbols: Sequence[str] | None = None,
) -> float:
    """Perturbation discrimination score: 1 − rank/N, mean over the N perturbations.

    The rank is the number of real effects nearer to the prediction than the true one; ties count half, so
    that a prediction which is the same for all perturbations scores as chance does, not 1. The genes that a
    perturbation targets are left out of its distances: naming them is no prediction. They are recognised by their names
    or ``symbols`` (:func:`~cradlevae.data.naming.gene_names.target_columns`).
    """
    columns = target_columns(perturbations, genes, symbols)
    return float(1.0 - np.mean([_rank(*place) for place in places(real, predicted, distance, columns)]) / len(real))


def _rank(nearer: int, equal: int) -> float:
    """How many distances are smaller than the own one; equal ones (up to rounding) count half."""
    return nearer + 0.5 * equal
