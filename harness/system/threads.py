"""Work over several threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def in_threads(work: Callable[[T], None], items: Sequence[T], threads: int) -> Iterator[T]:
    """Do `work` for every item in daemon threads, which do not keep an ending process; yield items as they are done.

    The first exception is raised once the calls in progress have ended; no further ones are begun.
    """
    waiting, ended = deque(items), SimpleQueue[tuple[T, BaseException | None]]()

    def serve() -> None:
        while waiting:
            try:
                item = waiting.popleft()
            except IndexError:
                return
            try:
                work(item)
            except BaseException as error:
                waiting.clear()
                ended.put((item, error))
            else:
                ended.put((item, None))

    team = [threading.Thread(target=serve, daemon=True) for _ in range(min(threads, len(items)))]
    for thread in team:
        thread.start()
    try:
        for _ in items:
            item, error = ended.get()
            if error is not None:
                raise error
            yield item
    finally:
        waiting.clear()
        for thread in team:
            thread.join()
