"""Held-out items and held-out users: what is trained, what is tested, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dataset_files import columns, write_dataset

from harness.data import splits
from harness.data.preparation import prepare
from harness.data.reader import open_dataset
from harness.data.splits import Prepared, cold
from harness.types import HarnessError, PrepSpec, Protocol

WORDS = "abcdefghijklmnopqrst"
ITEMS = {"item_id": list(WORDS), "title": [f"Item {word}" for word in WORDS]}


def split(prepared: Prepared, protocol: Protocol) -> Any:
    """Return the unsealed split; Any, since its optional parts are all there."""
    return splits.split(prepared, protocol)


def made(folder, rows, names="user_id item_id timestamp", items=ITEMS):
    written = write_dataset(folder / "made", columns(rows, *names.split()), items)
    return prepare(open_dataset(str(written), folder), PrepSpec(kcore=0), folder)


@pytest.fixture
def prepared(tmp_path):
    rng = np.random.default_rng(1)
    rows = [(f"u{rng.integers(60):02d}", WORDS[rng.integers(20)], int(rng.integers(10_000))) for _ in range(600)]
    rows += [(f"v{n}", WORDS[n], 9000 + n) for n in range(20)]
    rows += [(f"v{n}", WORDS[n + 1], 9_500 + n) for n in range(19)] + [(f"v{n}", WORDS[n - 1], 9_900) for n in range(9)]
    return made(tmp_path, rows)


def sequences(data):
    return [part.tolist() for part in np.split(np.asarray(data.items), data.offsets[1:-1])]


def in_words(found):
    """Return the training histories, validation and test queries of a split as {user: (history, target)}."""
    train = {u: found.history(u, end).tolist() for u, end in enumerate(found.train_ends)}
    queries = [
        {u: (found.history(u, end).tolist(), found.history(u, end + 1)[-1]) for u, end in zip(q.users, q.ends)}  # noqa: B905
        for q in (found.valid, found.test)
    ]
    return train, *queries


def slow_loo(histories, hidden):
    """Leave one out with held-out items, user by user."""
    train, valid, test = {}, {}, {}
    for user, whole in enumerate(histories):
        warm = [item for item in whole if item not in hidden]
        train[user] = warm[:-2] if len(warm) >= 3 else warm
        if len(warm) >= 3:
            valid[user] = (warm[:-2], warm[-2])
        if len(whole) >= 3 and whole[-1] in hidden and warm:
            test[user] = (warm, whole[-1])
        elif len(warm) >= 3 and whole[-1] not in hidden:
            test[user] = (warm[:-1], warm[-1])
    return train, valid, test


def slow_gts(prepared, hidden, quantile, target):
    """A global temporal split with held-out items, user by user."""
    times = np.split(np.asarray(prepared.times), prepared.offsets[1:-1])
    events = [list(zip(items, t.tolist(), strict=True)) for items, t in zip(sequences(prepared), times, strict=True)]
    clock = np.array([t for user in events for item, t in user if item not in hidden])
    t_test = np.quantile(clock, quantile)
    t_val = np.quantile(clock[clock <= t_test], quantile)
    train, valid, test = {}, {}, {}
    for user, whole in enumerate(events):
        warm = [event for event in whole if event[0] not in hidden]
        train[user] = [item for item, t in warm if t <= t_val]
        for queries, low, high, own in ((valid, t_val, t_test, warm), (test, t_test, np.inf, whole)):
            places = [at for at, (_, t) in enumerate(own) if low < t <= high and at > 0]
            if places:
                at = places[-1] if target == "last" else places[0]
                history = [item for item, _ in own[:at] if item not in hidden]
                if history:
                    queries[user] = (history, own[at][0])
    return train, valid, test


@pytest.mark.parametrize("seed", [0, 7])
def test_leave_one_out_with_held_out_items_agrees_with_its_definition(prepared, seed):
    found = split(prepared, Protocol(cold_items=0.2, split_seed=seed))
    hidden = set(np.flatnonzero(found.held_out).tolist())
    assert len(hidden) == 4
    assert in_words(found) == slow_loo(sequences(prepared), hidden)
    targets = cold(found, found.test)
    assert 0 < targets.sum() < len(targets)


@pytest.mark.parametrize("target", ["last", "first"])
def test_a_temporal_split_with_held_out_items_agrees_with_its_definition(prepared, target):
    found = split(prepared, Protocol("gts", quantile=0.8, target=target, cold_items=0.3))
    hidden = set(np.flatnonzero(found.held_out).tolist())
    train, valid, test = in_words(found)
    assert (train, valid, test) == slow_gts(prepared, hidden, 0.8, target)
    assert 0 < sum(item in hidden for _, item in test.values()) < len(test)


@pytest.mark.parametrize("protocol", [Protocol(), Protocol("gts", quantile=0.8), Protocol("users", target="first")])
def test_held_out_items_are_in_no_training_validation_or_history(prepared, protocol):
    found = split(prepared, replace(protocol, cold_items=0.3))
    train, valid, test = in_words(found)
    hidden = set(np.flatnonzero(found.held_out).tolist())
    for history in [*train.values(), *(h for h, _ in valid.values()), *(h for h, _ in test.values())]:
        assert not hidden & set(history)
    assert not hidden & {target for _, target in valid.values()}
    assert (cold(found, found.test) >= found.held_out[[target for _, target in test.values()]]).all()
    assert found.sealed().held_out is found.held_out
    assert not found.held_out[found.sealed().items].any()


def test_the_held_out_items_have_text_and_depend_on_the_seed_only(tmp_path, prepared):
    chosen = [split(prepared, Protocol(cold_items=0.5, split_seed=seed)).held_out for seed in (0, 1, 0)]
    assert (chosen[0] == chosen[2]).all()
    assert (chosen[0] != chosen[1]).any()
    rows = [(f"u{user}", word, at) for user in range(9) for at, word in enumerate(WORDS[:8])]
    some = made(tmp_path / "some", rows, items={"item_id": list("abcd"), "title": list("ABCD")})
    held_out = split(some, Protocol(cold_items=0.5)).held_out
    ids = some.catalogue["item_id"].filter(held_out[1:].tolist()).to_list()
    assert len(ids) == 2
    assert set(ids) < set("abcd")
    with pytest.raises(HarnessError, match=r"made: cold_items 0\.1 holds out none of its 4 items with text"):
        split(some, Protocol(cold_items=0.1))


def test_users_are_split_and_test_users_are_never_trained_on(prepared):
    found = split(prepared, Protocol("users", target="successive"))
    lengths, n = np.diff(prepared.offsets), len(prepared.offsets) - 1
    trained = set(np.flatnonzero(found.train_ends).tolist())
    valid, test = set(found.valid.users.tolist()), set(found.test.users.tolist())
    assert len(trained) == round(0.8 * n)
    assert not trained & (valid | test)
    assert not valid & test
    assert found.train_ends[sorted(trained)].tolist() == lengths[sorted(trained)].tolist()
    assert abs(len(valid) - len(test)) <= 1
    assert [(found.test.users == user).sum() for user in sorted(test)] == [lengths[user] - 1 for user in sorted(test)]
    last = split(prepared, Protocol("users"))
    assert last.test.ends.tolist() == [lengths[user] - 1 for user in last.test.users]
    half = split(prepared, Protocol("users", train_users=0.5, split_seed=3))
    assert (half.train_ends > 0).sum() == round(0.5 * n)
    assert set(np.flatnonzero(half.train_ends).tolist()) - trained
    assert split(made_without_times(prepared), Protocol("users")).test.users.tolist() == last.test.users.tolist()


def made_without_times(prepared):
    return replace(prepared, times=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cold_items": 1.0}, r"--cold-items is 1\.0; it must be 0 \(off\) or a share below 1"),
        ({"cold_items": -0.1}, r"--cold-items is -0\.1"),
        ({"split": "gts", "target": "successive", "cold_items": 0.1}, "--cold-items needs --target last or first"),
        ({"split": "users", "train_users": 1.0}, r"--train-users is 1\.0; it must lie between 0 and 1"),
        ({"train_users": 0.5}, "--train-users needs --protocol users; the protocol is 'loo'"),
        ({"split_seed": 1}, "--split-seed needs --cold-items or --protocol users"),
        ({"split": "users", "validation": "last_train"}, "--protocol gts or windows; users allows only 'by_time'"),
    ],
)
def test_options_that_do_not_fit_are_one_clear_line(prepared, options, message):
    with pytest.raises(HarnessError, match=message):
        split(prepared, Protocol(**options))


def test_options_at_their_defaults_are_not_hashed():
    assert Protocol().identity() == {"split": "loo", "filter_seen": True, "quantile": 0.9}
    changed = [Protocol(cold_items=0.1), Protocol(cold_items=0.1, split_seed=1), Protocol("users", train_users=0.7)]
    assert [set(protocol.identity()) - set(Protocol().identity()) for protocol in changed] == [
        {"cold_items"},
        {"cold_items", "split_seed"},
        {"train_users"},
    ]
