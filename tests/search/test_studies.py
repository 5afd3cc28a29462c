"""The search without Ray: a made objective stands for training."""

import itertools
import json
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from optuna.trial import TrialState, create_trial

from harness import registry
from harness.record import events
from harness.record.launches import LaunchRecord
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.report import ledger_frames
from harness.search import axes, grids, plan, samplers, spaces, warm_start
from harness.search.other_benches import NoOtherBenches
from harness.search.studies import TrialQueue
from harness.types import (
    BASELINE,
    EXPECTED,
    PRUNERS,
    SAMPLERS,
    Budget,
    Cell,
    Engine,
    HarnessError,
    Inputs,
    PrepSpec,
    Protocol,
    TrialResult,
)
from harness.workflows import repeated_search

BUDGET = Budget("tiny", trials=5, epochs=10, patience=3, seeds=2)


def study(ledger, adapter="mlp", engine=None, budget=BUDGET, fixed=None):
    cell = Cell("toy", "noise", "sasrec[dropout=0.2,attn_dropout=0.2,ffn_mult=1]", adapter)
    space = spaces.of_cell(cell, spaces.SpaceSource(fixed=fixed or {}))
    return plan.Study(cell, space, budget, Protocol(), engine or Engine("random", "none"), Inputs(data="x"), ledger)


def objective(trial):
    return 1 / (1 + abs(trial.params["train.lr"] - 0.003))


def drive(home, adapters=("mlp",), limit=10**9, engine=None, budget=BUDGET, outcome=None, fixed=None):
    """Run a grid in this process, at most `limit` trials; returns the ids run, in order."""
    ledger, segment, ran = Ledger.open(home), Segment(home), []
    studies = [study(ledger, a, engine, budget, fixed) for a in adapters]
    grid = TrialQueue([s for s in studies if s.state == "pending"], segment, lambda event: None)
    while len(ran) < limit and (found := grid.next()) is not None:
        ran.append(found.trial.id)
        result = (outcome or (lambda t: TrialResult("done", best=objective(t), curve=[objective(t)])))(found.trial)
        for epoch, value in enumerate(result.curve):
            grid.epoch(found.trial.id, epoch, value)
        grid.ended(found.trial.id, result)
    segment.close()
    return ran, Ledger.open(home), [study(Ledger.open(home), a, engine, budget, fixed) for a in adapters]


def test_a_cell_searches_then_confirms_its_winner_over_seeds(home):
    ran, ledger, [done] = drive(home)
    assert len(ran) == len(set(ran)) == BUDGET.trials + BUDGET.seeds
    assert done.state == "done"
    winner = done.winner()
    searched = [ledger.trials[i].trial for i in ran[: BUDGET.trials]]
    assert objective(winner) == max(map(objective, searched))
    confirmed = [ledger.trials[i].trial for i in ran[BUDGET.trials :]]
    assert [t.seed for t in confirmed] == [1, 2]
    assert all(t.role == "confirm" and t.params == winner.params for t in confirmed)


def test_every_cell_has_its_first_trial_before_any_cell_has_a_second(home):
    """So the standings compare all cells soon; then the cells are finished in order."""
    ran, ledger, _ = drive(home, ("mlp", "svd", "linear"))
    order = [ledger.trials[trial_id].trial.cell.adapter for trial_id in ran]
    each = BUDGET.trials + BUDGET.seeds
    assert order == ["mlp", "svd", "linear"] + ["mlp"] * (each - 1) + ["svd"] * (each - 1) + ["linear"] * (each - 1)
    assert [ledger.trials[trial_id].number for trial_id in ran[:3]] == [0, 0, 0]


def test_a_resumed_bench_and_one_without_a_search_begin_with_cells_that_have_no_trial(home):
    quick = replace(BUDGET, trials=0)
    drive(home, ("svd", "linear"), limit=1, budget=quick)
    ran, ledger, _ = drive(home, ("svd", "linear", "mlp"), budget=quick)
    found = [(ledger.trials[trial_id].trial.cell.adapter, ledger.trials[trial_id].trial.seed) for trial_id in ran]
    assert found == [("linear", 1), ("mlp", 1), ("svd", 2), ("linear", 2), ("mlp", 2)]


def test_a_cell_left_for_the_first_trials_of_others_is_free_for_another_process(home):
    """A bench would otherwise hold every cell of a shared home from its first minute on."""

    class Kept(NoOtherBenches):
        def __init__(self):
            self.held = set()

        def take(self, key):
            self.held.add(key)
            return True

        def release(self, key):
            self.held.discard(key)

    ledger = Ledger.open(home)
    made = [study(ledger, a) for a in ("mlp", "svd", "linear")]
    others = Kept()
    grid = TrialQueue(made, Segment(home), lambda event: None, others)
    for left in (made[:1], made[:2], made[:2]):  # once all have begun, a cell in progress is kept
        found = grid.next()
        grid.ended(found.trial.id, TrialResult("done", best=0.1, curve=[0.1]))
        assert not others.held & {each.id for each in left}
    grid.next()
    assert made[0].id in others.held


def rising(trial):
    """A curve that is fixed by the trial, and whose end its beginning foretells."""
    top = random.Random(trial.id).random()
    return [round(top * (epoch + 1) / 10, 6) for epoch in range(10)]


