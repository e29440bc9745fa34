"""Items come in their order, errors come through, and no thread stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from cradlevae.data.loading.prefetch import prefetch


def threads() -> int:
    return sum(thread.name == "cradlevae-prefetch" for thread in threading.enumerate())


def test_items_come_in_order_and_the_thread_ends() -> None:
    assert list(prefetch(range(100), 3)) == list(range(100))
    assert list(prefetch([], 1)) == []
    assert threads() == 0


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_never_more_than_so_many_are_made_ahead(ahead: int) -> None:
    made = 0

    def items() -> Iterator[int]:
        nonlocal made
        for item in range(20):
            made += 1
            yield item

    for used, _ in enumerate(prefetch(items(), ahead), start=1):
        time.sleep(0.002)
        assert used <= made <= used + ahead


def test_what_goes_wrong_is_raised_where_it_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    found = prefetch(items(), 4)
    assert next(found) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    assert threads() == 0


def test_an_iteration_cut_short_leaves_no_thread_and_closes_what_it_read() -> None:
    closed = []

    def items(name: str) -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(name)

    def nested() -> Iterator[int]:
        yield from prefetch(items("inner"), 1)

    found = prefetch(nested(), 2)
    assert [next(found), next(found)] == [0, 1]
    assert threads() == 2
    found.close()  # type: ignore[attr-defined]
    assert threads() == 0
    assert closed == ["inner"]


def test_one_that_is_dropped_leaves_no_thread() -> None:
    for item in prefetch(iter(range(10**9)), 2):
        if item == 3:
            break
    assert threads() == 0
