"""Enter a context in a thread, so that work goes on while it opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def entered(context: AbstractContextManager[T]) -> Iterator[Callable[[], T]]:
    """Begin to enter a context in a thread and yield a call that waits for it and returns its value.

    That call raises what entering raises. The context is left in this thread, also if the call was never made. The
    other thread lives until then: Linux ends a process that was started to die with its parent, such as those of Ray,
    when the thread ends that started it.
    """
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        entering = pool.submit(stack.enter_context, context)
        try:
            yield entering.result
        finally:
            wait([entering])
