"""Refuse Ray clusters that anyone on the network can use, and Ray tokens that other users of the machine can read.

Ray runs the code of every client that it accepts (docs/security.md). Does not import Ray.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from harness.system import networks
from harness.types import HarnessError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
DEFAULT_FILE = "~/.ray/auth_token"


def check(address: str, host: str | None) -> None:
    """Check the token before joining a cluster at `address` on `host`; None: the one that `auto` finds.

    Raises HarnessError if the host is another machine, RAY_AUTH_MODE is not `token` and the user does not declare the
    network as trusted; if RAY_AUTH_MODE is `token` and there is no token; if others can read the token's file.
    """
    mode = os.environ.get(MODE, "").strip().lower()
    if host is not None and not networks.is_loopback(host) and mode != "token" and not networks.trusted():
        raise HarnessError(
            f"The Ray cluster at {address} is not on loopback and {MODE} is not 'token': without a token, everyone who "
            f"reaches the cluster can run code as you. Start its nodes with {MODE}=token and a token, and set both "
            f"here (docs/security.md); or set {networks.TRUSTED}=1 if only people you trust reach that network."
        )
    if mode == "token":
        _check_token()


def _check_token() -> None:
    if os.environ.get(TOKEN, "").strip() or _of_kubernetes():
        return
    path, name = _file()
    try:
        content = path.read_text().strip()
    except (OSError, ValueError):
        content = ""
    if not content:
        raise HarnessError(
            f"{MODE} is 'token', but {name} has no token that can be read. Copy the cluster's token into it "
            f"(chmod 600 {path}), or set {TOKEN} or {TOKEN_PATH}."
        )
    _check_file(path, name)


def _of_kubernetes() -> bool:
    """Whether Ray takes its token from the service account of a pod."""
    return os.environ.get("RAY_ENABLE_K8S_TOKEN_AUTH", "").strip().lower() in ("1", "true")


def _file() -> tuple[Path, str]:
    """Return the file from which Ray reads its token, and how to call it in a message."""
    named = os.environ.get(TOKEN_PATH, "").strip()
    path = Path(os.path.expanduser(named or DEFAULT_FILE))  # unlike `Path`, also without a HOME
    return path, f"{TOKEN_PATH} ({path})" if named else str(path)


def _check_file(path: Path, name: str) -> None:
    if (mode := wider_mode(path)) is not None:
        raise HarnessError(
            f"Other users can read the Ray token in {name}: its mode is {mode:04o}. Run chmod 600 {path}, and replace "
            "the token if the machine has other users."
        )


def wider_mode(path: Path) -> int | None:
    """Return the mode of a file of this user if group or others have any permission; else None.

    Files of other users are not judged: this user cannot change them (secrets that Kubernetes mounts belong to root).
    """
    try:
        status = path.stat()
    except OSError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    return mode if mode & 0o077 and status.st_uid == os.getuid() else None
