"""`harness cache`: what a home holds, and what of it goes; never anything else."""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import synthetic_ledgers
from command_line import harness
from filelock import FileLock

from harness.record import artifacts, events, housekeeping
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.system import checksums

OLD = time.time() - 40 * 86_400


def aged(path, monkeypatch=None):
    os.utime(path, (OLD, OLD))
    return path


@pytest.fixture
def full(home):
    """A home with a finished bench, a trial under way, and things that were left behind."""
    synthetic_ledgers.write(home, datasets=1)
    trials = Ledger.open(home).trials
    over = next(iter(trials))
    running = synthetic_ledgers.studies(1)[1].trial("search", 0, 0.5)
    segment = Segment(home)
    events.started(segment, running, "study", 9)
    segment.close()
    for name in (over, running.id, "f" * 24):
        artifacts.save_checkpoint(home, name, b"state" * 100)
    (home / "checkpoints" / f"{'e' * 24}.safetensors").write_bytes(b"of a harness before")
    aside = home / "cache" / "bases" / "abc.damaged-1"
    aside.mkdir(parents=True)
    (aside / "U.npy").write_bytes(bytes(1000))
    half = home / "cache" / "prepared" / ".half.0123abcd"
    half.mkdir(parents=True)
    (half / "items.npy").write_bytes(bytes(500))
    return home, over, running.id, aside, half


def snapshot(home):
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_kinds_and_sizes_add_up_to_what_is_there(full):
    home, *_ = full
    found = json.loads(harness(home, "cache", "--json").stdout)
    assert sum(row["bytes"] for row in found["kinds"]) == sum(len(content) for content in snapshot(home).values())
    kinds = {row["kind"]: row for row in found["kinds"]}
    assert kinds["checkpoints"]["files"] == 4
    assert {"ledger", "artifacts", "cache/bases", "cache/prepared"} <= set(kinds)


def test_a_dry_run_removes_nothing_and_says_what_would_go(full):
    home, over, running, *_ = full
    before = snapshot(home)
    process = harness(home, "cache", "--gc", "--dry-run", "--days", "0")
    assert process.returncode == 0, process.stderr
    assert snapshot(home) == before
    assert f"Would delete checkpoints/{over}.checkpoint: its trial has ended" in process.stdout
    assert "Would delete cache/bases/abc.damaged-1" in process.stdout
    assert running not in process.stdout


def test_what_is_needed_stays_and_what_was_left_behind_goes(full):
    home, over, running, aside, _half = full
    before = snapshot(home)
    process = harness(home, "cache", "--gc", "--days", "0")
    assert process.returncode == 0, process.stderr
    gone = {path.relative_to(home) for path in before.keys() - snapshot(home).keys()}
    left_behind = {f"{over}.checkpoint", f"{'e' * 24}.safetensors"}
    assert {path.name for path in gone if path.parent.name == "checkpoints"} == left_behind
    assert gone - {path for path in gone if path.parent.name == "checkpoints"} == {
        (aside / "U.npy").relative_to(home)
    }, "a half-made folder of today may still be in the making"
    assert artifacts.load_checkpoint(home, running) is not None
    assert "Freed " in process.stdout


def test_age_decides_over_what_is_half_made_or_set_aside(full, monkeypatch):
    from harness.record import housekeeping

    home, _, _, aside, half = full
    paths = lambda days: {item.path for item in housekeeping.waste(home, days)}  # noqa: E731
    unknown = home / "checkpoints" / f"{'f' * 24}.checkpoint"
    assert not {aside, half, unknown} & paths(30), (
        "a trial that starts just now may not be in the ledger as it was read"
    )
    later = time.time() + 31 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert {aside, half, unknown} <= paths(30)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert not {aside, half} & paths(0.001), "a clock that went back makes nothing old"


