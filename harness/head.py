"""The head of a Ray cluster, seen from outside: is somebody there, and what to say when nobody is any more."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

from harness.types import HarnessError

# Seconds after which a head is given up; Ray's own limit, from its own variable, comes a little later.
GONE = 5 / 6 * float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60"))  # noqa: SIM112


def check(address: str | None) -> None:
    """Raises HarnessError if nobody listens at host:port; Ray itself would go on trying for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise HarnessError(f"No Ray cluster at {address}: {error}") from error


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
