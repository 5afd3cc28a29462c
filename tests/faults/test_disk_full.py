"""A disk that fills up: a clear line, exit code 2, nothing lost, and the same command goes on once there is room."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import small_homes
from command_line import SMALL_MODEL, TINY, bench, ended, environment, harness, harness_process, metrics_of
from dataset_files import make_dataset

from harness.metrics._ties import Ranks
from harness.record import artifacts, segments
from harness.types import HarnessError

GRID = ["--adapters", "id,svd", "--backbones", "sasrec", "--sampler", "random", "--tracking", "off", "--trials", "12"]
GRID += ["--gpu", "0", "--epochs", "6", "--pruner", "none"]  # what it stops depends on the order of ends


@pytest.fixture
def disk(tmp_path):
    """A small file system of one's own, and how to change its size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, *options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a file system cannot be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def fill(path):
    """Write until the disk takes no more, behind what earlier calls wrote."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(bytes(2**12)):
            pass


def table(home):
    return metrics_of(json.loads(harness(home, "leaderboard", "--format", "json").stdout))


def one_clear_line(process):
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "rerun the same command" in last
    return last


@pytest.mark.slow
def test_a_disk_that_fills_up_while_trials_run_costs_nothing_that_ended(disk, tmp_path):
    folder, home = make_dataset(tmp_path / "toy"), disk("64m")
    command = [sys.executable, "-m", "harness.cli", "bench", "--datasets", str(folder), *TINY, *SMALL_MODEL, *GRID]
    process = subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not list(home.glob("ledger/*")) or len(ended(home)) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    filler = home / "filler"
    while process.poll() is None:  # a checkpoint that goes leaves room for the trials after it
        assert time.monotonic() < deadline
        fill(filler)
        time.sleep(0.01)
    _, err = process.communicate()
    one_clear_line(subprocess.CompletedProcess(command, process.returncode, "", err))
    before = set(ended(home))
    again = bench(home, folder, *GRID)
    assert again.returncode == 2, "still no room"
    filler.unlink()
    final = bench(home, folder, *GRID)
    assert final.returncode == 0, final.stderr
    assert "damaged line" not in final.stderr
    done = ended(home)
    assert before < set(done)
    assert len(done) == len(set(done))
    plain = tmp_path / "plain"
    small_homes.bench(plain, folder, *GRID)
    assert table(home) == table(plain)


def prepare(home, folder, encoder="noise"):
    return harness_process(home, "prepare", str(folder), "--encoders", encoder, "--kcore", "0")


def test_a_full_disk_under_the_cache_is_one_line_and_the_next_call_begins_it_anew(disk, tmp_path):
    folder, home = make_dataset(tmp_path / "toy", users=900, items=700, length=20), disk("200k")
    assert "cache/prepared" in one_clear_line(prepare(home, folder))
    assert not list(home.glob("cache/prepared/[0-9a-f]*")), "nothing that is not whole has a name"
    disk("1500k", "remount")
    last = one_clear_line(prepare(home, folder))  # now for the embedding or its basis, which are mapped files
    assert "cache/embeddings" in last or "cache/bases" in last
    assert "o space left on device" in last
    disk("64m", "remount")
    process = prepare(home, folder)
    assert process.returncode == 0, process.stderr
    assert "damaged" not in process.stderr


def test_artifacts_that_could_not_be_written_are_told_and_a_checkpoint_is_no_must(disk):
    home = disk("64k")
    arrays = {"users": np.arange(9), "ranks": Ranks.untied(np.arange(1.0, 10.0)), "spectra": {"end": np.ones(3)}}
    artifacts.save_artifacts(home, "small", **arrays, weights=b"w" * 1000)
    artifacts.check_artifacts(home, "small")
    artifacts.save_artifacts(home, "large", **arrays, weights=bytes(100_000))
    with pytest.raises(HarnessError, match=r"artifacts/large could not be written; .*rerun the same command"):
        artifacts.check_artifacts(home, "large")
    assert not artifacts.save_checkpoint(home, "t", bytes(100_000))
    assert artifacts.load_checkpoint(home, "t") is None
    assert artifacts.save_checkpoint(home, "t", b"small")
    artifacts.save_artifacts(home, "small", **arrays, weights=bytes(100_000))
    with pytest.raises(HarnessError, match="artifacts/small could not be written"):
        artifacts.check_artifacts(home, "small")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_home_that_may_only_be_read_is_one_clear_line(disk, tmp_path):
    folder, home = make_dataset(tmp_path / "toy"), disk("64m")
    assert prepare(home, folder).returncode == 0
    disk("64m", "remount", "ro")
    for words in (["bench", "--datasets", str(folder), "--encoders", "noise"], ["sync"]):
        process = harness_process(home, *words)
        assert process.returncode == 2
        assert process.stderr.startswith("Error: The home folder")
        assert "Read-only file system" in process.stderr
        assert "Traceback" not in process.stderr


LIMIT = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from harness.cli import main
main()
"""


@pytest.mark.parametrize("limit", [2_000, 20_000])
def test_a_limit_on_the_size_of_files_is_one_line_too(home, tmp_path, limit):
    folder = make_dataset(tmp_path / "toy", users=900, items=700, length=20)
    words = ["prepare", str(folder), "--encoders", "noise", "--kcore", "0"]
    command = [sys.executable, "-c", LIMIT, str(limit), *words]
    process = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)
    assert "File too large" in one_clear_line(process) or "o space left" in process.stderr
    assert prepare(home, folder).returncode == 0


def test_a_report_that_cannot_be_written_leaves_the_results_where_they_are(disk, tmp_path):
    import synthetic_ledgers

    home = disk("2m")
    synthetic_ledgers.write(home, datasets=1)
    filler = home / "filler"
    fill(filler)
    process = harness_process(home, "leaderboard", "--output", str(home / "table.md"), "--format", "md")
    assert process.returncode == 2
    assert "cannot be written: No space left on device" in process.stderr
    assert not (home / "table.md").exists()
    filler.unlink()
    assert harness_process(home, "leaderboard", "--output", str(home / "table.md"), "--format", "md").returncode == 0
    shutil.rmtree(home / "artifacts")


def test_a_bench_says_before_it_begins_that_the_disk_is_too_small_and_doctor_says_it_too(disk, tmp_path):
    from harness.workflows import disk_space

    folder, home = make_dataset(tmp_path / "toy"), disk("64m")
    words = ["--datasets", str(folder), "--encoders", "noise", "--adapters", "id,svd", "--kcore", "0"]
    large = [*words, "--trials", "100000", "--epochs", "40", "--seeds", "5", "--set", "train.max_len=65536"]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "bench", *large],
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = [process.stderr.readline() for _ in range(3)]
    process.kill()
    process.communicate()
    assert any("Warning: this plan writes about" in line and "are free" in line for line in said), said
    segment = segments.Segment(home)
    segment.append("launched", schema=1, room=10**15)
    segment.close()
    found = {c["name"]: c for c in json.loads(harness_process(home, "doctor", "--json").stdout)["checks"]}
    assert not found["disk"]["ok"]
    assert f"{10**15 / 2**30:.1f} GiB" in found["disk"]["remedy"]
    assert disk_space.amount(10**15) == "1000000.0 GB"
