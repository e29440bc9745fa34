"""A test of whether one model scores better than another over paired runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cradlevae.errors import DataError

EXACT_PAIRS = 12
"""Up to how many pairs all 2ⁿ sign flips are enumerated (4,096)."""


@dataclass(frozen=True)
class PairedTest:
    """Result of :func:`paired_permutation_test`.

    Attributes
    ----------
    difference
        Mean of A − B.
    p_value
        One-sided: chance of a mean difference this large or larger if A and B were exchangeable.
    n_pairs
        Number of pairs.
    exact
        Whether every sign flip was enumerated.
    """

    difference: float
    p_value: float
    n_pairs: int
    exact: bool


def paired_permutation_test(
    a: npt.ArrayLike, b: npt.ArrayLike, *, n_permutations: int = 10_000, seed: int = 0
) -> PairedTest:
    """Test of "A beats B" by sign flips: are A's scores larger than B's in the same runs.

    Parameters
    ----------
    a, b
        Scores of A and of B in the same runs (same split and seed), (pairs,); larger is better. Swap them
        for a score of which less is better.
    n_permutations
        Random flips where there are more than 12 pairs; up to 12 all are enumerated and the test is exact.
    seed
        Seed of the random flips.

    Notes
    -----
    The smallest p that n pairs can give is 2⁻ⁿ: 0.031 with five runs, 0.125 with three.

    Raises
    ------
    DataError
        If the two differ in length, are empty, or hold a value that is not finite.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) == 0:
        raise DataError(f"paired scores must be two vectors of one length, not {first.shape} and {second.shape}")
    difference = first - second
    if not np.isfinite(difference).all():
        raise DataError("paired scores hold NaN or infinite values; leave those runs out of both")
    n = len(difference)
    exact = n <= EXACT_PAIRS
    if exact:
        flips = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)  # (flips, pairs)
    else:
        flips = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_permutations, n))
    # Flips that equal the observed mean in exact arithmetic must count, whatever the order of summation.
    margin = 1e-12 * float(np.abs(difference).sum())
    as_large = int((flips @ difference >= difference.sum() - margin).sum())
    p_value = as_large / 2**n if exact else (1 + as_large) / (1 + n_permutations)
    return PairedTest(float(difference.mean()), p_value, n, exact)
