"""Divide the machines of a cluster into slots for trials."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.types import HarnessError, Json

GPU_SHARE = 0.25  # minimum share of a GPU for a trial whose memory was not measured
PACKED = 16  # maximum trials on a GPU: more gain nothing without MPS, and each process needs memory for its context
SLACK = 1.2  # memory that a process takes from a GPU over the peak of its tensors: assumed, not measured
EXACT = 1e-4  # of a GPU: Ray's resolution
RAYS = "ray.io/"  # prefix of the labels that Ray sets itself
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


class NoRoom(HarnessError):
    """No node of the cluster has what one trial needs."""


@dataclass(frozen=True)
class Layout:
    """Parallel trials on a cluster: `slots` at a time, each with `threads` torch threads and a share `gpu` of a GPU, on
    nodes with `labels` (`label_selector`)."""

    slots: int
    threads: int = 1
    gpu: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def trials_on_a_gpu(self) -> int:
        return int(1 / self.gpu + EXACT) if self.gpu else 0

    def to_json(self) -> Json:
        """Return the fields to record, without labels if none are asked for."""
        shown = {"slots": self.slots, "threads": self.threads, "gpu": self.gpu}
        return shown | ({"labels": dict(self.labels)} if self.labels else {})


def label_selector(option: str | None) -> dict[str, str]:
    """Return Ray's label selector for `--labels`: key=value or key!=value, separated by commas.

    Raises HarnessError for anything else.

    >>> label_selector("spot=false, zone!=b"), label_selector(None)
    ({'spot': 'false', 'zone': '!b'}, {})
    """
    selector = {}
    for part in filter(None, map(str.strip, (option or "").split(","))):
        key, sign, value = part.partition("=")
        key, unless = (key[:-1], "!") if key.endswith("!") else (key, "")
        if not sign or not key.strip() or not value.strip() or not _LABEL.fullmatch(value.strip()):
            raise HarnessError(f"--labels {option}: '{part}' is not key=value or key!=value, such as spot=false.")
        selector[key.strip()] = unless + value.strip()
    return selector


def _has(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node with these labels is selected; a missing label differs from every value."""
    return all(
        labels.get(key) != value[1:] if value.startswith("!") else labels.get(key) == value
        for key, value in selector.items()
    )


def selected(nodes: Sequence[Mapping[str, Any]], selector: Mapping[str, str] | None) -> list[Mapping[str, Any]]:
    """Return the living nodes of Ray's list that a label selector selects."""
    return [node for node in nodes if node["Alive"] and _has(node.get("Labels") or {}, selector or {})]


def resources(nodes: Sequence[Mapping[str, Any]], selector: Mapping[str, str] | None = None) -> Json:
    """Summarise Ray's list of nodes for `layout`: those that a label selector selects.

    "cpus", "gpus", "nodes": totals; "node_cpus": cores of the smallest node with cores; "each": cores and GPUs of each
    node; "labels": the selector, if there is one. Raises HarnessError if it selects no node.
    """
    there = [node for node in nodes if node["Alive"]]
    alive = [node["Resources"] for node in selected(nodes, selector)]
    if selector and not alive:
        pairs = {f"{k}={v}" for node in there for k, v in (node.get("Labels") or {}).items() if not k.startswith(RAYS)}
        known = f"they have: {', '.join(sorted(pairs))}" if pairs else "they have no labels of their own"
        raise HarnessError(
            f"--labels {_text(selector)}: none of the {len(there)} node(s) has these labels; {known}. Label a node "
            "with: ray start --labels key=value"
        )
    each = [[int(node.get("CPU", 0)), float(node.get("GPU", 0))] for node in alive]
    return {
        "cpus": sum(cpus for cpus, _ in each) or 1,
        "gpus": float(sum(gpus for _, gpus in each)),
        "nodes": len(each),
        "node_cpus": min([cpus for cpus, _ in each if cpus], default=1),
        "each": each,
    } | ({"labels": dict(selector)} if selector else {})


def _text(selector: Mapping[str, str]) -> str:
    signs = [(key, "!=", value[1:]) if value.startswith("!") else (key, "=", value) for key, value in selector.items()]
    return ",".join(map("".join, signs))


@dataclass(frozen=True)
class GpuMemory:
    """Measured memory, MB of 2^20 bytes. peak: largest of a trial's tensors; context: of a process beside its tensors;
    card: of the smallest GPU."""

    peak: float
    context: float
    card: float

    @property
    def process(self) -> float:
        return SLACK * self.peak + self.context

    @property
    def share(self) -> float:
        """Smallest share of a GPU for a trial: 1/n, with n trials that fit and at most PACKED.

        >>> [GpuMemory(peak, 500, 24_000).share for peak in (100, 5_000, 9_000, 30_000)]
        [0.0625, 0.3333333333333333, 0.5, 1.0]
        """
        return 1 / max(1, min(PACKED, int(self.card / self.process)))

    def to_json(self) -> Json:
        return {f"{name}_mb": round(value) for name, value in vars(self).items()}


