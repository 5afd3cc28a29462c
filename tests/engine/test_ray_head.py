"""The address of a bench's Ray cluster: invalid addresses, and the folders of a private cluster."""

import os
import socket
import stat

import pytest

from harness.engine import ray_head
from harness.system import tempdirs
from harness.types import HarnessError


@pytest.fixture(autouse=True)
def no_address(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "dashboard"),
        ("https://ray.lab", "dashboard"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("redis://127.0.0.1:6379", "host:port"),
        ("127.0.0.1", "host:port"),
        (":6379", "host:port"),
        ("127.0.0.1:", "host:port"),
        ("127.0.0.1:0", "host:port"),
        ("127.0.0.1:99999", "host:port"),
        ("127.0.0.1:ray", "host:port"),
        ("127.0.0.1:63 79", "host:port"),
    ],
)
def test_an_address_that_is_none_is_told_with_what_it_takes(address, said, monkeypatch):
    with pytest.raises(HarnessError, match="--address is") as option:
        ray_head.address_of(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(HarnessError, match="RAY_ADDRESS is") as variable:
        ray_head.address_of(None)
    for error in (option, variable):
        assert said in str(error.value)
        assert f"'{address}'" in str(error.value)
        assert "127.0.0.1:6379" in str(error.value)


def test_a_head_that_listens_is_taken_and_one_that_does_not_is_told(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert ray_head.address_of(None) == address
        assert ray_head.address_of(" auto ") == "auto", "the option wins"
    with pytest.raises(HarnessError, match=f"No Ray cluster at {address}"):
        ray_head.address_of(None)


@pytest.mark.parametrize("address", [None, "", "  ", "local"])
def test_no_address_is_a_cluster_of_ones_own(address):
    assert ray_head.address_of(address) is None


def test_its_place_is_private_and_short_and_nothing_of_it_stays(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 110)
    long.mkdir()
    monkeypatch.setattr(tempdirs.tempfile, "tempdir", str(long))
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the user's own, of another cluster")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    before = dict(os.environ)
    with ray_head.private_cluster() as wanted:
        folder, token = wanted["_temp_dir"], os.environ["RAY_AUTH_TOKEN_PATH"]
        socket_path = folder + "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1"
        assert len(socket_path.encode()) <= 103, "macOS allows no more"
        assert stat.S_IMODE(os.stat(os.path.dirname(folder)).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(token).st_mode) == 0o600
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert "RAY_AUTH_TOKEN" not in os.environ, "it would go before the file"
        assert wanted["object_spilling_directory"].startswith(str(long)), "what may be large is where TMPDIR says"
        with open(token) as file:
            first = file.read()
    assert dict(os.environ) == before
    assert not os.path.exists(os.path.dirname(folder))
    assert list(long.iterdir()) == []
    with ray_head.private_cluster(), open(os.environ["RAY_AUTH_TOKEN_PATH"]) as file:
        assert file.read() != first
