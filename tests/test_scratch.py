"""Folders for what nobody needs afterwards, and what becomes of those whose process was killed."""

import subprocess
import sys

from harness import scratch

HOLD = """
import time
from harness import scratch
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
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "harness-workers-0").mkdir()
    living, kept = hold(tmp_path)
    killed, left = hold(tmp_path)
    killed.kill(), killed.wait()
    try:
        scratch.sweep()
        assert left.is_dir(), "it may not be locked yet"
        monkeypatch.setattr(scratch, "YOUNG", 0.0)
        with scratch.folder("calibrate") as own:
            assert sorted(tmp_path.iterdir()) == sorted([kept, own, tmp_path / "harness-workers-0"])
            scratch.sweep()
            assert own.is_dir()
            assert (kept / "big").is_dir()
        assert not own.exists()
    finally:
        living.kill(), living.wait()
