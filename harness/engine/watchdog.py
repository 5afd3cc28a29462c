"""Inside a worker process: last words of one that crashes, and an end for one that hangs.

Python's own `faulthandler` does the work, in C: it writes where the process was when it got SIGSEGV, SIGABRT and the
like, and ends it when a timer runs out, even where the interpreter's lock is held. What it wrote stays in a file of
this machine, by process id, for `last_words`.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

SCALE = 10.0  # times its own longest epoch may a trial be silent, if that is more than the bound
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)')
_OURS = re.compile(r"(?:adapters|backbones|harness)/[\w./]+\.py$")
_PASSED = ("harness/engine/watchdog.py", "harness/engine/worker.py")  # frames of every worker; they blame nothing


def words_path(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"harness-workers-{os.getuid()}" / f"{pid}.txt"


class Watchdog:
    """Ends this process if its trial shows no sign of life for `seconds`, or SCALE times its longest epoch if that is
    more. 0 seconds: never. A sign of life is a call of `beat`: a training step, a block of ranks."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._limit = self._beat = 0.0
        path = words_path(os.getpid())
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _sweep(path.parent)
        self._file = path.open("w")
        faulthandler.enable(self._file)

    def start(self, longest: float) -> None:
        """Watch from now on; the trial's longest epoch so far took `longest` seconds."""
        self._limit, self._beat = max(self.seconds, SCALE * longest) if self.seconds else 0.0, 0.0
        self.beat()

    def beat(self) -> None:
        now = time.monotonic()
        if self._limit and now - self._beat > min(1.0, self._limit / 10):  # setting the timer costs a thread
            self._beat = now
            faulthandler.dump_traceback_later(self._limit, exit=True, file=self._file)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """A worker that ends well has nothing to say."""
        self.stop()
        words_path(os.getpid()).unlink(missing_ok=True)


def last_words(pid: int) -> str:
    """How a dead worker process of this machine ended, in words, and where in our code; "" if it left none, as after
    SIGKILL. They are forgotten by this."""
    path = words_path(pid)
    try:
        text = path.read_text(errors="replace")
        path.unlink()
    except OSError:
        return ""
    return spoken(text)


def spoken(text: str) -> str:
    """What `faulthandler` wrote, as a clause.

    >>> spoken('Fatal Python error: Aborted\\n\\nThread 0x7 (most recent call first):\\n'
    ...        '  File "/x/adapters/mlp.py", line 12 in forward\\n')
    'Aborted in adapters/mlp.py, line 12 (forward)'
    """
    if fault := re.search(r"Fatal Python error: (.+)", text):
        what = fault.group(1)
    elif wait := re.search(r"Timeout \((.+)\)!", text):
        what = f"no sign of life for {wait.group(1)}"
    else:
        return ""
    for frame in _FRAME.finditer(text):
        if (ours := _OURS.search(frame["file"])) and ours.group() not in _PASSED:
            return f"{what} in {ours.group()}, line {frame['line']} ({frame['function']})"
    return what


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent, the node's daemon, is gone: a worker deep in a long epoch
    would notice only after it. Linux alone; elsewhere nothing happens."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _sweep(folder: Path) -> None:
    """Empty files of processes that are gone: their whole cluster was killed, and nobody asks for their words."""
    for file in folder.glob("*.txt"):
        try:
            if file.stat().st_size == 0:
                os.kill(int(file.stem), 0)  # is it alive?
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except (OSError, ValueError):
            continue