def drive_pruned(home, engine, budget, limit=10**9, adapter="mlp", fixed=None):
    """Run one search with its pruner; returns its history: number -> id, status and number of epochs."""
    ledger, segment, ran = Ledger.open(home), Segment(home), 0
    grid = TrialQueue([study(ledger, adapter, engine, budget, fixed)], segment, lambda event: None)
    while ran < limit and (found := grid.next()) is not None:
        curve, result = rising(found.trial), None
        for epoch, value in enumerate(curve):
            if grid.epoch(found.trial.id, epoch, value):
                result = TrialResult("pruned", best=value, curve=curve[: epoch + 1])
                break
        grid.ended(found.trial.id, result or TrialResult("done", best=curve[-1], curve=curve))
        ran += 1
    segment.close()
    history = study(Ledger.open(home), adapter, engine, budget, fixed).history()
    return {number: (i, result.status, len(result.curve)) for number, (i, result) in history.items()}


@pytest.mark.parametrize("sampler", ["random", "gp"])
def test_a_search_that_reuses_a_trial_is_the_same_whether_interrupted_or_not(tmp_path, sampler):
    """The default point was trained by another search of the home: the pruner must know its curve."""
    engine, budget = Engine(sampler, "median"), replace(BUDGET, trials=10)
    found = []
    for limits in ((10**9,), (3, 10**9)):
        home = tmp_path / str(len(limits))
        drive_pruned(home, engine, replace(BUDGET, trials=4))
        for limit in limits:
            history = drive_pruned(home, replace(engine, search_seed=1), budget, limit)
        found.append(history)
    assert found[0] == found[1]
    assert "pruned" in {status for _, status, _ in found[0].values()}


def test_what_another_pruner_stopped_is_trained_by_a_search_without_one(tmp_path):
    """Few points, so that two searches draw the same ones; interrupted, it still trains them itself, and once."""
    small = {"adapter": "id[init_std=0.02]", "fixed": {"train.lr": 0.003, "train.weight_decay": 0.0}}
    budget = replace(BUDGET, trials=12)
    alone = drive_pruned(tmp_path / "alone", Engine("random", "none"), budget, **small)
    pruning = Engine("random", "median", search_seed=4)
    cut = drive_pruned(tmp_path / "both", pruning, budget, **small)
    stopped = {i for i, status, _ in cut.values() if status == "pruned"}
    assert stopped & {i for i, *_ in alone.values()}, "both searches draw it"
    for limit in (2, 3, 10**9):
        history = drive_pruned(tmp_path / "both", Engine("random", "none"), budget, limit, **small)
    assert {status for _, status, _ in history.values()} == {"done"}
    ledger = Ledger.open(tmp_path / "both")
    whole = Ledger.open(tmp_path / "alone")
    params = lambda read, found: [read.trials[i].trial.params for i, *_ in found.values()]  # noqa: E731
    assert params(ledger, history) == params(whole, alone)
    lines = [line for file in (tmp_path / "both" / "ledger").iterdir() for line in file.read_text().splitlines()]
    ends = Counter(json.loads(line)["id"] for line in lines if line.startswith('{"kind":"ended"'))
    assert set(ends.values()) == {1}, "each is trained once"
    assert drive_pruned(tmp_path / "both", pruning, budget, **small) == cut, "nothing changed there"
    winner = study(ledger, small["adapter"], Engine("random", "none"), budget, small["fixed"]).winner()
    assert not winner.confirmations(1)[0].study, "the test of a configuration does not depend on who searched"


def test_a_configuration_drawn_twice_that_another_pruner_stopped_is_trained_once_at_a_time(home):
    budget = replace(BUDGET, trials=40)
    for pruner in ("median", "none"):
        ledger, segment, fly, ran = Ledger.open(home), Segment(home), [], []
        fixed = {"train.lr": 1e-3, "train.weight_decay": 0.0}
        made = study(ledger, "id[init_std=0.02]", Engine("random", pruner), budget, fixed)
        queue = TrialQueue([made], segment, lambda event: None)
        while True:
            while len(fly) < 4 and (found := queue.next()) is not None:
                assert found.trial.id not in {one.trial.id for one in fly}
                fly.append(found)
            if not fly:
                break
            trial = fly.pop(0).trial
            ran.append(trial)
            stopped = pruner == "median" and trial.role == "search" and len(ran) > 1
            queue.ended(trial.id, TrialResult("pruned" if stopped else "done", best=0.3, curve=[0.3]))
        assert queue.over
        segment.close()
    again = [trial.id for trial in ran if trial.study]
    assert again, "what the first bench's pruner stopped"
    assert len(again) == len({*again})


def voided(home, ledger, trial_id):
    """Withdraw a run, as another process does that finds its ranks lost."""
    segment = Segment(home)
    ledger.take(segment.run, events.voided(segment, trial_id, "ranks.parquet is missing", ledger.trials[trial_id].run))
    segment.close()


def test_a_confirmation_that_another_process_withdraws_is_repeated_while_its_cell_is_open(home):
    ledger, segment, ran = Ledger.open(home), Segment(home), []
    queue = TrialQueue([study(ledger, budget=replace(BUDGET, trials=1, seeds=2))], segment, lambda event: None)
    while (found := queue.next()) is not None:
        ran.append((found.trial.role, found.trial.seed))
        queue.ended(found.trial.id, TrialResult("done", best=0.5, curve=[0.5]))
        if ran[-1] == ("confirm", 1) and ran.count(("confirm", 1)) == 1:
            voided(home, ledger, found.trial.id)
    segment.close()
    assert queue.over
    assert sorted(ran) == [("confirm", 1), ("confirm", 1), ("confirm", 2), ("search", 0)]


