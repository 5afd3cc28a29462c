"""The mirror in a local store: what is written, what earlier versions wrote, what was begun."""

import json
import tempfile
import zipfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
import synthetic_ledgers

from harness.record import artifacts, events, mlflow_client, mlflow_run, tracking
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.report import ledger_frames, tables
from harness.types import HarnessError, TrialResult


@pytest.fixture
def ledger(home):
    synthetic_ledgers.write(home, datasets=1, trials=2, seeds=1)
    return Ledger.open(home)


@pytest.fixture
def uri(home, mlflow_store):
    return mlflow_store(home / "mlflow" / "mlflow.db")


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_of(client):
    (experiment,) = [one for one in client.search_experiments() if one.name == "harness"]
    return client.search_runs([experiment.experiment_id], max_results=1000)


def trials_of(client):
    return {run.data.tags["harness.trial"]: run for run in runs_of(client) if "harness.trial" in run.data.tags}


def table(ledger, sources, form="csv"):
    return tables.render(tables.build(ledger_frames.build(ledger, sources)), form)


def check_table(uri, home, ledger):
    for form in ("csv", "json"):
        assert table(*tracking.read(uri, home), form) == table(ledger, artifacts.sources(home), form)


def put_json(client, run, name, value):
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / name
        file.write_text(json.dumps(value))
        client.log_artifact(run, str(file))


def earlier_bench(client, ledger, experiment, name, parts=("launch", "complete")):
    """The run of a bench as earlier versions wrote it."""
    launch = ledger.launches[name]
    run = client.create_run(experiment, tags={"harness.run": name}).info.run_id
    if "launch" in parts:
        put_json(client, run, "launch.json", {"kind": "launched", "time": launch.time, **launch.to_json()})
    if "complete" in parts:
        client.set_tag(run, "harness.complete", "true")
    return run


def earlier_trial(client, ledger, home, experiment, parent, trial_id, whole=True):
    """The run of a trial as earlier versions wrote it: a file each, and a tag once it was complete."""
    entry = ledger.trials[trial_id]
    tags = {"harness.trial": trial_id, "mlflow.parentRunId": parent}
    run = client.create_run(experiment, start_time=int(entry.time * 1000), tags=tags).info.run_id
    if not whole:
        return run
    record = {"trial": entry.trial.to_json(), "result": asdict(entry.result), "places": ledger.places(trial_id)}
    record |= {"opened": ledger.opened.get(trial_id, 0), "run": entry.run, "time": entry.time, "ended": entry.ended}
    put_json(client, run, "trial.json", record)
    for file in artifacts.artifact_folder(home, trial_id).glob("[!.]*"):
        client.log_artifact(run, str(file))
    client.set_terminated(run, "FINISHED")
    client.set_tag(run, "harness.complete", "true")
    return run


def earlier_mirror(client, ledger, home, trial_ids, begun=()):
    experiment = client.create_experiment("harness", artifact_location=(home / "mlflow" / "artifacts").as_uri())
    (name,) = ledger.launches
    parent = earlier_bench(client, ledger, experiment, name)
    written = [earlier_trial(client, ledger, home, experiment, parent, i) for i in trial_ids]
    return written + [earlier_trial(client, ledger, home, experiment, parent, i, whole=False) for i in begun]


def test_a_mirror_of_an_earlier_version_is_read_and_not_written_again(uri, client, ledger, home):
    earlier_mirror(client, ledger, home, list(ledger.trials))
    before = {run.info.run_id: run.to_dictionary() for run in runs_of(client)}
    assert tracking.sync(uri, home, ledger) == 0
    assert {run.info.run_id: run.to_dictionary() for run in runs_of(client)} == before
    check_table(uri, home, ledger)


