"""Leases: which process works on which cell or trial, if several benches share a home; files in ``<home>/leases``.

A lease is a file ``<key>.<n>`` that names its owner, created atomically (a hard link, or O_EXCL). No file lock is used,
so network folders work too. Each owner touches ``<owner>.beat`` every few seconds. An owner is dead if its beat has not
changed for `EXPIRES` seconds of the observer's monotonic clock, or if its process on this machine is gone; clocks of
two machines are never compared. To take over a dead owner's lease ``<key>.<n>``, a process creates ``<key>.<n + 1>``,
which again only one can do.

A wrong verdict (about a process that was suspended for a minute) costs duplicate work but no result: the ledger accepts
both results, and they are equal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.system import files
from harness.types import Json

BEAT = 5.0  # seconds between signs of life
EXPIRES = 60.0  # seconds without a beat; well above the caching time of network file systems
HIDDEN = "hidden"  # what `born` returns for a process that this user cannot see
SILENT = 600.0  # seconds without a beat after which a run is shown as stopped: more, as clocks of machines may differ


class Leases:
    """The leases of one process. As a context manager: on exit the beats stop and all leases are released."""

    def __init__(self, home: Path, owner: str, log: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self.owner, self._log = home / "leases", owner, log
        self._began = time.monotonic()
        self._gone: set[str] = set()  # owners found dead
        self._held: dict[str, int] = {}
        self._seen: dict[str, tuple[Any, float]] = {}  # others' leases: last observed sign, and since when
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-beat", daemon=True)

    def __enter__(self) -> Leases:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            self._pulse.touch()
        except OSError as error:
            raise files.unwritable(self.folder, error) from error
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for key in list(self._held):
            self.release(key)
        self._pulse.unlink(missing_ok=True)

    @property
    def _pulse(self) -> Path:
        return self.folder / f"{self.owner}.beat"

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):  # a full disk still accepts a touch
                self._pulse.touch()

    def holds(self, key: str) -> bool:
        """Whether this process holds `key` and nobody has taken it over."""
        number = self._held.get(key)
        return number is not None and self._owns(key, number) and not (self.folder / f"{key}.{number + 1}").exists()

    def claim(self, key: str) -> str:
        """Try to take `key`. Returns '' if this process holds it now, else the owner.

        Raises HarnessError if the folder cannot be written.
        """
        if self.holds(key):
            return ""
        self._held.pop(key, None)  # another process took it over, believing this one dead
        number = self._newest(key)
        if number is not None:
            holder = self._holder(key, number)
            owner = holder.get("owner", "another process")
            if owner == self.owner:  # a network folder can make a link and answer that it exists
                self._held[key] = number
                return ""
            if not self._dead(key, number, holder):
                return owner
            if owner not in self._gone:
                self._log(f"Launch {owner} died; continuing its work.")
            self._gone.add(owner)
        next_number = 0 if number is None else number + 1
        if not self._create(f"{key}.{next_number}"):
            return "another process"
        self._held[key] = next_number
        if number is not None:
            (self.folder / f"{key}.{number}").unlink(missing_ok=True)
        return ""

    def release(self, key: str) -> None:
        number = self._held.pop(key, None)
        if number is not None and self._owns(key, number):
            (self.folder / f"{key}.{number}").unlink(missing_ok=True)

    def _owns(self, key: str, number: int) -> bool:
        """Whether a lease names this process: once its taker has released it, others can claim the same number."""
        try:
            return json.loads((self.folder / f"{key}.{number}").read_text(encoding="utf-8"))["owner"] == self.owner
        except (FileNotFoundError, ValueError):  # gone, or being written by another process
            return False
        except OSError:  # the folder is away: no reason to give up
            return True

    def _newest(self, key: str) -> int | None:
        numbers = [int(path.suffix[1:]) for path in self.folder.glob(f"{key}.*") if path.suffix[1:].isdigit()]
        return max(numbers, default=None)

    def _create(self, name: str) -> bool:
        """Create a lease atomically; False if it exists."""
        target = self.folder / name
        text = json.dumps({"owner": self.owner, "began": self._began, **here()})
        try:
            with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix=".lease-", encoding="utf-8") as whole:
                whole.write(text)
                whole.flush()
                os.chmod(whole.name, 0o644)  # other users of the home must be able to read it
                try:
                    os.link(whole.name, target)
                except FileExistsError:
                    return False
                except OSError:  # a file system without hard links
                    with target.open("x", encoding="utf-8") as file:
                        file.write(text)
        except FileExistsError:
            return False
        except OSError as error:
            raise files.unwritable(target, error) from error
        return True

    def _holder(self, key: str, number: int) -> Json:
        try:
            return json.loads((self.folder / f"{key}.{number}").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # deleted meanwhile, or being written
            return {}

    def _dead(self, key: str, number: int, holder: Json) -> bool:
        """Whether the holder's process on this machine is gone, or its beat has not changed for too long."""
        if holder.get("place") == here()["place"] and holder["place"] and (found := born(holder["pid"])) != HIDDEN:
            return found != holder["born"]
        sign = (number, holder.get("owner"), _touched(self.folder / f"{holder.get('owner')}.beat"))
        now = time.monotonic()
        seen, since = self._seen.get(key, (None, now))
        if sign != seen:
            self._seen[key] = (sign, now)
            return False
        return now - since > EXPIRES

    def _sweep(self) -> None:
        """Remove leases, beats and partial files of dead processes of this machine."""
        for path in self.folder.glob("*.*"):
            match = re.fullmatch(r"(.+)\.(\d+)", path.name)
            holder = self._holder(match[1], int(match[2])) if match else {}
            if holder.get("place") and holder["place"] == here()["place"] and not lives(holder["pid"], holder["born"]):
                path.unlink(missing_ok=True)
                (self.folder / f"{holder['owner']}.beat").unlink(missing_ok=True)


