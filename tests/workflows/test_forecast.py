"""Time left, forecasts and what to cut: arithmetic on made ledgers; the calibration through the real command line."""

import io
import itertools
import json
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import small_homes
from command_line import SMALL_MODEL, harness

from harness.engine import slots
from harness.record import leases
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import plan, spaces
from harness.search.studies import TrialQueue
from harness.types import Budget, Cell, Engine, HarnessError, Inputs, Protocol, TrialResult
from harness.verbs import plan as verb
from harness.workflows import calibrate, eta, finished_trials, forecast, status
from harness.workflows.progress import Progress

BUDGET = Budget("tiny", trials=6, epochs=10, patience=3, seeds=2)


def study(ledger, adapter="mlp", dataset="toy", **changes):
    cell = Cell(dataset, "noise", "sasrec", adapter)
    space = spaces.of_cell(cell, spaces.SpaceSource())
    made = plan.Study(cell, space, BUDGET, Protocol(), Engine("random", "none"), Inputs(data=dataset), ledger)
    return replace(made, **changes)


def run(home, studies, seconds, limit=10**9, reason="", **provenance):
    """A real grid whose trials take made seconds by cell; its launch is recorded as a bench does it."""
    segment, ran = Segment(home), 0
    cells = [s.record().to_json() for s in studies]
    segment.append("launched", schema=1, studies=cells, skipped=[], provenance={"slots": 2} | provenance)
    grid = TrialQueue([s for s in studies if s.state == "pending"], segment, lambda event: None)
    while ran < limit and (found := grid.next()) is not None:
        taken = seconds[found.trial.cell.adapter]
        curve = [0.1 + 0.01 * found.number] * 5
        result = TrialResult("done", "", curve[0], 4, curve, info={"seconds": taken})
        if reason and found.trial.role == "search" and found.number % 2:
            result = TrialResult("failed", reason=reason.format(found.number), info={"seconds": taken})
        grid.ended(found.trial.id, result)
        ran += 1
    segment.close()
    return Ledger.open(home)


def test_time_left_counts_every_cell_at_its_own_pace(home):
    made = [study(Ledger.open(home), name) for name in ("svd", "mlp")]
    ledger = run(home, made, {"svd": 1.0, "mlp": 10.0}, limit=10)  # svd whole (8), mlp 2 of 8
    works = [eta.work(ledger, s.record(), {}) for s in made]
    assert eta.needs(works) == [0.0, pytest.approx(6 * 10.0)]
    assert eta.needs([eta.CellWork(3, 1), works[1]])[0] == pytest.approx(4 * 10.0), "an unknown cell is like the others"
    assert eta.needs([eta.CellWork(3, 1)]) is None, "nothing ended: nobody knows"


def test_what_does_not_train_takes_a_second_and_not_as_long_as_the_others():
    trained = eta.CellWork(0, 0, searched=[300.0], confirmed=[600.0])
    assert eta.needs([trained, eta.CellWork(0, 5, trains=False)]) == [0.0, 5.0]
    assert eta.needs([eta.CellWork(0, 2, trains=False)]) == [2.0]
    assert eta.CellWork(0, 2, confirmed=[3.0], trains=False).needs(300.0, 600.0) == 6.0


def test_half_done_trials_count_for_a_half_and_seconds_bound_what_is_left():
    assert eta.CellWork(4, 0, searched=[10.0], flying=0.5).needs(None, None) == pytest.approx(35.0)
    assert eta.CellWork(100, 0, searched=[10.0], seconds_left=30.0).needs(None, None) == pytest.approx(35.0)


def test_cells_end_in_order_one_a_slot_and_share_the_slots_at_the_end():
    assert eta.finishes([10.0, 10.0, 20.0], 2, 1.0) == [10.0, 10.0, 20.0]
    assert eta.finishes([0.0, 40.0], 2, 0.5) == [0.0, 40.0], "40 s on two slots that do half a second in a second"


def test_the_pace_is_that_of_this_run_alone():
    idle = [eta.CellWork(1, 0, searched=[5.0])]
    assert eta.pace(idle, [5.0, 5.0], elapsed=10.0, slots=2) == pytest.approx(0.5)
    assert eta.pace(idle, [50.0], elapsed=10.0, slots=2) == 1.0


