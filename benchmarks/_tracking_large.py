"""`tracking.py --large`: a large grid mirrored to the stack of mlflow/, whose server is killed half-way.

Everything is in one folder: the synthetic home, database, bucket and `progress.json`. A run that is stopped, or ends
after `--minutes`, is continued by the same command.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import _measure
import _stack

PARTS = 10  # rows of the table over the run


@dataclass
class Progress:
    """What runs so far have measured. parts: (trials mirrored, seconds of syncing so far, memory in MB by process)."""

    trials: int
    mirrored: int = 0
    seconds: float = 0.0
    resumed: list[float] = field(default_factory=list)  # seconds until a repeated sync wrote its first trial
    killed_at: int = 0
    parts: list[tuple[int, float, dict[str, float]]] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)


def memory(roots: dict[str, int]) -> dict[str, float]:
    """Return the memory of process trees in MB by name. Pages that processes share count once (PSS)."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            children[int(entry.read_text().rpartition(")")[2].split()[1])].append(int(entry.parent.name))
        except OSError:  # ended meanwhile
            continue

    def tree(pid: int) -> float:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            return 0.0
        (size,) = re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        return int(size) / 1000 + sum(map(tree, children[pid]))

    return {name: tree(pid) for name, pid in roots.items()}


class Large:
    """A large mirror in a folder."""

    def __init__(self, folder: Path, trials: int, minutes: float) -> None:
        self.folder, self.home, self.deadline = folder, folder / "home", time.monotonic() + 60 * minutes
        self.file = folder / "progress.json"
        self.progress = Progress(**json.loads(self.file.read_text())) if self.file.exists() else Progress(trials)
        login = {
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": _stack.SECRETS["MLFLOW_ADMIN_PASSWORD"],
            # a server of two cores that also runs the client may answer late
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        }
        paths = os.pathsep.join(filter(None, [str(_stack.ROOT), os.environ.get("PYTHONPATH")]))
        self.environment = os.environ | login | {"HARNESS_HOME": str(self.home), "PYTHONPATH": paths}

    def save(self) -> None:
        self.file.write_text(json.dumps(asdict(self.progress)))

    def harness(self, *words: str) -> tuple[str, float, float]:
        """Run a command; returns its output, its seconds and its peak memory in MB."""
        start = time.monotonic()
        peak = "import atexit, _measure, runpy, sys; atexit.register(lambda: print(_measure.peak_memory(), "
        peak += "file=sys.stderr)); runpy.run_module('harness.cli', run_name='__main__')"
        command = [sys.executable, "-c", f"import sys; sys.path.append({str(_measure.HERE)!r}); {peak}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment)
        if done.returncode:
            raise SystemExit(done.stderr)
        return done.stdout, time.monotonic() - start, int(done.stderr.split()[-1]) / 1e6

    def fill(self, data: Path) -> None:
        """Write the home unless it is there."""
        if self.file.exists():
            return
        command = [sys.executable, str(_measure.HERE / "tracking.py"), "--fill", str(self.home), str(data)]
        self.progress.trials = int(subprocess.check_output([*command, str(self.progress.trials)]))
        self.save()

    def sync(self, stack: _stack.Stack) -> bool:
        """Mirror what is missing. Returns False if time ran out or the server was killed, as it is once, half-way."""
        command = [sys.executable, "-m", "harness.cli", "sync", "--tracking", stack.uri]
        before, start, first = self.progress.mirrored, time.monotonic(), 0.0
        process = subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE, text=True)
        roots = {name: stack.processes[name].pid for name in ("server", "database", "store")} | {"client": process.pid}
        assert process.stderr
        last, seconds = "", self.progress.seconds
        for last in process.stderr:
            if (found := re.match(r"\[(\d+)/(\d+)\]", last)) is None:
                continue
            first = first or time.monotonic() - start
            # also trials that a stopped sync wrote and did not report
            self.progress.mirrored = self.progress.trials - int(found[2]) + int(found[1])
            self.progress.seconds = seconds + time.monotonic() - start
            if self.progress.mirrored * PARTS // self.progress.trials > len(self.progress.parts):
                self.progress.parts.append((self.progress.mirrored, self.progress.seconds, memory(roots)))
                self.progress.loads.append(os.getloadavg()[0])
                self.save()
            if not self.progress.killed_at and self.progress.mirrored * 2 >= self.progress.trials:
                self.progress.killed_at = self.progress.mirrored
                stack.kill("server")
            elif time.monotonic() > self.deadline:
                process.kill()
        code = process.wait()
        if first:  # something was missing
            self.progress.seconds = seconds + time.monotonic() - start
            if before:
                self.progress.resumed.append(first)
            self.save()
        if code and "server" in stack.processes and time.monotonic() <= self.deadline:
            raise SystemExit(last)
        return not code