def test_a_mirror_that_two_versions_wrote_gives_one_table_and_begun_runs_keep_their_id(uri, client, ledger, home):
    ids = list(ledger.trials)
    confirmed = next(i for i in ids if ledger.trials[i].role == "confirm")
    before = earlier_mirror(client, ledger, home, [i for i in ids[::2] if i != confirmed], begun=[confirmed])
    assert tracking.sync(uri, home, ledger) == len(ids) - len(before) + 1
    after = trials_of(client)
    assert after.keys() == set(ids)
    assert set(before) <= {run.info.run_id for run in after.values()}
    assert after[confirmed].info.run_id == before[-1]
    check_table(uri, home, ledger)
    assert tracking.sync(uri, home, ledger) == 0


def test_a_person_finds_parameters_curves_and_files_of_a_trial(uri, client, ledger, home, tmp_path):
    heavy = next(i for i, entry in ledger.trials.items() if entry.role == "confirm")
    (artifacts.artifact_folder(home, heavy) / "model.safetensors").write_bytes(bytes(2_000_000))
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    found = trials_of(client)
    assert found.keys() == set(ledger.trials)
    (bench,) = [run for run in runs_of(client) if "harness.run" in run.data.tags]
    for trial_id, run in found.items():
        entry = ledger.trials[trial_id]
        assert run.data.tags["mlflow.parentRunId"] == bench.info.run_id
        assert {"seed", "train.lr", "adapter"} <= run.data.params.keys()
        history = client.get_metric_history(run.info.run_id, "epoch/NDCG_at_10")
        assert [m.value for m in sorted(history, key=lambda m: m.step)] == entry.result.curve
        assert (run.info.start_time, run.info.end_time) == (int(entry.time * 1000), int(entry.ended * 1000))
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        if trial_id == heavy:
            assert files == ["files.zip", "model.safetensors"]
            weights = client.download_artifacts(run.info.run_id, "model.safetensors", str(tmp_path))
            assert Path(weights).read_bytes() == bytes(2_000_000)
            continue
        assert files == (["files.zip"] if entry.role == "confirm" else [])
        if files:
            with zipfile.ZipFile(client.download_artifacts(run.info.run_id, "files.zip", str(tmp_path))) as archive:
                unpacked = {name: archive.read(name) for name in archive.namelist()}
            folder = artifacts.artifact_folder(home, trial_id)
            assert unpacked == {file.name: file.read_bytes() for file in folder.glob("[!.]*")}
            assert list(json.loads(run.data.tags["harness.files"])) == list(unpacked)


def test_a_run_that_two_pages_list_is_kept(uri, client, ledger, home, monkeypatch):
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    listed = mlflow_client.ClientStore.runs

    def shifted(self, *arguments):  # as when another process adds a run between two pages
        return [run for run in listed(self, *arguments) for _ in range(2)]

    monkeypatch.setattr(mlflow_client.ClientStore, "runs", shifted)
    assert tracking.sync(uri, home, ledger) == 0
    assert trials_of(client).keys() == set(ledger.trials)


def another_launch(home, study, trials, ends):
    """A launch of a further study that draws `trials`; `ends`: the results of those that it trains."""
    with closing(Segment(home)) as segment:
        event = synthetic_ledgers.launch(synthetic_ledgers.studies(1), 2, 1)
        own = next(one for one in event["studies"] if one["study"] == study.id)
        own |= {"study": "another", "trials": len(trials), "seeds": 0}
        segment.append("launched", **event)
        for number, trial in enumerate(trials):
            events.started(segment, trial, "another", number)
            if trial.id in ends:
                events.ended(segment, trial.id, ends[trial.id])
    return Ledger.open(home)


def test_trials_that_another_search_draws_as_well_count_in_it(uri, client, ledger, home):
    """It may be drawn by the second search of the home, or twice by the first."""
    tracking.sync(uri, home, ledger)
    study = next(one for one in synthetic_ledgers.studies(1, 2, 1) if one.cell.adapter == "svd")
    trials = [*study.searched(), study.searched()[0]]
    now = another_launch(home, study, trials, {})
    assert tracking.sync(uri, home, now) == 2
    check_table(uri, home, now)
    assert tracking.read(uri, home)[0].studies["another"] == now.studies["another"]
    assert tracking.sync(uri, home, now) == 0
    assert len(runs_of(client)) == len(ledger.trials) + 2


