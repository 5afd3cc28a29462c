"""Leases between real processes: one holder, the dead are found, clocks are never compared."""

import os
import subprocess
import sys
import threading
import time

import pytest

from harness.record import leases
from harness.record.leases import Leases
from harness.types import HarnessError

HOLD = """
import sys, time
from pathlib import Path
from harness.record.leases import Leases
with Leases(Path(sys.argv[1]), sys.argv[2]) as held:
    print(repr(held.claim("cell")), flush=True)
    sys.stdin.read()
"""


def holder(home, name):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def elsewhere(monkeypatch):
    """Leases made from here on look as if they came from another machine."""
    there = leases.here() | {"place": "another machine"}
    monkeypatch.setattr(leases, "here", lambda: there)


def test_one_process_holds_a_key_and_the_next_gets_it_when_it_is_done(home):
    process, said = holder(home, "a")
    assert said == "''"
    with Leases(home, "b") as mine:
        assert mine.claim("cell") == "a"
        assert mine.claim("other") == ""
        process.communicate("", timeout=20)
        assert mine.claim("cell") == ""
        assert mine.claim("cell") == "", "held already"
    assert list((home / "leases").iterdir()) == []


def test_a_killed_holder_of_this_machine_is_followed_at_once_and_told_once(home):
    process, _ = holder(home, "a")
    told = []
    with Leases(home, "b", told.append) as mine:
        assert mine.claim("cell") == "a"
        process.kill()
        process.wait()
        assert mine.claim("cell") == ""
        assert mine.holds("cell")
    assert len(told) == 1
    assert "Launch a died; continuing its work." in told[0]
    process.stdout.close()
    process.stdin.close()


def test_what_the_killed_left_is_swept_by_the_next(home):
    process, _ = holder(home, "a")
    process.kill()
    process.communicate()
    assert sorted(path.name for path in (home / "leases").iterdir()) == ["a.beat", "cell.0"]
    with Leases(home, "b"):
        assert [path.name for path in (home / "leases").iterdir()] == ["b.beat"]


def test_a_run_is_alive_while_its_process_is_or_its_beat_is_fresh(home, monkeypatch):
    assert not leases.alive(home, "a"), "of it nothing is known"
    process, _ = holder(home, "a")
    assert leases.alive(home, "a")
    process.kill()
    process.communicate()
    assert not leases.alive(home, "a")
    with monkeypatch.context() as there:
        elsewhere(there)
        with Leases(home, "far") as far:
            far.claim("cell")
            there.undo()
            far._stop.set()
            far._thread.join()
            assert leases.alive(home, "far")
            last = time.time() - leases.SILENT
            os.utime(home / "leases" / "far.beat", (last, last))
            assert not leases.alive(home, "far")


def test_a_holder_elsewhere_is_dead_once_its_beat_stands_still_by_our_own_clock(home, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.05)
    monkeypatch.setattr(leases, "EXPIRES", 0.4)
    with Leases(home, "b") as mine, monkeypatch.context() as there:
        elsewhere(there)
        far = Leases(home, "far").__enter__()
        assert far.claim("cell") == ""
        there.undo()
        monkeypatch.setattr(leases, "EXPIRES", 0.4)
        for _ in range(12):
            assert mine.claim("cell") == "far", "it beats"
            time.sleep(0.1)
        far._stop.set()
        far._thread.join()
        os.utime(home / "leases" / "far.beat", (2e9, 2e9))  # the far machine's clock is years ahead: no matter
        assert mine.claim("cell") == "far", "a change was seen"
        deadline = time.monotonic() + 20
        while mine.claim("cell"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not far.holds("cell"), "who was thought dead and goes on notices it"
        assert far.claim("cell") == "b"


def test_a_lease_that_was_taken_over_and_released_does_not_pass_back(home):
    a, c = Leases(home, "a"), Leases(home, "c")
    with a, c:
        assert a.claim("cell") == ""
        (home / "leases" / "cell.0").unlink()  # another process believed `a` dead, took the lease over and released it
        assert not a.holds("cell")
        assert c.claim("cell") == ""
        assert not a.holds("cell")
        a.release("cell")
        assert c.holds("cell")
        assert a.claim("cell") == "c"


def test_of_many_that_follow_a_dead_holder_one_gets_the_key(home, monkeypatch):
    process, _ = holder(home, "dead")
    process.kill()
    process.communicate()
    rivals = [Leases(home, f"r{i}") for i in range(8)]
    monkeypatch.setattr(Leases, "_sweep", lambda self: None)
    got, gate = [], threading.Barrier(8)

    def race(rival):
        gate.wait()
        got.append(rival.claim("cell"))

    threads = [threading.Thread(target=race, args=(rival,)) for rival in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got.count("") == 1


def test_a_file_system_without_hard_links_does_as_well(home, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    with Leases(home, "a") as first, Leases(home, "b") as second:
        assert first.claim("cell") == ""
        assert second.claim("cell") == "a"


def test_a_folder_that_cannot_be_made_is_one_clear_line(home):
    (home / "leases").write_text("a file where the folder should be")
    with pytest.raises(HarnessError, match="leases cannot be written"):
        Leases(home, "a").__enter__()


def test_a_lease_that_a_network_folder_made_but_denied_is_held(home, monkeypatch):
    """NFS answers a repeated request with "exists". The bench would wait for itself."""
    link = os.link

    def answers_twice(*arguments):
        link(*arguments)
        raise FileExistsError("the first answer was lost")

    monkeypatch.setattr(os, "link", answers_twice)
    with Leases(home, "a") as mine:
        assert mine.claim("cell") == "another process"
        assert mine.claim("cell") == ""
        assert mine.holds("cell")
    assert list((home / "leases").iterdir()) == []


def test_a_process_that_the_machine_hides_lives_as_long_as_its_beat(home, monkeypatch):
    """With `hidepid`, /proc shows no process of another user; a signal to it is refused."""
    process, _ = holder(home, "a")
    process.kill()
    process.wait()
    monkeypatch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(PermissionError("another user's")))
    now = [1000.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    with Leases(home, "b") as mine:
        assert leases.alive(home, "a")
        assert mine.claim("cell") == "a"
        now[0] += leases.EXPIRES + 1
        assert mine.claim("cell") == ""
