"""Folders for what nobody needs afterwards, and what becomes of those whose process was killed."""

import os
import stat
import subprocess
import sys

import pytest

from harness.system import tempdirs
from harness.types import HarnessError

HOLD = """
import time
from harness.system import tempdirs as scratch
with scratch.folder("tune") as folder:
    (folder / "big").mkdir()
    print(folder, flush=True)
    time.sleep(60)
"""


def hold(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env={"TMPDIR": str(tmp_path)}
    )
    return process, tmp_path / process.stdout.readline().strip().rpartition("/")[2]


def test_a_killed_process_leaves_a_folder_that_the_next_one_removes_and_a_living_one_keeps_its_own(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempdirs.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "harness-workers-0").mkdir()
    living, kept = hold(tmp_path)
    killed, left = hold(tmp_path)
    killed.kill(), killed.wait()
    try:
        tempdirs.sweep()
        assert left.is_dir(), "it may not be locked yet"
        monkeypatch.setattr(tempdirs, "YOUNG", 0.0)
        with tempdirs.folder("calibrate") as own:
            assert sorted(tmp_path.iterdir()) == sorted([kept, own, tmp_path / "harness-workers-0"])
            tempdirs.sweep()
            assert own.is_dir()
            assert (kept / "big").is_dir()
        assert not own.exists()
    finally:
        living.kill(), living.wait()


def aged(folder):
    folder.mkdir(parents=True)
    lock = folder / tempdirs.ALIVE
    lock.write_text("kept")
    os.utime(lock, (0, 0))
    return lock


def test_links_that_others_may_put_there_are_not_followed(tmp_path):
    root, other = tmp_path / "tmp", tmp_path / "other"
    root.mkdir()
    lock, file = aged(other), aged(tmp_path / "third")
    (root / "harness-ray-link").symlink_to(other)
    (root / "harness-ray-file").mkdir()
    (root / "harness-ray-file" / tempdirs.ALIVE).symlink_to(file)
    aged(root / "harness-ray-own")
    tempdirs.sweep(root)
    assert not (root / "harness-ray-own").exists()
    assert lock.read_text() == file.read_text() == "kept"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders by the length of their paths; nothing else is there to fall back on."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempdirs, "SHORT", ())
    short, long = tmp_path / "s", tmp_path / ("ä" * 20)
    short.mkdir(), long.mkdir()
    monkeypatch.setattr(tempdirs.tempfile, "tempdir", str(long))
    return short, long, len(os.fsencode(short))


def test_a_short_folder_is_the_first_that_fits(places, monkeypatch):
    short, long, length = places
    assert tempdirs.short_root(length + 39) == long, "a letter beyond ASCII counts as its bytes"
    monkeypatch.setattr(tempdirs, "SHORT", ("/proc", str(short)))
    assert tempdirs.short_root(length + 38) == short
    monkeypatch.setenv("RAY_TMPDIR", str(short / "none"))
    assert tempdirs.short_root(length + 38) == short
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    assert tempdirs.short_root(length + 39) == short, "who names it for Ray is heard first"
    with tempdirs.folder("ray", length + tempdirs.added("ray")) as folder:
        assert folder.parent == short
        assert len(os.fsencode(folder)) == length + tempdirs.added("ray")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(short.iterdir()) == []


def test_without_a_short_folder_the_line_names_the_variable(places):
    with pytest.raises(HarnessError, match="RAY_TMPDIR"):
        tempdirs.short_root(places[2] - 1)