def test_status_says_each_cells_state_and_groups_failures_by_reason(home):
    made = [study(Ledger.open(home), name) for name in ("svd", "mlp")]
    run(home, made, {"svd": 1.0, "mlp": 10.0}, limit=11, reason="loss is not finite at epoch {}")
    report = status.of(home)
    first, second = report["cells"]
    assert (first["ended"], first["planned"], first["done"], first["failed"]) == (8, 8, 5, 3)
    assert (second["ended"], second["failed"], second["best"]) == (3, 1, pytest.approx(0.12))
    assert report["failures"] == {"loss is not finite at epoch N": 4}
    assert first["eta"] == 0
    assert second["eta"] == report["eta"] > 0
    assert "failed 4x: loss is not finite at epoch N" in status.text(report)


def test_status_tells_a_bench_that_runs_from_one_that_was_killed_or_stopped(home, monkeypatch):
    found = status.of(run(home, [study(Ledger.open(home), "svd")], {"svd": 1.0}, limit=0).home)
    assert (found["state"], found["over"]) == ("running", False), "it just began"
    with monkeypatch.context() as later:
        later.setattr(leases, "SILENT", -1.0)
        assert status.of(home)["state"] == "stopped", "it has not got far"
    ledger = run(home, [study(Ledger.open(home), "svd")], {"svd": 1.0}, limit=2)
    with leases.Leases(home, ledger.newest):
        assert status.of(home)["state"] == "running"
    killed = status.of(home)
    assert (killed["state"], killed["over"]) == ("stopped", True)
    assert killed["eta"] > 0
    assert "2 of 8 trials ended, stopped after" in status.text(killed)
    assert "run the command again" in status.text(killed)


def test_how_long_a_run_has_been_going_is_true_though_the_clock_goes_back(home, monkeypatch):
    """Ten seconds an event, and an hour back in the middle; then from another terminal, while it runs."""
    calls = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 + 10 * (n := next(calls)) - 3600 * (n > 6))
    ledger = run(home, [study(Ledger.open(home), "svd")], {"svd": 10.0}, limit=5)
    report = status.of(home)
    lines = len(next((home / "ledger").glob("*.jsonl")).read_text().splitlines())
    assert report["since"] == 10 * (lines - 2), "of the step over the jump nothing is known"
    assert 0 < report["eta"] < 3600
    monkeypatch.undo()
    with leases.Leases(home, ledger.newest) as held:
        held.claim("cell")
        time.sleep(0.1)
        assert 0.1 <= leases.running(home, ledger.newest) < 60
        assert status.of(home)["since"] < 60
        assert leases.running(home, "another") is None
    assert status.of(home)["since"] == report["since"]


def made_plan(home, ledger, studies):
    return plan.Plan(plan.Request(home, budget=BUDGET), {}, studies)


def test_a_forecast_takes_a_cells_own_trials_before_anything_else(home):
    made = [study(Ledger.open(home), name) for name in ("svd", "mlp")]
    ledger = run(home, made, {"svd": 1.0, "mlp": 10.0}, limit=10)
    grid = made_plan(home, ledger, [replace(s, ledger=ledger) for s in made])
    assert forecast.needing_calibration(grid, finished_trials.read(ledger), 1) == []
    found = forecast.of(grid, finished_trials.read(ledger), {}, slots=2, threads=1)
    [cost] = found.costs
    assert (cost.trials, cost.seeds, cost.price.source) == (4, 2, "its own trials")
    assert cost.price.search == pytest.approx(10.0)
    assert found.low < found.seconds < found.high
    assert found.seconds == pytest.approx(forecast.START + cost.seconds / 2, rel=0.2)


def test_a_cell_without_trials_is_priced_by_like_trials_or_waits_for_a_calibration(home):
    ledger = run(home, [study(Ledger.open(home), "mlp")], {"mlp": 10.0})
    other = study(ledger, "mlp", engine=Engine("tpe", "none"))
    new = study(ledger, "svd")
    grid = made_plan(home, ledger, [other, new])
    assert forecast.needing_calibration(grid, finished_trials.read(ledger), 1) == [new]
    found = forecast.of(
        grid, finished_trials.read(ledger), {new.id: forecast.Pace(epoch=2.0, finish=1.0)}, slots=1, threads=1
    )
    assert [c.price.source for c in found.costs] == ["similar trials", "calibration"]
    assert found.costs[0].price.search == pytest.approx(10.0)
    assert found.costs[1].price.search == pytest.approx(2.0 * 5 + 1.0), "5 of 10 epochs, as finished trials trained"


