"""Exported lists are those that the bench ranked, recomputed or stored."""

import json

import numpy as np
import polars as pl
import pytest
import small_homes
import torch
from command_line import harness as command
from dataset_files import make_dataset

from harness.data import splits
from harness.metrics.lists._base import TopLists
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import row_lookup
from harness.types import HarnessError
from harness.workflows import export_lists
from harness.workflows.export_lists import ListsRequest

BUDGET = small_homes.BUDGET.__class__("made", trials=1, epochs=1, patience=1, seeds=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with an adapter of the text, a backbone that reads times, and the baselines."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("lists")
    home, dataset = root / "home", make_dataset(root / "toy", items=40)
    home.mkdir()
    small_homes.run(small_homes.request(home, dataset, "linear", backbones="sasrec,hstu_time", budget=BUDGET))
    return home


def exported(home, row, file, k=10, **own):
    report = export_lists.write(home, ListsRequest(row, k, **own), file)
    return report, pl.read_parquet(file)


def row_of(home, word):
    ledger = Ledger.open(home)
    row = row_lookup.find(row_lookup.of(ledger), word)
    return row, row_lookup.confirmed(ledger, row)


@pytest.mark.parametrize("word", ["sasrec/linear", "hstu_time/linear", "popularity", "content_knn"])
def test_recomputed_lists_have_the_targets_at_their_ranks(made, tmp_path, word):
    report, frame = exported(made, word, tmp_path / "lists.parquet", k=7)
    assert (report.source, report.queries, report.equal) == ("recomputed", 60, 60)
    assert frame.columns == ["query", "user_id", "item_id", "rank", "score"]
    row, runs = row_of(made, word)
    own = next(run for run in runs if run.id == report.trial)
    prepared = row_lookup.sequences(made, row, own.inputs.data)
    test = splits.split(prepared, own.protocol).test
    items = prepared.items[prepared.offsets[test.users] + test.ends] - 1
    ids, users = prepared.catalogue["item_id"].gather(items), prepared.users.gather(test.users)
    lists = frame.group_by("query", maintain_order=True).agg("user_id", "item_id", "rank")
    assert lists["query"].to_list() == list(range(60))
    inside = 0
    for query, stored in enumerate(artifacts.load_ranks(made, own.id).iter_rows(named=True)):
        _, user_ids, item_ids, places = lists.row(query)
        assert set(user_ids) == {users[query]}
        assert places == list(range(1, 8))
        assert len(set(item_ids)) == 7
        if stored["low"] == stored["high"] <= 7:
            assert item_ids[stored["low"] - 1] == ids[query]
            inside += 1
    assert inside > 3


def test_stored_lists_are_preferred_and_a_longer_request_recomputes(made, tmp_path):
    _, runs = row_of(made, "sasrec/linear")
    own = next(run for run in runs if run.seed == 1)
    folder = artifacts.artifact_folder(made, own.id)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    marked = TopLists(np.tile(np.arange(12, dtype=np.int32), (60, 1)), np.zeros((60, 12), np.float32))
    frame = artifacts.load_ranks(made, own.id)
    users, ranks = frame["user"].to_numpy(), artifacts.bounds(frame)
    kept = {"spectra": artifacts.load_spectra(made, own.id), "weights": before["model.safetensors"]}
    try:
        artifacts.save_artifacts(made, own.id, users=users, ranks=ranks, lists=marked, **kept)
        report, found = exported(made, "sasrec/linear", tmp_path / "stored.parquet", k=12, seed=1)
        assert report.source == "stored"
        assert (found["score"] == 0).all()
        assert found.height == 60 * 12
        shorter = exported(made, "sasrec/linear", tmp_path / "shorter.parquet", k=5, seed=1)[1]
        assert shorter.equals(found.filter(pl.col("rank") <= 5))
        assert exported(made, "sasrec/linear", tmp_path / "longer.parquet", k=13, seed=1)[0].source == "recomputed"
        content = (folder / "lists.parquet").read_bytes()
        (folder / "lists.parquet").write_bytes(content[:-9] + b"x" + content[-8:])  # damaged: not what was sealed
        assert exported(made, "sasrec/linear", tmp_path / "damaged.parquet", seed=1)[0].source == "recomputed"
    finally:
        for path in folder.iterdir():
            path.unlink()
        for name, content in before.items():
            (folder / name).write_bytes(content)


def test_lists_longer_than_the_candidates_end_early(made, tmp_path):
    _, frame = exported(made, "popularity", tmp_path / "all.parquet", k=100)
    lengths = frame.group_by("query").agg(pl.len(), pl.col("item_id").n_unique().alias("different"))
    assert lengths["len"].max() < 40, "seen items are excluded"
    assert (lengths["len"] == lengths["different"]).all()
    assert frame["score"].is_finite().all()


def test_what_cannot_be_exported_is_one_line(made, tmp_path):
    there = tmp_path / "there.parquet"
    there.write_text("mine")
    with pytest.raises(HarnessError, match=r"there\.parquet already exists; choose a new file"):
        exported(made, "sasrec/linear", there)
    with pytest.raises(HarnessError, match=r"has no seed 9; it has 1, 2"):
        exported(made, "sasrec/linear", tmp_path / "x.parquet", seed=9)
    with pytest.raises(HarnessError, match="There is no row 'mlp'"):
        exported(made, "mlp", tmp_path / "x.parquet")
    assert there.read_text() == "mine"
    assert not (tmp_path / "x.parquet").exists()


def test_the_command_writes_lists_and_refuses_options_of_the_other_kind(made, tmp_path):
    file = tmp_path / "lists.parquet"
    words = ["export", "popularity", "--output", str(file)]
    done = command(made, *words, "--lists", "--top-k", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top_k"] == 3
    assert pl.read_parquet(file)["rank"].max() == 3
    for wrong, says in ((["--top-k", "3"], "add --lists"), (["--lists", "--mlflow"], "exclude each other")):
        refused = command(made, *words, *wrong)
        assert (refused.returncode, says in refused.stderr) == (2, True)
