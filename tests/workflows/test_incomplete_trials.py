"""Progress, status, forecast, tables and searches go on where a trial lacks seconds, a curve or a best value."""

import io
import json
import zlib
from contextlib import closing
from dataclasses import asdict, replace

import pytest
import small_homes
from command_line import bench

from harness.record import events
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.report import ledger_frames, tables
from harness.search import plan, spaces, warm_start
from harness.search.studies import Assignment, GridEvent, StudySearch, TrialQueue
from harness.types import Budget, Cell, Engine, Inputs, Protocol, TrialResult
from harness.workflows import calibrate, eta, finished_trials, forecast, status
from harness.workflows.progress import Progress

BUDGET = Budget("tiny", trials=6, epochs=4, patience=2, seeds=2)
FAILED = TrialResult("failed", reason="loss is not finite at epoch 0, step 1")
ODD = {
    "failed at once": FAILED,
    "pruned without a curve": TrialResult("pruned"),
    "done in no time": TrialResult("done", best=0.1, best_epoch=0, curve=[0.1], info={"seconds": 0.0, "epochs": 1.0}),
    "done without seconds": TrialResult("done", best=0.1, best_epoch=0, curve=[0.1]),
    "done without a curve": TrialResult("done", best=0.1, info={"seconds": 3.0}),
}
each_odd = pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
GOOD = TrialResult("done", best=0.2, best_epoch=1, curve=[0.1, 0.2], info={"seconds": 8.0, "epochs": 2.0})
LAUNCH = {
    "schema": 1,
    "table": "made",
    "protocol": Protocol().identity(),
    "prep": {"kcore": 5},
    "budget": asdict(BUDGET),
    "engine": {"sampler": "random", "pruner": "none"},
    "skipped": [],
    "data": {"toy": {"users": 9, "hash": "toy"}},
    "provenance": {"slots": 2, "git": "0123abc", "date": "2026-11-01"},
}


def study(ledger, adapter="mlp", engine=("random", "none")):
    cell = Cell("toy", "noise", "sasrec", adapter)
    space = spaces.of_cell(cell, spaces.SpaceSource())
    return plan.Study(cell, space, BUDGET, Protocol(), Engine(*engine), Inputs(data="toy"), ledger)


def run(home, adapter, outcomes, engine=("random", "none"), launched=("mlp",)):
    """A launch in which the trials of one adapter end in these ways, one after the other."""
    ledger = Ledger.open(home)
    with closing(Segment(home)) as segment:
        cells = [study(ledger, name, engine).record().to_json() for name in launched]
        segment.append("launched", studies=cells, **LAUNCH)
        grid = TrialQueue([study(ledger, adapter, engine)], segment, lambda event: None)
        for outcome in outcomes:
            found = grid.next()
            assert found is not None
            grid.ended(found.trial.id, outcome)
    return Ledger.open(home)


@each_odd
def test_progress_of_a_run_whose_first_ended_trial_is_odd_goes_on(home, odd):
    """The cell is known from an earlier run, so that it has a price, and nothing of this run took any time."""
    ledger = run(home, "mlp", [GOOD])
    own = study(ledger)
    stream = io.StringIO()
    progress = Progress([own], 2, stream)
    assignment = StudySearch(own).next()
    with closing(Segment(home)) as segment:
        for kind, result in (("started", None), ("ended", odd)):
            if result is not None:
                ledger.take(segment.run, events.started(segment, assignment.trial, own.id, 1))
                ledger.take(segment.run, events.ended(segment, assignment.trial.id, result))
            progress(GridEvent(kind, Assignment(assignment.trial, own, 1), result=result))
    assert "[1/7] " in stream.getvalue()
    known = odd.info.get("seconds", 0.0) > 0
    assert (" left" in stream.getvalue()) is known, "no time passed in trials: nobody knows the pace"


@each_odd
@pytest.mark.parametrize("count", [1, 6])
def test_status_forecast_and_table_of_odd_trials_go_on(home, odd, count):
    """First of a run that goes on, and all of a search."""
    run(home, "svd", [GOOD] * 3, launched=("svd", "mlp"))
    ledger = run(home, "mlp", [odd] * count, launched=("svd", "mlp"))
    report = status.of(home)
    assert [cell["ended"] for cell in report["cells"]] == [3, count]
    assert status.text(report)
    grid = plan.Plan(plan.Request(home, budget=BUDGET), {}, [study(ledger, name) for name in ("svd", "mlp")])
    past = finished_trials.read(ledger)
    paces = {own.id: forecast.Pace(1.0, 0.5) for own in forecast.needing_calibration(grid, past, 1)}
    found = forecast.of(grid, past, paces, 2, 1)
    assert 0 < found.low <= found.seconds <= found.high
    assert forecast.cuts(grid, found, 1.0)
    table = tables.build(ledger_frames.of_home(home))
    [mlp] = [row for section in table.sections for row in section.rows if row.cell.adapter == "mlp"]
    assert mlp.state == ("partial" if odd.status == "done" or count < 6 else "failed")
    for name in tables.formats():
        assert tables.render(table, name)


