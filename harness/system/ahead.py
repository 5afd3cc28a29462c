"""Enter a context in a thread, so that work goes on while it opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def entered(context: AbstractContextManager[T]) -> Iterator[Callable[[], T]]:
    """Begin to enter a context in a thread and yield a call that waits for it and returns its value.

    That call raises what entering raises. The context is left in this thread, also if the call was never made.
    """
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        yield pool.submit(stack.enter_context, context).result
