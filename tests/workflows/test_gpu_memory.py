"""How many trials share a GPU: from the memory that they are measured to take. The numbers are made."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import small_homes
import torch
from dataset_files import make_dataset
from small_splits import a_split, random_histories
from small_trials import a_trial

from harness import registry
from harness.engine import ray_cluster
from harness.engine.slots import GpuMemory, Layout
from harness.record.ledger import Ledger
from harness.search import plan, spaces
from harness.search.axes import Choices, Range, When
from harness.training import memory, trial
from harness.types import Budget, Cell, TrialResult
from harness.workflows import gpu_memory, shared_data

CLUSTER = {"gpus": 2.0, "labels": {}}
BUDGET = Budget("made", trials=40, epochs=2, patience=2, seeds=1)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Two adapters and an ensemble with the baselines of a data set, planned; and what workers read."""
    root = tmp_path_factory.mktemp("grid")
    request = small_homes.request(root / "home", make_dataset(root / "toy"), "id,linear,id+linear")
    made = plan.make(replace(request, budget=BUDGET), Ledger.open(request.home))
    return made, shared_data.collect(made, made.pending, shared_data.prepare(made))


class Cluster:
    """GPUs that answer with made numbers: `peaks` by adapter, a context of 500 MB, the `cards` of the nodes."""

    def __init__(self, monkeypatch, peaks, cards):
        self.peaks, self.cards, self.probes = peaks, cards, []
        monkeypatch.setattr(ray_cluster, "on_gpu", self.on_gpu)
        monkeypatch.setattr(ray_cluster, "on_gpu_nodes", lambda function, **_: self.cards)

    def on_gpu(self, function, probes, data, **_):
        assert function is memory.measure
        assert all(probe.split in data["splits"] for probe in probes)
        self.probes = probes
        return [self.peaks[probe.trials[0].cell.adapter] for probe in probes], 500.0


def test_the_largest_peak_and_the_smallest_card_decide(grid, monkeypatch):
    made, shared = grid
    cluster = Cluster(monkeypatch, {"id": 1000.0, "linear": 3000.0}, [24_000.0, 12_000.0])
    found = gpu_memory.measure(made, shared, CLUSTER)
    assert found == GpuMemory(3000.0, 500.0, 12_000.0)
    assert found.share == 1 / 2, "1.2 * 3000 + 500 fits twice into 12000 MB"
    assert sorted(probe.trials[0].cell.adapter for probe in cluster.probes) == ["id", "linear"], "nothing else trains"
    assert [probe.spectrum != "" for probe in cluster.probes] == [
        probe.trials[0].cell.adapter == "linear" for probe in cluster.probes
    ]
    [line] = gpu_memory.lines(found, Layout(4, 1, 0.5))
    assert line == "GPU memory: a trial takes at most 4100 of 12000 MB: 2 trials share a GPU."


def test_no_trial_is_measured_where_none_shares(grid, monkeypatch, capsys):
    made, shared = grid
    cluster = Cluster(monkeypatch, {}, [])
    assert gpu_memory.measure(made, shared, {"gpus": 0.0}) is None
    assert gpu_memory.measure(made, shared, {"gpus": 100.0}) is None, "a GPU for each trial"
    assert cluster.probes == []
    assert capsys.readouterr().err == ""


def test_a_measurement_that_fails_is_one_line(grid, monkeypatch, capsys):
    made, shared = grid

    def fails(*_, **__):
        raise RuntimeError("Traceback ...\n  more\nOutOfMemoryError: CUDA out of memory")

    monkeypatch.setattr(ray_cluster, "on_gpu", fails)
    assert gpu_memory.measure(made, shared, CLUSTER) is None
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.endswith("not measured (OutOfMemoryError: CUDA out of memory); trials share a GPU by number only.")
    assert gpu_memory.lines(None, Layout(1)) == []


def measured(made, monkeypatch, peak, table):
    """Have the ledger of a grid hold a launch of `table` that measured `peak`."""
    facts = {"gpu_memory": {"peak_mb": peak, "context_mb": 500.0, "card_mb": 12_000.0}}
    launches = {"a launch": SimpleNamespace(provenance=facts, table=table)}
    monkeypatch.setattr(made.studies[0].ledger, "launches", launches)