def test_trials_of_a_smaller_model_are_no_price_of_a_larger_one(home):
    ledger = run(home, [study(Ledger.open(home), "mlp")], {"mlp": 10.0})
    past = finished_trials.read(ledger)
    for name, value in (("train.d", 1024), ("train.max_len", 1000), ("train.loss", "bce")):
        pinned = spaces.SpaceSource(fixed={name: value})
        larger = study(ledger, "mlp", space=spaces.of_cell(Cell("toy", "noise", "sasrec", "mlp"), pinned))
        assert forecast.needing_calibration(made_plan(home, ledger, [larger]), past, 1) == [larger], name


def test_trials_of_another_number_of_threads_or_device_are_no_price(home):
    ledger = run(home, [study(Ledger.open(home), "mlp")], {"mlp": 10.0}, limit=4, threads=1, gpu=0.0)
    left, past = study(ledger, "mlp"), finished_trials.read(ledger)
    grid = made_plan(home, ledger, [left])
    assert forecast.needing_calibration(grid, past, 1) == []
    assert forecast.needing_calibration(grid, past, 8) == forecast.needing_calibration(grid, past, 1, True) == [left]
    [cost] = forecast.of(grid, past, {left.id: forecast.Pace(1.0, 0.0)}, slots=1, threads=8).costs
    assert (cost.price.source, cost.price.search) == ("calibration", pytest.approx(5.0)), "half the epochs, as there"
    unknown = [replace(one, layout=None) for one in past]
    assert forecast.needing_calibration(grid, unknown, 8) == [], "as in old ledgers"


def test_cuts_are_ranked_and_each_is_the_smallest_that_fits(home):
    made = [study(Ledger(), name, data) for data in ("small", "large") for name in ("svd", "mlp")]
    paces = {s.id: forecast.Pace(10.0 if s.cell.dataset == "large" else 1.0, 0.0) for s in made}
    grid = made_plan(home, Ledger(), made)
    whole = forecast.of(grid, [], paces, slots=2, threads=1)
    assert forecast.cuts(grid, whole, whole.high + 1) == [], "nothing to cut where it fits"
    found = forecast.cuts(grid, whole, whole.high * 0.9)
    assert [cut.what.split()[0] for cut in found] == ["trials", "epochs", "without"]
    assert found[0].what == "trials 6 -> 5"
    assert found[-1].what == "without large"
    assert found[-1].fits
    assert all(cut.saves > 0 and cut.seconds < whole.seconds for cut in found)
    assert not any(cut.fits for cut in forecast.cuts(grid, whole, 1.0))


def test_epochs_are_not_cut_once_a_search_has_begun(home):
    """With other epochs, nothing of what was trained counts."""
    ledger = run(home, [study(Ledger.open(home), "svd")], {"svd": 10.0}, limit=2)
    grid = made_plan(home, ledger, [study(ledger, "svd")])
    whole = forecast.of(grid, finished_trials.read(ledger), {}, slots=2, threads=1)
    assert [cut.what.split()[0] for cut in forecast.cuts(grid, whole, 1.0)] == ["trials"]


def test_a_forecast_that_leaves_cells_out_decides_nothing_that_they_could_change(home):
    made = [study(Ledger(), name) for name in ("svd", "mlp")]
    grid = made_plan(home, Ledger(), made)
    part = forecast.of(grid, [], {made[0].id: forecast.Pace(1.0, 0.0)}, slots=2, threads=1)
    enough, less = part.high + 1, part.high * 0.9
    assert forecast.to_json(part, enough, [])["fits"] is None
    assert "1 cell(s) without a price decide whether it fits in" in forecast.text(part, enough, [])
    assert forecast.to_json(part, less, [])["fits"] is False, "already the other cells take longer"
    cuts = forecast.cuts(grid, part, less)
    assert {cut.fits for cut in cuts} == {None}
    assert "fits without the cells that have no price" in forecast.text(part, less, cuts)
    forecast.remember(grid, part)
    assert not (home / "forecast.json").exists()