def run(folder: Path, data: Path, trials: int, minutes: float) -> tuple[str, ...] | None:
    """Go on with a large mirror; returns the parts of its result, or None if time ran out.

    Raises SystemExit if something is not installed, or if a trial is lost, doubled or different in the table.
    """
    if why := _stack.missing():
        raise SystemExit(why)
    large = Large(folder, trials, minutes)
    large.fill(data)
    with _stack.Stack(folder / "stack") as stack:
        while not large.sync(stack):
            if time.monotonic() > large.deadline:
                return None
            stack.start("server")
        again, nothing, _ = large.harness("sync", "--tracking", stack.uri)
        if "has every trial" not in again:
            raise SystemExit(f"A second sync wrote something: {again}")
        local, of_ledger, _ = large.harness("leaderboard", "--format", "csv")
        table, of_mlflow, peak = large.harness("leaderboard", "--format", "csv", "--from-mlflow", stack.uri)
        if table != local:
            raise SystemExit("The table from MLflow differs from the one from the ledger.")
        found = runs(stack)
    if found != large.progress.trials:
        raise SystemExit(f"MLflow has {found:,} runs of {large.progress.trials:,} trials.")
    about = _about(large.progress)
    about += f" A sync with nothing to write takes {nothing:.0f} s, the table from the ledger {of_ledger:.1f} s, from "
    about += f"MLflow {of_mlflow:.1f} s and {peak:,.0f} MB; both tables are equal, and MLflow has each trial once."
    return about, _measure.table(_rows(large.progress))


def runs(stack: _stack.Stack) -> int:
    """Count the runs of trials in the database itself, deleted ones left out."""
    query = "SELECT count(*) FROM runs JOIN tags USING (run_uuid) WHERE key = 'harness.trial'"
    query += " AND lifecycle_stage = 'active'"
    environment = stack.environment("server")
    command = [_stack.program("psql"), "--no-psqlrc", "--tuples-only", "--command", query, "mlflow"]
    return int(subprocess.check_output(command, env=environment))


def _about(progress: Progress) -> str:
    loads = ", ".join(f"{load:.0f}" for load in progress.loads)
    text = f"{progress.trials:,} trials to `mlflow server` with users and two workers, PostgreSQL and `rclone serve s3`"
    text += f", in {progress.seconds:,.0f} s of syncing: {progress.trials / progress.seconds:.1f} trials/s."
    if progress.killed_at:
        text += f" The server was killed (SIGKILL) after {progress.killed_at:,} trials and started again."
    waits = ", ".join(f"{seconds:.0f}" for seconds in progress.resumed)
    text += f" Seconds until a repeated sync wrote its first trial: {waits}."
    return f"{text} Load at each row, at nice {os.nice(0)}: {loads}."


def _rows(progress: Progress) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    before, earlier = 0, 0.0
    for mirrored, seconds, used in progress.parts:
        row: dict[str, Any] = {"trials": mirrored, "trials/s": (mirrored - before) / (seconds - earlier)}
        rows.append(row | {f"{name} MB": size for name, size in used.items()})
        before, earlier = mirrored, seconds
    return rows
