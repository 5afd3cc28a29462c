"""The processor cores that this process may use."""

from __future__ import annotations

import os


def usable() -> int:
    """Return the number of cores that this process may run on, at least 1: fewer than the machine has in a batch job
    that got a part of a node, in a container with a set of cores, and under `taskset`."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
