"""Names that MLflow does not admit, and trials that it does not take: in a local store and on a real server."""

from contextlib import closing
from dataclasses import asdict, replace

import polars as pl
import pytest
import synthetic_ledgers
from command_line import harness
from mlflow_server import contents

from harness.record import artifacts, events, mirror, mlflow_run, tracking
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.report import ledger_frames, report_files, tables
from harness.types import HarnessError, TrialResult
from harness.workflows import mlflow_page

REFUSED = {"adapter.share (%)": 1}  # no name of a parameter in MLflow, nor in Python


def write(home, info=None, refused=0):
    """A ledger with one more study, of a trial with that info and of refused ones; returns it and the trials."""
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    study = synthetic_ledgers.MadeStudy(synthetic_ledgers.Cell("set0", "minilm", "sasrec", "mine"), 1, 0)
    plain = study.trial("search", 0, 0.001)
    trials = [plain, *(replace(plain, params={**REFUSED, "train.lr": 0.1 * n}) for n in range(1, refused + 1))]
    with closing(Segment(home)) as segment:
        segment.append("launched", **synthetic_ledgers.launch([study], 1, 0))
        for number, trial in enumerate(trials):
            result = asdict(synthetic_ledgers.result_of(trial)) | {"status": "done", "info": info or {}}
            events.started(segment, trial, study.id, number)
            events.ended(segment, trial.id, TrialResult(**result))
    return Ledger.open(home), trials


NAMES = ["share (%)", "a/../b", "..", "", "größe", "tab\there", "x" * 300, "y" * 300, "colon: 1", "NDCG@10", "a//b/"]
NAMES += ["loss<1", "loss>1"]


def test_a_diagnostic_of_any_name_is_a_metric(uri, home):
    info = {f"adapter_{name}": float(number) for number, name in enumerate(NAMES)}
    info |= {name: 100.0 + number for number, name in enumerate(NAMES)}
    ledger, (trial,) = write(home, info)
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    ((_, points, whole),) = contents(uri)[trial.id]
    assert whole
    shown = {name: history[0][1] for name, history in points.items() if name.startswith("info/")}
    assert sorted(shown.values()) == sorted(info.values())
    assert shown["info/adapter_share ___"] == 0.0
    assert shown["info/adapter_größe"] == 4.0
    assert tracking.sync(uri, home, ledger) == 0


def test_a_trial_that_the_store_refuses_keeps_no_other_and_is_named(uri, home):
    ledger, (_, *refused) = write(home, refused=5)
    report_files.write(
        tables.build(ledger_frames.build(ledger, artifacts.sources(home))), home, report_files.inputs_hash(ledger)
    )
    for _ in range(2):
        done = harness(home, "sync", "--tracking", uri)
        assert done.returncode == 2
        line = done.stderr.splitlines()[-1]
        assert line.startswith("Error: MLflow at ")
        assert "refuses 5 trials: " in line
        assert sum(f"{trial.id} of set0 / minilm / sasrec / mine" in line for trial in refused) == 3
        assert "share (%)" in line
        assert "and 2 more. All others are written." in line
        assert "away" not in done.stderr
    assert "MLflow shows the report" not in done.stderr, "it was shown the first time"
    whole = {trial_id for trial_id, runs in contents(uri).items() for _, _, ended in runs if ended}
    assert whole == ledger.trials.keys() - {trial.id for trial in refused}
    assert tracking.read(uri, home)[0].trials.keys() == whole


def test_a_bench_warns_once_of_refused_trials_and_waits_for_none(uri, home):
    ledger, _ = write(home, refused=3)
    warnings = []
    following = mirror.Mirror(uri, home, ledger, warnings.append)
    for trial_id in ledger.trials:
        following.put(trial_id)
    assert following.close(120) == 0
    assert len(warnings) == 1
    assert "refuses 1 trial: " in warnings[0]
    assert "away" not in warnings[0]
    assert sum(whole for runs in contents(uri).values() for _, _, whole in runs) == len(ledger.trials) - 3


def test_an_experiment_that_is_deleted_meanwhile_is_no_refusal_of_trials(uri, home):
    from mlflow import MlflowClient

    ledger, _ = write(home)
    tracker = tracking.Tracker(uri, home)
    assert list(tracker.write(ledger, [], list(ledger.launches))) == []
    MlflowClient(uri).delete_experiment(tracker.experiment)
    with pytest.raises(HarnessError, match="deleted the experiment"):
        list(tracker.write(ledger, list(ledger.trials)))
    assert tracker.refused == {}


def test_rows_of_any_name_are_metrics_of_the_bench(uri, home):
    from mlflow import MlflowClient

    ledger, _ = write(home)
    tracking.sync(uri, home, ledger)
    folder = home / "reports" / "made"
    folder.mkdir(parents=True)
    names = ["+".join(f"svd[power={n / 10},trainable=true]" for n in range(9, 0, -1)), "svd x5", "mlp[hidden=9]"]
    names += [names[0].replace("0.1", "0.2")]
    rows = [{"dataset": "größe", "backbone": "sasrec", "encoder": "st:org/m", "adapter": name} for name in names]
    rows = pl.DataFrame([row | {"NDCG@10": number / 10} for number, row in enumerate(rows)])
    rows.write_parquet(folder / "leaderboard.parquet")
    for form in ("md", "html"):
        (folder / f"leaderboard.{form}").write_text("# Leaderboard")
    assert mlflow_page.show(uri, home, ledger, folder / "leaderboard.html")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    (run,) = client.search_runs([experiment], f"tags.`harness.run` = '{max(ledger.launches)}'")
    shown = {name: value for name, value in run.data.metrics.items() if name.startswith("test/NDCG_at_10/größe/")}
    assert sorted(shown.values()) == [0.0, 0.1, 0.2, 0.3]
    assert "test/NDCG_at_10/größe/sasrec/mlp_hidden_9_ st_org_m" in shown


def test_the_name_of_a_run_fits_the_databases_of_mlflow(home):
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    ledger = Ledger.open(home)
    trial = next(iter(ledger.trials.values())).trial
    long = replace(trial, cell=replace(trial.cell, adapter="+".join(["svd[power=0.5,trainable=true]"] * 9)))
    with closing(Segment(home)) as segment:
        segment.append("launched", **synthetic_ledgers.launch([], 1, 0))
        events.started(segment, long, "", 0)
        events.ended(segment, long.id, synthetic_ledgers.result_of(trial))
    assert len(mlflow_run.content(Ledger.open(home), long.id).name) == 250