@pytest.mark.parametrize("word", ["soon", "36", "h", "-1h", ""])
def test_a_deadline_that_is_no_duration_is_one_clear_line(word):
    with pytest.raises(HarnessError, match="is not a duration; write it as 36h"):
        forecast.duration(word)


def test_a_bench_is_compared_with_the_forecast_of_this_very_grid_alone(home):
    grid = made_plan(home, Ledger(), [study(Ledger())])
    paces = {grid.studies[0].id: forecast.Pace(1.0, 0.0)}
    found = forecast.of(grid, [], paces, 2, 1)
    forecast.remember(grid, found)
    assert "a difference of +0 %" in (forecast.accuracy(home, forecast.key(grid), found.seconds) or "")
    assert forecast.accuracy(home, "another", 1.0) is None
    (home / "forecast.json").write_text("torn{")
    assert forecast.accuracy(home, forecast.key(grid), 1.0) is None


def lay(resources, home, **given):
    """What `plan --deadline` reckons with on such machines, of a grid of 2 x 6 trials of which all is known."""
    left = [study(Ledger.open(home), name) for name in ("svd", "mlp")]
    grid = plan.Plan(None, {}, left, [])
    options = {"slots": None, "threads": None, "gpu": None, "address": "head:6379"} | given
    found = verb._forecast(grid, finished_trials.read(left[0].ledger), options, resources)
    return found.slots, found.threads


def test_a_plan_has_the_slots_that_a_bench_would_have_there(home):
    run(home, [study(Ledger.open(home), name) for name in ("svd", "mlp")], {"svd": 1.0, "mlp": 1.0}, limit=10)
    nodes = [{"Alive": True, "Resources": {"CPU": 32.0, "GPU": 4.0}}] * 2
    there = slots.resources(nodes)
    assert lay(there, home) == (8, 8), "12 trials at once: two thirds of a GPU each, and one fits on each of the 8"
    assert lay(there, home, gpu=0.5) == (12, 5)
    assert lay(there, home, gpu=0.0, threads=4) == (16, 4)
    assert lay(there, home, gpu=0.0, threads=4, slots=3) == (3, 4)


def test_a_plan_shares_gpus_by_the_memory_that_the_newest_launch_measured(home):
    nodes = slots.resources([{"Alive": True, "Resources": {"CPU": 32.0, "GPU": 1.0}}])
    made = [study(Ledger.open(home), name) for name in ("svd", "mlp")]
    run(home, made, {"svd": 1.0, "mlp": 1.0}, limit=10)
    assert lay(nodes, home)[0] == 4
    memory = slots.GpuMemory(100, 500, 24_000)
    run(home, made, {"svd": 1.0, "mlp": 1.0}, limit=1, gpu_memory=memory.to_json())
    assert lay(nodes, home)[0] == slots.layout(nodes, 12, None, None, memory).slots > 4


def test_a_resumed_bench_has_the_slots_that_it_had_before_its_searches_spent_their_seconds(home):
    budget, there = replace(BUDGET, cell_seconds=15.0), slots.resources([{"Alive": True, "Resources": {"CPU": 6.0}}])

    def grid():
        return made_plan(home, Ledger(), [study(Ledger.open(home), "mlp", budget=budget)])

    before = slots.layout(there, grid().width, None, None)
    run(home, grid().studies, {"mlp": 10.0}, limit=2)
    [resumed] = grid().studies
    assert resumed.trials == 2, "its seconds are spent"
    assert resumed.state == "pending"
    assert slots.layout(there, grid().width, None, None) == before == slots.Layout(6, 1)


def test_a_finished_grid_is_forecast_whatever_machine_is_asked_for(home):
    ledger = Ledger.open(home)
    run(home, [study(ledger, name) for name in ("svd", "mlp")], {"svd": 1.0, "mlp": 1.0})
    assert lay({"cpus": 1, "gpus": 0.0, "node_cpus": 1}, home, threads=8, gpu=0.5) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["bench", "--tracking", "off"], ["plan", "--deadline", "1h"]])