def test_a_bench_ends_though_a_run_of_a_closed_cell_is_withdrawn_meanwhile(home):
    ledger, segment = Ledger.open(home), Segment(home)
    made = [study(ledger, name, budget=replace(BUDGET, trials=1, seeds=1)) for name in ("mlp", "linear")]
    queue, of_mlp = TrialQueue(made, segment, lambda event: None), []
    while (found := queue.next()) is not None:
        queue.ended(found.trial.id, TrialResult("done", best=0.5, curve=[0.5]))
        if found.trial.role == "confirm" and found.trial.cell.adapter == "mlp":
            of_mlp.append(found.trial.id)
        elif found.trial.role == "confirm":
            voided(home, ledger, of_mlp[0])
    segment.close()
    assert queue.over
    assert Ledger.open(home).result(of_mlp[0]) is None, "the next bench repeats it"


def test_a_search_without_pruner_that_was_killed_goes_on_although_another_ones_pruner_draws_its_trial(tmp_path):
    """Both begin with the default point, which the pruner of the second would stop."""
    engine, stopping = Engine("random", "none"), Engine("random", "halving")
    budget = replace(BUDGET, trials=2)
    begun = TrialQueue([study(Ledger.open(tmp_path), engine=engine, budget=budget)], Segment(tmp_path), lambda _: None)
    first = begun.next().trial.id
    ledger, segment = Ledger.open(tmp_path), Segment(tmp_path)
    other = TrialQueue([study(ledger, engine=stopping, budget=budget)], segment, lambda event: None)
    theirs = other.next().trial
    assert (theirs.id != first, theirs.params) == (True, ledger.trials[first].trial.params)
    other.ended(theirs.id, TrialResult("pruned", best=0.1, curve=[0.1]))
    segment.close()
    history = drive_pruned(tmp_path, engine, budget)
    assert history[0][:2] == (first, "done")


def test_a_confirmation_that_was_interrupted_goes_on_under_its_id(tmp_path):
    engine, budget = Engine("random", "median"), replace(BUDGET, trials=2)
    drive_pruned(tmp_path, engine, budget, limit=2)
    begun = TrialQueue([study(Ledger.open(tmp_path), engine=engine, budget=budget)], Segment(tmp_path), lambda _: None)
    first = begun.next().trial
    again = TrialQueue([study(Ledger.open(tmp_path), engine=engine, budget=budget)], Segment(tmp_path), lambda _: None)
    assert first.role == "confirm"
    assert again.next().trial == first


def test_a_confirmation_that_another_process_ended_before_this_one_took_it_counts(home):
    ledger, kinds, due = Ledger.open(home), [], []
    made, elsewhere = study(ledger), Segment(home)

    class Faster(NoOtherBenches):
        def take(self, key):
            if due and key == due[0].id:
                trial = due.pop()
                ledger.take(elsewhere.run, events.started(elsewhere, trial, "", 0))
                ledger.take(
                    elsewhere.run, events.ended(elsewhere, trial.id, TrialResult("done", best=0.9, curve=[0.9]))
                )
            return True

    grid = TrialQueue([made], Segment(home), lambda event: kinds.append(event.kind), Faster())
    while (found := grid.next()) is not None:
        grid.ended(found.trial.id, TrialResult("done", best=objective(found.trial), curve=[objective(found.trial)]))
        if kinds.count("ended") == BUDGET.trials:
            due.append(made.confirmations(made.winner())[0])
    assert made.state == "done"
    assert (kinds.count("reused"), kinds.count("ended")) == (1, BUDGET.trials + BUDGET.seeds - 1)


def test_trial_zero_is_the_default_point(home):
    ran, ledger, [done] = drive(home, limit=1)
    assert ledger.trials[ran[0]].trial.params == done.space.default


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
@pytest.mark.parametrize("stops", [[1], [3, 1], [2, 2, 2]])
def test_an_interrupted_search_is_the_undisturbed_one(home, tmp_path, sampler, stops):
    engine = Engine(sampler, "none")
    whole, _, _ = drive(tmp_path / "undisturbed", ("mlp", "svd"), engine=engine)
    parts = []
    for stop in [*stops, 10**9]:
        parts += drive(home, ("mlp", "svd"), limit=stop, engine=engine)[0]
    assert sorted(parts) == sorted(whole)


def test_a_trial_in_flight_when_the_process_died_is_run_again_with_its_parameters(home):
    ledger, segment = Ledger.open(home), Segment(home)
    grid = TrialQueue([study(ledger)], segment, lambda event: None)
    flying = [grid.next().trial.id for _ in range(3)]
    grid.ended(flying[1], TrialResult("done", best=0.5, curve=[0.5]))
    segment.close()
    ran, after, [done] = drive(home)
    assert flying[1] not in ran
    assert {flying[0], flying[2]} <= set(ran)
    assert len(done.history()) == BUDGET.trials
    assert all(entry.result for entry in after.trials.values())


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
def test_a_grown_search_is_the_longer_search(home, tmp_path, sampler):
    engine, longer = Engine(sampler, "none"), replace(BUDGET, trials=9)
    whole, _, _ = drive(tmp_path / "whole", engine=engine, budget=longer)
    first, _, _ = drive(home, engine=engine)
    second, _, [done] = drive(home, engine=engine, budget=longer)
    assert set(whole[:9]) == set(first[:5]) | set(second[:4])
    assert not set(first) & set(second)
    assert done.state == "done"


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])  # gp: 2 s a draw on a busy machine
def test_a_parameter_whose_condition_does_not_hold_stays_at_its_default(home, sampler):
    ran, ledger, _ = drive(
        home, engine=Engine(sampler, "none"), budget=replace(BUDGET, trials=40), fixed={"train.weight_decay": 0.0}
    )
    found = [ledger.trials[i].trial.params for i in ran[:40]]
    off = {p["text.id_std"] for p in found if p["text.fusion"] == "none"}
    on = {p["text.id_std"] for p in found if p["text.fusion"] != "none"}
    assert off == {spaces.TEXT_DEFAULTS["id_std"]}
    assert len(on) >= 5


