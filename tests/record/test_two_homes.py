"""Two homes that ran the same trials and share one MLflow store."""

from contextlib import closing
from dataclasses import replace

import pytest
import synthetic_ledgers
from mlflow_server import contents

from harness.record import events, tracking
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.types import TrialResult


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """Two homes with the same trials; on the machine of the second, values differ in the last digit."""
    result_of = synthetic_ledgers.result_of
    synthetic_ledgers.write(tmp_path / "first", datasets=1, trials=2, seeds=1)
    other = lambda trial: replace(result_of(trial), best=result_of(trial).best + 1e-8)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(synthetic_ledgers, "result_of", other)
        synthetic_ledgers.write(tmp_path / "second", datasets=1, trials=2, seeds=1)
    return [(tmp_path / name, Ledger.open(tmp_path / name)) for name in ("first", "second")]


def sync(uri, home):
    return tracking.sync(uri, home, Ledger.open(home))


def ids(uri):
    return {trial_id: [run for run, _, _ in runs] for trial_id, runs in contents(uri).items()}


def test_the_first_result_stays(uri, homes):
    (first, one), (second, other) = homes
    shared = next(i for i in one.trials if one.trials[i].status == "done")
    assert one.trials.keys() == other.trials.keys()
    assert one.trials[shared].best != other.trials[shared].best
    assert sync(uri, first) == len(one.trials)
    before = ids(uri)
    assert [sync(uri, home) for home in (second, first, second)] == [0, 0, 0]
    assert ids(uri) == before
    stored = tracking.read(uri, first)[0]
    assert {i: stored.trials[i].best for i in one.trials} == {i: one.trials[i].best for i in one.trials}
    assert stored.launches.keys() == one.launches.keys() | other.launches.keys()


def again(home, trial, result):
    """The trial ends in another launch of the home."""
    with closing(Segment(home)) as segment:
        segment.append("launched", **synthetic_ledgers.launch(synthetic_ledgers.studies(1, 2, 1), 2, 1))
        entry = Ledger.open(home).trials[trial.id]
        events.voided(segment, trial.id, "its weights are lost", entry.run)
        events.started(segment, trial, entry.study, entry.number)
        events.ended(segment, trial.id, result)


def test_only_the_home_that_wrote_a_run_replaces_it_by_a_repeated_one(uri, homes):
    (first, one), (second, _) = homes
    trial = next(entry.trial for entry in one.trials.values() if entry.status == "done" and entry.role == "search")
    assert sync(uri, first) == len(one.trials)
    again(second, trial, synthetic_ledgers.result_of(trial))
    assert sync(uri, second) == 0
    again(first, trial, replace(synthetic_ledgers.result_of(trial), best=0.4321))
    assert sync(uri, first) == 1
    assert sync(uri, second) == 0
    assert tracking.read(uri, first)[0].trials[trial.id].best == 0.4321


def test_a_finished_trial_replaces_the_stopped_one_of_another_home_once(uri, homes):
    (first, one), (second, _) = homes
    study = next(study for study in synthetic_ledgers.studies(1, 2, 1) if study.cell.adapter == "svd")
    trial = study.trial("search", 0, 0.123)
    for home, result in ((first, TrialResult("pruned", best=0.1, curve=[0.1])), (second, None)):
        with closing(Segment(home)) as segment:
            segment.append("launched", **synthetic_ledgers.launch([study], 2, 1))
            events.started(segment, trial, study.id, 2)
            events.ended(segment, trial.id, result or synthetic_ledgers.result_of(trial))
    assert sync(uri, first) == len(one.trials) + 1
    assert sync(uri, second) == 1
    assert [sync(uri, home) for home in (first, second)] == [0, 0]
    assert tracking.read(uri, first)[0].trials[trial.id].status == "done"


def test_a_run_that_another_home_began_belongs_to_the_one_that_completes_it(uri, homes, monkeypatch):
    (first, one), (second, other) = homes

    def killed(*_):
        raise KeyboardInterrupt

    tracker = tracking.Tracker(uri, first)
    assert list(tracker.write(one, [], list(one.launches))) == []
    with monkeypatch.context() as patch:
        patch.setattr(type(tracker.store), "end", killed)
        with pytest.raises(KeyboardInterrupt):
            list(tracker.write(one, list(one.trials)[:1]))
    assert sync(uri, second) == len(other.trials)
    assert sync(uri, second) == 0
    stored = tracking.read(uri, second)[0]
    assert {i: stored.trials[i].best for i in other.trials} == {i: other.trials[i].best for i in other.trials}
