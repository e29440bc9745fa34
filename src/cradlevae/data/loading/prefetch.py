"""The next item is made by a thread while this one is used."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], ahead: int) -> Iterator[T]:
    """Yield ``items`` in their order, made by a thread that is at most ``ahead`` of them ahead.

    What making an item raises is raised where the item would have come. The thread ends with the iteration, also where
    that is cut short.

    Parameters
    ----------
    items
        What to yield; iterated in the thread alone.
    ahead
        How many items may be in the making or wait, beside the one that is in use.
    """
    room = threading.Semaphore(ahead)
    made: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    cut_short = threading.Event()

    def make() -> None:
        iterator = iter(items)
        try:
            while room.acquire() and not cut_short.is_set():
                made.put((next(iterator), None))
        except BaseException as error:  # StopIteration among them: the end
            made.put((None, error))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:  # what the iterator itself started must end, too
                close()

    thread = threading.Thread(target=make, name="cradlevae-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item  # type: ignore[misc]
    finally:
        cut_short.set()
        room.release()
        thread.join()