def test_a_cell_with_nothing_to_search_runs_one_trial(home):
    searched = study(Ledger.open(home))
    fixed = replace(searched, space=spaces.Space(searched.space.default, {}, searched.space.default))
    assert (searched.trials, fixed.trials) == (BUDGET.trials, 1)


def test_a_backbone_that_trains_a_share_of_the_positions_gets_more_epochs(home, monkeypatch):
    read = registry.schema
    slow = replace(read(registry.BACKBONES, "sasrec"), attributes={"pace": 2})
    plain = study(Ledger.open(home)).trial("search", 0, {})
    monkeypatch.setattr(registry, "schema", lambda package, name: slow if name == "sasrec" else read(package, name))
    made = study(Ledger.open(home)).trial("search", 0, {})
    assert (plain.epochs, plain.patience) == (BUDGET.epochs, BUDGET.patience)
    assert (made.epochs, made.patience) == (2 * BUDGET.epochs, 2 * BUDGET.patience)


def test_more_seeds_run_only_the_difference(home):
    drive(home)
    ran, ledger, _ = drive(home, budget=replace(BUDGET, seeds=4))
    assert [ledger.trials[i].trial.seed for i in ran] == [3, 4]


def test_an_added_cell_runs_only_itself(home):
    drive(home)
    ran, ledger, _ = drive(home, ("mlp", "svd"))
    assert {ledger.trials[i].trial.cell.adapter for i in ran} == {"svd"}


def test_a_search_whose_trials_all_fail_is_failed_and_has_no_winner(home):
    _, _, [done] = drive(home, outcome=lambda t: TrialResult("failed", reason="loss is not finite"))
    assert (done.state, done.winner()) == ("failed", None)


def test_failed_and_pruned_trials_never_win(home):
    def outcome(trial):
        bad = trial.role == "search" and trial.params["train.lr"] != 0.003
        return TrialResult("failed" if bad else "done", best=9.0 if bad else 0.1, curve=[0.1])

    _, _, [done] = drive(home, outcome=outcome)
    assert done.winner().params == done.space.default


def test_a_configuration_drawn_twice_is_run_once(home):
    pins = {"train.lr": 0.003, "train.weight_decay": 0.0}
    budget, small = replace(BUDGET, trials=40), "id[init_std=0.02]"
    searched = study(Ledger(), small, budget=budget, fixed=pins).space.searched
    points = 1
    for axis in searched.values():
        points *= len(axis.values) if isinstance(axis, axes.Choices) else int(axis.high - axis.low) + 1
    assert 1 < points < 40, "more draws than points, so that some must repeat"
    outcome = lambda t: TrialResult("done", best=0.1)  # noqa: E731
    ran, _, [done] = drive(home, (small,), budget=budget, fixed=pins, outcome=outcome)
    assert len(ran) == len(set(ran)) <= points + budget.seeds
    assert done.state == "done"
    assert len(done.history()) == 40


def test_the_pruner_stops_the_worse_half_after_the_grace(home):
    ledger, segment = Ledger.open(home), Segment(home)
    grid = TrialQueue([study(ledger, engine=Engine("random", "median"))], segment, lambda event: None)
    for value in (0.5, 0.6):
        found = grid.next()
        for epoch in range(10):
            assert not grid.epoch(found.trial.id, epoch, value)
        grid.ended(found.trial.id, TrialResult("done", best=value, curve=[value] * 10))
    bad = grid.next()
    verdicts = [grid.epoch(bad.trial.id, epoch, 0.1) for epoch in range(10)]
    assert verdicts.index(True) == 3, "the first 30 % of the epochs are grace"
    better = grid.next()
    assert not any(grid.epoch(better.trial.id, epoch, 0.9) for epoch in range(10))


def test_cells_follow_one_another_and_no_slot_waits(home):
    ledger = Ledger.open(home)
    grid = TrialQueue([study(ledger, a) for a in ("mlp", "svd", "linear")], Segment(home), lambda event: None)
    flying = [grid.next() for _ in range(4)]
    assert [f.trial.cell.adapter for f in flying] == ["mlp", "svd", "linear", "mlp"]


@pytest.mark.parametrize("seed", range(6))
def test_the_next_trial_is_of_the_first_cell_with_the_fewest_running_ones(home, seed):
    """Slots free in any order. After every start, no cell that could have started one ranks before the chosen one."""
    draw, ledger = random.Random(seed), Ledger.open(home)
    made = [study(ledger, a) for a in ("mlp", "svd", "linear", "id", "svd_whiten", "pca", "llminit")]
    queue, running, begun = TrialQueue(made, Segment(home), lambda event: None), [], set()
    slots, started = draw.choice([2, 5, 12, 60]), 0  # 60: all trials of every search run at once
    while not queue.over:
        flying = Counter(found.study.id for found in running)
        found = queue.next() if len(running) < slots else None
        if found is None:
            assert len(running) == slots or not any(could_start(s, flying[s.id]) for s in made), "a slot waits"
            ended = running.pop(draw.randrange(len(running)))
            value = objective(ended.trial)
            queue.ended(ended.trial.id, TrialResult("done", best=value, curve=[value]))
            continue
        could = [s for s in made if s.id == found.study.id or could_start(s, flying[s.id])]
        rank = {s.id: (s.id in begun, flying[s.id], place) for place, s in enumerate(made)}
        assert rank[found.study.id] == min(rank[s.id] for s in could)
        begun.add(found.study.id)
        running.append(found)
        started += 1
    assert started == len(made) * (BUDGET.trials + BUDGET.seeds), "nothing is left, nothing runs twice"


