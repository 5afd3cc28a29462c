"""Helpers of all benchmarks: CPU seconds, medians, a description of the machine, and results as Markdown.

Run a benchmark with `python benchmarks/<name>.py`. It uses one thread (`OMP_NUM_THREADS=1`, set here before torch is
imported). Both sides of a comparison run alternately in one process, or as child processes of one run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent


def ml_100k(folder: Path) -> str:
    """`--datasets` value for MovieLens-100K: `folder`/ml-100k if it exists, else the name, which is fetched."""
    return str(folder / "ml-100k") if (folder / "ml-100k").is_dir() else "ml-100k"


def cpu_seconds(*sides: Callable[[], object], repeats: int = 5) -> list[float]:
    """Median CPU seconds of each side; sides alternate after one untimed call each."""
    for side in sides:
        side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for side, times in zip(sides, seconds, strict=True):
            start = time.process_time()
            side()
            times.append(time.process_time() - start)
    return [statistics.median(times) for times in seconds]


def peak_memory() -> int:
    """Peak resident size of this process so far in bytes, as reported by Linux.

    Not ru_maxrss, which in a new process starts at the size of its parent.
    """
    return _status("VmHWM")


def present_memory() -> int:
    """Current resident size of this process in bytes, as reported by Linux."""
    return _status("VmRSS")


def _status(field: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) * 1024


def _cpuinfo(key: str) -> str:
    """The first value of a key of /proc/cpuinfo; empty where there is none."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def vectors() -> list[str]:
    """Vector instructions of the processor that change how fast products are."""
    return [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in _cpuinfo("flags").split()]


def machine() -> str:
    """Processor, cores, memory, system and versions in one line."""
    model, wide = _cpuinfo("model name"), vectors()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "polars"))
    return (
        f"{model or platform.processor() or platform.machine()} ({', '.join(wide)}), {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}, {versions}"
    )


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Format rows as a Markdown table; floats with three significant digits."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def commit() -> str:
    """Short hash of the commit, `unknown` outside a git checkout."""
    git = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def write(name: str, title: str, *parts: str, folder: Path | None = None) -> Path:
    """Write <name>.md in `folder`, by default `results`, with title, date, commit, machine and the parts; print it."""
    command = f"`python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".rstrip() + "`"
    stamp = f"Measured {datetime.now(UTC):%Y-%m-%d} at commit {commit()}. {machine()}. {command}"
    text = "\n\n".join([f"# {title}", stamp, *parts]) + "\n"
    path = (folder or HERE / "results") / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text)
    return path
