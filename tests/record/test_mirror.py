"""The mirroring thread of a running bench, without a store."""

import threading

import pytest

from harness.record import mirror, tracking


class Store:
    """A tracker that writes when it may, and notes what it is given at once."""

    page = None

    def __init__(self):
        self.batches, self.may_write, self.fails = [], threading.Semaphore(0), 0
        self.known, self.refused = {"old"}, {}

    def look(self):
        pass

    def lacks(self, ledger, trial_id):
        return trial_id not in self.known

    def write(self, ledger, trial_ids):
        if not trial_ids:
            return
        self.batches.append(list(trial_ids))
        self.may_write.acquire()
        if self.fails:
            self.fails -= 1
            self.known.add(trial_ids[0])
            yield trial_ids[0]
            raise ConnectionError("away")
        for trial_id in trial_ids:
            self.known.add(trial_id)
            yield trial_id


@pytest.fixture
def store(monkeypatch):
    found = Store()
    monkeypatch.setattr(tracking, "Tracker", lambda *_, **__: found)
    monkeypatch.setattr(mirror, "RETRY_AFTER", 0.01)
    return found


def wait_for(condition):
    for _ in range(2_000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not happen")


def test_trials_that_ended_while_the_store_was_slow_are_written_at_once(store, tmp_path):
    following = mirror.Mirror("http://x", tmp_path, None, print)
    following.put("a")
    wait_for(lambda: store.batches)
    for name in ("b", "c", "old", "c", "d"):
        following.put(name)  # returns although the store does not
    store.may_write.release(9)
    assert following.close(30) == 0
    assert store.batches[0] == ["a"]
    assert [name for batch in store.batches for name in batch] == ["a", "b", "c", "d"]
    assert max(map(len, store.batches)) > 1


def test_what_was_written_before_an_outage_is_not_written_again(store, tmp_path):
    warnings = []
    store.fails = 1
    following = mirror.Mirror("http://x", tmp_path, None, warnings.append)
    following.put("a")
    wait_for(lambda: store.batches)
    following.put("b")
    following.put("c")
    store.may_write.release(9)
    assert following.close(30) == 0
    assert [name for batch in store.batches for name in batch] == ["a", "b", "c"]
    assert len(warnings) == 1


def test_what_a_server_too_slow_for_the_end_lacks_is_counted_once(store, tmp_path):
    following = mirror.Mirror("http://x", tmp_path, None, print)
    following.put("a")
    wait_for(lambda: store.batches)
    following.put("b")
    following.put("b")
    assert following.close(0.01) == 2
    store.may_write.release(9)