def test_a_trial_that_was_stopped_here_and_finished_in_a_merged_home_is_replaced(uri, client, ledger, home):
    study = next(one for one in synthetic_ledgers.studies(1, 2, 1) if one.cell.adapter == "svd")
    trial = study.trial("search", 0, 0.123)
    stopped = TrialResult("pruned", best=0.1, curve=[0.1])
    before = another_launch(home, study, [trial], {trial.id: stopped})
    tracking.sync(uri, home, before)
    now = another_launch(home, study, [trial], {trial.id: synthetic_ledgers.result_of(trial)})
    assert tracking.sync(uri, home, now) == 1
    check_table(uri, home, now)
    assert tracking.read(uri, home)[0].result(trial.id).status == "done"
    assert tracking.sync(uri, home, now) == 0
    assert len([run for run in runs_of(client) if run.data.tags.get("harness.trial") == trial.id]) == 1


def test_a_run_that_was_repeated_has_its_new_result(uri, client, ledger, home):
    """Its weights were lost, and another processor computes other digits."""
    tracking.sync(uri, home, ledger)
    trial = next(
        entry.trial for entry in ledger.trials.values() if entry.role == "confirm" and entry.trial.cell.is_trained
    )
    first = asdict(ledger.result(trial.id))
    again = TrialResult(**first | {"best": 0.4321, "test": first["test"] | {"NDCG@10": 0.0987}})
    with closing(Segment(home)) as segment:
        segment.append("launched", **synthetic_ledgers.launch(synthetic_ledgers.studies(1, 2, 1), 2, 1))
        events.voided(segment, trial.id, "its weights are lost", ledger.trials[trial.id].run)
        events.started(segment, trial, "", 0)
        events.ended(segment, trial.id, again)
    now = Ledger.open(home)
    assert tracking.sync(uri, home, now) == 1
    assert tracking.read(uri, home)[0].result(trial.id).test == now.result(trial.id).test
    assert tracking.sync(uri, home, now) == 0


def test_the_winner_that_a_launch_tested_stands_in_the_mirror_too(uri, client, ledger, home):
    """A trial that lost was repeated with a better result, after the winner had been confirmed."""
    planned = synthetic_ledgers.studies(1, 2, 1)
    study = next(one for one in planned if one.cell.adapter == "svd")
    number, loser = next((n, trial) for n, trial in enumerate(study.searched()) if trial != study.winner())
    with closing(Segment(home)) as segment:
        segment.append("launched", **synthetic_ledgers.launch(planned, 2, 1))
        events.voided(segment, loser.id, "its weights are lost", ledger.trials[loser.id].run)
        events.started(segment, loser, study.id, number)
        events.ended(segment, loser.id, TrialResult("done", best=0.9, curve=[0.9]))
    now = Ledger.open(home)
    tracking.sync(uri, home, now)
    assert tracking.read(uri, home)[0].winner(study.id, 2) == now.winner(study.id, 2) == study.winner()
    check_table(uri, home, now)


def test_places_that_no_tag_holds_are_cut_and_do_no_harm():
    many = [(f"{number:024d}", number) for number in range(1000)]
    tags = mlflow_run.place_tags(many)
    assert all(len(value) <= mlflow_run.PART for value in tags.values())
    assert mlflow_run.places_of(tags) == many[: mlflow_run.PLACED]
    assert mlflow_run.places_of(mlflow_run.place_tags([])) == []


def test_a_record_that_tags_cannot_hold_is_a_file(uri, client, ledger, home, monkeypatch):
    monkeypatch.setattr(mlflow_run, "PART", 10)
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    monkeypatch.undo()
    runs = trials_of(client).values()
    assert not any(tag.startswith("harness.record") for run in runs for tag in run.data.tags)
    assert tracking.sync(uri, home, ledger) == 0
    check_table(uri, home, ledger)


