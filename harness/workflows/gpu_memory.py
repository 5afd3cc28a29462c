"""Measure the GPU memory of a bench's trials before they start, so that as many share a GPU as fit.

Imports no torch or Ray before a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.engine import slots
from harness.engine.slots import GpuMemory, Layout
from harness.record.ledger import Ledger
from harness.search.axes import Choices, Range
from harness.search.plan import Plan
from harness.search.spaces import Space
from harness.search.study import Study
from harness.system.console import log
from harness.types import Json, Params

MEASURED = 64  # maximum kinds of cells that are measured, those with the largest item tables
SECONDS = 900.0  # for all measurements, and then for the sizes of the GPUs
SHORT = 60.0  # for the question whether PyTorch can use the GPUs

Kind = tuple[str, str, str]  # data set, backbone, adapter


@dataclass(frozen=True)
class Meter:
    """Functions that run on the cluster's GPUs: `training.memory.measure` and `training.memory.smallest_card`."""

    peaks: Callable[..., tuple[list[float], float]]
    card: Callable[[], float]


def measure(grid: Plan, shared: Json, resources: Json, meter: Meter | None = None) -> GpuMemory | None:
    """Return the memory that the pending trials take on the GPUs of the open Ray session; None if there is nothing to
    pack or the measurement failed, which is logged.

    shared: as `shared_data.collect` returns it. A resumed bench takes over what its first launch measured, and measures
    no cell again of which the ledger has finished trials. Without such a launch it measures all cells, because the
    finished trials may be small ones.
    """
    kinds = kinds_of(grid.pending)
    if not kinds or slots.share_of(resources["gpus"], grid.width, 0.0) in (0.0, 1.0):  # no GPU, or one for each trial
        return None
    earlier = newest(grid.studies[0].ledger, grid.request.table_key)
    recorded = {kind: peak for kind, studies in kinds.items() if earlier and (peak := _recorded(studies))}
    try:
        found = _measured(kinds, recorded, shared, resources.get("labels", {}), meter)
        return replace(found, peak=max(found.peak, earlier.peak)) if earlier else found
    except Exception as error:  # of a component, of Ray or of the GPU
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        log(f"GPU memory was not measured ({reason}); trials share a GPU by number only.")
        return None


def newest(ledger: Ledger, table: str | None = None) -> GpuMemory | None:
    """Return the memory that the newest launch with a measurement recorded, of a table if given; None if there is
    none."""
    launches = [launch for _, launch in sorted(ledger.launches.items()) if table in (None, launch.table)]
    facts = [launch.provenance.get("gpu_memory") for launch in launches]
    found = next((one for one in reversed(facts) if one), None)
    return GpuMemory(**{name.removesuffix("_mb"): value for name, value in found.items()}) if found else None


def unusable(layout: Layout, labels: Mapping[str, str]) -> list[str]:
    """Return a line if trials get a share of GPUs that PyTorch cannot use on their nodes: they train on the CPU."""
    if not layout.gpu:
        return []
    from harness.engine import ray_cluster
    from harness.training.memory import without_cuda

    try:
        found = ray_cluster.on_gpu_nodes(without_cuda, labels=labels, timeout=SHORT, share=slots.EXACT)
    except Exception:  # all GPUs are taken, or a node is lost: the trials will tell
        return []
    missing = [version for version in found if version]
    return [
        f"Warning: {version} finds no CUDA device on {missing.count(version)} of {len(found)} node(s) with GPUs: "
        "trials train there on the CPU. Install a build of PyTorch for its driver there, or pass --gpu 0."
        for version in sorted(set(missing))
    ]


def lines(memory: GpuMemory | None, layout: Layout) -> list[str]:
    """Return a line about measured memory and the trials that share a GPU."""
    if memory is None:
        return []
    return [
        f"GPU memory: a trial takes at most {memory.process:.0f} of {memory.card:.0f} MB: "
        f"{layout.trials_on_a_gpu} trials share a GPU."
    ]


def kinds_of(pending: Iterable[Study]) -> dict[Kind, list[Study]]:
    """Group trained cells by data set, backbone and adapter. Baselines compute on the CPU, ensembles train nothing."""
    kinds: dict[Kind, list[Study]] = {}
    for study in pending:
        if study.cell.is_trained:
            kinds.setdefault((study.cell.dataset, study.cell.backbone, study.cell.adapter), []).append(study)
    return kinds


def _recorded(studies: list[Study]) -> float:
    """Largest peak in the ledger of all finished trials of these cells, MB; 0 if none was recorded."""
    return max((result.info.get("peak_vram_mb", 0.0) for study in studies for result in study.ended()), default=0.0)


def largest(space: Space) -> Params:
    """Return the point of a space at which every number has its highest value; other choices, and parameters whose
    condition does not hold there, have their default."""
    point = dict(space.default)
    for conditional in (False, True):
        for name, axis in space.searched.items():
            if (axis.when is not None) is conditional and (axis.when is None or axis.when.holds(point)):
                point[name] = _highest(axis, point[name])
    return point


def _highest(axis: Range | Choices, default: Any) -> Any:
    if isinstance(axis, Range):
        return axis.high
    numbers = [value for value in axis.values if isinstance(value, int | float)]
    return max(numbers) if len(numbers) == len(axis.values) else default


def _measured(
    kinds: Mapping[Kind, list[Study]],
    recorded: Mapping[Kind, float],
    shared: Json,
    labels: Mapping[str, str],
    meter: Meter | None,
) -> GpuMemory:
    from harness.engine import ray_cluster
    from harness.training import memory

    meter = meter or Meter(memory.measure, memory.smallest_card)
    text = {key: arrays["E"].shape[1] for key, arrays in shared["spectra"].items()}
    widest = {
        kind: max(studies, key=lambda study: text.get(study.inputs.embedding, 0))
        for kind, studies in kinds.items()
        if kind not in recorded
    }
    chosen = sorted(widest.values(), key=lambda study: -_table(study, shared))[:MEASURED]
    probes = [_probe(study) for study in chosen]
    log(f"Measuring the GPU memory of {len(probes)} cells; {len(recorded)} are in the ledger.")
    peaks, context = ray_cluster.on_gpu(meter.peaks, probes, _data(probes, shared), labels=labels, timeout=SECONDS)
    cards = ray_cluster.on_gpu_nodes(meter.card, labels=labels, timeout=SECONDS)
    return GpuMemory(max([*peaks, *recorded.values()]), context, min(cards))


def _table(study: Study, shared: Json) -> int:
    """Entries of the largest item table of a cell's space."""
    return shared["sizes"][study.inputs.data] * largest(study.space).get("train.d", 1)


def _probe(study: Study) -> Any:
    """Return the default and the largest point of a cell, as trials of its search."""
    from harness.training.memory import Probe

    points = [study.space.default, largest(study.space)]
    trials = tuple(study.trial("search", 0, point) for point in points[: 1 + (points[0] != points[1])])
    return Probe(trials, (study.inputs.data, "search", 0), study.inputs.embedding)


def _data(probes: Iterable[Any], shared: Json) -> Json:
    """Return the splits and spectra that some probes read."""
    splits = {probe.split: shared["splits"][probe.split] for probe in probes}
    spectra = {probe.spectrum: shared["spectra"][probe.spectrum] for probe in probes if probe.spectrum}
    return {"splits": splits, "spectra": spectra, "sizes": shared["sizes"]}
