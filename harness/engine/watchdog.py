"""Crash logs of worker processes, and a watchdog that ends a process that hangs.

Python's `faulthandler`, written in C, does both: on SIGSEGV, SIGABRT and similar signals it writes the stack, and after
a timeout it ends the process, even while the interpreter's lock is held. The log stays on this machine, one file per
process id, for `read_crash_log`.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import re
import signal
import sys
import time
from pathlib import Path

from harness.system import tempdirs
from harness.types import HarnessError

SCALE = 10.0  # multiple of the longest epoch so far: the timeout if it exceeds the configured one
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)')
_OURS = re.compile(r"(?:adapters|backbones|harness)/[\w./]+\.py$")
_PASSED = ("harness/engine/watchdog.py", "harness/engine/worker.py")  # on the stack of every worker


def crash_log_path(pid: int) -> Path:
    """Raises HarnessError if the folder of crash logs belongs to somebody else."""
    return tempdirs.of_user("workers") / f"{pid}.txt"


class Watchdog:
    """End this process if `beat` is not called for `seconds`, or for SCALE times the longest epoch if that is more.

    0 seconds: never. `beat` is called after a training step or a block of ranks.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._limit = self._beat = 0.0
        try:
            self._log = crash_log_path(os.getpid())
            _sweep(self._log.parent)
        except HarnessError:
            self._log = Path(os.devnull)
        self._file = self._log.open("w")
        faulthandler.enable(self._file)

    def start(self, longest: float) -> None:
        """Start watching. longest: the trial's longest epoch so far, seconds."""
        self._limit, self._beat = max(self.seconds, SCALE * longest) if self.seconds else 0.0, 0.0
        self.beat()

    def beat(self) -> None:
        now = time.monotonic()
        if self._limit and now - self._beat > min(1.0, self._limit / 10):  # setting the timer starts a thread
            self._beat = now
            faulthandler.dump_traceback_later(self._limit, exit=True, file=self._file)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Stop watching and remove the log: this process did not crash."""
        self.stop()
        if self._log != Path(os.devnull):
            self._log.unlink(missing_ok=True)


def read_crash_log(pid: int) -> str:
    """Return how a worker process of this machine crashed and where in our code, and delete its log.

    "" if there is no log, as after SIGKILL.
    """
    try:
        path = crash_log_path(pid)
        text = path.read_text(errors="replace")
        path.unlink()
    except (OSError, HarnessError):
        return ""
    return describe_crash(text)


def describe_crash(text: str) -> str:
    """Summarise the output of `faulthandler` in a clause.

    >>> describe_crash('Fatal Python error: Aborted\\n\\nThread 0x7 (most recent call first):\\n'
    ...                '  File "/x/adapters/mlp.py", line 12 in forward\\n')
    'Aborted in adapters/mlp.py, line 12 (forward)'
    """
    if fault := re.search(r"Fatal Python error: (.+)", text):
        cause = fault.group(1)
    elif wait := re.search(r"Timeout \((.+)\)!", text):
        cause = f"no sign of life for {wait.group(1)}"
    else:
        return ""
    for frame in _FRAME.finditer(text):
        if (ours := _OURS.search(frame["file"])) and ours.group() not in _PASSED:
            return f"{cause} in {ours.group()}, line {frame['line']} ({frame['function']})"
    return cause


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent, the node's daemon, dies: otherwise a worker would notice only
    at the end of an epoch. No effect on systems other than Linux."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _sweep(folder: Path) -> None:
    """Remove empty logs of dead processes, left when a whole cluster was killed."""
    for file in folder.glob("*.txt"):
        try:
            if file.stat().st_size == 0:
                os.kill(int(file.stem), 0)  # is it alive?
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except (OSError, ValueError):
            continue
