"""Trials placed by measured memory on the declared GPUs of a real Ray cluster. No node has a real GPU."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
from command_line import environment, events
from dataset_files import make_dataset
from processes import copied

MEETING = '''
"""An adapter whose trials wait for one another (made for tests)."""

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from ._base import Adapter, Spectrum


class Meeting(Adapter):
    uses_text = False

    def __init__(self, spectrum: Spectrum, d: int, *, power: float = 0.0) -> None:
        super().__init__(spectrum, d)
        self.table = nn.Parameter(torch.randn(self.n, d) * 0.05)
        card = os.environ.get("CUDA_VISIBLE_DEVICES")
        if card:  # a trial, not the driver
            folder = Path(os.environ["MEETING"])
            (folder / str(os.getpid())).write_text(f"{os.getppid()} {card}")  # the node's daemon
            deadline = time.monotonic() + 180
            while len(list(folder.iterdir())) < int(os.environ["MEETING_SIZE"]):
                time.sleep(0.05)
                if time.monotonic() > deadline:
                    raise RuntimeError("too few trials at the same time")

    def forward(self) -> Tensor:
        return self.table
'''
BENCH = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.append(sys.argv[1])
import small_homes
from harness.types import Budget
from harness.workflows import run_bench
from harness.workflows.gpu_memory import Meter

home, data, adapter, address, measured = sys.argv[2:]

def peaks(probes, data):
    import os
    assert os.environ["CUDA_VISIBLE_DEVICES"], "measured on a GPU"
    return [1000.0 for _ in probes], 300.0

def card():
    import os
    return 24000.0 if len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")) == 2 else 8000.0

request = small_homes.request(Path(home), Path(data), adapter)
request = replace(request, budget=Budget("made", trials=14, epochs=1, patience=1, seeds=1))
meter = Meter(peaks, card) if measured == "yes" else None
run_bench.run(request, run_bench.Options(address=address, threads=1, tracking="off", meter=meter))
"""


@pytest.mark.slow
def test_declared_gpus_hold_the_trials_that_fit_and_nodes_differ(tmp_path, monkeypatch):
    """Seven trials of 1500 of 8000 MB run at the same time: five on the card of a node of five cores, two on another.

    They wait until all seven are there, so a smaller number would fail."""
    from ray.cluster_utils import Cluster as RayCluster

    source, folder = copied(tmp_path / "source"), make_dataset(tmp_path / "toy")
    (source / "adapters/meeting.py").write_text(MEETING)
    (source / "search_spaces/adapters/meeting.toml").write_text("power = { low = 0.0, high = 2.0 }\n")
    met = tmp_path / "met"
    met.mkdir()
    values = {"MEETING": met, "MEETING_SIZE": 7, "PYTHONPATH": source, "HARNESS_TRUSTED_NETWORK": 1}
    for name, value in (values | {"OMP_NUM_THREADS": 1}).items():
        monkeypatch.setenv(name, str(value))
    cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0})

    def bench(home, adapter, measured):
        words = [str(Path(__file__).parents[1]), str(home), str(folder), adapter, cluster.address, measured]
        command = [sys.executable, "-c", BENCH, *words]
        options = {"capture_output": True, "text": True, "timeout": 250, "check": False}
        done = subprocess.run(command, env=environment(home), cwd=tmp_path, **options)
        assert done.returncode == 0, done.stderr
        return done.stderr, events(home, "launched")[-1]["provenance"]

    try:
        nodes = [cluster.add_node(num_cpus=cpus, num_gpus=1) for cpus in (5, 2)]
        cluster.wait_for_nodes()
        said, launched = bench(tmp_path / "measured", "meeting", "yes")
        cluster.remove_node(nodes[0])
        unmeasured, by_number = bench(tmp_path / "unmeasured", "id", "no")
    finally:
        cluster.shutdown()
    assert "GPU memory: a trial takes at most 1500 of 8000 MB: 5 trials share a GPU." in said.splitlines(), said
    assert launched["gpu_memory"] == {"peak_mb": 1000, "context_mb": 300, "card_mb": 8000}
    assert (launched["slots"], launched["gpu"]) == (7, pytest.approx(0.2))
    places = Counter(file.read_text() for file in met.iterdir())
    assert sorted(places.values()) == [2, 5]
    assert {place.split()[1] for place in places} == {"0"}, "each node has one card"
    assert "GPU memory was not measured (" in unmeasured
    assert "no CUDA device); trials share a GPU by number only." in unmeasured
    assert f"Warning: torch {metadata.version('torch')} finds no CUDA device on 1 of 1 node(s) with GPUs" in unmeasured
    assert "finds no CUDA device" not in said, "the measurement has answered"
    assert "gpu_memory" not in by_number
    assert by_number["gpu"] == 0.25
