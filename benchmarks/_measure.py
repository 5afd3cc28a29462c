"""What every benchmark shares: CPU seconds, medians, the machine in words, and results as Markdown.

Run a benchmark as `python benchmarks/<name>.py` with one thread (`OMP_NUM_THREADS=1`, set here before torch is
imported). Both sides of a comparison run alternately in one process or as child processes of one run.
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
    """The word for MovieLens-100K: `folder`/ml-100k if it is there, else the name, to be fetched."""
    return str(folder / "ml-100k") if (folder / "ml-100k").is_dir() else "ml-100k"


def cpu_seconds(*sides: Callable[[], object], repeats: int = 5) -> list[float]:
    """Median CPU seconds of each side, the sides taking turns after one untimed call each."""
    for side in sides:
        side()
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for side, times in zip(sides, taken, strict=True):
            start = time.process_time()
            side()
            times.append(time.process_time() - start)
    return [statistics.median(times) for times in taken]


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes, as Linux tells it.

    Not ru_maxrss: in a new process that begins at the size of the process which started it.
    """
    return _status("VmHWM")


def present_memory() -> int:
    """Resident size of this process now, bytes, as Linux tells it."""
    return _status("VmRSS")


def _status(field: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) * 1024


def machine() -> str:
    """Processor, cores, memory, system and versions in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line for line in lines if line.startswith("flags")), "")
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags.split()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "polars"))
    return (
        f"{model or platform.processor() or platform.machine()} ({', '.join(wide)}), {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}, {versions}"
    )


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a Markdown table; floats with three significant digits."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(name: str, title: str, *parts: str) -> Path:
    """Write results/<name>.md: title, date, commit, machine and the parts; also print it."""
    git = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    command = f"`python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".rstrip() + "`"
    stamp = f"Measured {datetime.now(UTC):%Y-%m-%d} at commit {commit}. {machine()}. {command}"
    text = "\n\n".join([f"# {title}", stamp, *parts]) + "\n"
    path = HERE / "results" / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text)
    return path
