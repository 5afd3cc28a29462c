"""How trials share the machines of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.types import HarnessError

GPU_SHARE = 0.25  # of a GPU a trial: the models of this bench fill no whole one


@dataclass(frozen=True)
class Layout:
    """How trials share a cluster: `slots` at a time, each with `threads` torch threads and `gpu` of a GPU."""

    slots: int
    threads: int = 1
    gpu: float = 0.0


def layout(resources: dict[str, Any], width: int, threads: int | None, gpu: float | None) -> Layout:
    """Slots for a grid that can have `width` trials under way at once.

    threads None: as many as leave no core idle, so that slots x threads = cores wherever that divides; one thread as
    soon as there are as many trials as cores, since a small model gains more from a second trial than from a second
    thread. It depends on the whole grid, not on what is left of it: a bench that goes on computes as it began.
    gpu None: GPU_SHARE of one where there are any. Raises HarnessError for a share the cluster cannot give.
    """
    gpus, cpus = resources["gpus"], resources["cpus"]
    share = (GPU_SHARE if gpus else 0.0) if gpu is None else gpu
    if share and not 0 < share <= min(gpus, 1.0):
        raise HarnessError(f"--gpu {share:g} of a GPU a trial: it takes 0 to 1, and this cluster has {gpus:g} GPUs.")
    width = max(1, min(width, int(gpus / share) if share else width))
    threads = threads or max(1, min(cpus // width, resources["node_cpus"]))
    return Layout(max(1, min(cpus // threads, int(gpus / share) if share else cpus)), threads, share)