def test_of_two_runs_of_a_trial_the_complete_one_stays(uri, client, ledger, home):
    tracking.sync(uri, home, ledger)
    (experiment,) = {run.info.experiment_id for run in runs_of(client)}
    kept = {trial_id: run.info.run_id for trial_id, run in trials_of(client).items()}
    parent = next(iter(trials_of(client).values())).data.tags["mlflow.parentRunId"]
    for number, trial_id in enumerate(ledger.trials):  # earlier than the complete ones, later, incomplete, complete
        other = earlier_trial(client, ledger, home, experiment, parent, trial_id, whole=bool(number % 2))
        assert other not in kept.values()
    assert tracking.sync(uri, home, ledger) == 0
    left = [run for run in runs_of(client) if "harness.trial" in run.data.tags]
    assert sorted(run.data.tags["harness.trial"] for run in left) == sorted(ledger.trials)
    check_table(uri, home, ledger)


def test_a_record_that_was_changed_by_hand_is_named_and_one_that_was_deleted_is_written(uri, client, ledger, home):
    tracking.sync(uri, home, ledger)
    runs = trials_of(client)
    (one, first), (_, second), *_ = runs.items()
    client.delete_tag(first.info.run_id, "harness.record.1")
    assert tracking.sync(uri, home, ledger) == 1
    check_table(uri, home, ledger)
    client.set_tag(second.info.run_id, "harness.record.1", "{")
    with pytest.raises(HarnessError, match=f"{second.info.run_id} .*delete the run.*sync"):
        tracking.read(uri, home)
    client.delete_run(second.info.run_id)
    assert tracking.sync(uri, home, ledger) == 1
    check_table(uri, home, ledger)
    assert trials_of(client)[one].info.run_id == first.info.run_id


def test_a_creation_whose_answer_was_lost_leaves_one_run(uri, client, ledger, home, monkeypatch):
    create = mlflow_client.ClientStore.create_run

    def repeated(*arguments):
        create(*arguments)
        return create(*arguments)[0], True

    monkeypatch.setattr(mlflow_client.ClientStore, "create_run", repeated)
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    left = [run.data.tags["harness.trial"] for run in runs_of(client) if "harness.trial" in run.data.tags]
    assert sorted(left) == sorted(ledger.trials)
    assert len(runs_of(client)) == len(left) + len(ledger.launches)
    check_table(uri, home, ledger)


def test_ranks_that_are_lost_or_damaged_in_the_store_are_missing_and_stop_nothing(uri, client, ledger, home):
    tracking.sync(uri, home, ledger)
    confirmed = [i for i, entry in ledger.trials.items() if entry.role == "confirm"]
    runs = trials_of(client)
    for trial_id in confirmed[:2]:
        (bundle,) = (home / "mlflow" / "artifacts" / runs[trial_id].info.run_id).rglob("files.zip")
        bundle.write_bytes(b"\0" * bundle.stat().st_size)
    _, sources = tracking.read(uri, home)
    sources.prefetch(confirmed)
    missing = {trial_id: sources.ranks(trial_id) is None for trial_id in confirmed}
    assert missing == {trial_id: trial_id in confirmed[:2] for trial_id in confirmed}
    assert sources.ranks(confirmed[-1]).equals(artifacts.load_ranks(home, confirmed[-1])), "also without reading ahead"
    assert sources.ranks("unknown") is None


def test_trials_of_a_damaged_launch_and_of_intact_ones_are_mirrored(uri, client, ledger, home):
    """A damaged line of the ledger is reported and ignored; everything else is mirrored."""
    study = next(one for one in synthetic_ledgers.studies(1, 2, 1) if one.cell.adapter == "svd")
    new = study.trial("search", 0, 0.123)
    another_launch(home, study, [new], {new.id: synthetic_ledgers.result_of(new)})
    lines = max((home / "ledger").iterdir()).read_bytes().splitlines(keepends=True)
    max((home / "ledger").iterdir()).write_bytes(b"".join([lines[0].replace(b"launched", b"lounched"), *lines[1:]]))
    damaged = Ledger.open(home)
    assert damaged.damages
    assert new.id in damaged.trials
    assert tracking.sync(uri, home, damaged) == len(damaged.trials)
    assert trials_of(client).keys() == set(damaged.trials)
    check_table(uri, home, damaged)
