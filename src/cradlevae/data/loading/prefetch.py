"""Reading ahead: a thread makes the next item while the current one is in use."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], ahead: int) -> Iterator[T]:
    """Yield ``items`` in their order, while a thread makes at most ``ahead`` further ones.

    An error that occurs while an item is ready is raised where the item would have been yielded. The thread ends with
    the iteration, also where the iteration is cut short.

    Parameters
    ----------
    items
        What to yield; only the thread iterates over it.
    ahead
        How many items may be in preparation or waiting, beside the one that is in use.
    """
    room = threading.Semaphore(ahead)
    ready: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    cut_short = threading.Event()

    def make() -> None:
        iterator = iter(items)
        try:
            while room.acquire() and not cut_short.is_set():
                ready.put((next(iterator), None))
        except BaseException as error:  # StopIteration among them: the end
            ready.put((None, error))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:  # what the iterator itself started must end, too
                close()

    thread = threading.Thread(target=make, name="cradlevae-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
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
