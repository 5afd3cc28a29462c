"""The search without Ray: a made objective stands for training."""

import json
from dataclasses import replace

import pytest

from harness import plan, registry, spaces
from harness.ledger import Ledger, Segment
from harness.studies import Grid
from harness.types import BASELINE, Budget, Cell, Engine, HarnessError, Protocol, TrialResult

BUDGET = Budget("tiny", trials=5, epochs=10, patience=3, seeds=2)


def study(ledger, adapter="mlp", engine=None, budget=BUDGET, fixed=None):
    cell = Cell("toy", "noise", "sasrec[dropout=0.2,ffn_mult=1]", adapter)
    space = spaces.of_cell(cell, spaces.Source(fixed=fixed or {}))
    return plan.Study(cell, space, budget, Protocol(), engine or Engine("random", "none"), {"data": "x"}, ledger)


def objective(trial):
    return 1 / (1 + abs(trial.params["train.lr"] - 0.003))


def drive(home, adapters=("mlp",), limit=10**9, engine=None, budget=BUDGET, outcome=None, fixed=None):
    """Run a grid in this process, at most `limit` trials; returns the ids run, in order."""
    ledger, segment, ran = Ledger.open(home), Segment(home), []
    studies = [study(ledger, a, engine, budget, fixed) for a in adapters]
    grid = Grid([s for s in studies if s.state == "pending"], segment, lambda event: None)
    while len(ran) < limit and (found := grid.next()) is not None:
        ran.append(found.trial.id)
        result = (outcome or (lambda t: TrialResult("done", best=objective(t), curve=[objective(t)])))(found.trial)
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


def test_trial_zero_is_the_default_point(home):
    ran, ledger, [done] = drive(home, limit=1)
    assert ledger.trials[ran[0]].trial.params == done.space.default


@pytest.mark.parametrize("sampler", ["random", "tpe"])
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
    grid = Grid([study(ledger)], segment, lambda event: None)
    flying = [grid.next().trial.id for _ in range(3)]
    grid.ended(flying[1], TrialResult("done", best=0.5, curve=[0.5]))
    segment.close()
    ran, after, [done] = drive(home)
    assert flying[1] not in ran
    assert {flying[0], flying[2]} <= set(ran)
    assert len(done.history()) == BUDGET.trials
    assert all(entry.result for entry in after.trials.values())


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_grown_search_is_the_longer_search(home, tmp_path, sampler):
    engine, longer = Engine(sampler, "none"), replace(BUDGET, trials=9)
    whole, _, _ = drive(tmp_path / "whole", engine=engine, budget=longer)
    first, _, _ = drive(home, engine=engine)
    second, _, [done] = drive(home, engine=engine, budget=longer)
    assert set(whole[:9]) == set(first[:5]) | set(second[:4])
    assert not set(first) & set(second)
    assert done.state == "done"


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_parameter_whose_condition_does_not_hold_stays_at_its_default(home, sampler):
    ran, ledger, _ = drive(home, engine=Engine(sampler, "none"), budget=replace(BUDGET, trials=20))
    found = [ledger.trials[i].trial.params for i in ran[:20]]
    off = {p["text.id_std"] for p in found if p["text.fusion"] == "none"}
    on = {p["text.id_std"] for p in found if p["text.fusion"] != "none"}
    assert off == {spaces.TEXT_DEFAULTS["id_std"]}
    assert len(on) > 5


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
    axes = study(Ledger(), small, budget=budget, fixed=pins).space.searched
    points = 1
    for axis in axes.values():
        points *= len(axis.values) if isinstance(axis, spaces.Choices) else int(axis.high - axis.low) + 1
    assert 1 < points < 40, "more draws than points, so that some must repeat"
    outcome = lambda t: TrialResult("done", best=0.1)  # noqa: E731
    ran, _, [done] = drive(home, (small,), budget=budget, fixed=pins, outcome=outcome)
    assert len(ran) == len(set(ran)) <= points + budget.seeds
    assert done.state == "done"
    assert len(done.history()) == 40


def test_the_pruner_stops_the_worse_half_after_the_grace(home):
    ledger, segment = Ledger.open(home), Segment(home)
    grid = Grid([study(ledger, engine=Engine("random", "median"))], segment, lambda event: None)
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
    grid = Grid([study(ledger, a) for a in ("mlp", "svd", "linear")], Segment(home), lambda event: None)
    flying = [grid.next() for _ in range(4)]
    assert [f.trial.cell.adapter for f in flying] == ["mlp", "svd", "linear", "mlp"]


def test_a_baseline_has_one_deterministic_run(home):
    ledger = Ledger.open(home)
    cell = Cell("toy", "none", BASELINE, "popularity")
    base = plan.Study(cell, spaces.Space({}, {}, {}), BUDGET, Protocol(), Engine(), {"data": "x"}, ledger)
    grid = Grid([base], Segment(home), lambda event: None)
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


@pytest.mark.parametrize(
    ("engine", "message"),
    [(Engine("tpee"), "no sampler 'tpee'. Did you mean 'tpe'"), (Engine(pruner="x"), "no pruner 'x'")],
)
def test_unknown_sampler_or_pruner_is_one_clear_line(engine, message):
    with pytest.raises(HarnessError, match=message):
        Grid([study(Ledger(), engine=engine)], Segment, lambda event: None)