def could_start(made, flying):
    """Whether a cell has a search trial left or, after its search, a confirmation that does not run."""
    history = made.history()
    if len(history) < BUDGET.trials:
        return True
    return all(result is not None for _, result in history.values()) and made.to_run() > flying


def test_a_baseline_has_one_deterministic_run(home):
    ledger = Ledger.open(home)
    cell = Cell("toy", "none", BASELINE, "popularity")
    base = plan.Study(cell, spaces.Space({}, {}, {}), BUDGET, Protocol(), Engine(), Inputs(data="x"), ledger)
    grid = TrialQueue([base], Segment(home), lambda event: None)
    found = grid.next()
    assert (found.trial.role, found.trial.seed) == ("confirm", 0)
    assert grid.next() is None
    grid.ended(found.trial.id, TrialResult("done", best=0.1))
    assert grid.over
    assert base.state == "done"


def test_the_decision_is_an_event(home):
    drive(home)
    lines = [json.loads(x) for f in (home / "ledger").glob("*") for x in f.read_text().splitlines()]
    decided = [event for event in lines if event["kind"] == "decided"]
    assert [event["trials"] for event in decided] == [5]


@pytest.mark.parametrize(("sampler", "trials"), [("gp", 9), ("cmaes", 30)])
def test_an_interrupted_search_with_a_model_is_the_undisturbed_one(home, tmp_path, sampler, trials):
    engine, longer = Engine(sampler, "none"), replace(BUDGET, trials=trials)
    whole, _, _ = drive(tmp_path / "undisturbed", engine=engine, budget=longer)
    parts = [i for stop in (3, 5, 99) for i in drive(home, limit=stop, engine=engine, budget=longer)[0]]
    assert parts == whole


def test_what_a_sampler_cannot_model_is_named(home):
    space = study(Ledger.open(home)).space
    for sampler in SAMPLERS:
        left = plan.at_random(space, sampler)
        assert ("text.id_std" in left) == (sampler in ("gp", "cmaes")), "a conditional parameter"
        assert ("text.fusion" in left) == (sampler == "cmaes"), "a choice"
        assert "train.lr" not in left


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 30), ("gp", 12), ("cmaes", 60)])
def test_a_model_draws_better_points_the_longer_it_searches(home, sampler, trials):
    def outcome(trial):
        return TrialResult("done", best=-abs(math.log(trial.params["train.lr"] / 0.008)))

    budget, pins = replace(BUDGET, trials=trials), {"train.weight_decay": 0.0}
    ran, ledger, _ = drive(
        home, ("id[init_std=0.02]",), engine=Engine(sampler, "none"), budget=budget, outcome=outcome, fixed=pins
    )
    found = [ledger.trials[i].result.best for i in ran[1:trials]]
    third = len(found) // 3
    assert sum(found[-third:]) / third > sum(found[:third]) / third + 0.1


def test_a_gaussian_process_learns_from_pruned_trials(home, tmp_path):
    """All but the default point are pruned, as with an optimistic default and a strict pruner."""

    def outcome(trial):
        value = math.exp(-abs(math.log(trial.params["train.lr"] / 0.008)))
        if trial.params["train.lr"] == spaces.TRAIN_DEFAULTS["lr"]:
            return TrialResult("done", "", value, 1, [value / 2, value])
        return TrialResult("pruned", "", value / 2, 0, [value / 2])

    options = {
        "engine": Engine("gp", "none"),
        "budget": replace(BUDGET, trials=12),
        "outcome": outcome,
        "fixed": {"train.weight_decay": 0.0},
    }
    ran, ledger, _ = drive(home, ("id[init_std=0.02]",), **options)
    best = [ledger.trials[i].result.best for i in ran[1:12]]
    assert min(best[-3:]) > sum(best[:5]) / 5
    parts = [i for stop in (7, 2, 99) for i in drive(tmp_path / "b", ("id[init_std=0.02]",), stop, **options)[0]]
    assert parts == ran


def test_a_pruned_trial_counts_as_what_finished_ones_reached_from_its_epoch_on():
    def ended(values, **state):
        return create_trial(intermediate_values=dict(enumerate(values)), **state)

    done = [ended([0.1, 0.2, 0.4], value=0.4), ended([0.3, 0.2, 0.2], value=0.3)]
    early, late = (ended(values, state=TrialState.PRUNED) for values in ([0.05], [0.05, 0.15]))
    assert samplers._expected(early, done) == pytest.approx(0.05 * (0.4 + 0.3) / (0.1 + 0.3))
    assert samplers._expected(late, done) == pytest.approx(0.15 * (0.4 + 0.3) / (0.2 + 0.3))
    assert samplers._expected(late, []) == 0.15
    assert samplers._expected(late, [ended([0.0, 0.0], value=0.0), create_trial(value=0.3)]) == 0.15


def users_of(value, epoch=9):
    """What forty users score in a trial of that value: one in four nothing, the others about as much."""
    return [round(10_000 * value * (u % 4 > 0) * (0.9 + 0.2 * ((7 * u + epoch) % 11) / 11)) for u in range(40)]


def halving(home, pruner, limit, values):
    """Trials of ten epochs at constant values through a real Grid, a new process each `limit`; epochs each had."""
    lengths, budget = [], replace(BUDGET, trials=len(values))
    while len(lengths) < len(values):
        ledger, segment = Ledger.open(home), Segment(home)
        grid = TrialQueue([study(ledger, engine=Engine("random", pruner), budget=budget)], segment, lambda event: None)
        for _ in range(min(limit, len(values) - len(lengths))):
            found, value, epoch = grid.next(), values[len(lengths)], 0
            while not grid.epoch(found.trial.id, epoch, value, users_of(value, epoch)) and epoch < 9:
                epoch += 1
            status = "done" if epoch == 9 else "pruned"
            grid.ended(found.trial.id, TrialResult(status, best=value, curve=[value] * (epoch + 1)))
            lengths.append(epoch + 1)
        segment.close()
    return lengths


