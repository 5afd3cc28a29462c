"""The head of a Ray cluster, seen from outside: where it is or is to be started, whether somebody is there, and what to
say when nobody is any more."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.system import tempdirs
from harness.types import HarnessError

# Seconds after which a head is given up; Ray's own limit, from its own variable, comes a little later.
GONE = 5 / 6 * float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60"))  # noqa: SIM112


# A cluster of our own listens on loopback alone: Ray's own switch, which is off by default on macOS and Windows only.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# Bytes that Ray adds to its folder's path for its longest socket, and bytes that the path of a socket may have.
SOCKET = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
LONGEST = (103 if sys.platform == "darwin" else 107) - SOCKET
ROOM = LONGEST - tempdirs.added("ray")  # bytes for the path of the folder above


@contextlib.contextmanager
def own() -> Iterator[dict[str, Any]]:
    """A place for a cluster of this process's own, and the environment that it starts in: files and sockets in a folder
    that only this user may enter, a token of its own for whoever connects, loopback alone. Nothing of it is left.

    Yields what `ray.init` wants to know of it. Raises HarnessError if there is no folder whose path is short enough.
    """
    with tempdirs.folder("ray", LONGEST) as folder, tempdirs.folder("spill") as roomy:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        wanted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_TOKEN": None}
        with _environment(wanted | {"RAY_TMPDIR": str(folder), LOOPBACK: "0"}):
            # "ray": Ray opens its folder to everybody
            yield {"_temp_dir": str(folder / "ray"), "object_spilling_directory": str(roomy)}


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str | None]) -> Iterator[None]:
    """Variables as wanted (None: unset) for as long as the context lasts; children inherit them."""
    before = {name: os.environ.get(name) for name in wanted}
    try:
        _set(wanted)
        yield
    finally:
        _set(before)


def _set(wanted: Mapping[str, str | None]) -> None:
    for name, value in wanted.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def address_of(option: str | None) -> str | None:
    """Where the cluster is, by `--address` or else RAY_ADDRESS: "auto" or host:port; None for one of our own.

    Raises HarnessError if it is neither, or if nobody listens there; Ray itself would go on trying for minutes.
    """
    option, variable = (option or "").strip(), os.environ.get("RAY_ADDRESS", "").strip()
    address = option or variable
    if address in ("", "local"):
        return None
    if address != "auto":
        host, port = _parts(address, "--address" if option else "RAY_ADDRESS")
        try:
            socket.create_connection((host, port), timeout=10).close()
        except (OSError, ValueError) as error:
            raise HarnessError(f"No Ray cluster at {address}: {error}") from error
    return address


def _parts(address: str, where: str) -> tuple[str, int]:
    """Host and port of a head's address."""
    host, colon, port = address.rpartition(":")
    if "://" not in address and colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return host.removeprefix("[").removesuffix("]"), int(port)
    scheme = address.partition("://")[0] if "://" in address else ""
    why = {
        "http": "that is the address of Ray's dashboard and jobs. ",
        "https": "that is the address of Ray's dashboard and jobs. ",
        "ray": "that is the address of Ray Client, which runs the driver on the cluster. ",
    }.get(scheme, "")
    raise HarnessError(
        f"{where} is '{address}': {why}It takes 'auto' or host:port of the cluster's head, such as 127.0.0.1:6379, or "
        f"'local' for a cluster of the bench's own."
    )


def watch(address: str, wanted: Callable[[], bool]) -> None:
    """From a thread, as long as `wanted()`: once the head at host:port has not been there for GONE, say so in a line
    and end this process with code 2. Calls to Ray may hang then, and Ray would end it a little later, without one."""
    host, _, port = address.rpartition(":")
    line = f"\nError: The Ray head at {address} is gone. What ended is kept; the same command goes on with a new one.\n"

    def look() -> None:
        seen = time.monotonic()
        while wanted():
            time.sleep(1.0)
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                seen = time.monotonic()
            except OSError:
                if wanted() and time.monotonic() - seen > GONE:
                    os.write(2, line.encode())
                    os._exit(2)

    threading.Thread(target=look, name="head-watch", daemon=True).start()