def test_a_resumed_bench_keeps_what_its_first_launch_measured(grid, monkeypatch):
    made, shared = grid
    cluster = Cluster(monkeypatch, {"id": 1000.0, "linear": 3000.0}, [12_000.0])
    linear = next(study for study in made.pending if study.cell.adapter == "linear")
    monkeypatch.setattr(linear, "ended", lambda: [TrialResult("done", info={"peak_vram_mb": 700.0})])
    for table in (None, "another table"):
        measured(made, monkeypatch, 3000.0, table)
        assert gpu_memory.measure(made, shared, CLUSTER).peak == 3000.0, "700 MB may be those of its smallest point"
        assert len(cluster.probes) == 2
    measured(made, monkeypatch, 3000.0, made.request.table_key)
    assert gpu_memory.measure(made, shared, CLUSTER).peak == 3000.0
    assert [probe.trials[0].cell.adapter for probe in cluster.probes] == ["id"]


def test_a_peak_in_the_ledger_is_not_measured_again(grid, monkeypatch):
    made, shared = grid
    measured(made, monkeypatch, 800.0, made.request.table_key)
    cluster = Cluster(monkeypatch, {"id": 1000.0}, [12_000.0])
    linear = next(study for study in made.pending if study.cell.adapter == "linear")
    done = [TrialResult("done", info={"peak_vram_mb": peak}) for peak in (700.0, 4200.0, 900.0)]
    monkeypatch.setattr(linear, "ended", lambda: [*done, TrialResult("pruned", info={"seconds": 3.0})])
    found = gpu_memory.measure(made, shared, CLUSTER)
    assert [probe.trials[0].cell.adapter for probe in cluster.probes] == ["id"]
    assert found is not None
    assert found.peak == 4200.0


def test_only_the_largest_tables_are_measured_if_there_are_many(grid, monkeypatch):
    made, shared = grid
    cluster = Cluster(monkeypatch, {"id": 1.0, "linear": 2.0}, [12_000.0])
    monkeypatch.setattr(gpu_memory, "MEASURED", 1)
    wide = next(study for study in made.pending if study.cell.adapter == "id")
    searched = wide.space.searched | {"train.d": Choices((16, 512))}
    monkeypatch.setattr(wide, "space", replace(wide.space, searched=searched))
    assert gpu_memory.measure(made, shared, CLUSTER) is not None
    [probe] = cluster.probes
    assert [one.params["train.d"] for one in probe.trials] == [16, 512]


def test_of_cells_that_differ_in_the_text_only_the_widest_is_measured(grid, monkeypatch):
    made, shared = grid
    cluster = Cluster(monkeypatch, {"id": 1.0, "linear": 2.0}, [12_000.0])
    linear = next(study for study in made.pending if study.cell.adapter == "linear")
    wider = replace(linear, inputs=replace(linear.inputs, embedding="wider"))
    shared = shared | {"spectra": shared["spectra"] | {"wider": {"E": np.zeros((40, 4096), np.float32)}}}
    monkeypatch.setattr(type(made), "pending", property(lambda _: [linear, wider]))
    assert gpu_memory.measure(made, shared, CLUSTER) is not None
    assert [probe.spectrum for probe in cluster.probes] == ["wider"]


def test_the_largest_point_has_the_highest_numbers_and_conditions_that_hold():
    axes = {
        "train.d": Choices((64, 256, 128)),
        "adapter.hidden": Range(32, 512),
        "adapter.kind": Choices(("none", "deep")),
        "adapter.depth": Range(1, 4, when=When("adapter.kind", ("deep",))),
        "adapter.width": Range(8, 64, when=When("train.d", (256,))),
    }
    default = {"train.d": 64, "adapter.hidden": 64, "adapter.kind": "none", "adapter.depth": 2, "adapter.width": 16}
    assert gpu_memory.largest(spaces.Space({}, axes, default)) == {
        "train.d": 256,
        "adapter.hidden": 512,
        "adapter.kind": "none",
        "adapter.depth": 2,
        "adapter.width": 64,
    }


@pytest.mark.parametrize("adapter", registry.names(registry.ADAPTERS))
def test_the_largest_point_of_every_adapter_is_in_its_space(adapter):
    space = spaces.of_cell(Cell("toy", "noise", "sasrec", adapter), spaces.SpaceSource())
    point = gpu_memory.largest(space)
    assert point.keys() == space.default.keys()
    assert all(axis.holds(point[name]) for name, axis in space.searched.items())


