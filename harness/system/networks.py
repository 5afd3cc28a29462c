"""Which hosts are this machine, and whether the user trusts the network to the others (docs/security.md)."""

from __future__ import annotations

import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

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


def proxies(url: str) -> dict[str, Any] | None:
    """Proxies of a request to a URL, for `requests`: none if its host is this machine, else those of the environment.

    A proxy would read what is sent unencrypted, and its loopback is another machine.

    >>> proxies("http://127.0.0.1:5000/api"), proxies("https://example.org")
    ({'http': None, 'https': None, 'all': None}, None)
    """
    direct = is_loopback(urlsplit(url).hostname or "")
    return dict.fromkeys(("http", "https", "all")) if direct else None


def trusted() -> bool:
    """Whether the user declares that only trusted people reach the network (HARNESS_TRUSTED_NETWORK=1)."""
    return os.environ.get(TRUSTED, "").strip().lower() in ("1", "true", "yes")
