"""Who works on what, where several bench processes share one home: files under ``<home>/leases``.

A lease is a file ``<key>.<n>`` that names its owner, made in one step that fails if it is there (a hard link, or
O_EXCL): no lock of the file system is asked for, so that a network folder does as well. Each owner beats: it touches
``<owner>.beat`` every few seconds. An owner whose beat stands still for `EXPIRES` seconds of the observer's own
monotonic clock is dead, as is one of this machine whose process is gone; clocks of two machines are never compared.
A dead owner's lease ``<key>.<n>`` is taken over by making ``<key>.<n + 1>``, which again only one can do.

A wrong verdict (a process that was stopped for a minute and goes on) costs work that is done twice, never a result:
the ledger takes both, and they are equal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.system import files

BEAT = 5.0  # seconds between signs of life
EXPIRES = 60.0  # seconds without one: well above what network file systems cache


class Leases:
    """What one process holds. A context: the beats end and all is released when it is left."""

    def __init__(self, home: Path, owner: str, tell: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self.owner, self._tell = home / "leases", owner, tell
        self._began = time.monotonic()
        self._gone: set[str] = set()  # owners found dead
        self._held: dict[str, int] = {}
        self._seen: dict[str, tuple[Any, float]] = {}  # of others' leases: what was seen, and since when
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
            with contextlib.suppress(OSError):  # a full disk takes the touch, which needs no room
                self._pulse.touch()

    def holds(self, key: str) -> bool:
        """Whether `key` is held by this process, which was not thought dead since."""
        return key in self._held and not (self.folder / f"{key}.{self._held[key] + 1}").exists()

    def claim(self, key: str) -> str:
        """Try to hold `key`. Returns '' if this process holds it now, else who does.

        Raises HarnessError if the folder cannot be written.
        """
        if self.holds(key):
            return ""
        self._held.pop(key, None)  # taken over from us, who were thought dead
        number = self._newest(key)
        if number is not None:
            holder = self._holder(key, number)
            owner = holder.get("owner", "another process")
            if not self._dead(key, number, holder):
                return owner
            if owner not in self._gone:
                self._tell(f"Run {owner} has stopped in the middle; going on with what it left.")
            self._gone.add(owner)
        made = 0 if number is None else number + 1
        if not self._make(f"{key}.{made}"):
            return "another process"
        self._held[key] = made
        if number is not None:
            (self.folder / f"{key}.{number}").unlink(missing_ok=True)
        return ""

    def release(self, key: str) -> None:
        number = self._held.pop(key, None)
        if number is not None:  # of that number there is ours alone
            (self.folder / f"{key}.{number}").unlink(missing_ok=True)

    def _newest(self, key: str) -> int | None:
        numbers = [int(path.suffix[1:]) for path in self.folder.glob(f"{key}.*") if path.suffix[1:].isdigit()]
        return max(numbers, default=None)

    def _make(self, name: str) -> bool:
        """Make a lease whole and in one step; False if it is there."""
        target = self.folder / name
        text = json.dumps({"owner": self.owner, "began": self._began, **here()})
        try:
            with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix=".lease-", encoding="utf-8") as whole:
                whole.write(text)
                whole.flush()
                os.chmod(whole.name, 0o644)  # another user of the home has to read it
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

    def _holder(self, key: str, number: int) -> dict[str, Any]:
        try:
            return json.loads((self.folder / f"{key}.{number}").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # gone by now, or being written
            return {}

    def _dead(self, key: str, number: int, holder: dict[str, Any]) -> bool:
        """Whether the holder's process is gone from this machine, or has given no sign for too long."""
        if holder.get("place") == here()["place"] and holder["place"]:
            return born(holder["pid"]) != holder["born"]
        sign = (number, holder.get("owner"), _touched(self.folder / f"{holder.get('owner')}.beat"))
        now = time.monotonic()
        seen, since = self._seen.get(key, (None, now))
        if sign != seen:
            self._seen[key] = (sign, now)
            return False
        return now - since > EXPIRES

    def _sweep(self) -> None:
        """Remove what processes of this machine left that are gone: their leases, beats and half-made files."""
        for path in self.folder.glob("*.*"):
            match = re.fullmatch(r"(.+)\.(\d+)", path.name)
            holder = self._holder(match[1], int(match[2])) if match else {}
            if holder.get("place") and holder["place"] == here()["place"] and born(holder["pid"]) != holder["born"]:
                path.unlink(missing_ok=True)
                (self.folder / f"{holder['owner']}.beat").unlink(missing_ok=True)


def _touched(path: Path) -> tuple[int, int] | None:
    """The state of a beat, fresh from the server: a network file system asks it anew when the file is opened."""
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
        return stat.st_mtime_ns, stat.st_ctime_ns
    except OSError:
        return None


def running(home: Path, owner: str) -> float | None:
    """Seconds since a process of this machine began to hold leases, by the machine's monotonic clock; None where it
    holds none, is gone, or is one of another machine."""
    own = here()["place"]
    for path in (home / "leases").glob("*.[0-9]*"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            holder = json.loads(path.read_text(encoding="utf-8"))
            alive = own and holder["place"] == own and born(holder["pid"]) == holder["born"]
            if holder["owner"] == owner and alive:
                return time.monotonic() - holder["began"]
    return None


def here() -> dict[str, Any]:
    """This process: `place`, which two processes share if and only if they see each other's numbers ('' where that
    cannot be known), `pid`, and `born`, which tells it from a later one of that number."""
    pid = os.getpid()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        place = f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        place = ""
    return {"place": place, "pid": pid, "born": born(pid)}


def born(pid: int) -> str:
    """When a process of this machine started, in ticks since the machine did; '' if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
