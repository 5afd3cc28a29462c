"""From a ledger to the frames of a table, at its end and at every moment before."""

from __future__ import annotations

import json

import made_ledgers
import polars as pl
import pytest

from harness import results, store, tables
from harness.ledger import Ledger


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    made_ledgers.write(folder)
    return folder


def built(home) -> tables.Results:
    return results.build(Ledger.open(home), lambda i: store.load_ranks(home, i))


def test_every_trial_of_the_tables_cells_is_in_the_trials(home):
    trials = built(home).trials.collect()
    planned = made_ledgers.studies()
    assert trials.height == sum(study.trials + study.seeds for study in planned)
    for study in planned:
        own = trials.filter(pl.col("study") == study.id)
        searched = own.filter(pl.col("role") == "search")
        assert searched["number"].to_list() == list(range(study.trials))
        assert searched["trial"].to_list() == [trial.id for trial in study.searched()]
        confirmed = own.filter(pl.col("role") == "confirm")
        assert confirmed["seed"].to_list() == [trial.seed for trial in study.confirmations()]
        for record, trial in zip(searched.iter_rows(named=True), study.searched(), strict=True):
            wanted = made_ledgers.result_of(trial)
            assert record["status"] == wanted.status
            assert record["reason"] == wanted.reason
            assert record["curve"] == wanted.curve
            assert record["best"] == (wanted.best if wanted.status == "done" else None)
            assert json.loads(record["params"]) == trial.params
            assert record["ended"] >= record["started"] > 1e9


def test_a_trial_that_was_started_and_not_ended_is_running(home, tmp_path):
    [file] = home.glob("ledger/*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if line.startswith(b'{"kind":"started"') and b'"search"' in line)
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / file.name).write_bytes(b"".join(lines[: first + 1]))
    [*_, last] = built(tmp_path).trials.collect().iter_rows(named=True)
    assert (last["status"], last["best"], last["curve"], last["ended"]) == ("running", None, [], None)
