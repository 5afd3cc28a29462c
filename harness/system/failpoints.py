"""Named places at which a test has this process killed, as the machine may kill it anywhere.

``HARNESS_FAILPOINT=<name>`` or ``<name>:<count>`` in the environment: at the count-th arrival at that place (the
first, if no count is given) the process ends by SIGKILL, nothing flushed, closed or caught. The places:

``append``: half the bytes of a ledger line are written; ``launched``: before the first trial; ``ended``: between the
`ended` and the `decided` event of a search's last trial; ``searched``: after the last trial, before the report;
``report``: between two files of the report.
"""

from __future__ import annotations

import os
import signal

_arrived: dict[str, int] = {}


def due(name: str) -> bool:
    """Count an arrival; True if this is the one to die at."""
    wanted, _, count = os.environ.get("HARNESS_FAILPOINT", "").partition(":")
    if wanted != name:
        return False
    _arrived[name] = _arrived.get(name, 0) + 1
    return _arrived[name] == int(count or 1)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def reach(name: str) -> None:
    """Die here if that was asked for."""
    if due(name):
        die()
