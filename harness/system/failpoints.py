"""Named points at which tests can kill this process, as a machine may kill it anywhere.

Set ``HARNESS_FAILPOINT=<name>`` or ``<name>:<count>`` in the environment: at the count-th arrival at that point
(default: the first) the process is ended by SIGKILL; nothing is flushed, closed or caught. The points:

``append``: after half the bytes of a ledger line; ``launched``: before the first trial; ``ended``: between the `ended`
and the `decided` event of a search's last trial; ``searched``: after the last trial, before the report; ``report``:
between two files of the report; ``index``: while the index of a segment is written.
"""

from __future__ import annotations

import os
import signal

_arrived: dict[str, int] = {}


def due(name: str) -> bool:
    """Count an arrival; return True if the process must die at it."""
    wanted, _, count = os.environ.get("HARNESS_FAILPOINT", "").partition(":")
    if wanted != name:
        return False
    _arrived[name] = _arrived.get(name, 0) + 1
    return _arrived[name] == int(count or 1)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def reach(name: str) -> None:
    """Kill the process here if the environment asks for it."""
    if due(name):
        die()
