"""Why a worker failed, in a clause: out of what Ray says and of the worker's last words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.types import HarnessError

LOST_NODES = 10  # that may die under a trial, or lose the driver, before its retries are counted
NODE, UNREACHABLE = "its node died", "its worker cannot be reached any more"
DRIVER = "its worker lost the driver"
_NODE = re.compile(r"node (has died|was terminated|it was running on is dead)")


def reason(text: str, last_words: Callable[[], str | None]) -> str:
    """What became of a worker. text: Ray's own account of it; last_words: asked only where that does not say, "" if it
    left none, None if its machine does not answer.

    >>> reason("harness.engine.worker.OutOfMemory: MemoryError: 3 TB", str)
    'out of memory: MemoryError: 3 TB'
    >>> reason("The actor died unexpectedly. Worker exit type: SYSTEM_ERROR ...", lambda: "Aborted")
    'its worker died: Aborted'
    >>> reason("The actor died unexpectedly. Worker exit type: SYSTEM_ERROR ...", lambda: None)
    'its worker cannot be reached any more'
    """
    if own := re.search(r"OutOfMemory: (.+)", text):
        return f"out of memory: {own.group(1)}"
    if "running low on memory" in text:
        return "out of memory: Ray's memory monitor ended its worker"
    if _NODE.search(text):
        return NODE
    if lost := re.search(r"Unreachable: (.+)", text):
        return f"{DRIVER}: {lost.group(1)[:200]}"
    if "is unavailable" in text:  # the way to it is cut; whether it died there, its last words say
        said = last_words()
        return f"its worker died: {said}" if said else UNREACHABLE
    if "Worker exit type" in text:
        said = last_words()
        if said is None:
            return UNREACHABLE
        return f"its worker died: {said or 'killed, as a kernel that is out of memory does'}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its worker failed without a word"


def elsewhere(reason: str) -> bool:
    """Whether it was the cluster that failed, and no fault of the trial.

    >>> elsewhere("its node died"), elsewhere("its worker died: Aborted")
    (True, False)
    """
    return reason.startswith((NODE, UNREACHABLE, DRIVER))


def at_start(text: str) -> bool:
    """Whether the worker failed before it had a trial to run: no trial is at fault."""
    return any(words in text for words in ("creation task", "failed to import", "never ran"))


@dataclass
class FailureCount:
    """Of the workers that had a trial: those that may be its own fault, those of nodes, and why the last one was."""

    own: int = 0
    lost: int = 0
    reason: str = ""

    def add(self, reason: str) -> None:
        self.reason = reason
        if elsewhere(reason) and self.lost < LOST_NODES:
            self.lost += 1
        else:
            self.own += 1


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    """A HarnessError of our callbacks, such as a full disk under the ledger, out of what Tune wraps it in."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, HarnessError):
            cause = cause.__cause__ or cause.__context__
        raise (cause or error) from None
