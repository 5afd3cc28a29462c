"""How trials share a cluster."""

import pytest

from harness.engine.slots import GpuMemory, Layout, label_selector, layout, resources, share_of, slots_on
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
    assert layout(cluster(3), 100, 2, None) == Layout(1, 2, 0.0)


@pytest.mark.parametrize(
    ("nodes", "threads", "gpu", "words"),
    [
        ([[2, 0.0]], 3, None, "a trial of 3 thread(s): the largest node has 2 core(s); pass --threads 2 or less."),
        ([[2, 0.0], [4, 0.0]], 5, None, "the largest node has 4 core(s); pass --threads 4 or less."),
        ([[0, 0.0]], None, None, "a trial of 1 thread(s): the largest node has 0 core(s); add a node with cores"),
        ([[16, 0.0], [2, 1.0]], 4, 0.5, "4 thread(s) and 0.5 of a GPU: the largest node with such a GPU has 2 core(s)"),
        ([[16, 0.0], [0, 1.0]], None, None, "or --gpu 0 to train without a GPU."),
        ([[4, 0.5], [4, 0.5]], None, 0.6, "--gpu 0.6 of a GPU per trial: must be 0, or 0.0001 to 1, and no node here"),
        ([[4, 0.5], [4, 0.5]], None, 0.6, "has more than 0.5."),
        ([[4, 1.0]], None, 0.00005, "must be 0, or 0.0001 to 1"),
        ([[4, 0.0]], None, 0.5, "no node here has a GPU."),
    ],
)
def test_a_trial_that_fits_on_no_node_is_refused_with_what_fits(nodes, threads, gpu, words):
    """Ray would wait for a larger node without a word. What one may pass instead is taken."""
    there = resources([node(*each) for each in nodes])
    with pytest.raises(HarnessError) as refused:
        layout(there, 10, threads, gpu)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    if "--threads" in words:
        fits = int(words.split("--threads ")[1].split()[0])
        assert layout(there, 10, fits, gpu).slots


def test_the_default_share_is_one_that_a_node_has():
    assert layout(resources([node(4, 0.5), node(4, 0.5)]), 1, 1, None) == Layout(2, 1, 0.5), "not a whole GPU"


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


@pytest.mark.parametrize(
    ("gpus", "width", "share", "slots"),
    [(8, 6, 1.0, 8), (8, 8, 1.0, 8), (8, 16, 0.5, 16), (8, 12, 2 / 3, 8), (3, 9, 1 / 3, 9), (8, 500, 0.25, 32)],
)
def test_the_share_of_a_gpu_is_by_the_grids_width_and_the_slots_are_those_that_ray_can_give(gpus, width, share, slots):
    found = layout(cluster(64, float(gpus)), width, 1, None)
    assert found.gpu == pytest.approx(share, abs=1e-4)
    assert found.slots == slots
    per_gpu = next(n for n in range(5, 0, -1) if n * round(found.gpu * 1e4) <= 1e4)  # Ray counts ten-thousandths
    assert found.slots == gpus * per_gpu


def test_a_share_that_is_asked_for_wins_over_the_width_and_no_trial_is_over_two_gpus():
    assert layout(cluster(64, 8.0), 6, 1, 0.25) == Layout(32, 1, 0.25)
    assert layout(cluster(64, 2.0), 6, 1, 0.4) == Layout(4, 1, 0.4), "two a GPU, though five would fit into 2.0"
    assert share_of(0.0, 6) == 0.0


@pytest.mark.parametrize(
    ("gpus", "width", "peak", "each"),
    [
        (1, 100, 100, 16),  # no more than 16 share a GPU
        (1, 100, 2_000, 8),  # 1.2 * 2000 + 600 = 3000 of 24000 MB
        (1, 100, 2_001, 7),
        (2, 100, 10_000, 1),  # more than half a GPU: nothing to pack, though 0.25 was the rule
        (2, 100, 100_000, 1),  # more than a GPU: the trial itself has to need less
        (8, 6, 100, 1),  # a GPU for each trial
        (8, 16, 100, 2),  # spread before packing
    ],
)
def test_as_many_trials_share_a_gpu_as_fit_into_the_smallest(gpus, width, peak, each):
    found = layout(cluster(200, float(gpus)), width, 1, None, GpuMemory(peak, 600, 24_000))
    assert found.slots == gpus * each
    assert found.trials_on_a_gpu == each
    assert each * round(found.gpu * 1e4) <= 1e4, "Ray counts ten-thousandths"


