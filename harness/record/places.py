"""A place beside the home that driver and workers reach, for files too large to pass through the driver's machine.

A folder, or a URL that fsspec knows (`s3://bucket/prefix` with the package s3fs, `gs://` with gcsfs). Keys and
endpoints come from the environment or the role of each machine, never from the URL. A file is there whole or not at
all: a folder gets a temporary file that is renamed, a store one upload.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.types import HarnessError, Json

OPTION = "--artifacts"
README = "README.txt"
ABOUT = b"Checkpoints and weights of `harness bench --artifacts`: see docs/decisions/0019-one-recorder.md of harness.\n"
_ALLOWED = "Allowed: a folder that all nodes share, or a URL such as s3://bucket/prefix (pip install s3fs)."


class DamagedFile(OSError):
    """A file in a place is not what was written there."""


@dataclass(frozen=True)
class Place:
    """where: an absolute folder, or a URL."""

    where: str

    def put(self, name: str, data: bytes) -> Json:
        """Write a file and return where it is, its size and its sha256: what `read` needs. Raises OSError."""
        with _as_os_error():
            system, path = self._find(name)
            if self._is_folder:
                system.makedirs(self.where, exist_ok=True)
                part = f"{path}.{uuid.uuid4().hex[:8]}.part"
                system.pipe_file(part, data)
                os.replace(part, path)
            else:
                system.pipe_file(path, data)
        return {"place": self.where, "name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def get(self, name: str) -> bytes | None:
        """Read a file; None if it does not exist. Raises OSError."""
        try:
            with _as_os_error():
                system, path = self._find(name)
                return system.cat_file(path)
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if it exists. Raises OSError."""
        with contextlib.suppress(FileNotFoundError), _as_os_error():
            system, path = self._find(name)
            system.rm_file(path)

    @property
    def _is_folder(self) -> bool:
        return "://" not in self.where

    def _find(self, name: str) -> tuple[Any, str]:
        """Return the file system and the path of a file in it."""
        import fsspec

        path = f"{self.where.rstrip('/')}/{name}"
        if self._is_folder:  # not parsed as a URL, where `::` chains file systems
            return fsspec.filesystem("file"), path
        return fsspec.core.url_to_fs(path)


def read(pointer: Json) -> bytes:
    """Read the file to which the answer of `Place.put` points. Raises FileNotFoundError if it is missing, DamagedFile
    if it is damaged, OSError if the place is away."""
    data = Place(pointer["place"]).get(pointer["name"])
    if data is None:
        raise FileNotFoundError(f"{pointer['name']} is not in {pointer['place']}")
    if hashlib.sha256(data).hexdigest() != pointer["sha256"]:
        raise DamagedFile(f"{pointer['name']} in {pointer['place']} is damaged")
    return data


def check(where: str) -> str:
    """Write and read the README of a place; return the place as `Place` takes it. Raises HarnessError."""
    if "://" not in where:
        where = os.path.abspath(os.path.expanduser(where))
    elif any(mark in where for mark in "@?#"):  # it would stand in the ledger and in every report
        raise HarnessError(
            f"{OPTION}: the URL contains a user, key or parameter (@, ? or #). Set the store's keys in the environment "
            "of every node (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
        )
    elif "::" in where:
        raise HarnessError(f"{OPTION} {where}: chained file systems (::) cannot be used. {_ALLOWED}")
    place = Place(where)
    try:
        place.put(README, ABOUT)
        whole = place.get(README) == ABOUT
    except OSError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise HarnessError(f"{OPTION} {where} cannot be used: {reason}. {_ALLOWED}") from error
    if not whole:
        raise HarnessError(f"{OPTION} {where} does not return what is written there. {_ALLOWED}")
    return where


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise every error of a file system as OSError: their libraries have types of their own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
