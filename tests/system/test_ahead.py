"""Contexts that are entered in a thread."""

import ctypes
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from harness.system import ahead


class Door:
    """A context that waits for a signal to open, and records what happens."""

    def __init__(self, fault=None):
        self.open, self.events, self.fault = threading.Event(), [], fault

    @contextmanager
    def entered(self):
        self.open.wait(30)
        if self.fault:
            raise self.fault
        self.events.append("entered")
        thread = threading.current_thread()
        try:
            yield "inside"
        finally:
            self.events.append("left" if thread.is_alive() else "left too late")


def test_work_goes_on_while_a_context_opens():
    door = Door()
    with ahead.entered(door.entered()) as opened:
        assert door.events == []
        door.open.set()
        assert opened() == "inside"
        assert door.events == ["entered"]
    assert door.events == ["entered", "left"]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_process_that_dies_with_its_parent_is_there_until_the_context_is_left():
    ended = []

    @contextmanager
    def child():
        deadly = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # noqa: E731 - PR_SET_PDEATHSIG
        with subprocess.Popen(["sleep", "60"], preexec_fn=deadly) as process:
            yield process
            time.sleep(0.2)
            ended.append(process.poll())
            process.kill()

    with ahead.entered(child()) as opened:
        assert opened().poll() is None
    assert ended == [None]


def test_a_context_that_does_not_open_fails_where_it_is_needed():
    door = Door(fault=ValueError("closed"))
    door.open.set()
    with ahead.entered(door.entered()) as opened:
        door.events.append("worked")
        with pytest.raises(ValueError, match="closed"):
            opened()
    assert door.events == ["worked"]


def test_a_context_is_left_if_the_work_beside_it_fails():
    door = Door()
    door.open.set()
    with pytest.raises(KeyError), ahead.entered(door.entered()):
        raise KeyError
    assert door.events == ["entered", "left"]
