"""Publications: written whole, verified from the ranks, joined without loss, listed."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import small_homes
import synthetic_ledgers
import torch
from command_line import environment, events, harness
from dataset_files import make_dataset, write_dataset

from harness.metrics._ties import Ranks
from harness.record import artifacts, housekeeping, leases, redaction, segments
from harness.record import events as trial_events
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.report import ledger_frames, tables
from harness.system.files import sha256
from harness.types import Protocol, TrialResult, digest
from harness.workflows import publication, publication_index, publish


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A home and its publication."""
    folder = tmp_path_factory.mktemp("publish")
    synthetic_ledgers.write(folder / "home")
    done = harness(folder / "home", "publish", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(root, tmp_path):
    """A copy of the publication, to be tampered with."""
    return shutil.copytree(root / "out", tmp_path / "copy")


def verify(folder):
    return harness(folder.parent / "unused", "verify", str(folder))


def rehash(folder):
    """Make the manifest agree with the files, as a careful forger would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def table_of(home):
    return tables.build(ledger_frames.of_home(home)).wide().drop("search_seconds")


def test_a_publication_is_equal_and_has_the_table_of_its_home(root):
    done = verify(root / "out")
    assert done.returncode == 0, done.stdout
    assert "equal" in done.stdout.splitlines()[-1]
    published = pl.read_parquet(root / "out" / "leaderboard.parquet")
    assert published.drop("search_seconds").equals(table_of(root / "home"))
    assert not list((root / "out").rglob("*.safetensors"))


def test_a_run_that_ends_while_it_is_published_is_whole_or_not_there(root, tmp_path, monkeypatch):
    home = shutil.copytree(root / "home", tmp_path / "home")
    [file] = (home / "ledger").glob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if line.startswith(b'{"kind":"ended"'))
    file.write_bytes(b"".join(lines[:last]))
    newest = publish.table_scope.newest

    def ends_meanwhile(ledger, *run):
        file.write_bytes(b"".join(lines))
        return newest(ledger, *run)

    monkeypatch.setattr(publish.table_scope, "newest", ends_meanwhile)
    publish.write(home, tmp_path / "out")
    assert verify(tmp_path / "out").returncode == 0
    assert pl.read_parquet(tmp_path / "out" / "leaderboard.parquet").drop("search_seconds").equals(table_of(home))


def test_ranks_have_the_documented_columns_and_a_run_each(root):
    runs = json.loads((root / "out" / "manifest.json").read_text())["runs"]
    assert {run["trial"] for run in runs} == {path.stem for path in (root / "out" / "ranks").iterdir()}
    assert len(runs) == sum(study.seeds for study in synthetic_ledgers.studies())
    frame = pl.read_parquet(root / "out" / "ranks" / f"{runs[0]['trial']}.parquet")
    assert frame.schema == {"user": pl.Int32, "low": pl.Int32, "high": pl.Int32}


def change_rank(folder):
    path = sorted((folder / "ranks").iterdir())[0]
    frame = pl.read_parquet(path)
    top = pl.when(pl.int_range(pl.len()) == int(frame["low"].arg_max())).then(1)
    frame.with_columns(
        low=top.otherwise("low").cast(pl.Int32), high=top.otherwise("high").cast(pl.Int32)
    ).write_parquet(path)
    return f"ranks/{path.name}"


def change_value(folder):
    path = folder / "leaderboard.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(pl.col("NDCG@10") + 0.001).write_parquet(path)
    return "leaderboard.parquet"


def change_csv(folder):
    path = folder / "leaderboard.csv"
    path.write_text(path.read_text().replace("svd", "sdv", 1))
    return "leaderboard.csv"


def change_line(folder):
    [path] = (folder / "ledger").iterdir()
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"kind"', b'"kimd"')
    path.write_bytes(gzip.compress(b"".join(lines)))
    return f"ledger/{path.name}"


def delete(folder):
    path = sorted((folder / "ranks").iterdir())[1]
    path.unlink()
    return f"ranks/{path.name}: missing"


def add(folder):
    (folder / "notes.txt").write_text("x")
    return "notes.txt: extra"


@pytest.mark.parametrize("tamper", [change_rank, change_value, change_csv, change_line, delete, add])
def test_a_change_is_found_and_named(copy, tamper):
    named = tamper(copy)
    done = verify(copy)
    assert done.returncode == 1
    assert named in done.stdout
    assert "difference" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("tamper", "part"),
    [
        (change_rank, ", recomputed "),
        (change_value, "NDCG@10: "),
        (change_csv, "adapter: sdv, recomputed svd"),
        (change_line, ".jsonl:4: damaged line"),
    ],
)
def test_a_change_is_found_without_the_help_of_its_hash(copy, tamper, part):
    tamper(copy)
    rehash(copy)
    done = verify(copy)
    assert done.returncode == 1
    assert part in done.stdout
    assert "changed (sha256" not in done.stdout


@pytest.mark.parametrize("content", [None, "{", "[]", '{"kind": "other"}'])
def test_another_folder_is_no_publication(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    done = verify(tmp_path)
    assert done.returncode == 2
    assert "is no publication" in done.stderr


def forge_event(folder):
    def change(result):
        result["curve"] = "no list"
        result["status"] = 7

    forge(folder, change)


def forge_manifest(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tables"] = {"": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def forge_best(folder):
    change_manifest(folder, lambda manifest: manifest["tables"][""]["best"][0].update(adapter="mine", mean=0.99))


def forge_runs(folder):
    change_manifest(folder, lambda manifest: manifest["runs"][0].update(seed=77))


def forge_data(folder):
    change_manifest(folder, lambda manifest: next(iter(manifest["data"].values())).update(users=10**6))


def change_manifest(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("tamper", "named"), [(forge_best, "table '': 'best'"), (forge_runs, "'runs'"), (forge_data, "'data'")]
)
def test_a_manifest_that_claims_what_the_records_do_not_say_is_a_difference(copy, tamper, named):
    tamper(copy)
    done = verify(copy)
    assert done.returncode == 1
    assert f"manifest.json: {named} differs from the records" in done.stdout


@pytest.mark.parametrize("tamper", [forge_event, forge_manifest])
def test_nonsense_with_valid_checksums_is_a_difference(copy, tamper):
    tamper(copy)
    done = verify(copy)
    assert done.returncode == 1
    assert "difference" in done.stdout.splitlines()[-1]


def test_nothing_is_written_over_and_an_empty_home_is_refused(root, tmp_path):
    done = harness(root / "home", "publish", str(root / "out"))
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    done = harness(tmp_path / "empty", "publish", str(tmp_path / "out"))
    assert done.returncode == 2
    assert sorted(tmp_path.iterdir()) == []


def test_what_names_a_machine_is_removed_and_lines_stay_whole(tmp_path):
    home = tmp_path / "home"
    synthetic_ledgers.write(home)
    segment = Segment(home)
    trial = synthetic_ledgers.studies()[1].trial("search", 0, 0.5)
    trial_events.started(segment, trial, "s", 0)
    trial_events.ended(
        segment, trial.id, TrialResult("failed", reason="no file /srv/ann/secret/x.npy on 10.1.2.3:6379")
    )
    segment.append("finished", ran=1, tracking="http://ann.lab:5000/#/experiments/1")
    segment.close()
    done = harness(home, "publish", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    text = b"".join(gzip.decompress(path.read_bytes()) for path in (tmp_path / "out" / "ledger").iterdir())
    assert b"no file .../x.npy on <address>" in text
    assert not [word for word in (b"ann", b"10.1.2.3", str(tmp_path).encode()) if word in text]
    assert all(segments.whole(line) for line in text.splitlines())
    assert verify(tmp_path / "out").returncode == 0
    for line in text.splitlines():
        assert redaction.redact(line) == line


def test_only_the_parts_of_killed_processes_are_removed(root, tmp_path, monkeypatch):
    me = leases.here()
    place, pid, born = digest(me["place"])[:8], me["pid"], me["born"]
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    killed = [f".out[1].part-{place}-{pid}-1-00000000", f".out[1].part-{place}-{ended.pid}-{born}-00000000"]
    alive = f".out[1].part-{place}-{pid}-{born}-00000000"
    unknown = [f".out[1].part-00000000-{pid}-1-00000000", f".out[1].part-{pid}"]  # another machine; older version
    for name in (*killed, alive, *unknown, f".out1.part-{place}-{pid}-1-00000000"):
        (tmp_path / name / "ranks").mkdir(parents=True)
    before = {path.name for path in tmp_path.iterdir()}
    publish.write(root / "home", tmp_path / "out[1]")
    assert {path.name for path in tmp_path.iterdir()} == before - {*killed} | {"out[1]"}
    shutil.rmtree(tmp_path / "out[1]")
    monkeypatch.setattr(housekeeping, "DAY", 0.0)
    publish.write(root / "home", tmp_path / "out[1]")
    assert {path.name for path in tmp_path.iterdir()} == before - {*killed, *unknown} | {"out[1]"}


def test_a_publication_that_fails_leaves_no_part(tmp_path):
    home, blocked = tmp_path / "home", tmp_path / "file"
    synthetic_ledgers.write(home)
    blocked.touch()
    for target in (blocked / "out", tmp_path / "out"):
        trial = synthetic_ledgers.studies()[1].confirmations()[0].id
        (artifacts.artifact_folder(home, trial) / artifacts.RANKS).write_bytes(b"PAR1")
        assert harness(home, "publish", str(target)).returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "home"]


def test_a_torn_last_line_is_left_out_and_a_damaged_ledger_is_refused(tmp_path):
    home = tmp_path / "home"
    path = synthetic_ledgers.write(home)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind":"fin')
    assert harness(home, "publish", str(tmp_path / "torn")).returncode == 0
    assert verify(tmp_path / "torn").returncode == 0
    path.write_bytes(whole.replace(b'"decided"', b'"decidex"', 1))
    done = harness(home, "publish", str(tmp_path / "damaged"))
    assert done.returncode == 2
    assert "damaged line" in done.stderr
    assert not (tmp_path / "damaged").exists()


def two_tables(home):
    """A home with results of two protocols."""
    synthetic_ledgers.write(home)
    made = synthetic_ledgers.launch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_ledgers, "PROTOCOL", Protocol(filter_seen=False))
        patch.setattr(synthetic_ledgers, "launch", lambda *words: made(*words) | {"table": "unfiltered-table"})
        synthetic_ledgers.write(home)
    return home


def test_every_table_of_a_home_is_published_verified_and_merged(tmp_path):
    home, out = two_tables(tmp_path / "home"), tmp_path / "out"
    assert harness(home, "publish", str(out)).returncode == 0
    [older] = (out / "tables").iterdir()
    described = json.loads((out / "manifest.json").read_text())["tables"]
    filtered = {place: table["protocol"]["filter_seen"] for place, table in described.items()}
    assert filtered == {"": False, f"tables/{older.name}/": True}
    assert len(list((out / "ranks").iterdir())) == 2 * sum(study.seeds for study in synthetic_ledgers.studies())
    assert verify(out).returncode == 0
    merge(tmp_path / "joined", out)
    assert harness(tmp_path / "joined", "publish", str(tmp_path / "again")).returncode == 0
    for part in ("", f"tables/{older.name}/"):
        frames = [pl.read_parquet(root / f"{part}leaderboard.parquet") for root in (out, tmp_path / "again")]
        assert frames[0].equals(frames[1])
    change_value(older)
    rehash(out)
    done = verify(out)
    assert done.returncode == 1
    assert f"tables/{older.name}/leaderboard.parquet" in done.stdout


def part_home(folder, keep):
    """A home with the studies that `keep` chooses, as another person would have run them."""
    studies = synthetic_ledgers.studies
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_ledgers, "studies", lambda *words: [one for one in studies(*words) if keep(one.cell)])
        synthetic_ledgers.write(folder)
    return folder


@pytest.fixture
def two(tmp_path):
    """Two publications with overlapping rows."""
    for name, left_out in (("a", "mlp"), ("b", "svd")):
        home = part_home(tmp_path / f"home-{name}", lambda cell, left_out=left_out: cell.adapter != left_out)
        assert harness(home, "publish", str(tmp_path / name)).returncode == 0
    return tmp_path


def merge(home, *folders):
    return harness(home, "merge", *map(str, folders), "--home", str(home))


def test_merged_rows_share_the_table_that_one_home_would_have(root, two):
    done = merge(two / "joined", two / "a", two / "b")
    assert done.returncode == 0, done.stderr
    assert table_of(two / "joined").equals(table_of(root / "home"))
    assert len(Ledger.open(two / "joined").trials) == len(Ledger.open(root / "home").trials)


def test_merging_twice_or_into_its_own_home_changes_nothing(two):
    merge(two / "joined", two / "a", two / "b")
    before = {path: path.read_bytes() for path in (two / "joined").rglob("*") if path.is_file()}
    done = merge(two / "joined", two / "b", two / "a")
    assert "Added 0 segments and 0 rank files" in done.stdout
    trials = len(Ledger.open(two / "joined").trials)
    assert f"{trials} trials, {trials} of them in several sources" in done.stdout
    assert {path: path.read_bytes() for path in (two / "joined").rglob("*") if path.is_file()} == before
    assert "Added 0 segments and 0 rank files" in merge(two / "home-a", two / "a").stdout


def forge(folder, change):
    """Rewrite the last confirmation of a publication, and its hashes."""
    [path] = (folder / "ledger").iterdir()
    lines = gzip.decompress(path.read_bytes()).splitlines()
    at = max(n for n, line in enumerate(lines) if line.startswith(b'{"kind":"ended"'))
    event = segments.parse(lines[at])
    change(event["result"])
    lines[at] = segments.sealed(event)
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    rehash(folder)
    return event["id"]


def test_a_publication_that_an_older_version_redacted_less_is_one_of_its_home(two):
    """The home would now publish another line than it did then."""
    home = two / "home-c"
    synthetic_ledgers.write(home)
    with closing(Segment(home)) as segment:
        segment.append("finished", ran=1, note="on shard3:/home/ann/data/x.npy")
    publish.write(home, two / "c")
    path = two / "c" / "ledger" / f"{segment.run}.jsonl.gz"
    path.write_bytes(gzip.compress(segment.path.read_bytes()))
    rehash(two / "c")
    assert "Added 0 segments" in merge(home, two / "c").stdout
    merge(two / "joined", two / "c")
    assert b"ann" not in (two / "joined" / "ledger" / segment.path.name).read_bytes()


def test_conflicts_are_named_and_nothing_is_written(two):
    def better(result):
        result["best"] += 0.01

    [segment] = (two / "b" / "ledger").iterdir()
    merge(two / "joined", two / "a")
    before = {path: path.read_bytes() for path in (two / "joined").rglob("*") if path.is_file()}
    shared = {event["id"] for event in events(two / "home-a", "ended")} & {
        e["id"] for e in events(two / "home-b", "ended")
    }
    trial = sorted(i for i in shared if (two / "b" / "ranks" / f"{i}.parquet").exists())[0]
    frame = pl.read_parquet(two / "b" / "ranks" / f"{trial}.parquet")
    frame.with_columns(pl.col("low", "high") + 1).write_parquet(two / "b" / "ranks" / f"{trial}.parquet")
    rehash(two / "b")
    done = merge(two / "joined", two / "b")
    assert done.returncode == 2
    assert f"trial {trial} has two rank files" in done.stderr
    forge(two / "b", better)
    done = merge(two / "home-b", two / "b")
    assert f"segment {segment.name.removesuffix('.jsonl.gz')} differs" in done.stderr
    assert {path: path.read_bytes() for path in (two / "joined").rglob("*") if path.is_file()} == before


def test_searches_of_one_study_that_went_apart_are_not_mixed(two):
    """As after a pruner's decision, or on another processor: together they would be neither of the two."""
    [study] = [one for one in synthetic_ledgers.studies() if one.cell.adapter == "id" and one.cell.dataset == "set0"]
    segment = Segment(two / "home-c")
    segment.append("launched", **synthetic_ledgers.launch([study], 4, 2))
    for number, trial in enumerate([study.searched()[0], study.trial("search", 0, 0.123)]):
        trial_events.started(segment, trial, study.id, number)
        trial_events.ended(segment, trial.id, synthetic_ledgers.result_of(trial))
    segment.close()
    assert harness(two / "home-c", "publish", str(two / "c")).returncode == 0
    done = merge(two / "joined", two / "a", two / "c")
    assert done.returncode == 2
    assert "the searches of set0 / none / sasrec / id draw different configurations from trial 1 on" in done.stderr


def with_own_trial(home, status, worse=0.0):
    """A home whose search of `svd` found its best configuration stopped by another search and trained it itself."""
    [study] = [one for one in synthetic_ledgers.studies() if one.cell.adapter == "svd" and one.cell.dataset == "set0"]
    stopped = study.winner()
    own, best = replace(stopped, study=study.id), synthetic_ledgers.result_of(stopped).best - worse
    with closing(Segment(home)) as segment:
        segment.append("launched", **synthetic_ledgers.launch([study], 4, 2))
        trial_events.started(segment, stopped, "f" * 24, 0)
        trial_events.ended(segment, stopped.id, TrialResult("pruned", best=0.01, curve=[0.01]))
        trial_events.started(segment, own, study.id, study.searched().index(stopped))
        trial_events.ended(segment, own.id, TrialResult(status, best=best, curve=[best]))
    return study


@pytest.mark.parametrize("status", ["done", "pruned"])
def test_a_number_that_one_home_trained_as_its_own_trial_is_the_same_search(root, two, status):
    study = with_own_trial(two / "home-c", status)
    publish.write(two / "home-c", two / "c")
    for name, folders in {"one": [root / "out", two / "c"], "other": [two / "c", root / "out"]}.items():
        done = merge(two / name, *folders)
        assert done.returncode == 0, done.stderr
        read = Ledger.open(two / name)
        assert read.winner(study.id, study.trials).params == study.winner().params
        assert read.confirming(study.id, study.trials, study.seeds) == [trial.id for trial in study.confirmations()]


def test_two_scores_of_a_configuration_under_two_ids_are_a_conflict(root, two):
    with_own_trial(two / "home-c", "done", 0.01)
    publish.write(two / "home-c", two / "c")
    done = merge(two / "joined", root / "out", two / "c")
    assert done.returncode == 2
    assert "of the search of set0 / minilm / sasrec / svd has two validation scores (0." in done.stderr


def test_an_earlier_publication_of_a_home_that_repeated_a_run_adds_nothing(two):
    home = two / "home-a"
    trial = sorted(path.stem for path in (two / "a" / "ranks").iterdir())[0]
    [first] = Ledger.open(home).launches
    with closing(Segment(home)) as segment:
        trial_events.voided(segment, trial, "its weights are lost", first)
        trial_events.started(segment, Ledger.open(home).trials[trial].trial, "", 0)
        trial_events.ended(segment, trial, TrialResult("done", best=0.123, curve=[0.123], test={"NDCG@10": 0.1}))
    assert "Added 0 segments and 0 rank files" in merge(home, two / "a").stdout
    assert Ledger.open(home).result(trial).best == 0.123


def repeat(home, trial_id):
    """Void a run and repeat it with other ranks, as after the loss of its files on another processor."""
    entry = Ledger.open(home).trials[trial_id]
    ranks, spectra = synthetic_ledgers.ranks_of(entry.trial), {"start": np.ones(2), "end": np.array([1.0, 0.75])}
    with closing(Segment(home)) as segment:
        trial_events.voided(segment, trial_id, "ranks.parquet is missing", entry.run)
        trial_events.started(segment, entry.trial, entry.study, 0)
        moved = {"users": np.arange(len(ranks)), "ranks": Ranks.untied(ranks.low + 1), "spectra": spectra}
        artifacts.save_artifacts(home, trial_id, **moved, weights=b"")
        result = TrialResult("done", best=entry.best, curve=[entry.best], test={"NDCG@10": 0.1})
        trial_events.ended(segment, trial_id, result)
    return artifacts.load_ranks(home, trial_id)


@pytest.mark.parametrize("order", [["a", "a2"], ["a2", "a"], ["a"]])
def test_a_run_that_was_repeated_since_brings_its_new_ranks(two, order):
    """Together, in either order, or after the earlier publication was merged."""
    trial = sorted(path.stem for path in (two / "a" / "ranks").iterdir())[0]
    new = repeat(two / "home-a", trial)
    publish.write(two / "home-a", two / "a2")
    assert merge(two / "joined", *(two / name for name in order)).returncode == 0
    if "a2" not in order:
        assert not artifacts.load_ranks(two / "joined", trial).equals(new)
        done = merge(two / "joined", two / "a2")
        assert "Added 1 segments and 1 rank files" in done.stdout
        [aside] = (two / "joined" / "artifacts").glob("*.damaged-*")
        assert aside.name.startswith(trial)
    assert artifacts.load_ranks(two / "joined", trial).equals(new)
    assert artifacts.load_spectra(two / "joined", trial)["end"] == [1.0, 0.75]
    assert artifacts.fault(two / "joined", trial, artifacts.RANKS) == ""
    assert "Added 0 segments and 0 rank files" in merge(two / "joined", two / "a2").stdout
    assert "Added 0 segments and 0 rank files" in merge(two / "joined", two / "a").stdout
    assert artifacts.load_ranks(two / "joined", trial).equals(new)


def test_an_earlier_publication_does_not_bring_back_the_ranks_of_a_voided_run(two):
    home, trial = two / "home-a", sorted(path.stem for path in (two / "a" / "ranks").iterdir())[0]
    repeat(home, trial)
    (artifacts.artifact_folder(home, trial) / artifacts.RANKS).unlink()
    assert "Added 0 segments and 0 rank files" in merge(home, two / "a").stdout
    assert artifacts.load_ranks(home, trial) is None


def test_damaged_ranks_of_the_home_are_refused_before_anything_is_written(two):
    merge(two / "joined", two / "a")
    first, *_, last = sorted((two / "joined" / "artifacts").iterdir())
    shutil.rmtree(first)
    (last / artifacts.RANKS).write_bytes(b"PAR1")
    before = sorted((two / "joined").rglob("*"))
    done = merge(two / "joined", two / "b", two / "a")
    assert done.returncode == 2
    assert f"{last} is damaged" in done.stderr
    assert sorted((two / "joined").rglob("*")) == before


ODD = {
    "no kind": {"seq": 99},
    "no id": {"kind": "opened", "seq": 99},
    "a list": [1, {"seq": 2}],
    "an odd launch": {"kind": "launched", "seq": 99, "schema": 2, "studies": [{}]},
    "no number": {"kind": "x"},
}


@pytest.mark.parametrize("event", ODD.values(), ids=ODD)
def test_records_that_no_harness_wrote_are_one_clear_line(two, event):
    [path] = (two / "a" / "ledger").iterdir()
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + segments.sealed(event) + b"\n"))
    rehash(two / "a")
    done = merge(two / "joined", two / "a")
    assert done.returncode == 2
    assert f"harness verify {two / 'a'}" in done.stderr or "damaged ledger" in done.stderr
    assert not (two / "joined" / "ledger").exists()


