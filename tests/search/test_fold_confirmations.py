"""Sliding windows: one search, on the earliest fold; its winner is confirmed on every fold with every seed."""

from dataclasses import replace

import pytest

from harness.record import ensembles
from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import plan, spaces
from harness.search.studies import TrialQueue
from harness.types import BASELINE, Budget, Cell, Engine, Inputs, Protocol, Trial, TrialResult

BUDGET = Budget("tiny", trials=3, epochs=10, patience=3, seeds=2)
WINDOWS = Protocol("windows", folds=3)


def study(ledger, protocol=WINDOWS, budget=BUDGET, cell=None):
    cell = cell or Cell("toy", "noise", "sasrec[dropout=0.2,attn_dropout=0.2,ffn_mult=1]", "mlp")
    space = spaces.Space({}, {}, {}) if cell.is_baseline else spaces.of_cell(cell, spaces.SpaceSource())
    return plan.Study(cell, space, budget, protocol, Engine("random", "none"), Inputs(data="x"), ledger)


def drive(home, limit=10**9, **options):
    """Run a study in this process, at most `limit` trials; return the trials run, in order, and the reread study."""
    segment, ran = Segment(home), []
    queue = TrialQueue([study(Ledger.open(home), **options)], segment, lambda event: None)
    while len(ran) < limit and (found := queue.next()) is not None:
        ran.append(found.trial)
        queue.ended(found.trial.id, TrialResult("done", best=found.trial.params.get("train.lr", 0.0)))
    segment.close()
    return ran, study(Ledger.open(home), **options)


def test_the_search_sees_the_earliest_fold_and_every_seed_is_confirmed_on_every_fold(home):
    ran, done = drive(home)
    assert [(t.role, t.protocol.fold) for t in ran[:3]] == [("search", 0)] * 3
    assert [(t.seed, t.protocol.fold) for t in ran[3:]] == [(s, f) for s in (1, 2) for f in range(3)]
    assert len({t.id for t in ran}) == 9
    best = max(ran[:3], key=lambda t: t.params["train.lr"])
    assert all(t.params == best.params and t.role == "confirm" for t in ran[3:])
    assert done.state == "done"
    assert done.to_run() == 0


def test_planned_trials_are_counted_with_folds_at_every_stage(home):
    assert study(Ledger()).to_run() == 3 + 6
    _, half = drive(home, limit=5)
    assert (half.state, half.to_run()) == ("pending", 4)
    ran, done = drive(home)
    assert (len(ran), done.state) == (4, "done")


def test_the_ledger_names_the_same_runs_by_seed_and_fold(home):
    ran, done = drive(home)
    record = StudyRecord.from_json(done.record().to_json())
    assert record == replace(done.record(), warm_start="")
    assert (record.folds, record.runs) == (3, 6)
    assert done.ledger.confirmations(record) == [t.id for t in ran[3:]]
    assert done.ledger.by_seed(record) == [[t.id for t in ran[3:6]], [t.id for t in ran[6:]]]


def test_a_baseline_runs_once_on_every_fold(home):
    cell = Cell("toy", "none", BASELINE, "popularity")
    ran, done = drive(home, cell=cell)
    assert [(t.seed, t.protocol.fold) for t in ran] == [(0, 0), (0, 1), (0, 2)]
    assert done.ledger.by_seed(done.record()) == [[t.id for t in ran]]


def test_without_a_search_the_default_is_confirmed_on_every_fold(home):
    ran, done = drive(home, budget=replace(BUDGET, trials=0))
    assert [(t.seed, t.protocol.fold) for t in ran] == [(s, f) for s in (1, 2) for f in range(3)]
    assert done.ledger.confirmations(done.record()) == [t.id for t in ran]


def test_a_study_is_identified_by_its_folds_and_a_run_by_its_fold():
    ids = {study(Ledger(), protocol).id for protocol in (WINDOWS, replace(WINDOWS, folds=2), Protocol("gts"))}
    assert len(ids) == 3
    winner = study(Ledger()).trial("search", 0, {})
    assert [Trial.from_json(t.to_json()).id for t in winner.confirmations(2)] == [t.id for t in winner.confirmations(2)]
    assert winner.confirmations(1)[0].id == winner.confirmation(1).id


def test_protocols_without_folds_are_confirmed_as_before():
    winner = study(Ledger(), Protocol()).trial("search", 0, {})
    assert winner.confirmations(3) == [winner.confirmation(1), winner.confirmation(2), winner.confirmation(3)]


@pytest.mark.parametrize(("name", "rounds"), [("id+text", 2), ("id+id", 1), ("id x2", 1)])
def test_an_ensemble_combines_runs_of_one_fold(name, rounds):
    cell = Cell("toy", "noise", "sasrec", name)
    made = study(Ledger())
    runs = {part: replace(made.trial("search", 0, {}), cell=replace(cell, adapter=part)) for part in ("id", "text")}
    confirmed = {part: runs[part].confirmations(2) for part in dict.fromkeys(cell.parts)}
    of_id = {run.id: run for several in confirmed.values() for run in several}
    trials = ensembles.trials(cell, confirmed)
    assert [(t.seed, t.protocol.fold) for t in trials] == [(1 + r, f) for r in range(rounds) for f in range(3)]
    for trial in trials:
        assert {of_id[part].protocol.fold for part in trial.inputs.parts} == {trial.protocol.fold}
    used = [part for trial in trials for part in trial.inputs.parts]
    assert len(used) == len(set(used))