def test_calibrations_and_the_forecast_are_known_and_go_when_they_are_old(full, monkeypatch):
    from harness.record import housekeeping

    home, *_ = full
    (home / "calibrations").mkdir()
    made = [home / "calibrations" / "a.json", home / "forecast.json"]
    for path in made:
        path.write_text("{}")
    kinds = {row["kind"]: row for row in housekeeping.survey(home)}
    assert [(kinds[kind]["files"], kinds[kind]["bytes"]) for kind in ("calibrations", "forecast.json")] == [(1, 2)] * 2
    assert not {*made} & {item.path for item in housekeeping.waste(home, 30)}
    later = time.time() + 31 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    housekeeping.remove([item for item in housekeeping.waste(home, 30) if item.path in made])
    assert not any(path.exists() for path in made)


@pytest.mark.parametrize("used", [False, True])
def test_files_of_others_in_the_folder_of_a_home_stay(home, monkeypatch, used):
    """A home can be a project, or one's own folder."""
    from harness.record import housekeeping

    others = [".git/config", ".ssh/id_ed25519", ".bashrc", ".pre-commit-config.yaml", "src/.env", "data/.gitignore"]
    others += [".bashrc.original", "data/.settings.personal", ".config.toml.lock"]
    others += ["models/.cache/huggingface/x", "checkpoints/mine.safetensors", "checkpoints/step.checkpoint"]
    others += ["notes.damaged-copy", "logs/.hidden"] + ([] if used else ["forecast.json", "calibrations/mine.json"])
    for name in others:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("mine")
    if used:
        synthetic_ledgers.write(home, datasets=1)
    later = time.time() + 400 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert housekeeping.waste(home, 0) == []


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_left_behind_goes_after_a_day(home, monkeypatch, folder):
    """The names that harness gives unfinished files and folders, and wheels in the making."""
    from harness.record import housekeeping
    from harness.system import files

    left = []
    for target in (home / "config.toml", home / "cache" / "bases" / "abc", home / "models" / "m-1-py3-none-any.whl"):
        target.parent.mkdir(parents=True, exist_ok=True)
        left.append(files._beside(target))
        if target.suffix == ".whl":
            left[-1] = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        elif folder:
            left[-1].mkdir()
        else:
            left[-1].write_bytes(b"half")
    assert housekeeping.waste(home, 0) == []
    later = time.time() + 2 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert sorted(item.path for item in housekeeping.waste(home, 0)) == sorted(left)


def test_set_aside_names_are_never_used_twice(home):
    names = []
    for _ in range(3):
        file = home / "x"
        file.write_bytes(np.random.default_rng(0).bytes(10))
        names.append(checksums.set_aside(file, "a test").name)
    assert names == ["x.damaged-1", "x.damaged-2", "x.damaged-3"]


def test_the_folder_of_an_embedding_that_is_being_computed_stays(home, monkeypatch):
    """Encoding can take days, and the file comes at its end."""
    folder = home / "cache" / "embeddings" / ".0a1b2c3d4e5f.0123abcd"
    lock = home / "cache" / "locks" / "0a1b2c3d4e5f.lock"
    for parent in (folder, lock.parent):
        parent.mkdir(parents=True)
    monkeypatch.setattr(housekeeping.time, "time", lambda: OLD + 80 * 86_400)
    with FileLock(lock):
        assert folder not in {item.path for item in housekeeping.waste(home, 30.0)}
    assert folder in {item.path for item in housekeeping.waste(home, 30.0)}


def test_processes_of_one_id_do_not_share_the_probe_of_a_home(home, monkeypatch):
    """As in containers: each has process 1."""
    monkeypatch.setattr(artifacts.os, "getpid", lambda: 1)
    unlink, depth = Path.unlink, []

    def meanwhile(path, *given):
        if path.name.startswith(".probe") and not depth:
            depth.append(path)
            artifacts.check_home(home)
        unlink(path, *given)

    monkeypatch.setattr(Path, "unlink", meanwhile)
    assert artifacts.check_home(home) == home
    assert not list(home.glob(".probe*"))