def test_odd_results_of_a_trial_that_is_compared_are_one_clear_line(two):
    """Results are read only where they are compared."""
    merge(two / "joined", two / "b")
    shared = Ledger.open(two / "joined").trials.rows.keys() & Ledger.open(two / "home-a").trials.rows.keys()
    [path] = (two / "a" / "ledger").iterdir()
    found = [segments.parse(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for event in found:
        if event["kind"] == "ended" and event["id"] in shared:
            event["result"]["odd"] = 1
    path.write_bytes(gzip.compress(b"\n".join(map(segments.sealed, found)) + b"\n"))
    rehash(two / "a")
    done = merge(two / "joined", two / "a")
    assert done.returncode == 2
    assert f"{two / 'a'} has records that cannot be replayed (TypeError)" in done.stderr


def test_a_changed_publication_is_not_merged(two):
    name = delete(two / "a")
    done = merge(two / "joined", two / "a")
    assert done.returncode == 2
    assert name in done.stderr
    assert not (two / "joined" / "ledger").exists()


def test_ranks_that_cannot_be_read_are_not_merged(two):
    path = next((two / "a" / "ranks").iterdir())
    path.write_bytes(b"PAR1")
    rehash(two / "a")
    done = merge(two / "joined", two / "a")
    assert done.returncode == 2
    assert f"ranks/{path.name}: unreadable" in done.stderr
    assert not (two / "joined" / "ledger").exists()


def test_a_table_of_one_test_user_is_published_verified_and_listed(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i}", 100 * u + t) for u in range(30) for t, i in enumerate(rng.permutation(20)[:8])]
    events = {"user_id": [r[0] for r in rows], "item_id": [r[1] for r in rows], "timestamp": [r[2] for r in rows]}
    folder = write_dataset(tmp_path / "late", events, {"item_id": [f"i{i}" for i in range(20)], "title": ["x"] * 20})
    small_homes.bench(tmp_path / "home", folder, "--adapters", "id", "--protocol", "gts", "--quantile", "0.99")
    [section] = tables.build(ledger_frames.of_home(tmp_path / "home")).sections
    assert section.test_users == 1
    assert harness(tmp_path / "home", "publish", str(tmp_path / "all" / "one")).returncode == 0
    assert verify(tmp_path / "all" / "one").returncode == 0
    assert harness(tmp_path / "home", "publish", "--index", str(tmp_path / "all")).returncode == 0
    assert "[–, –]" in (tmp_path / "all" / "index.html").read_text()
    assert harness(tmp_path / "home", "paper").returncode == 0


def test_a_name_in_a_manifest_that_is_no_text_is_a_difference(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["\ud800"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = verify(copy)
    assert done.returncode == 1
    assert "\\ud800" in done.stdout


def test_the_same_data_set_with_other_content_is_a_conflict(two, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        launch = synthetic_ledgers.launch

        def other(*words):
            value = launch(*words)
            value["data"]["set0"]["hash"] = "1" * 24
            return value

        patch.setattr(synthetic_ledgers, "launch", other)
        home = part_home(tmp_path / "home-c", lambda cell: cell.adapter == "id")
    assert harness(home, "publish", str(two / "c")).returncode == 0
    done = merge(two / "joined", two / "a", two / "c")
    assert done.returncode == 2
    assert "data set set0 has content" in done.stderr


def test_an_index_lists_publications_with_escaped_text(two):
    (two / "all").mkdir()
    shutil.copytree(two / "a", two / "all" / "a&<b>")
    shutil.copytree(two / "b", two / "all" / "b")
    (two / "all" / "broken").mkdir()
    (two / "all" / "broken" / "manifest.json").write_text("{")
    done = harness(two / "home-a", "publish", "--index", str(two / "all"))
    assert done.returncode == 0, done.stderr
    assert "broken" in done.stderr
    page = (two / "all" / "index.html").read_text()
    assert "a&amp;&lt;b&gt;" in page
    assert "<b>" not in page
    assert 'href="b/leaderboard.html"' in page
    assert "set0" in page
    assert "NDCG@10 0." in page
    assert "http" not in page


def test_an_index_of_nothing_is_refused(tmp_path):
    done = harness(tmp_path, "publish", "--index", str(tmp_path))
    assert done.returncode == 2
    assert "holds no publication" in done.stderr


def test_verify_and_merge_import_no_torch_ray_or_mlflow(root, tmp_path):
    code = "import sys\nfrom harness.cli import main\nmain(sys.argv[1:], standalone_mode=False)\n"
    watch = (
        "import sys, atexit\natexit.register(lambda: print('HEAVY', {'torch', 'ray', 'mlflow'} & set(sys.modules)))\n"
    )
    for words in (["verify", str(root / "out")], ["merge", str(root / "out"), "--home", str(tmp_path / "home")]):
        done = subprocess.run(
            [sys.executable, "-c", watch + code, *words], env=environment(tmp_path), capture_output=True, text=True
        )
        assert "HEAVY set()" in done.stdout, done.stdout + done.stderr


def test_a_launch_without_a_study_file_leaves_its_options(root):
    [path] = (root / "out" / "studies").iterdir()
    text = path.read_text()
    assert '"sampler": "random"' in text
    assert all(line.startswith("#") for line in text.splitlines())


def test_ranks_of_real_trials_give_the_recorded_scores(tmp_path):
    torch.set_num_threads(1)
    home = tmp_path / "home"
    home.mkdir()
    small_homes.run(small_homes.request(home, make_dataset(tmp_path / "toy"), "id"))
    assert harness(home, "publish", str(tmp_path / "out")).returncode == 0
    done = verify(tmp_path / "out")
    assert done.returncode == 0, done.stdout
    name = change_rank(tmp_path / "out")
    rehash(tmp_path / "out")
    [line] = [line for line in verify(tmp_path / "out").stdout.splitlines() if line.startswith(name)]
    assert ", recorded 0." in line


def test_missing_ranks_leave_the_same_hole_as_in_the_home(tmp_path):
    home = tmp_path / "home"
    synthetic_ledgers.write(home)
    shutil.rmtree(artifacts.artifact_folder(home, synthetic_ledgers.studies()[1].confirmations()[0].id))
    assert harness(home, "publish", str(tmp_path / "out")).returncode == 0
    assert verify(tmp_path / "out").returncode == 0
    assert publication.faults(publication.find(tmp_path / "out")) == []


def test_a_damaged_spectrum_is_neither_shown_nor_published(tmp_path):
    home, trial = tmp_path / "home", synthetic_ledgers.studies()[1].confirmations()[0].id
    synthetic_ledgers.write(home)
    file = artifacts.artifact_folder(home, trial) / artifacts.SPECTRUM
    file.write_text(file.read_text().replace("0.25", "0.95"))
    assert artifacts.load_spectra(home, trial) is None
    done = harness(home, "publish", str(tmp_path / "out"))
    assert done.returncode == 2
    assert f"{file} is damaged; remove it" in done.stderr
    file.unlink()
    assert harness(home, "publish", str(tmp_path / "out")).returncode == 0
    assert verify(tmp_path / "out").returncode == 0


RESULTS = sorted(path.parent for path in (Path(__file__).parents[2] / "results").glob("*/manifest.json"))


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_what_the_repository_publishes_stays_valid(folder):
    done = verify(folder)
    assert done.returncode == 0, done.stderr
    assert " table cells: equal (manifest sha256 " in done.stdout


@pytest.mark.parametrize(
    ("said", "public"),
    [
        ("sqlite:////scratch/ann/mlflow.db", "sqlite:.../mlflow.db"),
        ("file:///data/ann/x/y", "file:.../y"),
        ("'file:/data/ann/E.npy' has 3 rows", "'file:.../E.npy' has 3 rows"),
        ('"/data/ann smith/proj/items.parquet"', '".../items.parquet"'),
        ("shard3:/home/ann/data/x.npy", "shard3:.../x.npy"),
        ("[Errno 2]:/home/ann/x/y", "[Errno 2]:.../y"),
        ("PATH=/usr/bin:/home/ann/bin/x", "PATH=.../bin:.../x"),
        ("-I/home/ann/include/a.h", "-I.../a.h"),
        ("g++ -L/home/ann/lib/x.so", "g++ -L.../x.so"),
        ("</home/ann/x/y>", "<.../y>"),
        ("https://github.com/a/b/c", "https://github.com/a/b/c"),
        ("http://ann@10.0.0.7:80/a/b/c", "http://<host>/a/b/c"),
        ("10.0.0.7:80/a/b", "<address>/a/b"),
        ("an A/B test of data/a/b.npy, 3/4 of it </p>", "an A/B test of data/a/b.npy, 3/4 of it </p>"),
    ],
)
def test_folders_behind_a_scheme_and_in_quotes_are_removed(said, public):
    assert redaction.redact_text(said) == public
    assert redaction.redact_text(public) == public


def test_the_study_file_of_a_publication_names_no_server_and_no_cluster():
    servers = {"tracking": "http://mlflow.lab.internal:5000", "address": "head7.lab:6379", "artifacts": "s3://ours/x"}
    text = "".join(f'{name} = "{value}"\n' for name, value in servers.items())
    assert redaction.redact_study(f'trials = 4\n{text}tracking = "off"\n') == 'trials = 4\ntracking = "off"\n'


def test_a_publication_that_is_being_written_is_not_in_the_index(root, tmp_path):
    for name in ("one", ".two.part-77"):
        shutil.copytree(root / "out", tmp_path / "all" / name)
    page, count, left_out = publication_index.write(tmp_path / "all")
    assert (count, left_out) == (1, [])
    assert "part-77" not in page.read_text()
