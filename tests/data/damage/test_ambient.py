"""Pools of ambient RNA are found in failed cells where they are, and not where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cradlevae.data.damage.ambient import ambient_pools

G, N = 60, 600


def experiment(seed: int = 0) -> tuple[np.random.Generator, np.ndarray, np.ndarray, np.ndarray]:
    """Profiles of three conditions, and counts of passing cells, whose states differ, with their conditions."""
    random = np.random.default_rng(seed)
    profiles = random.dirichlet(np.full(G, 2.0))[None] * np.exp(random.normal(0, 0.2, (3, G)))
    profiles /= profiles.sum(axis=1, keepdims=True)
    condition = random.integers(3, size=N)
    states = profiles[condition] * np.exp(random.normal(0, 0.2, (N, 1)) * random.normal(0, 1, G))
    counts = random.poisson(200 * states / states.sum(axis=1, keepdims=True))
    return random, profiles.astype(np.float32), condition, counts


def contaminated(counts: np.ndarray, pool: np.ndarray, random: np.random.Generator) -> np.ndarray:
    share = random.uniform(0.3, 0.8, (len(counts), 1))
    own = random.binomial(counts, 1 - share)
    return np.asarray(own + random.poisson(counts.sum(axis=1, keepdims=True) * share * pool))


def found(failed: np.ndarray, passing: np.ndarray, condition: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    as_matrix = [sp.csr_matrix(table.astype(np.float32)) for table in (failed, passing)]
    return ambient_pools((as_matrix[0], condition), (as_matrix[1], condition), profiles)


@pytest.mark.parametrize("n_pools", [1, 2])
def test_pools_are_found_beside_cells_that_lost_counts_and_doublets(n_pools: int) -> None:
    random, profiles, condition, counts = experiment()
    pools = random.dirichlet(np.full(G, 0.3), n_pools)
    failed = counts.copy()
    thirds = np.arange(N) % 3
    failed[thirds == 0] = random.binomial(counts[thirds == 0], 0.3)
    failed[thirds == 1] += random.permutation(counts)[: (thirds == 1).sum()]
    for number in range(n_pools):
        rows = np.flatnonzero(thirds == 2)[number::n_pools]
        failed[rows] = contaminated(counts[rows], pools[number], random)
    answer = found(failed, counts, condition, profiles)
    assert answer.shape[1] == G
    np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)
    for pool in pools:
        assert (np.abs(answer - pool).sum(axis=1) / 2).min() < 0.15


def test_there_is_no_pool_where_cells_lost_counts_alone() -> None:
    random, profiles, condition, counts = experiment()
    assert len(found(random.binomial(counts, 0.3), counts, condition, profiles)) == 0


def test_a_state_that_passing_cells_share_is_no_pool() -> None:
    random, profiles, condition, counts = experiment()
    state = random.dirichlet(np.full(G, 0.3))
    both = [np.concatenate([counts[:400], contaminated(counts[400:], state, random)]) for _ in "ab"]
    assert len(found(both[0], both[1], condition, profiles)) == 0


def test_few_cells_and_cells_without_counts_show_nothing() -> None:
    _, profiles, condition, counts = experiment()
    assert found(counts[:5], counts[:5], condition[:5], profiles).shape == (0, G)
    assert found(np.zeros_like(counts), counts, condition, profiles).shape == (0, G)
