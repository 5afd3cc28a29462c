"""Two machines' homes become one by copying: segments of the ledger, and artifacts and checkpoints by trial."""

from __future__ import annotations

import json
import subprocess
from collections import Counter

import pytest
import small_homes
import torch
from command_line import events, harness
from dataset_files import make_dataset

from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import ledger_frames, tables
from harness.search import plan
from harness.workflows import export, reproduce
from harness.workflows.reproduce import ReproduceRequest

PARTS = ("ledger", "artifacts", "checkpoints")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Homes `a` and `b` of overlapping grids, `whole` of all of it, and `merged`, which `cp -r` makes of both."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("merge")
    dataset = make_dataset(folder / "toy")
    for name, adapters in {"a": "id,svd", "b": "svd,linear", "whole": "id,svd,linear"}.items():
        (folder / name).mkdir()
        small_homes.run(small_homes.request(folder / name, dataset, adapters))
    artifacts.save_checkpoint(folder / "b", "e" * 24, b"of a trial under way")
    (folder / "merged").mkdir()
    for home in ("a", "b"):
        found = [str(folder / home / part) for part in PARTS if (folder / home / part).is_dir()]
        subprocess.run(["cp", "-r", *found, str(folder / "merged")], check=True)
    return folder


def rows_of(home):
    table = tables.build(ledger_frames.of_home(home))
    return {
        row.cell: (row.state, row.rank, row.metrics, row.vs_id, row.group, row.trials, row.seeds_done, row.best_of)
        for section in table.sections
        for row in section.rows
    }


def test_the_table_of_merged_homes_is_that_of_one_home(root):
    merged = rows_of(root / "merged")
    assert {cell.adapter for cell in merged if not cell.is_baseline} == {"id", "svd", "linear"}
    assert merged == rows_of(root / "whole")
    words = ["leaderboard", "--format", "json"]
    found = [json.loads(harness(root / name, *words).stdout) for name in ("merged", "whole")]
    assert found[0]["sections"][0]["test_users"] == found[1]["sections"][0]["test_users"] > 0


def test_nothing_of_merged_homes_is_run_again(root):
    home = root / "merged"
    read = Ledger.open(home)
    assert not read.damages
    assert plan.make(small_homes.request(home, root / "toy", "id,svd,linear"), read).counts()["to_run"] == 0
    ran = Counter(event["id"] for event in events(home, "ended"))
    assert max(ran.values()) == 2, "what both had is there twice"
    assert len(ran) == len(read.trials) == len(Ledger.open(root / "whole").trials)
    assert artifacts.load_checkpoint(home, "e" * 24) == b"of a trial under way"


@pytest.mark.parametrize("adapter", ["id", "svd", "linear"])
def test_rows_of_merged_homes_are_exported_and_reproduced(root, tmp_path, adapter):
    home = root / "merged"
    report = export.write(home, f"sasrec/{adapter}", tmp_path / "out", dataset=str(root / "toy"))
    assert report.equal == report.queries
    assert reproduce.run(home, ReproduceRequest(f"sasrec/{adapter}", dataset=str(root / "toy"))).verdict == "equal"
