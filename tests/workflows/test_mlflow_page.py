"""What MLflow shows of a bench, in a local store and on a real server."""

import polars as pl
import pytest
import synthetic_ledgers
from click.testing import CliRunner
from mlflow_server import free_port, serve, stop

from harness.record import artifacts, tracking
from harness.record.ledger import Ledger
from harness.record.mlflow_run import PART
from harness.report import ledger_frames, report_files, tables
from harness.verbs import sync
from harness.workflows import mlflow_page


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    process = serve(folder, port)
    yield f"http://127.0.0.1:{port}"
    stop(process)


@pytest.fixture(params=["local", "server"])
def uri(request, home, mlflow_store):
    if request.param == "local":
        return mlflow_store(home / "mlflow" / "mlflow.db")
    return request.getfixturevalue("server")


def write_report(home, ledger):
    table = tables.build(ledger_frames.build(ledger, artifacts.sources(home)))
    return report_files.write(table, home, report_files.inputs_hash(ledger))


def bench_run(client, run):
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`harness.run` = '{run}'")
    return found


def test_the_run_of_a_bench_shows_its_table_metrics_and_data(uri, home, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setitem(synthetic_ledgers.EMBEDDINGS, "minilm", "e" * 24)
    synthetic_ledgers.write(home, datasets=2, trials=2, seeds=1)
    ledger = Ledger.open(home)
    report = write_report(home, ledger)
    words = ["--home", str(home), "--tracking", uri]
    assert "MLflow shows the report" in CliRunner().invoke(sync.command, words, catch_exceptions=False).output
    assert "MLflow shows" not in CliRunner().invoke(sync.command, words, catch_exceptions=False).output

    client = MlflowClient(uri)
    run = bench_run(client, max(ledger.launches))
    rows = pl.read_parquet(report.parent / "leaderboard.parquet").filter(pl.col("NDCG@10").is_not_null())
    shown = {name: value for name, value in run.data.metrics.items() if name.startswith("test/NDCG_at_10/")}
    assert sorted(shown.values()) == pytest.approx(sorted(rows["NDCG@10"])), "one metric a row, with its value"
    assert {"set0/sasrec/id", "set1/sasrec/svd minilm"} <= {name.removeprefix("test/NDCG_at_10/") for name in shown}
    files = {file.path for file in client.list_artifacts(run.info.run_id, "report")}
    assert files == {f"report/leaderboard.{form}" for form in ("html", "md", "parquet")}
    assert run.data.tags["mlflow.note.content"].startswith("# Leaderboard")
    inputs = {one.dataset.name: one for one in run.inputs.dataset_inputs}
    cards = ledger.launches[max(ledger.launches)].data
    assert {name: inputs[name].dataset.digest for name in cards} == {name: c["hash"] for name, c in cards.items()}
    texts = {name: inputs[name] for name in inputs.keys() - cards.keys()}
    assert {name: one.dataset.digest for name, one in texts.items()} == {
        f"minilm of {name}": "e" * 24 for name in cards
    }
    assert {tag.value for one in texts.values() for tag in one.tags} == {"embedding"}


def test_a_newer_report_takes_the_place_of_the_shown_one(home, mlflow_store):
    from mlflow import MlflowClient

    uri = mlflow_store(home / "mlflow" / "mlflow.db")
    synthetic_ledgers.write(home, datasets=1, trials=2, seeds=1)
    ledger = Ledger.open(home)
    tracking.sync(uri, home, ledger)
    first, second = write_report(home, ledger), write_report(home, ledger)
    for report in (first, second):
        assert mlflow_page.show(uri, home, ledger, report)
        assert not mlflow_page.show(uri, home, ledger, report)
    run = bench_run(MlflowClient(uri), max(ledger.launches))
    assert run.data.tags["harness.report"] == second.parent.name


def test_a_long_table_is_cut_at_a_line_and_says_where_it_goes_on(home):
    synthetic_ledgers.write(home, datasets=6, trials=2, seeds=1)
    ledger = Ledger.open(home)
    folder = write_report(home, ledger).parent
    text = (folder / "leaderboard.md").read_text()
    assert len(text) > PART, "the case is a long one"
    note = mlflow_page.page(ledger, ledger.launches[max(ledger.launches)], folder).note
    assert len(note) <= PART
    kept, _, rest = note.rpartition("\n\n")
    assert text.startswith(kept + "\n")
    assert "report/leaderboard.md" in rest


def test_a_store_that_went_away_is_one_clear_line(home):
    from harness.types import HarnessError

    synthetic_ledgers.write(home, datasets=1, trials=2, seeds=1)
    ledger = Ledger.open(home)
    with pytest.raises(HarnessError, match="refused the report"):
        mlflow_page.show(f"http://127.0.0.1:{free_port()}", home, ledger, write_report(home, ledger))
