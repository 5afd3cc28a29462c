"""Wall time of the README's first command in an empty home: when it reaches each milestone, and what its runs cost.

The log is that of a pipe: on a terminal, the standings are drawn from the first result on. Downloads count; a second
row per milestone tells what a home takes that has the data and the embeddings (`--rounds 2`, the default).
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import _measure

COMMAND = "bench --datasets all --adapters all"
MILESTONES = {  # the last line that matches
    "grid planned": r"trials at budget .* to run",
    "texts encoded": r" texts, 0 s left",
    "slots ready": r"^Running on ",
    "first result": r"^\[1/",
    "every cell has a trial": r"^Every cell has ended",
    "table printed": r"^$",  # set at the end
}
GOALS = {"first result": "90 s", "table printed": "300 s"}
ENDED = re.compile(r"^\[\d+/(\d+)\] \S+ / \S+ / \S+ / (\S.*) seed \d+: .* in (?:(\d+)m)?(\d+)s ")
CACHES = ("cache", "data", "downloads", "models")  # of a home, kept for the second round


def measure(home: Path, words: list[str]) -> tuple[dict[str, float], dict[str, list[int]], float]:
    """Run the command; return seconds until each milestone, seconds of the runs of each adapter, and CPU seconds."""
    environment = os.environ | {"HARNESS_HOME": str(home), "PYTHONPATH": str(_measure.HERE.parent)}
    environment.pop("OMP_NUM_THREADS")  # set for this process by `_measure`; a user has none
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "harness.cli", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, cwd=home
    )
    reached: dict[str, float] = {}
    runs: dict[str, list[int]] = defaultdict(list)
    assert process.stderr is not None
    for line in process.stderr:
        for name, pattern in MILESTONES.items():
            if re.search(pattern, line.rstrip("\n") or "-"):
                reached[name] = time.monotonic() - start
        if match := ENDED.match(line):
            runs[match[2]].append(60 * int(match[3] or 0) + int(match[4]))
    if process.wait():
        raise SystemExit(f"The command failed with exit code {process.returncode}.")
    reached["table printed"] = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return reached, runs, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, choices=(1, 2), default=2, help="2: once more, with the caches")
    parser.add_argument("--words", default=COMMAND, help="another command")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("empty home", "with data and embeddings")[: options.rounds]:
            home = Path(scratch) / name.replace(" ", "-")
            home.mkdir()
            for cache in CACHES if found else ():
                shutil.copytree(Path(scratch) / "empty-home" / cache, home / cache)
            found[name] = measure(home, options.words.split())
    rows = [
        {"milestone": milestone}
        | {f"{name}, wall s": reached.get(milestone, "-") for name, (reached, _, _) in found.items()}
        | {"goal": GOALS.get(milestone, "")}
        for milestone in MILESTONES
    ]
    runs = next(iter(found.values()))[1]
    slowest = sorted(runs, key=lambda adapter: -statistics.median(runs[adapter]))
    spent = [{"adapter": name, "wall s of a run": statistics.median(runs[name])} for name in slowest[:5]]
    middle = statistics.median(statistics.median(seconds) for seconds in runs.values())
    cpu = ", ".join(f"{seconds:.0f} ({name})" for name, (_, _, seconds) in found.items())
    about = (
        f"`harness {options.words}`: {sum(map(len, runs.values()))} runs of {len(runs)} adapters and baselines. CPU "
        f"seconds of the command and the processes that it waited for: {cpu}. Load of the machine: "
        f"{os.getloadavg()[0]:.0f}."
    )
    longest = f"The slowest adapters; the median adapter takes {middle:.0f} s for a run:"
    _measure.write("first_command", "The first command", about, _measure.table(rows), longest, _measure.table(spent))


if __name__ == "__main__":
    main()
