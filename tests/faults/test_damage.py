"""Bytes that flip on disk: found by checksum, named, set aside, made again; the table stays what it was."""

import hashlib
import json

import numpy as np
import pytest
import small_homes
from command_line import bench, ended, harness, metrics_of
from dataset_files import make_dataset

from harness.metrics._ties import Ranks
from harness.record import artifacts

GRID = ["--adapters", "id,svd", "--backbones", "sasrec", "--sampler", "random", "--tracking", "off", "--gpu", "0"]


def flip(path, at=-3):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def table(home):
    return metrics_of(json.loads(harness(home, "leaderboard", "--format", "json").stdout))


@pytest.mark.slow
def test_the_same_bench_makes_good_what_was_damaged(tmp_path):
    folder, home = make_dataset(tmp_path / "toy"), tmp_path / "home"
    small_homes.bench(home, folder, *GRID)
    before, done = table(home), set(ended(home))
    (segment,) = (home / "ledger").glob("*.jsonl")
    lost = damage_an_end_in_the_middle(segment)
    (prepared,) = home.glob("cache/prepared/*/items.npy")
    (embedding,) = home.glob("cache/embeddings/*/E.npy")
    (basis,) = home.glob("cache/bases/*/U.npy")
    ranks = confirmed(home, "svd") / "ranks.parquet"
    for path in (prepared, embedding, basis, ranks):
        flip(path)
    holes = harness(home, "leaderboard")
    assert "rerun the bench to repeat these runs" in holes.stdout
    again = bench(home, folder, *GRID)
    assert again.returncode == 0, again.stderr
    assert f"{segment.name}:" in again.stderr
    assert "damaged line" in again.stderr
    assert "torn last line" in again.stderr
    for path in (prepared, embedding, basis, ranks):
        aside = path.parent.with_name(f"{path.parent.name}.damaged-1")
        assert f"{path.parent} is damaged" in again.stderr
        assert (aside / path.name).is_file(), "set aside, not deleted"
    rerun = [event["id"] for file in (home / "ledger").glob("*") if file != segment for event in ends(file)]
    assert sorted(rerun) == sorted([lost, ranks.parent.name]), "what was lost runs again, and nothing else"
    assert set(rerun) < done
    assert table(home) == before


def damage_an_end_in_the_middle(segment):
    """Flip a byte in the end of a search trial of `id`, and tear a line off at the end of the file."""
    lines = segment.read_bytes().splitlines(keepends=True)
    begun = [(e["id"], e["trial"]) for e in map(json.loads, lines) if e["kind"] == "started"]
    known = {i for i, trial in begun if trial["role"] == "search" and trial["cell"]["adapter"] == "id"}
    at = next(i for i, x in enumerate(lines) if x.startswith(b'{"kind":"ended"') and json.loads(x)["id"] in known)
    trial_id = json.loads(lines[at])["id"]
    lines[at] = lines[at].replace(b'"best":0.', b'"best":1.', 1)
    segment.write_bytes(b"".join(lines) + b'{"kind":"epoch","seq":')
    return trial_id


def ends(file):
    return [e for line in file.read_text().splitlines() if (e := json.loads(line))["kind"] == "ended"]


def confirmed(home, adapter):
    for event in (json.loads(x) for f in home.glob("ledger/*") for x in good(f)):
        trial = event.get("trial", {"role": ""})
        if trial["role"] == "confirm" and trial["cell"]["adapter"] == adapter:
            return artifacts.artifact_folder(home, event["id"])
    raise AssertionError(adapter)


def good(file):
    return [line for line in file.read_text().splitlines() if line.endswith("}")]


@pytest.mark.parametrize("at", [0, 9, 100, -40, -1])
def test_a_damaged_checkpoint_is_set_aside_and_the_trial_begins_anew(home, capsys, at):
    data = hashlib.sha512(b"state").digest() * 10
    assert artifacts.save_checkpoint(home, "t", data)
    assert artifacts.load_checkpoint(home, "t") == data
    flip(artifacts.checkpoint_path(home, "t"), at)
    assert artifacts.load_checkpoint(home, "t") is None
    assert "t.checkpoint.damaged-1" in capsys.readouterr().err
    assert artifacts.load_checkpoint(home, "t") is None


@pytest.mark.parametrize("name", ["ranks.parquet", "spectrum.json", "model.safetensors"])
def test_every_artifact_is_known_by_its_checksum(home, name):
    users, ranks = np.arange(50, dtype=np.int32), Ranks(np.arange(1, 51), np.arange(1, 51) * 2)
    artifacts.save_artifacts(home, "t", users=users, ranks=ranks, spectra={"end": np.ones(4)}, weights=b"w" * 100)
    assert artifacts.fault(home, "t", name) == ""
    assert artifacts.bounds(artifacts.load_ranks(home, "t")).equal(ranks).all()
    file = artifacts.artifact_folder(home, "t") / name
    for at in range(0, len(file.read_bytes()), 7):
        flip(file, at)
        assert artifacts.fault(home, "t", name) == "damaged"
        flip(file, at)
    flip(file.with_name("seal.json"), 30)
    assert artifacts.fault(home, "t", name) == "damaged", "a seal that is damaged vouches for nothing"
    file.unlink()
    assert artifacts.fault(home, "t", name) == "missing"
    assert artifacts.load_ranks(home, "t") is None


def test_a_home_whose_only_launch_is_damaged_is_never_taken_for_an_empty_one(home):
    from harness.record.segments import Segment

    segment = Segment(home)
    segment.append("launched", schema=1)
    segment.close()
    flip(segment.path, 20)
    for verb in ("leaderboard", "status"):
        process = harness(home, verb)
        assert process.returncode == 2
        assert f"{segment.path.name}:1: damaged line" in process.stderr
        assert "holds no results" not in process.stderr