def test_a_share_that_is_asked_for_wins_over_measured_memory():
    assert layout(cluster(16, 1.0), 100, 1, 0.5, GpuMemory(100, 600, 24_000)).gpu == 0.5


def node(cpus, gpus=0.0, alive=True):
    own = {"CPU": float(cpus), "memory": 1e9} | ({"GPU": gpus} if gpus else {})
    return {"Alive": alive, "NodeID": "n", "Resources": own}


def test_slots_are_the_sum_of_what_each_node_holds():
    found = resources([node(0), node(3), node(3), node(9, alive=False), node(4, 1.0)])
    assert (found["cpus"], found["gpus"], found["nodes"], found["node_cpus"]) == (10, 1.0, 4, 3)
    assert layout(found, 100, 2, 0.0) == Layout(1 + 1 + 2, 2, 0.0), "no trial is over two nodes"
    assert layout(found, 100, 1, 0.5) == Layout(2, 1, 0.5), "only the one with a GPU"


def test_slots_of_a_node_are_its_own_and_not_the_clusters():
    """They divide the node's energy: with 16 + 2 cores a trial on the small node takes half of it."""
    found = resources([node(16), node(2)])
    whole = layout(found, 100, 1, None)
    assert whole.slots == 18
    assert [slots_on(n["Resources"], whole) for n in (node(16), node(2))] == [16, 2]
    assert slots_on(node(8, 1.0)["Resources"], Layout(12, 1, 0.25)) == 4
    assert slots_on({}, whole) == 1, "a node that is not listed any more has at least the trial that asks"


def labelled(cpus, **labels):
    return {"Alive": True, "Resources": {"CPU": cpus}, "Labels": {"ray.io/node-id": "x"} | labels}


@pytest.mark.parametrize(
    ("option", "cpus"),
    [(None, 14), ("spot=false", 4), ("spot!=true", 12), ("spot=true,zone=a", 2), (" zone!=a ", 12), ("", 14)],
)
def test_only_nodes_with_the_labels_count(option, cpus):
    nodes = [labelled(4, spot="false"), labelled(2, spot="true", zone="a"), labelled(8)]
    found = resources(nodes, label_selector(option))
    assert found["cpus"] == cpus
    assert layout(found, 100, None, None).slots == cpus
    assert layout(found, 100, None, None).labels == label_selector(option)


def test_labels_that_no_node_has_are_told_with_those_that_there_are():
    with pytest.raises(HarnessError, match=r"--labels spot=no,zone!=a: none of the 2.*they have: spot=true, zone=a"):
        resources([labelled(2, spot="true"), labelled(2, zone="a")], label_selector("spot=no,zone!=a"))
    with pytest.raises(HarnessError, match="no labels of their own"):
        resources([labelled(2)], label_selector("spot=false"))


@pytest.mark.parametrize("option", ["spot", "=x", "spot=", "spot==x", "a=b;c", "!=x", "a=in(b)"])
def test_labels_that_are_not_pairs_are_one_clear_line(option):
    with pytest.raises(HarnessError, match="not key=value or key!=value"):
        label_selector(option)


@pytest.mark.parametrize(
    ("nodes", "width", "gpu", "slots", "threads"),
    [
        ([[16, 4.0]], 100, None, 16, 1),
        ([[16, 0.0], [16, 4.0]], 100, None, 16, 1),
        ([[16, 0.0], [16, 4.0]], 100, 1.0, 4, 4),
        ([[64, 0.0], [64, 8.0]], 8, None, 8, 8),
        ([[16, 8.0], [64, 1.0]], 9, None, 9, 2),
    ],
)
def test_cores_of_nodes_that_differ_leave_no_gpu_without_its_trials(nodes, width, gpu, slots, threads):
    """Cores beside no GPU would raise the threads of a trial, and fewer trials would fit beside the GPUs."""
    found = layout(resources([node(*each) for each in nodes]), width, None, gpu)
    assert (found.slots, found.threads) == (slots, threads)