def test_wilcoxon_stops_what_is_worse_for_its_users_after_the_grace_and_nothing_else(home):
    ledger, segment = Ledger.open(home), Segment(home)
    budget = replace(BUDGET, trials=8)
    grid = TrialQueue([study(ledger, engine=Engine("random", "wilcoxon"), budget=budget)], segment, lambda event: None)

    def run(scores, best=0.5, status="done"):
        """Epochs of a trial whose users have those scores in every epoch; 10 where it is not stopped."""
        found = grid.next()
        verdicts = [grid.epoch(found.trial.id, epoch, best, scores) for epoch in range(10)]
        length = verdicts.index(True) + 1 if True in verdicts else 10
        grid.ended(found.trial.id, TrialResult(status, best=best, curve=[best] * length))
        return length

    good, few = users_of(0.5), users_of(0.5)
    few[1] = 0
    assert run(users_of(0.2)) == 10, "there is nothing to compare the first with"
    assert run(good, best=0.6) == 10
    assert run(good) == 10, "an equal one"
    assert run(few) == 10, "one user of forty is no evidence"
    assert run(users_of(0.4), status="pruned") == 4, "30 % of ten epochs are grace, whatever the mean says"
    assert run([]) == 10, "of which nothing is told"
    assert run(good[::-1]) == 10, "worse for some, better for others"


def test_wilcoxon_compares_with_the_same_epoch_of_the_best(home):
    """A slow starter that is ahead of the best one's own start goes on."""
    grid = TrialQueue(
        [study(Ledger.open(home), engine=Engine("random", "wilcoxon"))], Segment(home), lambda event: None
    )
    for lead in (0.0, 0.02):
        found = grid.next()
        for epoch in range(10):
            value = 0.05 * epoch + lead
            assert not grid.epoch(found.trial.id, epoch, value, users_of(value))
        grid.ended(found.trial.id, TrialResult("done", best=0.5, curve=[0.5] * 10))


VALUES = [0.5, 0.6, 0.1, 0.7, 0.2, 0.3, 0.8, 0.4, 0.65, 0.15, 0.9, 0.05]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_no_pruner_stops_a_trial_in_the_grace_and_all_but_none_stop_bad_ones(home, pruner):
    lengths = halving(home, pruner, 99, VALUES)
    assert min(lengths) > 3, "30 % of ten epochs"
    assert lengths[10] == 10, "the best of all goes to the end"
    assert (sum(lengths) < 120) == (pruner != "none")


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_pruner_that_was_interrupted_stops_what_it_would_have_stopped(home, tmp_path, pruner):
    assert halving(home, pruner, 2, VALUES) == halving(tmp_path / "undisturbed", pruner, 99, VALUES)


def test_a_grid_is_searched_whole_and_ends_early(home):
    pins = {"train.lr": 0.003, "train.weight_decay": 0.0}
    budget, small, engine = replace(BUDGET, trials=99), "id[init_std=0.02]", Engine("grid", "none")
    ran, ledger, [done] = drive(home, (small,), engine=engine, budget=budget, fixed=pins)
    searched = done.space.searched
    assert done.trials == done.max_trials < 99
    found = {json.dumps(ledger.trials[i].trial.params, sort_keys=True) for i in ran[: done.trials]}
    assert len(found) == done.trials, "no point twice"
    tried = {name: {ledger.trials[i].trial.params[name] for i in ran} for name in searched}
    assert all(set(grids.values(axis)) <= tried[name] for name, axis in searched.items())
    assert done.state == "done"
    assert done.record().allowed == 99


def ledger_role(home, trial_id):
    return Ledger.open(home).trials[trial_id].trial.role


def spending(seconds):
    return lambda trial: TrialResult("done", best=objective(trial), info={"seconds": seconds})


def test_a_cell_stops_drawing_once_its_seconds_are_spent(home):
    budget = replace(BUDGET, trials=50, cell_seconds=10.0)
    ran, _, [done] = drive(home, budget=budget, outcome=spending(3.0))
    assert len(ran) == 4 + BUDGET.seeds, "3, 6, 9, 12 seconds: the fourth trial began before ten were spent"
    assert (done.state, done.trials) == ("done", 4)


def test_seconds_add_up_over_an_interruption_and_more_of_them_go_on(home):
    budget = replace(BUDGET, trials=50, cell_seconds=10.0)
    parts = [len(drive(home, budget=budget, outcome=spending(3.0), limit=n)[0]) for n in (1, 2, 99)]
    assert parts == [1, 2, 1 + BUDGET.seeds]
    more, _, [done] = drive(home, budget=replace(budget, cell_seconds=15.0), outcome=spending(3.0))
    assert done.trials == 5
    assert [i for i in more if ledger_role(home, i) == "search"] == more[:1], "one more trial of the search"
    assert study(Ledger.open(home), budget=budget).trials == 4, "the shorter search is still there"


