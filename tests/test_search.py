"""How trials share a cluster."""

import pytest

from harness.layout import Layout, layout
from harness.types import HarnessError


def cluster(cpus, gpus=0.0, node_cpus=None):
    return {"cpus": cpus, "gpus": gpus, "nodes": 1, "node_cpus": node_cpus or cpus}


@pytest.mark.parametrize(
    ("resources", "width", "slots", "threads"),
    [
        (cluster(2), 40, 2, 1),
        (cluster(16), 200, 16, 1),
        (cluster(16), 4, 4, 4),
        (cluster(16), 1, 1, 16),
        (cluster(16, node_cpus=4), 1, 4, 4),
        (cluster(2), 0, 1, 2),
    ],
)
def test_slots_times_threads_are_the_cores(resources, width, slots, threads):
    found = layout(resources, width, None, None)
    assert found == Layout(slots, threads, 0.0)
    assert found.slots * found.threads == resources["cpus"]


def test_threads_that_are_asked_for_are_kept():
    assert layout(cluster(8), 100, 2, None) == Layout(4, 2, 0.0)
    assert layout(cluster(2), 100, 3, None) == Layout(1, 3, 0.0), "one slot at least"


@pytest.mark.parametrize(
    ("gpus", "gpu", "slots", "threads", "share"),
    [(1.0, None, 4, 4, 0.25), (2.0, 0.5, 4, 4, 0.5), (1.0, 1.0, 1, 16, 1.0), (1.0, 0.0, 16, 1, 0.0)],
)
def test_a_gpu_is_shared_by_trials_and_bounds_the_slots(gpus, gpu, slots, threads, share):
    assert layout(cluster(16, gpus), 100, None, gpu) == Layout(slots, threads, share)


@pytest.mark.parametrize(("gpus", "gpu"), [(0.0, 0.5), (2.0, 1.5)])
def test_a_share_that_the_cluster_cannot_give_is_told(gpus, gpu):
    with pytest.raises(HarnessError, match="GPU"):
        layout(cluster(4, gpus), 10, None, gpu)
