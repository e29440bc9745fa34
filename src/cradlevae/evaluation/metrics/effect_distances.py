"""Distances of predicted effects to every real effect, and the place that the own one takes among them.

With few perturbations distances are summed as they are written. With many, sums of squares and products go through
matrix products, and absolute differences through one call for many rows: the same numbers up to rounding, in seconds
where loops take hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from cradlevae.utils.constants import BLOCK_VALUES
from cradlevae.utils.types import FloatArray

Distance = Literal["l1", "l2", "cosine"]

CONSTANT = 1e-12
"""Difference relative to size below which values count as equal, and as constant: what is left is rounding."""

FEW_VALUES = 50_000_000
"""Up to so many differences (perturbations² × genes), distances are summed as they are written."""

PRODUCT_ROUNDING = 1e-7
"""Relative difference of distances that is rounding where they come of matrix products."""


def places(
    real: FloatArray, predicted: FloatArray, distance: Distance, without: Sequence[Sequence[int]] | None = None
) -> Iterator[tuple[int, int]]:
    """For each prediction: how many real effects are nearer than the own one, and how many others are as near.

    Parameters
    ----------
    real, predicted
        Effects, (perturbations, genes).
    distance
        ``"l1"``, ``"l2"`` or ``"cosine"``.
    without
        Genes that are left out of the distances of each prediction; ``None`` leaves none out.
    """
    few = len(real) ** 2 * real.shape[1] <= FEW_VALUES
    distances_to = _exactly if few else _together
    rounding = CONSTANT if few or distance == "l1" else PRODUCT_ROUNDING
    step = 1 if few else max(1, min(len(real), BLOCK_VALUES // len(real)))
    for start in range(0, len(predicted), step):
        rows = slice(start, min(start + step, len(predicted)))
        left_out = None if without is None else without[rows]
        for row, distances in enumerate(distances_to(real, predicted[rows], distance, left_out), start=start):
            margin = rounding * max(float(np.abs(distances).max()), np.finfo(np.float64).tiny)
            nearer = int((distances < distances[row] - margin).sum())
            yield nearer, int((np.abs(distances - distances[row]) <= margin).sum()) - 1


def _exactly(
    real: FloatArray, predicted: FloatArray, distance: Distance, without: Sequence[Sequence[int]] | None
) -> FloatArray:
    """Distances of one prediction, (1, perturbations)."""
    prediction = predicted[0]
    if without is not None and len(without[0]):
        others = np.delete(np.arange(real.shape[1]), without[0])
        real, prediction = real[:, others], prediction[others]
    if distance == "l1":
        return np.asarray(np.abs(real - prediction).sum(axis=1))[None]
    if distance == "l2":
        return np.asarray(np.sqrt(((real - prediction) ** 2).sum(axis=1)))[None]
    norms = np.sqrt((real**2).sum(axis=1)) * np.sqrt(prediction @ prediction)
    return _cosine_distance(real @ prediction, norms)[None]


def _together(
    real: FloatArray, predicted: FloatArray, distance: Distance, without: Sequence[Sequence[int]] | None
) -> FloatArray:
    """Distances of some predictions, (predictions, perturbations)."""
    if distance == "l1":
        import torch

        table = torch.cdist(torch.from_numpy(predicted), torch.from_numpy(real), p=1.0).numpy()
        for row, genes in _left_out(without):
            table[row] -= np.abs(real[:, genes] - predicted[row, genes]).sum(axis=1)
        return np.asarray(np.maximum(table, 0.0))
    products = predicted @ real.T
    of_real = np.tile((real**2).sum(axis=1), (len(predicted), 1))
    of_predicted = (predicted**2).sum(axis=1)
    for row, genes in _left_out(without):
        products[row] -= real[:, genes] @ predicted[row, genes]
        of_real[row] -= (real[:, genes] ** 2).sum(axis=1)
        of_predicted[row] -= (predicted[row, genes] ** 2).sum()
    if distance == "l2":
        return np.asarray(np.sqrt(np.maximum(of_real + of_predicted[:, None] - 2 * products, 0.0)))
    norms = np.sqrt(np.maximum(of_real, 0.0)) * np.sqrt(np.maximum(of_predicted, 0.0))[:, None]
    return _cosine_distance(products, norms)


def _left_out(without: Sequence[Sequence[int]] | None) -> Iterator[tuple[int, Sequence[int]]]:
    for row, genes in enumerate(() if without is None else without):
        if len(genes):
            yield row, genes


def _cosine_distance(products: FloatArray, norms: FloatArray) -> FloatArray:
    """1 − cosine; an effect of zero points nowhere: its cosine with anything is 0."""
    return np.asarray(1.0 - np.divide(products, norms, out=np.zeros_like(products), where=norms > 0))
