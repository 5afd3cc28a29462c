"""Servers on the loopback for the tests of downloads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from file_server import Server, serving

from harness.data import fetch


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and neither a proxy nor a mirror between it and the test."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", fetch.MIRROR):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Every host of the internet, served from the loopback through the mirror option."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # a request that leaves the loopback fails
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        monkeypatch.setenv(fetch.MIRROR, server.url("/web"))
        yield server
