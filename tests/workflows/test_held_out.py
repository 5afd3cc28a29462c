"""Benches with held-out items or users: tables say what they show; rows are exported and reproduced."""

import pytest
import small_homes
import torch
from command_line import harness as command
from dataset_files import make_dataset

from harness.record.ledger import Ledger
from harness.report import row_lookup
from harness.training import exported_model
from harness.types import Protocol
from harness.workflows import export, reproduce
from harness.workflows.reproduce import ReproduceRequest

PROTOCOLS = {"items": Protocol(cold_items=0.2), "users": Protocol("users", target="successive", split_seed=2)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("held_out")
    dataset = make_dataset(folder / "toy")
    for name, protocol in PROTOCOLS.items():
        (folder / name).mkdir()
        small_homes.run(small_homes.request(folder / name, dataset, "id,linear", protocol=protocol))
    return folder


def leaderboard(home):
    done = command(home, "leaderboard", "--format", "md")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_shows_warm_and_cold_targets_and_says_that_id_is_random_on_cold_ones(root):
    text = leaderboard(root / "items")
    assert "cold items 0.2" in text
    assert "NDCG@10 warm" in text
    assert "NDCG@10 cold" in text
    assert "id: held-out items keep their untrained random vectors" in text
    assert "linear: held-out" not in text


def test_a_table_without_held_out_items_has_no_such_note(root):
    text = leaderboard(root / "users")
    assert "held-out items" not in text
    assert "train users 0.8" in text
    assert "quantile" not in text


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_protocol_is_recorded_and_the_row_is_exported_and_reproduced(root, tmp_path, name):
    ledger = Ledger.open(root / name)
    [launch] = ledger.launches.values()
    assert launch.protocol == PROTOCOLS[name]
    [run] = ledger.launches
    words = [row.words for row in row_lookup.of(ledger, run).values() if row.cell.adapter == "linear"]
    report = export.write(root / name, words[0], tmp_path / "out")
    assert report.equal == report.queries > 0
    assert exported_model.load(report.folder).recommend([["i001"]], 3)
    found = reproduce.run(root / name, ReproduceRequest(words[0], dataset=str(root / "toy"), seeds=1))
    assert found.verdict == "equal"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cold-items", "1"], "--cold-items is 1.0; it must be 0 (off) or a share below 1"),
        (["--protocol", "gts", "--target", "successive", "--cold-items", "0.1"], "--cold-items needs --target"),
        (["--split-seed", "3"], "--split-seed needs --cold-items or --protocol users"),
    ],
)
def test_options_that_do_not_fit_are_one_line(root, tmp_path, words, message):
    done = command(tmp_path, "plan", "--datasets", str(root / "toy"), *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
