"""The mirroring thread of a running bench, without a store."""

import threading

import pytest

from harness.record import mirror, tracking


class Store:
    """A tracker that writes when it may, and notes what it is given at once."""

    page = None

    def __init__(self):
        self.batches, self.may_write, self.fails = [], threading.Semaphore(0), 0

    def mirrored(self):
        return {"old"}

    def write(self, ledger, trial_ids):
        if not trial_ids:
            return
        self.batches.append(list(trial_ids))
        self.may_write.acquire()
        if self.fails:
            self.fails -= 1
            yield trial_ids[0]
            raise ConnectionError("away")
        yield from trial_ids


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


def test_work_in_threads_is_done_at_once_and_an_error_ends_it():
    together = threading.Barrier(4, timeout=30)
    assert sorted(tracking._in_threads(lambda _: together.wait() and None, range(8), 4)) == list(range(8))
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        list(tracking._in_threads(work, range(1_000), 1))
    assert begun == [0, 1]
    assert list(tracking._in_threads(work, [], 4)) == []
