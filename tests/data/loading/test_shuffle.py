"""Cells are shuffled by chunks: each once, well mixed, by seed and epoch alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.data.loading.shuffle import CHUNK, CHUNKS, pooled


def shuffled(rows: np.ndarray, pool: int, *seed: int) -> np.ndarray:
    return pooled(rows, pool, np.random.default_rng(seed))


@given(st.integers(0, 2000), st.integers(1, 900), st.integers(0, 5))
def test_every_cell_comes_once(n_cells: int, pool: int, seed: int) -> None:
    rows = np.sort(np.random.default_rng(1).permutation(3 * n_cells)[:n_cells])
    before = rows.copy()
    found = shuffled(rows, pool, seed)
    np.testing.assert_array_equal(np.sort(found), rows)
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(found, shuffled(rows, pool, seed))


def test_epochs_differ_in_order_and_in_what_lies_together() -> None:
    rows = np.arange(50_000)
    pool = CHUNK * CHUNKS
    one, other = shuffled(rows, pool, 0, 1), shuffled(rows, pool, 0, 2)
    assert (one == other).mean() < 0.01
    first, second = (set(order[:pool].tolist()) for order in (one, other))
    assert len(first & second) / pool == pytest.approx(pool / len(rows), abs=0.1)


def test_a_pool_reads_whole_chunks_from_all_over() -> None:
    rows = np.arange(100_000)
    pool = CHUNK * CHUNKS
    part = np.sort(shuffled(rows, pool, 3)[pool : 2 * pool])
    runs = np.split(part, np.flatnonzero(np.diff(part) > 1) + 1)
    assert CHUNKS / 2 < len(runs) <= CHUNKS + 1
    assert part[0] < 5_000
    assert part[-1] > 95_000


def test_batches_of_data_sorted_by_condition_hold_them_in_proportion() -> None:
    condition = np.repeat(np.arange(20), 2_000)  # a file sorted by condition
    batch, pool = 512, 8_192
    order = shuffled(np.arange(40_000), pool, 0)
    shares = np.stack([
        np.bincount(condition[order[start : start + batch]], minlength=20) for start in range(0, 40_000 - batch, batch)
    ])  # fmt: skip
    # of a pool of 128 chunks, about 6.4 ± 2.5 are of a condition: the sd of a batch's share is that of the pool and
    # that of drawing from it
    expected = np.sqrt(512 * 0.05 * 0.95 + (512 / 128) ** 2 * 128 * 0.05 * 0.95)
    assert shares.std(axis=0).mean() < 1.2 * expected
    assert shares.mean(axis=0) == pytest.approx(25.6, rel=0.15)


def test_a_pool_of_all_cells_is_any_order() -> None:
    rows = np.arange(0, 3_000, 3)
    np.testing.assert_array_equal(shuffled(rows, 1_000, 0), np.random.default_rng([0]).permutation(rows))
