"""Benches in the background: processes of their own that write a log into `<home>/logs`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.record import leases
from harness.system import files
from harness.types import Json

SHOWN = 3  # benches that `status` shows


@dataclass(frozen=True)
class Detached:
    """A bench that `--detach` started. log: absolute path; place, born: see `leases.here`."""

    log: Path
    pid: int
    place: str
    born: str

    @property
    def running(self) -> bool | None:
        """Whether its process runs; None if this machine cannot know: it was started on another one."""
        if not self.place or leases.here()["place"] != self.place:
            return None
        return leases.lives(self.pid, self.born)

    def to_json(self) -> Json:
        return {"pid": self.pid, "log": str(self.log), "running": self.running, "last_line": self._last_line()}

    def _last_line(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError as error:
            return f"the log cannot be read ({error.strerror})"
        return next((line.strip() for line in reversed(lines) if line.strip()), "the log is empty")


def start(home: Path, words: list[str]) -> Detached:
    """Start `harness <words>` in a session of its own, with the folder and environment of this process.

    Raises HarnessError if the home cannot be written.
    """
    folder = home / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = _new_log(folder)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*_program(), *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        bench = Detached(log, process.pid, leases.here()["place"], leases.born(process.pid))
        record = asdict(bench) | {"log": log.name}
        files.write_json(log.with_suffix(".json"), record)
    except OSError as error:
        raise files.unwritable(folder, error) from error
    return bench


def _program() -> list[str]:
    """The command `harness`, as this process was started: `python -m` would also import from the working folder."""
    script = Path(sys.argv[0])
    return [
        sys.executable,
        *([str(script)] if script.name == "harness" and script.is_file() else ["-m", "harness.cli"]),
    ]


def _new_log(folder: Path) -> Path:
    """Create an empty log whose name no other bench has; names sort by time."""
    while True:
        path = folder / f"{files.next_stamp(folder)}.log"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path


def newest(home: Path) -> list[Detached]:
    """Return the newest benches of a home that were detached, the newest first: those that run, else the last one."""
    found = []
    for path in sorted((home / "logs").glob("*.json"), reverse=True):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found.append(Detached(path.with_name(record["log"]), record["pid"], record["place"], record["born"]))
        except (OSError, ValueError, KeyError, TypeError):  # damaged, or written by another version
            continue
    return [bench for bench in found if bench.running][:SHOWN] or found[:1]
