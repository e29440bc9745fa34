"""How far two samples of cells are from each other: E-distance and maximum mean discrepancy, both unbiased.

Both compare distributions, not means: a generator of the right mean and the wrong spread is far from real cells.
Both are U-statistics, from which a cell's pair with itself is left out: two samples of one distribution are at 0 on
average, whatever their sizes, and by chance below. Within strata (batches), cells are compared with those of the same
stratum only, so that a difference between batches is no distance between samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cradlevae.errors import DataError
from cradlevae.utils.types import AnyIntArray, FloatArray

SampleStrata = tuple[AnyIntArray, AnyIntArray]
"""Codes of the strata of the cells of two samples."""


def energy_distance(first: npt.ArrayLike, second: npt.ArrayLike, *, strata: SampleStrata | None = None) -> float:
    """E-distance of two samples: 2·E|X − Y| − E|X − X'| − E|Y − Y'|, Euclidean (Székely & Rizzo 2013).

    Parameters
    ----------
    first, second
        Coordinates of cells, (cells, dimensions); at least two cells each.
    strata
        Codes of the strata of the cells of the two, to compare within strata (see :func:`unbiased_gap_within`);
        ``first`` are the real cells then.

    Notes
    -----
    Distances are plain, not squared: squared ones would compare means alone. The result has the units of the
    coordinates and is below 0 by chance only.

    Raises
    ------
    DataError
        If a sample has fewer than two cells, the dimensions differ, or strata and cells do not fit.
    """
    pooled, one, other = _pooled(first, second)
    return float(unbiased_gap_within(pairwise_distances(pooled), one, other, _joined(strata, one))[0])


def squared_mmd(
    first: npt.ArrayLike, second: npt.ArrayLike, precisions: npt.ArrayLike, *, strata: SampleStrata | None = None
) -> float:
    """Squared maximum mean discrepancy of two samples under a mean of Gaussian kernels (Gretton et al. 2012, eq. 3).

    Parameters
    ----------
    first, second
        Coordinates of cells, (cells, dimensions); at least two cells each.
    precisions
        The kernels' 1 / (2·bandwidth²): exp(−precision·|x − y|²) is averaged over them.
    strata
        As in :func:`energy_distance`.

    Raises
    ------
    DataError
        If a sample has fewer than two cells, the dimensions differ, or strata and cells do not fit.
    """
    pooled, one, other = _pooled(first, second)
    kernel = gaussian_kernel(pairwise_distances(pooled), np.atleast_1d(np.asarray(precisions, dtype=np.float64)))
    return float(-unbiased_gap_within(kernel, one, other, _joined(strata, one))[0])


def pairwise_distances(cells: FloatArray) -> FloatArray:
    """Euclidean distance of every two cells, (cells, dimensions) → (cells, cells)."""
    from scipy.spatial.distance import pdist, squareform

    return np.asarray(squareform(pdist(cells)))


def gaussian_kernel(distances: FloatArray, precisions: FloatArray) -> FloatArray:
    """Mean over ``precisions`` of exp(−precision·distance²), (cells, cells)."""
    squared = distances**2
    kernel = np.zeros_like(squared)
    for precision in precisions:
        kernel += np.exp(-precision * squared)
    return kernel / len(precisions)


def unbiased_gap(values: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """Twice the mean between two samples minus the means within each, own pairs left out, (comparisons,).

    Parameters
    ----------
    values
        A value of every two cells, (cells, cells), symmetric: a distance (the gap is the E-distance), or a kernel (the
        gap is −MMD²).
    first, second
        1 for the cells of a sample, else 0, (comparisons, cells); at least two cells in each, none in both.
    """
    return unbiased_gap_of_sums(first, second, first @ values, second @ values, np.diag(values))


def unbiased_gap_within(
    values: FloatArray, first: FloatArray, second: FloatArray, strata: AnyIntArray | None
) -> FloatArray:
    """The gap of :func:`unbiased_gap` within strata: their mean, weighted by the first sample's cells, (comparisons,).

    A stratum in which one of the samples has fewer than two cells is left out, of its mean and of its weights.

    Parameters
    ----------
    values
        A value of every two cells, (cells, cells), symmetric.
    first, second
        1 for the cells of a sample, else 0, (comparisons, cells); the first is the one of real cells.
    strata
        Code of each cell's stratum, any whole numbers, (cells,); ``None`` takes all cells for one stratum.

    Returns
    -------
    FloatArray
        NaN where there is no stratum in which both samples have two cells.
    """
    codes = np.zeros(values.shape[0], dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    gaps, weights = [], []
    for stratum in range(int(codes.max()) + 1):
        cells = np.flatnonzero(codes == stratum)
        one, other = first[:, cells], second[:, cells]
        enough = np.minimum(one.sum(axis=1), other.sum(axis=1)) >= 2
        gap = np.zeros(len(first))
        gap[enough] = unbiased_gap(values[np.ix_(cells, cells)], one[enough], other[enough])
        gaps.append(gap)
        weights.append(one.sum(axis=1) * enough)
    weight = np.array(weights)
    total = weight.sum(axis=0)
    share = np.divide(weight, total, out=np.full(weight.shape, np.nan), where=total > 0)
    return np.asarray((share * gaps).sum(axis=0))


def unbiased_gap_of_sums(
    first: FloatArray, second: FloatArray, of_first: FloatArray, of_second: FloatArray, own: FloatArray
) -> FloatArray:
    """The gap of :func:`unbiased_gap` from sums of the values that every cell has with the cells of a sample.

    Parameters
    ----------
    first, second
        1 for the cells of a sample, else 0, (comparisons, cells).
    of_first, of_second
        Sums of each cell's values with the cells of the sample, (comparisons, cells).
    own
        The value of each cell with itself, (cells,).
    """
    n, m = first.sum(axis=1), second.sum(axis=1)
    between = (of_first * second).sum(axis=1) / (n * m)
    within_first = ((of_first * first).sum(axis=1) - first @ own) / (n * (n - 1))
    within_second = ((of_second * second).sum(axis=1) - second @ own) / (m * (m - 1))
    return np.asarray(2 * between - within_first - within_second)


def _pooled(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Both samples in one array, and which cells are of which."""
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise DataError(
            f"samples of shapes {one.shape} and {other.shape} cannot be compared: each must be (cells, dimensions), "
            "of at least two cells and the same dimensions"
        )
    is_first = np.r_[np.ones(len(one)), np.zeros(len(other))][None]
    return np.concatenate([one, other]), is_first, 1.0 - is_first


def _joined(strata: SampleStrata | None, first: FloatArray) -> AnyIntArray | None:
    """Strata of both samples in one array, whose cells ``first`` says to be of the first."""
    if strata is None:
        return None
    shapes = np.shape(strata[0]), np.shape(strata[1])
    n_first = int(first.sum())
    if shapes != ((n_first,), (first.size - n_first,)):
        raise DataError(f"strata of shapes {shapes[0]} and {shapes[1]}; give one code per cell of each sample")
    return np.concatenate(strata)
