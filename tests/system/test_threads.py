"""Work over several threads."""

import threading

import pytest

from harness.system.threads import in_threads


def test_work_in_threads_is_done_at_once_and_an_error_ends_it():
    together = threading.Barrier(4, timeout=30)
    assert sorted(in_threads(lambda _: together.wait() and None, range(8), 4)) == list(range(8))
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        list(in_threads(work, range(1_000), 1))
    assert begun == [0, 1]
    assert list(in_threads(work, [], 4)) == []
