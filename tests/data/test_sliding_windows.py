"""Sliding windows: where the cuts lie, what each fold trains on and tests, and what is refused."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from dataset_files import columns, write_dataset

from harness.data import splits
from harness.data.preparation import prepare
from harness.data.reader import open_dataset
from harness.data.splits import Prepared
from harness.types import HarnessError, PrepSpec, Protocol

WORDS = "abcdefghijklmnopqrst"
ITEMS = {"item_id": list(WORDS), "title": [f"Item {word}" for word in WORDS]}
WINDOWS = Protocol("windows", quantile=0.6, folds=3)


def split(prepared: Prepared, protocol: Protocol) -> Any:
    """Return the unsealed split; Any, since its optional parts are all there."""
    return splits.split(prepared, protocol)


@pytest.fixture
def prepared(tmp_path):
    rng = np.random.default_rng(3)
    rows = [(f"u{rng.integers(60):02d}", WORDS[rng.integers(20)], int(rng.integers(10_000))) for _ in range(900)]
    written = write_dataset(tmp_path / "made", columns(rows, "user_id", "item_id", "timestamp"), ITEMS)
    return prepare(open_dataset(str(written), tmp_path), PrepSpec(kcore=0), tmp_path)


def events(data):
    """Return the (item, time) pairs of each user."""
    at = data.offsets[1:-1]
    both = zip(np.split(np.asarray(data.items), at), np.split(np.asarray(data.times), at), strict=True)
    return [list(zip(items.tolist(), times.tolist(), strict=True)) for items, times in both]


def slow_fold(prepared, protocol, hidden=frozenset()):
    """Training, validation and test of a fold, user by user."""
    users = events(prepared)
    clock = np.array([t for user in users for item, t in user if item not in hidden])
    cuts = [np.quantile(clock, q) for q in np.linspace(protocol.quantile, 1, protocol.folds + 1)]
    t_test, end = cuts[protocol.fold : protocol.fold + 2]
    t_val = np.quantile(clock[clock <= t_test], protocol.quantile)
    train, valid, test = {}, {}, {}
    for user, whole in enumerate(users):
        train[user] = [item for item, t in whole if t <= t_val and item not in hidden]
        warm = [event for event in whole if event[0] not in hidden]
        for queries, low, high, own in ((valid, t_val, t_test, warm), (test, t_test, end, whole)):
            places = [at for at, (_, t) in enumerate(own) if low < t <= high and at > 0]
            if places:
                history = [item for item, _ in own[: places[-1]] if item not in hidden]
                if history:
                    queries[user] = (history, own[places[-1]][0])
    return train, valid, test


def in_words(found):
    train = {u: found.history(u, end).tolist() for u, end in enumerate(found.train_ends)}
    pairs = [list(zip(q.users, q.ends, strict=True)) for q in (found.valid, found.test)]
    queries = [{u: (found.history(u, n).tolist(), found.history(u, n + 1)[-1]) for u, n in one} for one in pairs]
    return train, *queries


@pytest.mark.parametrize("fold", range(3))
@pytest.mark.parametrize("cold_items", [0.0, 0.3])
def test_a_fold_agrees_with_its_definition(prepared, fold, cold_items):
    protocol = replace(WINDOWS, fold=fold, cold_items=cold_items)
    found = split(prepared, protocol)
    hidden = set() if found.held_out is None else set(np.flatnonzero(found.held_out).tolist())
    assert in_words(found) == slow_fold(prepared, protocol, hidden)
    assert found.n_items == prepared.catalogue.height


def test_the_last_fold_tests_like_a_temporal_split_at_its_cut(prepared):
    last, whole = split(prepared, replace(WINDOWS, fold=2)), split(prepared, Protocol("gts", quantile=1 - 0.4 / 3))
    assert in_words(last)[2] == in_words(whole)[2]


def test_the_windows_follow_each_other_and_share_no_event(prepared):
    folds = [split(prepared, one) for one in replace(WINDOWS, target="successive").parts]
    times = [found.times[found.offsets[found.test.users] + found.test.ends] for found in folds]
    assert all(before.max() < after.min() for before, after in pairwise(times))
    assert max(map(len, times)) < 1.3 * min(map(len, times))
    first = np.quantile(prepared.times, 0.6)
    assert sum(map(len, times)) == sum(t > first and at > 0 for u in events(prepared) for at, (_, t) in enumerate(u))


@pytest.mark.parametrize("fold", range(3))
def test_no_fold_contains_an_event_after_its_test_window(prepared, fold):
    end = splits.cuts(prepared, WINDOWS, prepared.times)[fold + 1]
    found = split(prepared, replace(WINDOWS, fold=fold))
    assert found.times.max() <= end
    assert found.sealed().test is None
    assert found.sealed().times.max() <= splits.cuts(prepared, WINDOWS, prepared.times)[fold]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "--protocol windows needs --folds of at least 2, not 1; one fold is --protocol gts"),
        ({"folds": 0}, "--folds of at least 2, not 0"),
        ({"fold": 3}, "There is no fold 3; the folds are 0 to 2"),
        ({"split": "gts"}, "--folds needs --protocol windows; the protocol is 'gts'"),
        ({"quantile": 1.0}, "--quantile is 1.0; it must lie between 0 and 1"),
    ],
)
def test_options_that_do_not_fit_are_one_clear_line(prepared, options, message):
    with pytest.raises(HarnessError, match=message):
        split(prepared, replace(WINDOWS, **options))


def test_missing_times_and_empty_windows_are_one_clear_line(prepared):
    with pytest.raises(HarnessError, match="has no timestamps, but the split 'windows' needs them; use 'loo'"):
        split(replace(prepared, times=None), WINDOWS)
    equal = replace(prepared, times=np.where(prepared.times > np.quantile(prepared.times, 0.65), 9999, prepared.times))
    with pytest.raises(HarnessError, match=r"leaves no user for the test of fold 1 \(of 0 to 2\); use fewer folds"):
        split(equal, replace(WINDOWS, fold=1))


def test_the_protocol_of_a_table_has_no_fold_and_other_protocols_no_folds():
    assert WINDOWS.identity() == {"split": "windows", "filter_seen": True, "quantile": 0.6, "folds": 3}
    assert [one.identity().get("fold") for one in WINDOWS.parts] == [None, 1, 2]
    assert Protocol().parts == [Protocol()]
