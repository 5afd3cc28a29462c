"""Ensembles in a grid: names, selections, rounds, and their place behind the rows they combine."""

import json
import re
from dataclasses import replace

import polars as pl
import pytest
from dataset_files import make_dataset
from small_homes import BUDGET, request, run

from harness.record import artifacts, ensembles
from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger
from harness.report import ledger_frames, tables
from harness.search import ensembles as selected
from harness.search import plan
from harness.types import Budget, Cell, HarnessError
from harness.workflows import repair

FOUR = Budget("four", trials=0, epochs=1, patience=1, seeds=4)


def names(selection, seeds=5):
    return selected.select(selection, seeds).ensembles


def test_all_holds_the_controls_whose_parts_it_holds():
    assert names("all") == ["id+id", "id+text", "id x5"]
    assert names("all", seeds=2) == ["id+id", "id+text"]
    assert names("all", seeds=1) == ["id+text"]
    assert names("all,!text") == ["id+id", "id x5"]
    assert names("all,!id+id") == ["id+text", "id x5"]
    assert names("all,!*+*") == ["id x5"]
    assert names("id,text,linear") == []


def test_a_named_ensemble_brings_its_parts():
    chosen = selected.select("svd,id+linear[fusion=none]", 2)
    assert chosen.adapters == ["svd", "id", "linear[fusion=none]"]
    assert chosen.ensembles == ["id+linear[fusion=none]"]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("text+id", "id+text"),
        ("ensemble[text,id]", "id+text"),
        ("svd+linear", "linear+svd"),
        ("id+id", "id+id"),
        ("id+id+id", "id x3"),
        ("id x4", "id x4"),
        ("mlp[hidden=8]+svd-whiten", "mlp[hidden=8]+svd_whiten"),
        ("mlp", ""),
        ("mlp[hidden=8]", ""),
        ("!id+id", ""),
    ],
)
def test_a_row_has_one_name(word, name):
    assert selected.canonical(word) == name


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("id+idd", "There is no adapter 'idd'. Did you mean 'id'?"),
        ("ensemble[id]", "at least two parts"),
        ("ensemble[id", "'ensemble[id': the bracket is not closed. Write ensemble[id,text]."),
        ("ensemble[id,id+text]", "the parts of an ensemble are adapters"),
        ("id x6", "'id x6' needs 6 seeds of each row, this bench has 5: add --seeds 6."),
        ("id x1", "at least two parts"),
        ("id,id+*", "'id+*': ensembles are named one by one; a glob only excludes them, as '!id+*' does"),
        ("*+*", "a glob only excludes them"),
    ],
)
def test_a_wrong_ensemble_is_one_clear_line(selection, message):
    with pytest.raises(HarnessError, match=re.escape(message)):
        selected.select(selection, 5)


def test_no_run_is_in_two_rounds():
    assert ensembles.rounds(("id", "id"), {"id": 5}) == 2
    assert ensembles.rounds(("id",) * 5, {"id": 5}) == 1
    assert ensembles.rounds(("id", "id", "text"), {"id": 4, "text": 5}) == 2


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("ensembles")
    asked = request(root / "home", make_dataset(root / "toy", users=60), "id+id,id+text,id x3", budget=FOUR)
    return asked, run(asked)


def test_every_round_combines_other_runs_of_its_parts(done):
    asked, _ = done
    ledger = Ledger.open(asked.home)
    by_name = {study.cell.adapter: study for study in plan.make(asked, ledger).studies}
    assert all(study.state == "done" for study in by_name.values())
    ids, texts = (ledger.confirmations(by_name[name].record()) for name in ("id", "text"))
    parts = {
        name: [ledger.trials[i].trial.inputs.parts for i in ledger.confirmations(by_name[name].record())]
        for name in ("id+id", "id+text", "id x3")
    }
    assert parts["id+id"] == [(ids[0], ids[1]), (ids[2], ids[3])]
    assert parts["id+text"] == list(zip(ids, texts, strict=True))
    assert parts["id x3"] == [tuple(ids[:3])]


def test_the_test_of_an_ensemble_is_opened_once(done):
    asked, _ = done
    ledger = Ledger.open(asked.home)
    opened = [ledger.opened.get(i, 0) for i, entry in ledger.trials.items() if entry.trial.inputs.parts]
    assert opened == [1] * 7


def test_a_row_costs_the_sum_of_its_parts_and_is_marked(done):
    asked, _ = done
    table = tables.build(ledger_frames.of_home(asked.home))
    [section] = table.sections
    rows = {row.cell.adapter: row for row in section.rows}
    one = rows["id"].costs
    assert rows["id+id"].costs["parameters"] == 2 * one["parameters"]
    assert rows["id x3"].costs["parameters"] == 3 * one["parameters"]
    assert rows["id+id"].costs["train_seconds"] > 1.5 * one["train_seconds"]
    assert rows["id+text"].seeds_planned == 4
    assert not {"less", "short"} & set(rows["id+id"].marks)
    assert {row.spent.tuned for name, row in rows.items() if name in ("id+id", "id+text", "id x3")} == {"parts"}
    printed = tables.render(table, "terminal")
    assert "id+text (ensemble)" in printed
    assert "Better than id+text (ensemble)" in printed
    assert "4 seeds planned for each trained row; all rows complete" in printed