def test_a_cell_is_measured_by_its_largest_batch_its_validation_and_its_end(monkeypatch):
    split, _ = a_split(random_histories(60, 30), 30)
    done, cuda = (
        [],
        SimpleNamespace(
            empty_cache=lambda: None,
            reset_peak_memory_stats=lambda: done.clear(),
            max_memory_allocated=lambda: 3 * 2**20,
        ),
    )
    step = trial.Training.step

    def stepped(self, batch, generator):
        done.append(tuple(batch.items.shape))
        return step(self, batch, generator)

    monkeypatch.setattr(trial.Training, "step", stepped)
    for name in ("validate", "finish"):
        original = getattr(trial.Training, name)
        monkeypatch.setattr(trial.Training, name, lambda self, f=original, n=name: done.append(n) or f(self))
    work = a_trial("id", role="search")
    assert memory.peak(work, split.sealed(), trial.spectrum({}, 30), "cpu", cuda) == 3.0
    assert done[2:] == ["validate", "finish"]
    windows = trial.Windows.of(split, 6)
    sizes = [len(s) * n.max() for s, n in windows.batches(96, np.random.default_rng(0))]
    assert [rows * width for rows, width in done[:2]] == [max(sizes)] * 2


def test_a_probe_is_the_larger_of_its_points_and_one_that_cannot_be_built_does_not_count(monkeypatch):
    """Everything but the numbers of CUDA, which this machine lacks."""
    split, _ = a_split(random_histories(60, 30), 30)
    small, large = a_trial("id", role="search"), a_trial("id", role="search", **{"train.d": 32})
    impossible = a_trial("id", role="search", **{"backbone.n_heads": 5})
    with pytest.raises(ValueError, match="heads"):
        trial.Training(impossible, split, trial.spectrum({}, 30))
    cuda = SimpleNamespace(
        is_available=lambda: True,
        mem_get_info=lambda: (9000 * 2**20, 10_000 * 2**20),
        memory_reserved=lambda: 600 * 2**20,
    )
    monkeypatch.setattr(memory, "torch", SimpleNamespace(cuda=cuda, ones=torch.ones, mm=lambda *_: None))
    monkeypatch.setattr(memory.torch, "ones", lambda *shape, device: torch.ones(*shape))
    monkeypatch.setattr(memory, "peak", lambda work, *data: trial.Training(work, *data).train["d"])
    data = {"splits": {("0123456789ab", "search", 0): split}, "spectra": {}, "sizes": {"0123456789ab": 30}}
    probes = [
        memory.Probe(points, ("0123456789ab", "search", 0), "") for points in [(small,), (small, impossible, large)]
    ]
    assert memory.measure(probes, data) == ([16, 32], 400.0)
    with pytest.raises(ValueError, match="heads"):
        memory.measure([memory.Probe((impossible,), ("0123456789ab", "search", 0), "")], data)


def test_without_a_gpu_nothing_is_measured():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match="no CUDA device"):
        memory.measure([], {})
    with pytest.raises(RuntimeError, match="no CUDA device"):
        memory.smallest_card()


@pytest.mark.parametrize(
    ("share", "nodes", "said"),
    [
        (0.25, ["torch 2.13.0+cpu", ""], "Warning: torch 2.13.0+cpu finds no CUDA device on 1 of 2 node(s) with GPUs"),
        (1.0, ["torch 2.13.0+cpu"] * 2, "on 2 of 2 node(s)"),
        (1.0, ["", ""], None),
        (0.0, ["torch 2.13.0+cpu"], None),
    ],
)
def test_gpus_that_pytorch_cannot_use_are_told(monkeypatch, share, nodes, said):
    monkeypatch.setattr(ray_cluster, "on_gpu_nodes", lambda function, **_: nodes)
    lines = gpu_memory.unusable(Layout(4, 1, share), {})
    assert bool(lines) == bool(said)
    assert not said or (said in lines[0] and "--gpu 0" in lines[0])


def test_gpus_that_do_not_answer_do_not_stop_a_bench(monkeypatch):
    def silent(*_, **__):
        raise TimeoutError("no answer")

    monkeypatch.setattr(ray_cluster, "on_gpu_nodes", silent)
    assert gpu_memory.unusable(Layout(4, 1, 1.0), {}) == []
