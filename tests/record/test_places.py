"""Checkpoints and weights in a place beside the home: a folder, and a real S3-compatible server."""

import json

import numpy as np
import pytest
from s3_server import URL, S3Server
from s3fs import S3FileSystem

from harness.engine.trial_files import TrialFiles
from harness.metrics._ties import Ranks
from harness.record import artifacts, places
from harness.system import checksums
from harness.types import HarnessError

TRIAL, WEIGHTS = "0123456789abcdef01234567", bytes(range(256)) * 9000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = S3Server(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture(params=["folder", "store"])
def where(request, tmp_path):
    if request.param == "folder":
        return places.check(str(tmp_path / "shared"))
    return places.check(URL if request.getfixturevalue("server") else "")


def finished(home, where):
    """The artifacts of a confirmed trial, as its worker and the recorder write them."""
    ranks = Ranks.untied(np.arange(1.0, 8.0))
    parts = {"users": np.arange(7), "ranks": ranks, "spectra": {}, "weights": WEIGHTS, "lists": None}
    artifacts.save_artifacts(home, TRIAL, **TrialFiles(where).without_weights(TRIAL, parts))
    artifacts.check_artifacts(home, TRIAL)
    return artifacts.artifact_folder(home, TRIAL)


def test_a_file_is_there_until_it_is_removed(where):
    place = places.Place(where)
    assert place.get("file") is None
    pointer = place.put("file", WEIGHTS)
    assert places.read(pointer) == WEIGHTS
    place.put("file", b"other")
    assert place.get("file") == b"other"
    with pytest.raises(places.DamagedFile):
        places.read(pointer)
    place.remove("file")
    place.remove("file")
    with pytest.raises(FileNotFoundError):
        places.read(pointer)


@pytest.mark.parametrize("name", ["run::2", "file::memory", "a b*?#c"])
def test_a_folder_of_any_name_keeps_its_files_apart(tmp_path, name):
    place = places.Place(places.check(str(tmp_path / name)))
    for file in ("one", "two"):
        place.put(file, file.encode())
    assert [place.get(file) for file in ("one", "two")] == [b"one", b"two"]
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == [places.README, "one", "two"]
    place.remove("two")
    assert place.get("one") == b"one"


def test_a_checkpoint_comes_back_and_a_damaged_one_does_not(where):
    files, other = TrialFiles(where), TrialFiles(where)
    assert files.state(TRIAL) is None
    assert files.save(TRIAL, WEIGHTS)
    assert other.state(TRIAL) == WEIGHTS
    name = f"{TRIAL}.checkpoint"
    content = places.Place(where).get(name)
    assert content is not None
    places.Place(where).put(name, content[:-1] + b"x")
    assert other.state(TRIAL) is None
    files.drop(TRIAL)
    assert places.Place(where).get(name) is None


def test_weights_lie_in_the_place_until_they_are_needed(where, home):
    folder = finished(home, where)
    assert not (folder / artifacts.WEIGHTS).exists()
    assert artifacts.load_ranks(home, TRIAL) is not None
    assert artifacts.load_weights(home, TRIAL) == WEIGHTS
    assert (folder / artifacts.WEIGHTS).read_bytes() == WEIGHTS, "they were fetched"
    assert artifacts.fault(home, TRIAL, artifacts.WEIGHTS) == ""


def test_missing_and_damaged_weights_are_faults_as_in_the_home(where, home):
    finished(home, where)
    name = f"{TRIAL}.{artifacts.WEIGHTS}"
    places.Place(where).put(name, b"other")
    assert artifacts.fault(home, TRIAL, artifacts.WEIGHTS) == "damaged"
    with pytest.raises(checksums.Damaged, match="is damaged"):
        artifacts.fetch(home, TRIAL, artifacts.WEIGHTS)
    places.Place(where).remove(name)
    assert artifacts.fault(home, TRIAL, artifacts.WEIGHTS) == "missing"


def test_a_repeated_run_without_a_place_replaces_the_pointer(where, home):
    folder = finished(home, where)
    artifacts.fetch(home, TRIAL, artifacts.WEIGHTS)
    finished(home, "")
    assert not (folder / artifacts.ELSEWHERE).exists()
    assert artifacts.load_weights(home, TRIAL) == WEIGHTS


@pytest.mark.slow  # each call tries for five seconds
def test_a_place_that_is_away_leaves_everything_in_the_home(tmp_path, home, monkeypatch):
    server = S3Server(tmp_path / "store")
    S3FileSystem.clear_instance_cache()  # it knows the endpoint of the other server
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    files = TrialFiles(places.check(URL))
    folder = finished(home, URL)
    pointer = json.loads((folder / artifacts.ELSEWHERE).read_text())
    server.stop()
    assert not files.save(TRIAL, b"state"), "the recorder gets it"
    assert files.state(TRIAL) is None
    files.drop(TRIAL)
    with pytest.raises(HarnessError, match=r"model.safetensors of trial .* is away"):
        artifacts.load_weights(home, TRIAL)
    assert pointer[artifacts.WEIGHTS]["size"] == len(WEIGHTS)
    assert (finished(home, URL) / artifacts.WEIGHTS).read_bytes() == WEIGHTS
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("s3://key:secret@bucket/x", "contains a user, key or parameter.*AWS_ACCESS_KEY_ID"),
        ("s3://bucket/x?token=secret", "contains a user, key or parameter"),
        ("memory://x#secret", "contains a user, key or parameter"),
        ("s3://no-such-bucket/x", "cannot be used: .*Allowed: a folder"),
        ("simplecache::s3://bucket/x", r"chained file systems \(::\) cannot be used\. Allowed: a folder"),
        ("nothing://bucket/x", "cannot be used: .*Allowed: a folder"),
        ("{file}/below", "cannot be used: .*Allowed: a folder"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_clear_line(server, tmp_path, word, message):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(HarnessError, match=message) as error:
        places.check(word.format(file=file))
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