def _touched(path: Path) -> tuple[int, int] | None:
    """Return the times of a beat file. It is opened, because a network file system then asks the server."""
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
        return stat.st_mtime_ns, stat.st_ctime_ns
    except OSError:
        return None


def running(home: Path, owner: str) -> float | None:
    """Seconds since a process of this machine began to hold leases, by the monotonic clock; None if it holds none, is
    gone, or runs on another machine."""
    return next((time.monotonic() - began for began, lives in _holders_here(home, owner) if lives), None)


def alive(home: Path, owner: str) -> bool:
    """Whether a run gives signs of life, here or on another machine.

    It gives none if its process on this machine is gone or if its beat, by the clock of the file system, is older than
    `SILENT`. That is enough to inform, not to take a lease over.
    """
    if not all(lives for _, lives in _holders_here(home, owner)):
        return False
    try:
        return time.time() - (home / "leases" / f"{owner}.beat").stat().st_mtime < SILENT
    except OSError:
        return False


def _holders_here(home: Path, owner: str) -> Iterator[tuple[float, bool]]:
    """Leases that `owner` took on this machine: when it began to hold leases, and whether its process still runs."""
    place = here()["place"]
    for path in (home / "leases").glob("*.[0-9]*"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            holder = json.loads(path.read_text(encoding="utf-8"))
            if place and holder["place"] == place and holder["owner"] == owner:
                yield holder["began"], lives(holder["pid"], holder["born"])


def lives(pid: int, birth: str) -> bool:
    """Whether a process of this machine, with its `born`, still runs, as far as this user can see."""
    return born(pid) in (birth, HIDDEN)


def here() -> Json:
    """Identify this process: `place` (equal for two processes exactly if they see each other's pids, '' if unknown),
    `pid`, and `born`, which distinguishes it from a later process with that pid."""
    pid = os.getpid()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        place = f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        place = ""
    return {"place": place, "pid": pid, "born": born(pid)}


def born(pid: int) -> str:
    """Start of a process of this machine, in ticks since boot; '' if there is no such process, HIDDEN if it belongs to
    a user whose processes the machine does not show (mount option `hidepid`)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return HIDDEN if _of_another_user(pid) else ""
    return "" if fields[0] in "ZX" else fields[19]


def _of_another_user(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False