def test_more_threads_than_any_node_has_cores_end_before_a_trial_waits_for_them(home, dataset, words, monkeypatch):
    from harness.engine import ray_tune

    monkeypatch.setattr(ray_tune, "run", lambda *_: pytest.fail("its trials wait for ever"))
    size = ["--datasets", str(dataset), "--encoders", "noise", "--kcore", "0", *SMALL_MODEL, "--adapters", "id"]
    found = harness(home, *words, *size, "--threads", "5000")
    assert found.returncode == 2, found.stderr
    told = found.stderr.splitlines()[-1]
    assert told.startswith("Error: No node has room for a trial of 5000 thread(s): the largest node has ")
    assert "pass --threads " in told


@pytest.mark.parametrize("words", [["--address", "127.0.0.1:1"], ["--address", "http://127.0.0.1:8265"]])
def test_a_plan_asks_the_cluster_that_is_named(home, dataset, words):
    size = ["--datasets", str(dataset), "--encoders", "noise", "--kcore", "0", "--adapters", "id"]
    found = harness(home, "plan", *size, "--deadline", "1h", *words)
    assert found.returncode == 2
    assert words[1] in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_a_plan_with_a_deadline_calibrates_once_and_the_bench_says_how_it_came_out(home, dataset):
    words = ["--datasets", str(dataset), "--encoders", "noise", "--kcore", "0", *SMALL_MODEL, "--adapters", "id"]
    size = ["--trials", "2", "--epochs", "3", "--seeds", "1"]
    first = harness(home, "plan", *words, *size, "--deadline", "1h", "--json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert told["fits"] == (told["high"] <= 3600)
    assert {c["source"] for c in told["costs"] if c["backbone"] == "sasrec"} == {"calibration"}
    assert "Calibrating 1 cells" in first.stderr
    assert not (home / "ledger").exists(), "a calibration is no trial"
    again = harness(home, "plan", *words, *size, "--deadline", "1s")
    assert "Calibrating" not in again.stderr
    assert "does not fit in 1s" in again.stdout
    done = small_homes.bench(home, dataset, "--adapters", "id", *size)
    assert "the forecast was" in done.stderr
    finished = json.loads(harness(home, "status", "--json").stdout)
    assert finished["over"]
    assert os.listdir(home / "calibrations")


def test_progress_lines_estimate_by_what_each_cells_trials_took(home, monkeypatch):
    monkeypatch.setattr("harness.workflows.progress.SHARE", 1e9)  # an estimate at every line
    ledger, segment, stream = Ledger.open(home), Segment(home), io.StringIO()
    made = [study(ledger, name) for name in ("svd", "mlp")]
    progress = Progress(made, slots=2, stream=stream)
    grid = TrialQueue(made, segment, progress)
    for _ in range(3):
        found = grid.next()
        grid.epoch(found.trial.id, 0, 0.2)
        grid.ended(found.trial.id, TrialResult("done", "", 0.2, 0, [0.2], info={"seconds": 60.0}))
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("[")]
    assert [line.split()[0] for line in lines] == ["[1/16]", "[2/16]", "[3/16]"]
    assert progress.total == 16
    assert "6m30s left" in lines[2], "13 trials of a minute on two slots that are never idle"


def test_a_probe_trains_few_epochs_whatever_the_pace_of_its_backbone():
    """Its epochs beyond the first ones must not be taken for work after the last."""
    for backbone, epochs in (("sasrec", 3), ("bert4rec", 4), ("bsarec", 4)):
        made = study(Ledger(), "mlp")
        made = replace(made, cell=replace(made.cell, backbone=backbone))
        probe = replace(made, budget=calibrate._budget(made))
        assert probe.epochs == epochs, backbone
        clock, result = (
            calibrate._Clock(),
            TrialResult("done", curve=[0.1] * epochs, info={"seconds": epochs * 10 + 2.0}),
        )
        clock.epoch_times[probe.id] = [10.0 * n for n in range(1, epochs + 1)]
        assert clock.pace(SimpleNamespace(id=probe.id, ended=lambda result=result: [result])) == forecast.Pace(
            10.0, 2.0
        )


def test_no_forecast_is_shorter_than_a_search_and_the_confirmation_after_it():
    price = forecast.Price(100.0, 100.0, "its own trials", 0.1)
    cell = Cell("toy", "none", "sasrec", "id")
    for trials, seeds, least in ((0, 1, 100), (16, 5, 200)):
        total = forecast._total([forecast.CellCost(cell, trials, seeds, price)], slots=16, threads=1)
        assert total.seconds >= forecast.START + least