def layout(
    resources: Json, width: int, threads: int | None, gpu: float | None, memory: GpuMemory | None = None
) -> Layout:
    """Return the layout for a grid that can run `width` trials at once.

    threads None: enough that no core is idle, so slots x threads = cores where that divides; one thread once there are
    as many trials as cores, since a small model gains more from a second trial than from a second thread. The layout
    depends on the whole grid, not on the pending part, so that a resumed bench computes as before; measured memory is
    the exception.
    gpu None: `share_of` if there are GPUs, at least the share that fits the measured memory, at most what a node has.
    Raises NoRoom if no node has the threads and the share of one trial: Ray would wait for such a node for ever.
    """
    gpus = resources["gpus"]
    each = resources.get("each") or [[resources["cpus"], gpus]]
    largest = min(1.0, max(node_gpus for _, node_gpus in each))
    share = min(largest, share_of(gpus, width, memory.share if memory else GPU_SHARE)) if gpu is None else gpu
    if share and not EXACT <= share <= largest:
        has = f"no node here has more than {largest:g}" if largest else "no node here has a GPU"
        raise NoRoom(f"--gpu {share:g} of a GPU per trial: must be 0, or {EXACT:g} to 1, and {has}.")
    width = max(1, min(width, sum(_on_gpus(node_gpus, share) for _, node_gpus in each) if share else width))
    threads = threads or _threads(each, width, share, resources["node_cpus"])
    slots = sum(_slots(cores, node_gpus, threads, share) for cores, node_gpus in each)
    if not slots:
        raise _no_room(each, threads, share)
    return Layout(slots, threads, share, resources.get("labels", {}))


def _threads(each: Sequence[Sequence[float]], width: int, share: float, most: int) -> int:
    """Threads of each of `width` trials: all cores that they can reach, as long as no GPU is left without its trials.

    >>> _threads([[16, 0], [16, 4]], 16, 0.25, 16), _threads([[16, 8], [64, 1]], 9, 1.0, 64)
    (1, 2)
    """
    cores = sum(int(cpus) for cpus, gpus in each if not share or _on_gpus(gpus, share))
    threads = max(1, min(cores // width, most))
    while share and threads > 1 and sum(_slots(int(cpus), gpus, threads, share) for cpus, gpus in each) < width:
        threads -= 1
    return threads


def _no_room(each: Sequence[Sequence[float]], threads: int, share: float) -> NoRoom:
    """Return the error for a trial that fits on no node."""
    cores = max(int(cpus) for cpus, gpus in each if not share or _on_gpus(gpus, share))
    needs = f"{threads} thread(s)" + (f" and {share:g} of a GPU" if share else "")
    largest = "the largest node with such a GPU" if share else "the largest node"
    remedies = [f"pass --threads {cores} or less" if cores else "add a node with cores (ray start --num-cpus)"]
    remedies += ["--gpu 0 to train without a GPU"] if share else []
    return NoRoom(f"No node has room for a trial of {needs}: {largest} has {cores} core(s); {', or '.join(remedies)}.")


def share_of(gpus: float, width: int, least: float = GPU_SHARE) -> float:
    """Share of a GPU for each of `width` trials: a whole GPU if there are enough, else less, but at least `least`.

    Trials are spread over all GPUs before they share one.

    >>> [share_of(8, width) for width in (1, 6, 16, 100)], share_of(0, 6), share_of(8, 100, 1 / 16)
    ([1.0, 1.0, 0.5, 0.25], 0.0, 0.08)
    """
    if not gpus:
        return 0.0
    share = min(1.0, gpus, max(least, gpus / max(width, 1)))
    return math.floor(share / EXACT + EXACT) * EXACT if share < 1 else share


def slots_on(node: Mapping[str, float], layout: Layout) -> int:
    """Number of parallel trials on a node with these Ray resources; at least 1, the caller."""
    return max(1, _slots(int(node.get("CPU", 0)), float(node.get("GPU", 0)), layout.threads, layout.gpu))


def _slots(cpus: int, gpus: float, threads: int, share: float) -> int:
    return min(cpus // threads, _on_gpus(gpus, share)) if share else cpus // threads


def _on_gpus(gpus: float, share: float) -> int:
    """Number of trials that fit on GPUs. A trial uses one GPU only: the free thirds of two GPUs cannot be combined."""
    whole, rest = divmod(gpus, 1.0)
    return int(whole) * int(1 / share + EXACT) + int(rest / share + EXACT)
