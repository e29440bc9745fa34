"""Effects on log rates from sums of counts: near the truth, whatever the order and however genes are divided up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.nn import hierarchy, rate_effects
from cradlevae.nn.rate_effects import RateEffects

pytestmark = pytest.mark.numeric

SPREAD = 0.1, 1.0


def drawn(seed: int, n_conditions: int, n_genes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, libraries and true effects; the first condition is the control, the second has no cells."""
    rng = np.random.default_rng(seed)
    strength = np.where(np.arange(n_conditions) % 3 == 0, 0.0, rng.uniform(0.5, 2, n_conditions))
    effect = strength[:, None] * rng.uniform(0.05, 0.6, n_genes) * rng.standard_normal((n_conditions, n_genes))
    share = np.exp(rng.normal(0, 1, n_genes))
    library = np.r_[400, rng.integers(20, 100, n_conditions - 1)] * 3000.0
    library[1] = 0
    total = rng.poisson(library[:, None] * share / share.sum() * np.exp(effect)).astype(float)
    return total, library, effect


def estimate(total: np.ndarray, library: np.ndarray) -> RateEffects:
    return rate_effects.rate_effects(total, library, np.ones(total.shape[1]), 1, SPREAD, range(200))


def test_it_is_nearer_to_the_truth_than_the_logarithm_of_counts() -> None:
    total, library, effect = drawn(0, 40, 200)
    found = estimate(total, library)
    log = np.log((total + 0.5) / np.maximum(library, 1)[:, None])
    told = library > 0
    raw, value = (log - log[0])[told][1:], found.value[told][1:]
    assert ((value - effect[told][1:]) ** 2).mean() < 0.6 * ((raw - effect[told][1:]) ** 2).mean()
    assert not found.value[:2].any()
    assert found.strength[3::3].max() < 0.3 * np.median(found.strength[4::3])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100), values=st.integers(1, 500))
def test_order_and_blocks_do_not_matter(seed: int, values: int) -> None:
    total, library, _ = drawn(seed, 8, 30)
    found = estimate(total, library)
    rng = np.random.default_rng(seed)
    rows, genes = np.r_[0, 1 + rng.permutation(7)], rng.permutation(30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate_effects, "gene_blocks", lambda *shape: hierarchy.gene_blocks(*shape, values=values))
        other = estimate(total[rows][:, genes], library[rows])
    np.testing.assert_allclose(other.value, found.value[rows][:, genes], atol=1e-3)
    np.testing.assert_allclose(other.spread, found.spread[genes], rtol=1e-2)
