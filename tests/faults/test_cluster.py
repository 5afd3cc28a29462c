"""The same command on an existing Ray cluster of two nodes of one core each, beside a head that computes nothing."""

import json

import pytest
from conftest import make_dataset
from helpers import bench, ended, events, harness, metrics_of

GRID = ["--adapters", "id,spectran", "--backbones", "sasrec", "--sampler", "random", "--tracking", "off"]
GRID += ["--budget", "standard", "--trials", "3", "--epochs", "10"]  # long enough for the second node to join in


@pytest.mark.slow
def test_two_nodes_give_the_table_of_one_machine(tmp_path):
    from ray.cluster_utils import Cluster

    folder = make_dataset(tmp_path / "toy", users=800, items=200)
    local = bench(tmp_path / "local", folder, *GRID)
    assert local.returncode == 0, local.stderr
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        home = tmp_path / "home"
        process = bench(home, folder, *GRID, "--address", cluster.address)
        assert process.returncode == 0, process.stderr
    finally:
        cluster.shutdown()
    launched = events(home, "launched")[-1]["provenance"]
    assert (launched["resources"]["nodes"], launched["slots"]) == (3, 2)
    assert most_at_once(home) == 2, "one core a node: two trials at once are on two nodes"
    assert set(ended(home)) == set(ended(tmp_path / "local"))
    tables = [json.loads(harness(h, "leaderboard", "--format", "json").stdout) for h in (home, tmp_path / "local")]
    assert metrics_of(tables[0]) == metrics_of(tables[1])
    assert list((home / "artifacts").glob("*/ranks.parquet")), "what actors leave comes back to the driver's home"


def most_at_once(home):
    """Trials whose epochs interleave were running at the same time."""
    last, found = {}, 1
    for event in events(home, "epoch", "ended"):
        if event["kind"] == "ended":
            last.pop(event["id"], None)
        else:
            last[event["id"]] = event["epoch"]
            found = max(found, len(last))
    return found