def test_the_same_request_finds_nothing_to_do(done):
    asked, _ = done
    again = plan.make(asked, Ledger.open(asked.home))
    assert [study.to_run() for study in again.studies] == [0] * len(again.studies)


def test_lost_weights_of_a_part_are_trained_again_before_its_ensemble(done, tmp_path):
    asked, _ = done
    more = request(asked.home, asked.datasets, "id+id,id+text,id x3,text+text", budget=FOUR)
    ledger = Ledger.open(asked.home)
    grid = plan.make(more, ledger)
    texts = ledger.confirmations(next(study.record() for study in grid.studies if study.cell.adapter == "text"))
    (artifacts.artifact_folder(asked.home, texts[1]) / artifacts.WEIGHTS).unlink()
    lines = []
    assert repair.void_lost(grid, lines.append) == 1
    assert lines == ["The weights of 1 finished run(s) are missing or damaged; these runs are repeated."]
    assert ledger.result(texts[1]) is None
    run(more)
    states = {study.cell.adapter: study.state for study in plan.make(more, Ledger.open(asked.home)).studies}
    assert states["text+text"] == "done"


def test_weights_that_nobody_needs_are_not_missed(done):
    asked, _ = done
    ledger = Ledger.open(asked.home)
    grid = plan.make(asked, ledger)
    ids = ledger.confirmations(next(study.record() for study in grid.studies if study.cell.adapter == "id"))
    (artifacts.artifact_folder(asked.home, ids[0]) / artifacts.WEIGHTS).unlink()
    assert repair.void_lost(grid, print) == 0


def test_a_longer_search_that_finds_another_winner_combines_its_runs(tmp_path):
    folder = make_dataset(tmp_path / "toy", users=60)
    short = request(tmp_path / "home", folder, "id+id", budget=Budget("b", 1, 1, 1, 2))
    run(short)
    longer = request(tmp_path / "home", folder, "id+id", budget=Budget("b", 4, 1, 1, 2))
    run(longer)
    ledger = Ledger.open(tmp_path / "home")
    one, pair = (
        next(study for study in plan.make(longer, ledger).studies if study.cell.adapter == name)
        for name in ("id", "id+id")
    )
    [combined] = ledger.confirmations(pair.record())
    assert ledger.trials[combined].trial.inputs.parts == tuple(ledger.confirmations(one.record()))
    assert pair.state == "done"


def test_an_ensemble_of_a_failed_part_fails_with_the_reason(tmp_path):
    folder = make_dataset(tmp_path / "toy", users=60)
    asked = request(tmp_path / "home", folder, "id+text,svd", budget=BUDGET)
    run(asked, fails=lambda trial: trial.cell.adapter == "text")
    table = tables.build(ledger_frames.of_home(tmp_path / "home"))
    rows = {row.cell.adapter: row for row in table.sections[0].rows}
    assert rows["id+text"].state == "failed"
    assert rows["id+text"].reason == "its part text failed"
    assert plan.make(asked, Ledger.open(tmp_path / "home")).counts()["to_run"] == 0


def test_an_ensemble_without_text_is_skipped_with_its_part(tmp_path):
    folder = make_dataset(tmp_path / "toy", users=60)
    pl.read_parquet(folder / "items.parquet").drop("title").write_parquet(folder / "items.parquet")
    grid = plan.make(request(tmp_path / "home", folder, "id+text,id+id", encoders="minilm"), Ledger())
    assert {cell.adapter for cell, _ in grid.skipped} >= {"text", "id+text"}
    assert "id+id" in {study.cell.adapter for study in grid.studies}


def test_the_record_of_an_ensemble_comes_back_as_written():
    cell = Cell("d", "none", "sasrec", "id+id")
    part = StudyRecord("p", Cell("d", "none", "sasrec", "id"), 4, 5, ("train.lr",))
    record = StudyRecord("e", cell, 0, 2, (), parts=(part,), version=1)
    assert StudyRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert record.cut_to(2).parts[0].trials == 2


def test_an_ensemble_of_earlier_runs_does_not_stand_beside_rows_of_newer_ones(tmp_path):
    dataset = make_dataset(tmp_path / "toy")

    def row(lr, adapters):
        pins = {"train.d": 16, "train.max_len": 8, "train.batch_size": 96, "train.lr": lr}
        run(request(tmp_path, dataset, adapters, pins=pins, budget=replace(BUDGET, trials=0)))
        rows = tables.build(ledger_frames.of_home(tmp_path)).sections[0].rows
        return next(row for row in rows if row.cell.adapter == "id+id")

    assert row(0.001, "id,id+id").state == "done"
    other = row(0.01, "id")
    assert (other.state, other.metrics) == ("skipped", {})
    assert other.reason.startswith("combines earlier runs of id than its row has; name it in a bench")
    assert row(0.01, "id+id").state == "done"
