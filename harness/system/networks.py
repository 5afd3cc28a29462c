"""Which hosts are this machine, and whether the user trusts the network to the others (docs/security.md)."""

from __future__ import annotations

import ipaddress
import os

TRUSTED = "HARNESS_TRUSTED_NETWORK"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine. Names other than localhost are not looked up.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "0.0.0.0", "10.0.0.1", "node1")]
    [True, True, True, False, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def trusted() -> bool:
    """Whether the user declares that only trusted people reach the network (HARNESS_TRUSTED_NETWORK=1)."""
    return os.environ.get(TRUSTED, "").strip().lower() in ("1", "true", "yes")
