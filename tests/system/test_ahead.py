"""Contexts that are entered in a thread."""

import threading
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
        try:
            yield "inside"
        finally:
            self.events.append("left")


def test_work_goes_on_while_a_context_opens():
    door = Door()
    with ahead.entered(door.entered()) as opened:
        assert door.events == []
        door.open.set()
        assert opened() == "inside"
        assert door.events == ["entered"]
    assert door.events == ["entered", "left"]


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
