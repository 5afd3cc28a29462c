"""How trials share the machines of a cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.types import HarnessError

GPU_SHARE = 0.25  # of a GPU a trial at least: the models of this bench fill no whole one
EXACT = 1e-4  # of a GPU; Ray counts no finer


@dataclass(frozen=True)
class Layout:
    """How trials share a cluster: `slots` at a time, each with `threads` torch threads and `gpu` of a GPU."""

    slots: int
    threads: int = 1
    gpu: float = 0.0


def resources(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `layout` reads, of Ray's list of nodes."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    each = [[int(node.get("CPU", 0)), float(node.get("GPU", 0))] for node in alive]
    return {
        "cpus": sum(cpus for cpus, _ in each) or 1,
        "gpus": float(sum(gpus for _, gpus in each)),
        "nodes": len(each),
        "node_cpus": min([cpus for cpus, _ in each if cpus], default=1),
        "each": each,
    }


def layout(resources: dict[str, Any], width: int, threads: int | None, gpu: float | None) -> Layout:
    """Slots for a grid that can have `width` trials under way at once.

    threads None: as many as leave no core idle, so that slots x threads = cores wherever that divides; one thread as
    soon as there are as many trials as cores, since a small model gains more from a second trial than from a second
    thread. It depends on the whole grid, not on what is left of it: a bench that goes on computes as it began.
    gpu None: `share_of` it where there are any. Raises HarnessError for a share the cluster cannot give.
    """
    gpus, cpus = resources["gpus"], resources["cpus"]
    share = share_of(gpus, width) if gpu is None else gpu
    if share and not 0 < share <= min(gpus, 1.0):
        raise HarnessError(f"--gpu {share:g} of a GPU a trial: it takes 0 to 1, and this cluster has {gpus:g} GPUs.")
    each = resources.get("each") or [[cpus, gpus]]
    width = max(1, min(width, sum(_on_gpus(own, share) for _, own in each) if share else width))
    threads = threads or max(1, min(cpus // width, resources["node_cpus"]))
    return Layout(max(1, sum(_slots(cores, own, threads, share) for cores, own in each)), threads, share)


def share_of(gpus: float, width: int) -> float:
    """Of a GPU, for each of `width` trials: a whole one while there are enough, then less, so that they spread over all
    GPUs before they pack; GPU_SHARE at least.

    >>> [share_of(8, width) for width in (1, 6, 16, 100)], share_of(0, 6)
    ([1.0, 1.0, 0.5, 0.25], 0.0)
    """
    if not gpus:
        return 0.0
    share = min(1.0, gpus, max(GPU_SHARE, gpus / max(width, 1)))
    return math.floor(share / EXACT + EXACT) * EXACT if share < 1 else share


def slots_on(node: Mapping[str, float], layout: Layout) -> int:
    """Trials that run at once on a node with these of Ray's resources: at least the one that asks."""
    return max(1, _slots(int(node.get("CPU", 0)), float(node.get("GPU", 0)), layout.threads, layout.gpu))


def _slots(cpus: int, gpus: float, threads: int, share: float) -> int:
    return min(cpus // threads, _on_gpus(gpus, share)) if share else cpus // threads


def _on_gpus(gpus: float, share: float) -> int:
    """Trials that fit on GPUs, each on one: two thirds of one and two thirds of another hold no third trial."""
    whole, rest = divmod(gpus, 1.0)
    return int(whole) * int(1 / share + EXACT) + int(rest / share + EXACT)
