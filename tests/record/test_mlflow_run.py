"""The layout of a trial in MLflow: its record in tags, its files in one archive."""

import json
import zipfile

import pytest
import synthetic_ledgers

from harness.record import artifacts, mlflow_run
from harness.record.ledger import Ledger
from harness.record.mlflow_run import StoredRun


@pytest.mark.parametrize("character", ["a", "é", "漢", "🦜", '"', "\\", "\n"])
@pytest.mark.parametrize("length", [0, 1, 4_990, 5_000, 9_999])
def test_a_record_of_any_text_survives_the_parts_of_its_tags(character, length):
    record = {"reason": character * length, "more": [0.1, None]}
    tags = mlflow_run.record_tags(json.dumps(record))
    if tags is None:
        assert len(json.dumps(record)) > 50_000
        return
    assert all(len(part.encode()) <= 5_000 for part in tags.values()), "the limit of a tag, in whatever unit"
    assert mlflow_run.record_of(tags | {"harness.role": "search"}) == record


def test_a_missing_part_is_no_record_and_a_part_of_an_earlier_attempt_does_no_harm():
    long, short = {"x": "y" * 12_000}, {"x": "z"}
    tags = mlflow_run.record_tags(json.dumps(long))
    assert mlflow_run.record_of(tags | mlflow_run.record_tags(json.dumps(short))) == short
    del tags["harness.record.2"]
    with pytest.raises(ValueError, match="Unterminated"):
        mlflow_run.record_of(tags)
    assert mlflow_run.record_of({}) is None


def test_files_are_where_the_index_says_and_any_unzip_finds_them(tmp_path):
    contents = {
        "spectrum.json": b"{}",
        "model.safetensors": bytes(range(256)) * 99,
        "empty": b"",
        "ünï 漢.bin": b"\x00",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    bundle = tmp_path / "files.zip"
    index = mlflow_run.pack([tmp_path / name for name in contents], bundle)
    assert index.keys() == contents.keys()
    packed = bundle.read_bytes()
    assert {name: packed[start : start + size] for name, (start, size) in index.items()} == contents
    with zipfile.ZipFile(bundle) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == contents
    tags = {"harness.files": json.dumps(index)}
    assert mlflow_run.index_of(tags) == index
    assert mlflow_run.index_of({}) == {}


def test_what_a_table_reads_comes_first_in_the_archive(tmp_path):
    folder = artifacts.artifact_folder(tmp_path, "trial")
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "ranks.parquet", "lists.parquet", "spectrum.json", "seal.json", ".hidden"):
        (folder / name).write_bytes(b"x")
    files, large = mlflow_run.files_of(tmp_path, "trial")
    names = [file.name for file in files]
    assert large == []
    assert names[:2] == ["ranks.parquet", "spectrum.json"]
    assert sorted(names) == ["lists.parquet", "model.safetensors", "ranks.parquet", "seal.json", "spectrum.json"]
    assert mlflow_run.files_of(tmp_path, "another") == ([], [])


def test_large_files_are_not_in_the_archive_unless_a_table_reads_them(tmp_path):
    folder = artifacts.artifact_folder(tmp_path, "trial")
    folder.mkdir(parents=True)
    for name, size in (("ranks.parquet", 2_000_000), ("model.safetensors", 2_000_000), ("seal.json", 9)):
        (folder / name).write_bytes(bytes(size))
    files, large = mlflow_run.files_of(tmp_path, "trial")
    assert [file.name for file in files] == ["ranks.parquet", "seal.json"]
    assert [file.name for file in large] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("status", "tags", "complete"),
    [
        ("RUNNING", {"harness.record.1": "{}"}, False),
        ("FINISHED", {"harness.record.1": "{}"}, True),
        ("KILLED", {"harness.files": '{"trial.json": [40, 2]}'}, True),
        ("FINISHED", {"harness.files": '{"ranks.parquet": [40, 2]}'}, False),
        ("FINISHED", {}, False),  # of an earlier version, which marked complete runs
        ("FINISHED", {"harness.complete": "true"}, True),
    ],
)
def test_a_run_is_complete_once_its_last_write_arrived(status, tags, complete):
    assert mlflow_run.is_complete(StoredRun("r", "place", status, 0, tags)) is complete


def test_metrics_of_a_long_trial_go_in_calls_that_a_server_takes():
    points = [mlflow_run.Point("epoch/NDCG_at_10", 0.1, 1, step) for step in range(2_001)]
    calls = mlflow_run.batches(points)
    assert [point for call in calls for point in call] == points
    assert max(map(len, calls)) + 100 <= 1_000, "with the parameters"
    assert mlflow_run.batches([]) == [[]]


def test_the_content_of_a_failed_trial_has_its_curve_and_its_status(tmp_path):
    synthetic_ledgers.write(tmp_path, datasets=2, trials=12)
    ledger = Ledger.open(tmp_path)
    failed = next(i for i, entry in ledger.trials.items() if entry.status == "failed")
    content = mlflow_run.content(ledger, failed)
    assert content.status == "FAILED"
    assert [(point.key, point.value, point.step) for point in content.metrics] == [("epoch/NDCG_at_10", 0.01, 0)]
    assert content.params["seed"] == "0"
    assert content.record["result"]["reason"].startswith("loss is not finite")
