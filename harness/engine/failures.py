"""Turn Ray's error and the worker's crash log into a short failure reason."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.types import HarnessError

MAX_NODE_LOSSES = 10  # node losses of a trial that do not count as retries
NODE, UNREACHABLE = "its node died", "its worker cannot be reached any more"
DRIVER = "its worker lost the driver"
RECORDER = "the recorder on the driver's machine failed"
_NODE = re.compile(r"node (has died|was terminated|it was running on is dead)")


def reason(text: str, crash_reason: Callable[[], str | None]) -> str:
    """Return why a worker failed, in a short clause.

    text: Ray's error. crash_reason: reads the worker's crash log, called only if Ray's error gives no reason; returns
    "" if there is no log, None if the worker's machine does not answer.

    >>> reason("harness.engine.worker.OutOfMemory: MemoryError: 3 TB", str)
    'out of memory: MemoryError: 3 TB'
    >>> reason("The actor died unexpectedly. Worker exit type: SYSTEM_ERROR ...", lambda: "Aborted")
    'its worker died: Aborted'
    >>> reason("The actor died unexpectedly. Worker exit type: SYSTEM_ERROR ...", lambda: None)
    'its worker cannot be reached any more'
    """
    if memory := re.search(r"OutOfMemory: (.+)", text):
        return f"out of memory: {memory.group(1)}"
    if "running low on memory" in text:
        return "out of memory: Ray's memory monitor ended its worker"
    if _NODE.search(text):
        return NODE
    if lost := re.search(r"Unreachable: (.+)", text):
        return lost[1][:300] if lost[1].startswith(RECORDER) else f"{DRIVER}: {lost[1][:200]}"
    if "is unavailable" in text:  # the connection is lost; only the crash log shows whether the worker died
        crash = crash_reason()
        return f"its worker died: {crash}" if crash else UNREACHABLE
    if "Worker exit type" in text:
        crash = crash_reason()
        if crash is None:
            return UNREACHABLE
        return f"its worker died: {crash or 'killed, possibly by the kernel (out of memory)'}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its worker failed without an error message"


def is_cluster_failure(reason: str) -> bool:
    """Whether the cluster failed, not the trial.

    >>> is_cluster_failure("its node died"), is_cluster_failure("its worker died: Aborted")
    (True, False)
    >>> is_cluster_failure(reason("Unreachable: " + RECORDER + ": OSError: stale", str))
    True
    """
    return reason.startswith((NODE, UNREACHABLE, DRIVER, RECORDER))


def failed_at_start(text: str) -> bool:
    """Whether the worker failed before it started a trial, so that no trial is at fault."""
    return any(words in text for words in ("creation task", "failed to import", "never ran"))


@dataclass
class FailureCount:
    """Worker failures of one trial."""

    counted: int = 0  # the trial may have caused them; limited by the number of retries
    node_losses: int = 0  # the cluster caused them
    reason: str = ""  # of the last failure

    def add(self, reason: str) -> None:
        self.reason = reason
        if is_cluster_failure(reason) and self.node_losses < MAX_NODE_LOSSES:
            self.node_losses += 1
        else:
            self.counted += 1


@contextlib.contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise the HarnessError of a callback (such as a full disk) without the exceptions that Tune wraps around it."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, HarnessError):
            cause = cause.__cause__ or cause.__context__
        raise (cause or error) from None