def test_a_failed_trial_spends_what_it_trained(home):
    budget = replace(BUDGET, trials=50, cell_seconds=10.0)
    failed = lambda t: TrialResult("failed", reason="loss is not finite", info={"seconds": 4.0})  # noqa: E731
    ran, _, [done] = drive(home, budget=budget, outcome=failed)
    assert (len(ran), done.state) == (3, "failed")


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random", "grid"])
def test_another_search_seed_draws_other_configurations_and_shares_the_default(home, sampler):
    fixed = {"backbone.n_blocks": 1, "text.fusion": "none"} if sampler == "grid" else None
    engine = Engine(sampler, "none")
    ran, _, [first] = drive(home, engine=engine, fixed=fixed)
    again, ledger, [second] = drive(home, engine=replace(engine, search_seed=1), fixed=fixed)
    assert replace(engine, search_seed=0).identity() == {"sampler": sampler, "pruner": "none"}, "as before the option"
    assert first.id != second.id
    assert ran[0] not in again, "the default is trained"
    draws = [[ledger.trials[i].trial.params for i, _ in study.history().values()] for study in (first, second)]
    assert draws[0][0] == draws[1][0] == first.space.default
    assert all(params not in draws[0] for params in draws[1][1:]) or sampler == "grid"
    assert draws[0] != draws[1]


def elsewhere(ledger, dataset="other", **changes):
    """The same cell on another data set, warm-started from 'toy'."""
    made = study(ledger)
    cell = replace(made.cell, dataset=dataset)
    starts = warm_start.starts(ledger, cell, made.space, "toy")
    return replace(
        made, cell=cell, inputs=Inputs(data="y"), starts=starts, engine=replace(made.engine, warm_start="toy")
    )


def launched(home, made):
    segment = Segment(home)
    segment.append("launched", schema=1, studies=[made.record().to_json()], skipped=[])
    segment.close()


def test_a_warm_start_tries_the_best_configurations_of_the_other_search_after_the_default(home):
    _, ledger, [source] = drive(home)
    launched(home, source)
    made = elsewhere(Ledger.open(home))
    grid = TrialQueue([made], Segment(home), lambda event: None)
    first = [grid.next().trial.params for _ in range(5)]
    searched = [ledger.trials[i].trial for i, _ in source.history().values()]
    ranked = sorted(searched[1:], key=objective, reverse=True)
    assert first[0] == source.space.default
    wanted = [t.params for t in sorted(searched, key=objective, reverse=True) if t.params != source.space.default]
    assert first[1:4] == wanted[: warm_start.POINTS] == [t.params for t in ranked][: warm_start.POINTS]
    assert made.record().warm == 3


def test_a_warm_start_is_another_study_by_what_it_starts_with_alone(home):
    launched(home, drive(home)[2][0])
    ledger = Ledger.open(home)
    made = elsewhere(ledger)
    cold = replace(made, starts=(), engine=study(ledger).engine)
    assert made.id != cold.id
    assert replace(made, starts=()).id == cold.id, "nothing found: the search is the cold one"
    assert elsewhere(ledger, dataset="toy").starts == (), "not from itself"


def test_a_warm_start_leaves_out_what_lies_outside_of_the_new_space(home):
    launched(home, drive(home)[2][0])
    space = study(Ledger()).space
    narrow = replace(space, searched=space.searched | {"train.lr": axes.Range(0.0029, 0.0031)})
    cell = replace(study(Ledger()).cell, dataset="other")
    found = warm_start.starts(Ledger.open(home), cell, narrow, "toy")
    assert all(0.0029 <= params["train.lr"] <= 0.0031 for params in found)
    assert len(found) < warm_start.POINTS


def launched_with(home, *studies, **changes):
    """Record studies as a launch under this protocol and preparation."""
    options = {"protocol": Protocol().identity(), "prep": PrepSpec().identity(), "engine": {}} | changes
    segment = Segment(home)
    segment.append("launched", schema=1, studies=[one.record().to_json() for one in studies], skipped=[], **options)
    segment.close()


def low_rates(trial):
    """An outcome whose best configurations are not the default."""
    value = 1 / (1 + 100 * trial.params["train.lr"])
    return TrialResult("done", best=value, curve=[value])


def shared(home, adapter, protocol=None, data="x"):
    made = study(Ledger.open(home), adapter)
    arguments = (made.cell, made.space, protocol or Protocol(), PrepSpec(), data)
    return made, warm_start.shared_starts(made.ledger, *arguments)


def test_a_shared_start_has_the_rows_best_configuration_and_the_shared_parameters_of_the_best_other_rows(home):
    made = drive(home, ("mlp", "svd", "linear"), outcome=low_rates)[2]
    launched_with(home, *made)
    mlp, starts = shared(home, "mlp")
    ledger = mlp.ledger
    rate = lambda trial: -trial.params["train.lr"]  # noqa: E731
    best = {s.cell.adapter: max((ledger.trials[i].trial for i, _ in s.history().values()), key=rate) for s in made}
    assert starts[0] == best["mlp"].params
    others = sorted((best[name] for name in ("svd", "linear")), key=rate, reverse=True)
    for point, donor in zip(starts[1:], others, strict=True):
        for name, value in point.items():
            own = name.startswith("adapter.") or name not in donor.params
            assert value == (mlp.space.default[name] if own else donor.params[name]), name
    assert starts[1]["train.lr"] != mlp.space.default["train.lr"]


def test_a_shared_start_takes_nothing_from_other_data_or_protocols_or_from_a_shared_start(home):
    launched_with(home, *drive(home, ("mlp", "svd"), outcome=low_rates)[2])
    found = shared(home, "mlp")[1]
    assert len(found) == 2
    assert shared(home, "mlp", Protocol(filter_seen=False))[1] == ()
    assert shared(home, "mlp", data="y")[1] == ()
    again = [replace(study(Ledger.open(home), name), starts=found[1:]) for name in ("linear",)]
    launched_with(home, *drive(home, ("linear",), outcome=low_rates)[2], *again, engine={"warm_start": "shared"})
    assert shared(home, "mlp")[1] == found, "a launch that started so gives nothing: the next one finds the same"
    launched_with(home, *drive(home, ("linear",), outcome=low_rates)[2], prep=PrepSpec(kcore=3).identity())
    assert shared(home, "mlp")[1] == found
    launched_with(home, *drive(home, ("linear",), outcome=low_rates)[2])
    assert len(shared(home, "mlp")[1]) == 3


