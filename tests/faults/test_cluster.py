"""The same command on an existing Ray cluster of two nodes of one core each, beside a head that computes nothing."""

import json
import shutil
from collections import Counter

import pytest
import small_homes
from command_line import bench, ended, events, harness, metrics_of
from dataset_files import make_dataset
from processes import count, start, wait_for

GRID = ["--adapters", "id,spectran", "--backbones", "sasrec", "--sampler", "random", "--pruner", "none"]
# Long enough for the second node to join in.
GRID += ["--gpu", "0", "--tracking", "off", "--budget", "standard", "--trials", "3", "--epochs", "10"]


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    """The nodes listen on this machine's address in its network, without a token."""
    monkeypatch.setenv("HARNESS_TRUSTED_NETWORK", "1")


@pytest.mark.slow
def test_two_nodes_give_the_table_of_one_machine(tmp_path):
    from ray.cluster_utils import Cluster

    folder = make_dataset(tmp_path / "toy", users=800, items=200)
    small_homes.bench(tmp_path / "local", folder, *GRID)
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


@pytest.mark.slow
def test_workers_train_components_whose_folder_no_node_has(tmp_path):
    """The folder vanishes once the driver has recorded the launch; the first worker starts after that."""
    from ray.cluster_utils import Cluster

    folder, home, lib = make_dataset(tmp_path / "toy"), tmp_path / "home", tmp_path / "lib"
    for kind in ("adapter", "backbone"):
        assert harness(home, "new", kind, f"my-{kind}", "--output", str(lib)).returncode == 0
    words = ["--adapters", "my_adapter", "--backbones", "my_backbone", "--components", str(lib), "--tracking", "off"]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        process = start(home, folder, *words, "--address", cluster.address)
        wait_for(home, "launched", 1, process)
        shutil.rmtree(lib)
        _, err = process.communicate(timeout=300)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, err
    done = [e for e in events(home, "ended") if e["result"]["status"] == "done"]
    assert {"search", "confirm"} <= {role_of(home, event["id"]) for event in done}


def role_of(home, trial_id):
    [started] = [e for e in events(home, "started") if e["id"] == trial_id][:1]
    return started["trial"]["role"]


@pytest.mark.slow
def test_labels_keep_trials_off_the_other_nodes(tmp_path):
    from ray.cluster_utils import Cluster

    folder, home = make_dataset(tmp_path / "toy"), tmp_path / "home"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for spot in ("true", "false"):
            cluster.add_node(num_cpus=1, labels={"spot": spot})
        cluster.wait_for_nodes()
        for spot in ("true", "false"):
            assert label_of_place(cluster.address, {"spot": spot}) == spot
        words = ["--adapters", "id,svd", "--tracking", "off", "--address", cluster.address, "--labels"]
        done = bench(home, folder, *words, "spot=false")
        assert done.returncode == 0, done.stderr
        refused = bench(home, folder, *words, "spot=no", "--epochs", "7")
    finally:
        cluster.shutdown()
    launched = events(home, "launched")[0]["provenance"]
    assert (launched["slots"], launched["labels"]) == (1, {"spot": "false"}), "one core of three nodes"
    assert most_at_once(home) == 1
    assert refused.returncode == 2
    assert "they have: spot=false, spot=true" in refused.stderr


def label_of_place(address, labels):
    """The label `spot` of the node on which Ray places a trial."""
    import ray
    from ray.util import placement_group_table

    from harness.engine import ray_cluster, ray_tune, slots

    with ray_cluster.cluster(address):
        group = ray_tune.needs(slots.Layout(1, labels=labels))()
        ray.get(group.ready(), timeout=60)
        (place,) = placement_group_table(group)["bundles_to_node_id"].values()
        return next(node["Labels"]["spot"] for node in ray.nodes() if node["NodeID"] == place)


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


@pytest.mark.soak
def test_nodes_that_vanish_and_a_head_that_vanishes_cost_no_trial(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "12")  # 60 by default
    folder = make_dataset(tmp_path / "toy", users=800, items=200)
    home = tmp_path / "home"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        first, second = (cluster.add_node(num_cpus=1) for _ in range(2))
        process = start(home, folder, *GRID, "--address", cluster.address)
        wait_for(home, "epoch", 3, process)
        cluster.remove_node(first, allow_graceful=False)
        wait_for(home, "epoch", count(home, "epoch") + 10, process)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        wait_for(home, "epoch", count(home, "epoch") + 10, process)
        cluster.remove_node(cluster.head_node, allow_graceful=False)
        _, err = process.communicate(timeout=120)
    finally:
        cluster.shutdown()
    assert process.returncode == 2, err
    assert "starting attempt" in err, "a line for each trial that lost its worker"
    said = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert said == [said[0]]
    assert "is gone. Finished trials are kept; run the same command to resume" in said[0]
    assert "Traceback" not in err
    local = bench(home, folder, *GRID)
    assert local.returncode == 0, local.stderr
    assert [i for i, n in Counter(ended(home)).items() if n > 1] == []
    blamed = [e["result"]["reason"] for e in events(home, "ended") if e["result"]["status"] == "failed"]
    assert blamed == []
