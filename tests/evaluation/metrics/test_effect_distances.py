"""Places among distances: the same for many perturbations at once as summed one by one, ties and targets included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.evaluation.metrics import effect_distances
from cradlevae.evaluation.metrics.effect_distances import Distance, places


def drawn(seed: int, n: int, n_genes: int, identical: int) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Real and predicted effects; the first few real effects are the same, and each prediction leaves genes out."""
    rng = np.random.default_rng(seed)
    real = rng.standard_normal((n, n_genes))
    real[:identical] = real[0]
    predicted = real + rng.normal(0, 2, (n, n_genes))
    predicted[-1] = real[-1]
    return real, predicted, [list(rng.choice(n_genes, rng.integers(0, 3), replace=False)) for _ in range(n)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000), n=st.integers(1, 12), n_genes=st.integers(4, 30), identical=st.integers(0, 4),
    distance=st.sampled_from(["l1", "l2", "cosine"]), targets=st.booleans(), block=st.integers(1, 60),
)  # fmt: skip
def test_many_at_once_are_one_by_one(
    seed: int, n: int, n_genes: int, identical: int, distance: Distance, targets: bool, block: int
) -> None:
    real, predicted, without = drawn(seed, n, n_genes, identical)
    left_out = without if targets else None
    expected = list(places(real, predicted, distance, left_out))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effect_distances, "FEW_VALUES", 0)
        patch.setattr(effect_distances, "BLOCK_VALUES", block)
        assert list(places(real, predicted, distance, left_out)) == expected


def test_a_plain_loop_says_the_same() -> None:
    real, predicted, without = drawn(0, 6, 10, 0)
    for row, (nearer, equal) in enumerate(places(real, predicted, "l2", without)):
        genes = np.setdiff1d(np.arange(10), without[row])
        distances = np.linalg.norm(real[:, genes] - predicted[row, genes], axis=1)
        assert nearer == (distances < distances[row]).sum()
        assert equal == 0


def test_an_effect_of_nothing_points_nowhere() -> None:
    real = np.vstack([np.zeros(4), np.ones(4), [1.0, 0, 0, 0]])
    assert list(places(real, real, "cosine")) == [(0, 2), (0, 0), (0, 0)]