@each_odd
@pytest.mark.parametrize(
    "engine",
    [
        ("tpe", "median"),
        ("gp", "none"),
        ("gp", "median"),
        ("gp", "hyperband"),
        ("cmaes", "halving"),
        ("tpe", "hyperband"),
        ("tpe", "wilcoxon"),
    ],
)
def test_a_search_rebuilt_from_odd_trials_draws_the_next_one(home, odd, engine):
    ledger = run(home, "mlp", [odd] * 5, engine)
    search = StudySearch(study(ledger, engine=engine))
    found = search.next()
    assert found is not None
    assert (found.number, found.trial.role) == (5, "search")
    search.launch(found)
    assert search.epoch(found.trial.id, 0, 0.1, (1, 2)) is False


@each_odd
def test_a_warm_start_from_odd_trials_takes_those_that_are_done(home, odd):
    ledger = run(home, "mlp", [odd] * 6)
    cell = replace(study(ledger).cell, dataset="other")
    starts = warm_start.starts(ledger, cell, study(ledger).space, "toy")
    assert bool(starts) is (odd.status == "done")


def test_a_cell_whose_calibration_failed_is_named_where_the_forecast_leaves_it_out(home):
    ledger = run(home, "mlp", [FAILED])
    grid = plan.Plan(plan.Request(home, budget=BUDGET), {}, [study(ledger)])
    found = forecast.of(grid, finished_trials.read(ledger), {}, 2, 1)
    assert (found.seconds, found.unpriced) == (0.0, (study(ledger).cell,))
    assert f"not in the forecast: {study(ledger).cell}" in forecast.text(found, 60.0, [])
    assert forecast.to_json(found, 60.0, [])["unpriced"] == [asdict(study(ledger).cell)]


def test_trials_that_took_no_time_predict_none():
    """A cell whose trials all failed at once is like the others, and unknown where there are none."""
    assert eta.needs([eta.CellWork(3, 0), eta.CellWork(0, 1, searched=[4.0])]) == [12.0, 4.0]
    assert eta.pace([eta.CellWork(3, 1)], [0.0], elapsed=5.0, slots=2) is None
    assert eta.finishes([4.0, 0.0], 2, None) is None


def test_seconds_of_trials_that_failed_at_once_are_not_averaged(home):
    ledger = run(home, "mlp", [FAILED, FAILED, GOOD])
    work = eta.work(ledger, study(ledger).record(), {})
    assert work.searched == [8.0]
    assert work.needs(None, None) == pytest.approx(3 * 8.0 + 2 * 8.0)


@pytest.mark.parametrize("lacking", [{}, {"best": None, "curve": None, "info": None}, {"info": {}}])
def test_an_ended_event_that_lacks_fields_or_holds_null_is_read(home, lacking):
    """As an edited or a foreign ledger may hold it."""
    ledger = run(home, "mlp", [GOOD])
    [file] = home.glob("ledger/*.jsonl")
    *lines, _ = file.read_text().splitlines()
    [trial_id] = ledger.trials
    event = {"kind": "ended", "seq": len(lines), "time": 1e9, "id": trial_id}
    body = json.dumps(event | {"result": {"status": "pruned"} | lacking}, separators=(",", ":"))[:-1]
    file.write_text("\n".join([*lines, f'{body},"crc":"{zlib.crc32(body.encode()):08x}"}}']) + "\n")
    entry = Ledger.open(home).trials[trial_id]
    assert (entry.status, entry.best, entry.seconds, entry.trained) == ("pruned", 0.0, 0.0, 0)
    assert status.of(home)["cells"][0]["pruned"] == 1


@pytest.mark.parametrize("heard", [[], [1.0], [1.0, 3.0, 5.0]])
def test_a_calibration_takes_a_pace_from_two_epochs_or_none(home, heard):
    own = study(run(home, "mlp", [TrialResult("done", best=0.1)]))
    clock = calibrate._Clock()
    clock.epoch_times[own.id] = heard
    assert clock.pace(own) == (forecast.Pace(2.0, 0.0) if len(heard) > 1 else None)


@pytest.mark.parametrize("took", [0.0, 5.0])
def test_a_bench_that_took_no_time_is_compared_with_its_forecast_or_not_at_all(home, took):
    (home / "forecast.json").write_text(json.dumps({"of": "x", "seconds": 0.0, "low": 0.0, "high": 0.0}))
    assert (forecast.accuracy(home, "x", took) is None) is (took == 0)


@pytest.mark.slow
def test_a_bench_goes_on_where_the_first_trials_of_a_resumed_run_fail(home, dataset, tmp_path):
    """A rate of 1e30 is a number like another, and no score is finite after an epoch of it."""
    words = ["--adapters", "id", "--trials", "1", "--epochs", "1"]
    small_homes.bench(home, dataset, *words)
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "train.toml").write_text("lr = 1e30")
    found = bench(home, dataset, *words, "--spaces", str(tmp_path / "spaces"))
    assert found.returncode == 1, found.stderr
    assert "Traceback" not in found.stderr
    assert "failed, " in found.stdout, "the table names the cell and why it failed"
    assert "not finite" in found.stdout
