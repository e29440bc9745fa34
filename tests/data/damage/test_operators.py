"""Damage operators: whole counts in, whole counts out; what is lost, added and kept, and how severe it was."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.damage.copies import damaged_copies
from cradlevae.data.damage.operators import DAMAGES, Damage, Surroundings, damage_of, register_damage, thinned
from cradlevae.errors import DataError

N, G = 300, 40
ONE_CELL = ("few_counts", "dying")


def some_cells(seed: int = 0, pools: int = 0) -> tuple[np.ndarray, Surroundings]:
    random = np.random.default_rng(seed)
    rates = random.gamma(1.0, 3.0, G)
    counts, others = random.poisson(rates, (2, N, G)).astype(np.float32)
    retained = np.zeros(G, dtype=bool)
    retained[:3] = True
    pool = random.dirichlet(np.full(G, 0.2), pools).astype(np.float32) if pools else np.zeros((0, G), np.float32)
    return counts, Surroundings(others, rates / rates.sum(), pool, retained)


@pytest.mark.parametrize("key", list(DAMAGES))
def test_counts_stay_whole_and_the_given_ones_are_left_alone(key: str) -> None:
    counts, around = some_cells(pools=2)
    before = counts.copy()
    damaged, severity = damage_of(key).damaged(counts, around, np.random.default_rng(1))
    np.testing.assert_array_equal(counts, before)
    assert damaged.shape == counts.shape
    assert (damaged >= 0).all()
    np.testing.assert_array_equal(damaged, np.round(damaged))
    assert severity.shape == (N,)
    assert ((severity >= 0) & (severity <= 1)).all()
    assert (severity == 0).all() == damage_of(key).harmless


@pytest.mark.parametrize("key", ONE_CELL)
def test_what_is_lost_is_never_more_than_there_was(key: str) -> None:
    counts, around = some_cells()
    damaged, severity = damage_of(key).damaged(counts, around, np.random.default_rng(1))
    assert (damaged <= counts).all()
    left = damaged.sum(axis=1) / counts.sum(axis=1)
    np.testing.assert_allclose(1 - left, severity, atol=0.25)


def test_a_leaking_cell_keeps_the_retained_genes() -> None:
    counts, around = some_cells()
    damaged, _ = damage_of("dying").damaged(counts, around, np.random.default_rng(1))
    np.testing.assert_array_equal(damaged[:, around.retained], counts[:, around.retained])


def test_a_doublet_of_whole_cells_is_their_sum_and_a_partial_one_is_less() -> None:
    counts, around = some_cells()
    damaged, severity = damage_of("doublet").damaged(counts, around, np.random.default_rng(1))
    np.testing.assert_array_equal(damaged, counts + around.others)
    np.testing.assert_allclose(severity, around.others.sum(1) / damaged.sum(1))
    partial, _ = damage_of("partial_doublet").damaged(counts, around, np.random.default_rng(1))
    assert (partial <= damaged).all()
    whole = (partial >= counts).all(axis=1)
    assert 0.4 < whole.mean() < 0.7


def test_ambient_counts_come_from_the_pools_that_failed_cells_show_and_from_others() -> None:
    counts, around = some_cells(pools=1)
    empty = Surroundings(around.others, around.profile, around.pools, around.retained)
    pools = damage_of("ambient").pools(2_000, empty, np.random.default_rng(0))  # type: ignore[attr-defined]
    np.testing.assert_allclose(pools.sum(axis=1), 1)
    near = np.abs(pools - around.pools[0]).sum(axis=1) / 2 < 0.15
    assert 0.4 < near.mean() < 0.7
    damaged, severity = damage_of("ambient").damaged(counts, around, np.random.default_rng(1))
    assert np.corrcoef(severity, np.abs(damaged - counts).sum(axis=1))[0, 1] > 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 1.0))
def test_thinning_is_binomial(seed: int, keep: float) -> None:
    counts = np.full((200, 5), 50.0, dtype=np.float32)
    left = thinned(counts, np.array(keep), np.random.default_rng(seed))
    assert left.mean() == pytest.approx(50 * keep, abs=5 * (50 * keep * (1 - keep) / 1000) ** 0.5 + 1e-6)


def test_copies_are_of_all_kinds_as_often_as_these_say() -> None:
    counts, around = some_cells(pools=1)
    kinds = np.concatenate(
        [damaged_copies(counts, around, tuple(DAMAGES), np.random.default_rng(seed)).kind for seed in range(20)]
    )
    often = np.array([operator.share for operator in DAMAGES.values()])
    np.testing.assert_allclose(np.bincount(kinds) / len(kinds), often / often.sum(), atol=0.03)


def test_copies_say_which_hold_another_cell_and_nothing_but_the_seed_moves_them() -> None:
    counts, around = some_cells()
    first, second = (damaged_copies(counts, around, ("few_counts", "doublet"), np.random.default_rng(3)) for _ in "ab")
    np.testing.assert_array_equal(first.counts, second.counts)
    np.testing.assert_array_equal(first.mixed, first.kind == 1)


def test_an_operator_is_registered_once_and_unknown_ones_are_named() -> None:
    class Frozen(Damage):
        key: ClassVar[str] = "frozen"
        description: ClassVar[str] = "half of the molecules are lost"
        severity: ClassVar[str] = "one half"

        def damaged(
            self, counts: np.ndarray, around: Surroundings, random: np.random.Generator
        ) -> tuple[np.ndarray, np.ndarray]:
            return thinned(counts, np.array(0.5), random), np.full(len(counts), 0.5)

    try:
        register_damage(Frozen)
        with pytest.raises(DataError, match="already registered"):
            register_damage(Frozen)
        counts, around = some_cells()
        copies = damaged_copies(counts, around, ("frozen",), np.random.default_rng(0))
        assert copies.counts.sum() == pytest.approx(0.5 * counts.sum(), rel=0.1)
    finally:
        DAMAGES.pop("frozen", None)
    with pytest.raises(DataError, match=r"doublett.*did you mean 'doublet'"):
        damage_of("doublett")
