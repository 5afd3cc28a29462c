"""Clusters that are open to a network are refused, and so are tokens that other users can read."""

import os
import socket

import pytest

from harness.engine import ray_access, ray_head
from harness.types import HarnessError


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "HARNESS_TRUSTED_NETWORK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RAY_ENABLE_K8S_TOKEN_AUTH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def token_file(path, mode=0o600, content="a token"):
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


REMOTE = ["192.0.2.1", "head.lab", "0.0.0.0", "2001:db8::1"]


@pytest.mark.parametrize("host", REMOTE)
@pytest.mark.parametrize("mode", [None, "disabled"])
def test_a_cluster_without_a_token_is_refused_on_another_host(host, mode, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token that Ray does not send in this mode")
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(HarnessError) as error:
        ray_access.check(f"{host}:6379", host)
    line = str(error.value)
    assert "\n" not in line
    for part in (f"{host}:6379", "RAY_AUTH_MODE=token", "HARNESS_TRUSTED_NETWORK=1", "docs/security.md"):
        assert part in line
    assert "a token that" not in line


def test_it_is_refused_before_anything_is_sent_to_it(monkeypatch):
    def connect(*_, **__):
        raise AssertionError("connected")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(HarnessError, match="RAY_AUTH_MODE"):
        ray_head.address_of("192.0.2.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with pytest.raises(HarnessError, match="RAY_AUTH_MODE"):
        ray_head.address_of(None)


@pytest.mark.parametrize("host", [*REMOTE, None])
def test_a_token_or_the_users_word_opens_it(host, monkeypatch):
    monkeypatch.setenv("HARNESS_TRUSTED_NETWORK", "1")
    ray_access.check("cluster", host)
    monkeypatch.setenv("HARNESS_TRUSTED_NETWORK", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "Token")  # Ray takes either case
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token")
    ray_access.check("cluster", host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", None])
def test_this_machine_needs_none(host):
    ray_access.check("cluster", host)


@pytest.mark.parametrize("content", [None, "", " \n"])
@pytest.mark.parametrize("named", [True, False])
def test_a_missing_token_is_reported_with_its_place(tmp_path, monkeypatch, content, named):
    path = tmp_path / ".ray" / ("mine" if named else "auth_token")
    if named:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    if content is not None:
        token_file(path, content=content)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(HarnessError) as error:
        ray_access.check("127.0.0.1:6379", "127.0.0.1")
    assert str(path) in str(error.value)
    assert "RAY_AUTH_TOKEN" in str(error.value)
    monkeypatch.setenv("RAY_ENABLE_K8S_TOKEN_AUTH", "true")
    ray_access.check("127.0.0.1:6379", "127.0.0.1")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o601])
@pytest.mark.parametrize("host", ["192.0.2.1", "127.0.0.1", None])
def test_a_token_that_others_may_read_is_refused_with_the_command(tmp_path, monkeypatch, mode, host):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    path = token_file(tmp_path / ".ray" / "auth_token", mode)
    with pytest.raises(HarnessError, match=f"chmod 600 {path}") as error:
        ray_access.check("cluster", host)
    assert f"{mode:04o}" in str(error.value)
    assert "a token" not in str(error.value)
    path.chmod(0o600)
    ray_access.check("cluster", host)


def test_only_the_token_that_ray_would_use_is_judged(tmp_path, monkeypatch):
    default = token_file(tmp_path / ".ray" / "auth_token", 0o644)
    ray_access.check("127.0.0.1:6379", "127.0.0.1")  # Ray sends none to a named address without the mode
    ray_access.check("auto", None)  # a local ray.init() leaves such a file; `harness doctor` lists it
    ray_access.check("auto", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token_file(tmp_path / "mine", 0o400)))
    ray_access.check("auto", None)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(default))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wins")
    ray_access.check("auto", None)


def test_a_token_of_another_user_is_not_judged(tmp_path, monkeypatch):
    path = token_file(tmp_path / "mounted", 0o644)
    assert ray_access.wider_mode(path) == 0o644
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    assert ray_access.wider_mode(path) is None


def test_ray_reads_the_same_tokens(tmp_path):
    """The order of sources, against Ray's own loader in processes of their own."""
    import subprocess
    import sys

    read = "from ray._raylet import AuthenticationTokenLoader as A; print(A.instance().get_raw_token(True))"
    default, named = token_file(tmp_path / ".ray" / "auth_token", content="d"), token_file(tmp_path / "n", content="n")
    home = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(tmp_path)}
    for extra, expected in (
        ({}, "d"),
        ({"RAY_AUTH_TOKEN_PATH": str(named)}, "n"),
        ({"RAY_AUTH_TOKEN_PATH": str(named), "RAY_AUTH_TOKEN": "e"}, "e"),
    ):
        found = subprocess.run([sys.executable, "-c", read], env=home | extra, capture_output=True, text=True)
        assert found.stdout.split() == [expected], found.stderr
    assert ray_access._file()[0] == default


def test_ray_address_does_not_replace_auto(monkeypatch):
    """Ray prefers RAY_ADDRESS to the address `auto` that it is given, and that one was not checked."""
    from harness.engine import ray_cluster

    seen = {}

    def init(**options):
        seen.update(options, variable=os.environ.get("RAY_ADDRESS"))
        raise ConnectionError("no cluster")

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with pytest.raises(HarnessError, match="No Ray cluster at auto"), ray_cluster.cluster("auto"):
        pass
    assert (seen["address"], seen["variable"]) == ("auto", None)
    assert os.environ["RAY_ADDRESS"] == "192.0.2.1:6379"
