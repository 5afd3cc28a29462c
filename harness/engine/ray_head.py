"""The head node of a Ray cluster: find its address, prepare a private cluster, detect its loss. Does not import Ray."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from harness.engine import ray_access
from harness.system import tempdirs
from harness.types import HarnessError, Json

# Seconds without an answer before the head node counts as lost, a little less than Ray's limit.
LOST_AFTER = 5 / 6 * float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60"))  # noqa: SIM112


# "0" makes Ray listen on loopback only. This is Ray's default on macOS and Windows, but not on Linux.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# Bytes that Ray's longest socket name adds to the path of its folder, and the maximum for that path in bytes.
SOCKET = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
LONGEST = (103 if sys.platform == "darwin" else 107) - SOCKET
PARENT_LONGEST = LONGEST - tempdirs.added("ray")  # maximum for the path of the parent folder, bytes


@contextlib.contextmanager
def private_cluster() -> Iterator[Json]:
    """Prepare folders and environment variables for a private cluster, and remove them afterwards.

    Files and sockets are in a folder that only this user can open; clients need a new random token; Ray listens on
    loopback only. Yields arguments for `ray.init`. Raises HarnessError if no folder has a path that is short enough.
    """
    with tempdirs.folder("ray", LONGEST) as folder, tempdirs.folder("spill") as spill:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_TOKEN": None}
        with environment(variables | {"RAY_TMPDIR": str(folder), LOOPBACK: "0"}):
            # a subfolder, because Ray makes its folder readable for all users
            yield {"_temp_dir": str(folder / "ray"), "object_spilling_directory": str(spill)}


@contextlib.contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables (None: unset) inside the context; child processes inherit them."""
    before = {name: os.environ.get(name) for name in variables}
    try:
        _set(variables)
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def address_of(option: str | None) -> str | None:
    """Return the cluster's address from `--address` or else RAY_ADDRESS: "auto" or host:port; None: a private cluster.

    Raises HarnessError if it is invalid, does not accept connections (Ray itself would retry for minutes) or is open to
    others (`ray_access.check`).
    """
    option, variable = (option or "").strip(), os.environ.get("RAY_ADDRESS", "").strip()
    address = option or variable
    if address in ("", "local"):
        return None
    if address == "auto":
        ray_access.check(address, None)
    else:
        host, port = _parts(address, "--address" if option else "RAY_ADDRESS")
        ray_access.check(address, host)
        try:
            socket.create_connection((host, port), timeout=10).close()
        except (OSError, ValueError) as error:
            raise HarnessError(f"No Ray cluster at {address}: {error}") from error
    return address


def _parts(address: str, where: str) -> tuple[str, int]:
    """Split the address of a head node into host and port. Raises HarnessError if it is not host:port."""
    host, colon, port = address.rpartition(":")
    if "://" not in address and colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return host.removeprefix("[").removesuffix("]"), int(port)
    scheme = address.partition("://")[0] if "://" in address else ""
    why = {
        "http": "this is the address of Ray's dashboard and jobs. ",
        "https": "this is the address of Ray's dashboard and jobs. ",
        "ray": "this is the address of Ray Client, which runs the driver on the cluster. ",
    }.get(scheme, "")
    shown = re.sub(r"://\S*@", "://", address)  # without a password
    raise HarnessError(
        f"{where} is '{shown}': {why}Use 'auto', host:port of the cluster's head node, such as 127.0.0.1:6379, or "
        f"'local' for a private cluster on this machine."
    )


def watch(address: str, active: Callable[[], bool]) -> None:
    """Check in a thread, while `active()`, that the head node at host:port accepts connections.

    After LOST_AFTER seconds without one, print an error and exit with code 2: calls to Ray may hang by then, and Ray
    would end the process a little later without an error message.
    """
    host, _, port = address.rpartition(":")
    line = (
        f"\nError: The Ray head node at {address} is gone. "
        "Finished trials are kept; run the same command to resume with a new head node.\n"
    )

    def check() -> None:
        seen = time.monotonic()
        while active():
            time.sleep(1.0)
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                seen = time.monotonic()
            except OSError:
                if active() and time.monotonic() - seen > LOST_AFTER:
                    os.write(2, line.encode())
                    os._exit(2)

    threading.Thread(target=check, name="head-watch", daemon=True).start()