def test_a_warm_start_from_nowhere_is_one_clear_line(home):
    launched(home, drive(home)[2][0])
    with pytest.raises(
        HarnessError, match=r"--warm-start toi: there is no search on this data set. Did you mean 'toy'"
    ):
        warm_start.check(Ledger.open(home), "toi", 5)
    warm_start.check(Ledger.open(home), "shared", 5)
    with pytest.raises(HarnessError, match=r"--warm-start shared: .* This home has no searches yet"):
        warm_start.check(Ledger(), "shared", 5)


@pytest.mark.parametrize(
    ("engine", "message"),
    [(Engine("tpee"), "no sampler 'tpee'. Did you mean 'tpe'"), (Engine(pruner="x"), "no pruner 'x'")],
)
def test_unknown_sampler_or_pruner_is_one_clear_line(engine, message):
    with pytest.raises(HarnessError, match=message):
        TrialQueue([study(Ledger(), engine=engine)], Segment, lambda event: None)


def test_without_a_search_the_default_configuration_is_confirmed_over_the_seeds(home):
    none = replace(BUDGET, trials=0)
    ran, ledger, [done] = drive(home, budget=none)
    confirmed = [ledger.trials[i].trial for i in ran]
    assert [(t.role, t.seed) for t in confirmed] == [("confirm", 1), ("confirm", 2)]
    assert all(t.params == done.space.default for t in confirmed)
    assert (done.state, done.to_run()) == ("done", 0)
    assert list(done.record().confirm) == ran
    assert drive(home, budget=none)[0] == [], "nothing is left to run"


def test_a_search_begun_later_keeps_the_confirmed_defaults_if_they_win(home):
    drive(home, budget=replace(BUDGET, trials=0))
    first = lambda t: TrialResult("done", best=1.0 if t.params["train.lr"] == 0.003 else 0.1, curve=[0.1])  # noqa: E731
    ran, ledger, [done] = drive(home, budget=replace(BUDGET, trials=3), outcome=first)
    assert [ledger.trials[i].trial.role for i in ran] == ["search"] * 3
    assert (done.winner().params, done.state) == (done.space.default, "done")


def test_a_failed_default_fails_a_cell_without_a_search(home):
    ran, _, [done] = drive(home, budget=replace(BUDGET, trials=0), outcome=lambda t: TrialResult("failed", "no"))
    assert (len(ran), done.state) == (2, "failed")


def test_a_search_under_another_name_is_confirmed_under_its_own(home):
    """A data set that was renamed has the same trials: what is still to run belongs to the new cell."""
    _, ledger, [first] = drive(home, budget=replace(BUDGET, seeds=1))
    renamed = replace(study(ledger), cell=replace(first.cell, dataset="renamed"))
    assert renamed.id == first.id
    queue = TrialQueue([renamed], Segment(home), lambda event: None)
    found = queue.next()
    assert found is not None
    assert (found.trial.role, found.trial.seed, found.trial.cell) == ("confirm", 2, renamed.cell)
    assert queue.next() is None, "seed 1 is there"


def test_trials_of_a_search_run_one_after_another_where_that_is_asked(home):
    ledger = Ledger.open(home)
    queue = TrialQueue([study(ledger)], Segment(home), lambda event: None, together=1)
    for _ in range(BUDGET.trials):
        found = queue.next()
        assert found is not None
        assert queue.next() is None, "another one would be drawn without this one's result"
        queue.ended(found.trial.id, TrialResult("done", best=objective(found.trial), curve=[objective(found.trial)]))
    assert {queue.next().trial.seed, queue.next().trial.seed} == {1, 2}, "confirmations draw nothing"
    assert repeated_search.together(study(ledger).id, Ledger.open(home)) == 1


def test_the_trials_that_ran_at_the_same_time_are_counted(home):
    ledger = Ledger.open(home)
    queue = TrialQueue([study(ledger)], Segment(home), lambda event: None)
    running = [queue.next() for _ in range(3)]
    for one in running:
        queue.ended(one.trial.id, TrialResult("done", best=0.1, curve=[0.1]))
    assert repeated_search.together(study(ledger).id, Ledger.open(home)) == 3
    assert repeated_search.together("unknown", Ledger.open(home)) == 1


def test_tests_that_shorter_searches_opened_are_counted(tmp_path):
    """A search that grows until its test pleases shows how often the test was opened."""
    steps = itertools.count()

    def better_each_time(trial):
        value = 0.1 + 0.01 * next(steps)
        return TrialResult("done", best=value, curve=[value])

    counts = []
    for trials in (3, 5, 9):
        budget, segment = replace(BUDGET, trials=trials), Segment(tmp_path)
        own = study(Ledger.open(tmp_path), budget=budget)
        code = {"git": "", "dirty": False, "python": "3", "harness": "0", "versions": {}, "machine": {}}
        data = {"toy": {"hash": "x"}}
        records = (own.record(),), (), data, code, EXPECTED
        launch = LaunchRecord("t", Protocol(), PrepSpec(), budget, own.engine, *records)
        segment.append("launched", **launch.to_json())
        segment.close()
        drive(tmp_path, budget=budget, outcome=better_each_time)
        header = ledger_frames.build(Ledger.open(tmp_path), lambda trial_id: None).header
        counts.append((header["test_opened"], header["test_opened_by_others"]))
    assert counts == [(2, 0), (2, 2), (2, 4)]
