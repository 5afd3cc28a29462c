"""Preparation specs, protocols and cards, tested by hand, against slow recomputations and on the real files."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import asdict, fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dataset_files import SHARED, columns, make_dataset, sequences, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.data import preparation, presets, reader, splits, steps
from harness.data.order_signal import order_test
from harness.data.preparation import prepare
from harness.data.presets import PRESETS, preset
from harness.data.reader import open_dataset
from harness.data.splits import Prepared, cold, split
from harness.metrics._all import per_user
from harness.system import checksums
from harness.training.trial import run_baseline, spectrum
from harness.types import STEPS, Cell, HarnessError, Inputs, PrepSpec, Protocol, Trial, digest

OFF = PrepSpec(kcore=0)
ITEMS = {
    "item_id": ["a", "b", "c", "d", "e"],
    "title": ["Anvil", "Bell of brass", "Clock <span id='x'>", None, "Easel"],
}


def made(
    folder: Path, rows: list[tuple], spec: PrepSpec = OFF, *, names: str = "user_id item_id timestamp"
) -> Prepared:
    written = write_dataset(folder / "made", columns(rows, *names.split()), ITEMS)
    return prepare(open_dataset(str(written), folder), spec, folder)


def test_old_preparations_keep_their_identity():
    assert PrepSpec(3, "item_id").identity() == {"kcore": 3, "tie_policy": "item_id", "require_text": False}
    assert Protocol("gts").identity() == {"split": "gts", "filter_seen": True, "quantile": 0.9}
    trial = Trial(
        Cell("a", "minilm", "sasrec", "mlp"), "search", 0, 8, 3, {"train.lr": 0.1}, Protocol(), Inputs(data="h")
    )
    written = {
        **{
            "cell": ["sasrec", "mlp"],
            "role": "search",
            "seed": 0,
            "epochs": 8,
            "patience": 3,
            "params": {"train.lr": 0.1},
        },
        "protocol": {"split": "loo", "filter_seen": True, "quantile": 0.9},
        "inputs": {"data": "h", "embedding": "", "basis": 0, "versions": {}},
    }
    assert trial.id == digest(written)


OTHER = {
    **{"kcore": 4, "tie_policy": "item_id", "require_text": True, "min_rating": 3.0, "window": "2016-10-01:2018-11-01"},
    **{"dedup": "last", "max_title_words": 20, "iterate": False, "max_history": 50, "order": STEPS[::-1]},
}


def test_every_value_of_a_spec_and_of_a_protocol_is_in_its_identity():
    assert set(OTHER) == {field.name for field in fields(PrepSpec)}
    found = [replace(PrepSpec(), **{name: value}).identity() for name, value in OTHER.items()]
    assert len({digest(value) for value in [*found, PrepSpec().identity()]}) == len(OTHER) + 1
    others = [Protocol("gts"), Protocol(filter_seen=False), Protocol(quantile=0.8), Protocol(validation="last_train")]
    others += [Protocol(target="first"), Protocol(target="successive"), Protocol(drop_tied_test=True), Protocol()]
    assert len({digest(value.identity()) for value in others}) == len(others)
    assert digest(PrepSpec(min_rating=4).identity()) == digest(PrepSpec(min_rating=4.0).identity())
    assert PrepSpec(order=list(STEPS)) == PrepSpec()  # type: ignore[arg-type]


RATED = [("u", "a", 1, 5), ("u", "b", 2, 2), ("u", "a", 3, 1), ("u", "e", 3, 4), ("v", "a", 1, 4), ("v", "b", 2, 4)]


def test_events_with_a_lower_rating_are_dropped_and_a_missing_rating_is_refused(tmp_path):
    names = "user_id item_id timestamp rating"
    assert sequences(made(tmp_path, RATED, PrepSpec(0, min_rating=4), names=names)) == {"u": "ae", "v": "ab"}
    assert sequences(made(tmp_path, RATED, OFF, names=names)) == {"u": "abae", "v": "ab"}
    with pytest.raises(HarnessError, match=r"interactions.parquet has no column 'rating'\. .*Known: user_id"):
        made(tmp_path, [row[:3] for row in RATED], PrepSpec(0, min_rating=4))
    with pytest.raises(HarnessError, match="rating is missing in 1 of 6 rows"):
        made(tmp_path, [*RATED[:-1], ("v", "b", 2, None)], PrepSpec(0, min_rating=4), names=names)


def test_repeats_of_a_user_and_an_item_keep_the_first_the_last_or_all(tmp_path):
    rows = [("u", item, time) for time, item in enumerate("abacbb")] + [("u", "b", 5), ("v", "b", 1), ("v", "a", 2)]
    found = {name: made(tmp_path, rows, PrepSpec(0, dedup=name)) for name in presets.DEDUP}
    shown = {name: sequences(prepared)["u"] for name, prepared in found.items()}
    assert shown == {"exact": "abacbb", "none": "abacbbb", "first": "abc", "last": "acb"}
    dropped = {name: prepared.card.duplicates_dropped for name, prepared in found.items()}
    assert dropped == {"exact": 1, "none": 0, "first": 4, "last": 4}
    assert all(sequences(prepared)["v"] == "ba" for prepared in found.values())


ROWS = st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcde"), st.integers(0, 3)), max_size=40)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS)
def test_repeats_agree_with_those_found_by_a_set(rows, tmp_path_factory):
    rows = [*rows, ("u", "a", 9), ("v", "b", 9)]
    ordered = sorted(rows, key=lambda row: (row[0], row[2]))  # stable, as the policy `source` is
    for name, key in {"exact": lambda row: row, "first": lambda row: row[:2], "last": lambda row: row[:2]}.items():
        seen, wanted = set(), {}
        for row in ordered[::-1] if name == "last" else ordered:
            if key(row) not in seen:
                seen.add(key(row))
                wanted[row[0]] = wanted.get(row[0], "") + row[1]
        if name == "last":
            wanted = {user: items[::-1] for user, items in wanted.items()}
        assert sequences(made(tmp_path_factory.mktemp("rows"), rows, PrepSpec(0, dedup=name))) == wanted


def test_long_titles_and_markup_are_dropped_and_missing_titles_only_if_text_is_required(tmp_path):
    rows = [(user, item, time) for user in "uv" for time, item in enumerate("abcde")]
    assert sequences(made(tmp_path, rows, PrepSpec(0, max_title_words=2)))["u"] == "ade"
    assert sequences(made(tmp_path, rows, PrepSpec(0, max_title_words=3)))["u"] == "abde"
    assert sequences(made(tmp_path, rows, PrepSpec(0, max_title_words=2, require_text=True)))["u"] == "ae"
    assert sequences(made(tmp_path, rows))["u"] == "abcde"


DAY = 86_400


def test_a_window_includes_both_of_its_days_in_utc(tmp_path):
    start = 1_475_280_000  # 2016-10-01T00:00:00Z
    rows = [("u", item, start + seconds) for item, seconds in zip("abcd", (-1, 0, 2 * DAY - 1, 2 * DAY), strict=True)]
    rows += [("v", "b", start + 5), ("v", "c", start + 9)]
    assert sequences(made(tmp_path, rows, PrepSpec(0, window="2016-10-01:2016-10-02"))) == {"u": "bc", "v": "bc"}
    untimed = [("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "b", 2)]
    with pytest.raises(HarnessError, match="made: a window of days needs the time of every event"):
        made(tmp_path, untimed, PrepSpec(0, window="2016-10-01:2016-10-02"), names="user_id item_id order")


def test_the_last_events_of_a_user_are_kept_and_items_only_seen_before_leave_the_catalogue(tmp_path):
    rows = [("u", item, time) for time, item in enumerate("abcde")] + [("v", "d", 0), ("v", "e", 1), ("w", "c", 0)]
    prepared = made(tmp_path, rows, PrepSpec(0, max_history=2))
    assert sequences(prepared) == {"u": "de", "v": "de", "w": "c"}
    assert prepared.catalogue["item_id"].to_list() == ["c", "d", "e"]


def slow_one_pass(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
    left = [(u, i) for u, i in pairs if users[u] >= k and items[i] >= k]
    users = Counter(u for u, _ in left)
    return [(u, i) for u, i in left if users[u] >= k]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=80), st.integers(0, 5))
def test_one_pass_of_the_core_agrees_with_a_slow_count(pairs, k):
    users, items = (np.array([pair[side] for pair in pairs], dtype=np.int32) for side in (0, 1))
    keep = steps.core(users, items, k, iterate=False)
    assert [pairs[place] for place in np.flatnonzero(keep)] == slow_one_pass(pairs, k)


def test_one_pass_leaves_more_than_the_fixed_point(tmp_path):
    # w and then d fall below two events only once c is gone
    rows = [("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "b", 2), ("w", "c", 1), ("w", "d", 2), ("w", "a", 3)]
    rows += [("x", "d", 1), ("x", "e", 2), ("x", "b", 3)]
    once = sequences(made(tmp_path, rows, PrepSpec(2, iterate=False)))
    assert once == {"u": "ab", "v": "ab", "w": "da", "x": "db"}
    rows = [*rows[:-1], ("y", "e", 4)]  # x now holds d and e, of which each has two events
    assert "x" in sequences(made(tmp_path, rows, PrepSpec(2, iterate=False)))
    assert sequences(made(tmp_path, rows, PrepSpec(2))) == {"u": "ab", "v": "ab"}


def test_the_order_of_steps_is_kept(tmp_path):
    names = "user_id item_id timestamp rating"
    rows = [("u", "a", 1, 1), ("u", "a", 2, 5), ("u", "b", 3, 5), ("v", "a", 1, 5), ("v", "b", 2, 5)]
    first = PrepSpec(0, dedup="first", min_rating=3)
    assert sequences(made(tmp_path, rows, first, names=names))["u"] == "ab"
    later = replace(first, order=("window", "dedup", "rating", "text", "core", "history"))
    assert sequences(made(tmp_path, rows, later, names=names))["u"] == "b"


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"dedup": "firts"}, r"no dedup 'firts'\. Did you mean 'first'\? Known: exact, none, first, last"),
        ({"window": "2016-10-01"}, "window is '2016-10-01'; it must be two days in order, such as"),
        ({"window": "2018-11-01:2016-10-01"}, "two days in order"),
        ({"window": "2016-02-30:2016-10-01"}, "two days in order"),
        ({"window": "2016-10-01:9999-12-31"}, "two days in order"),
        ({"max_title_words": -1}, "max_title_words is -1; it must be 0"),
        ({"max_history": 2.5}, "max_history is 2.5; it must be 0"),
        ({"min_rating": float("nan")}, "min_rating is nan; it must be a number"),
        ({"min_rating": "four"}, "min_rating is 'four'; it must be a number"),
        ({"iterate": 1}, "iterate is 1; it must be true or false"),
        ({"order": ("dedup", "core")}, "order of steps is 'dedup,core'; it must name each of rating, window, dedup"),
        ({"order": "dedup"}, "order of steps is 'dedup'"),
        ({"order": 3}, "order of steps is '3'"),
        ({"order": (1, "core")}, "order of steps is '1,core'"),
        ({"tie_policy": 3}, "There is no tie policy '3'"),
        ({"order": (*STEPS, "core")}, "it must name each of"),
    ],
)
def test_an_invalid_spec_value_is_a_clear_one_line_error(tmp_path, own, says):
    with pytest.raises(HarnessError, match=says):
        made(tmp_path, RATED[:2], PrepSpec(**own), names="user_id item_id timestamp rating")
    assert not (tmp_path / "cache").exists()


def test_presets_are_values_with_overrides_in_brackets():
    assert preset("spectran") == PrepSpec(require_text=True)
    assert preset("llm-esr[kcore=5,iterate=true]") == PrepSpec(dedup="none")
    assert preset("amazon2023[kcore=0]") == PrepSpec(kcore=0, dedup="first")
    assert preset("minionerec[window=None]").window is None
    assert preset("s3rec[window=2019-01-01:2019-12-31]").window == "2019-01-01:2019-12-31"
    with pytest.raises(HarnessError, match=r"no preparation 'spectra'\. Did you mean 'spectran'"):
        preset("spectra")
    with pytest.raises(HarnessError, match=r"has no option 'kcor'\. Did you mean 'kcore'"):
        preset("spectran[kcor=3]")
    with pytest.raises(HarnessError, match="kcore is -3"):
        preset("spectran[kcore=-3]")


def test_the_presets_differ_where_the_works_differ(tmp_path):
    rows = [(user, item, time) for user in "uvw" for time, item in enumerate("abcde")]
    rows += [("u", "a", 7), ("u", "a", 7)]
    found = {
        name: sequences(made(tmp_path, rows, replace(spec, kcore=0)))["u"]
        for name, spec in PRESETS.items()
        if not spec.window
    }
    assert found == {
        **{"default": "abcdea", "raw": "abcdeaa", "spectran": "abcea", "s3rec": "abcdeaa", "llm-esr": "abcdeaa"},
        **{"amazon2023": "abcde", "alphafuse": "abcdeaa"},
    }


def test_published_counts_name_presets_that_exist_and_no_spec_of_a_set_twice():
    entries = tomllib.loads(presets.COUNTS.read_text())["counts"]
    assert len(entries) > 25
    known = [(entry["dataset"], json.dumps(asdict(preset(word)))) for entry in entries for word in entry["prep"]]
    assert len(set(known)) == len(known)
    for entry in entries:
        assert entry["source"]
        assert {"users", "items", "events"} & set(entry)


def test_the_card_compares_its_counts_with_the_published_ones(tmp_path):
    folder = make_dataset(tmp_path / "ml-100k", users=943 // 4)
    card = prepare(open_dataset(str(folder), tmp_path), preset("raw"), tmp_path).card
    assert card.published["users"] == {"published": 943, "ours": 235, "percent": -75.08}
    assert card.published["items"]["published"] == 1682
    assert "GroupLens" in card.published["source"]
    assert prepare(open_dataset(str(folder), tmp_path), preset("llm-esr"), tmp_path).card.published is None
    tied = prepare(open_dataset(str(folder), tmp_path), preset("raw[tie_policy=item_id]"), tmp_path).card
    assert tied.published["events"]["ours"] == 235 * 12


def test_cold_targets_are_those_never_trained_on(tmp_path):
    rows = [("u", item, time) for time, item in enumerate("abcd")] + [("v", item, t) for t, item in enumerate("acbe")]
    prepared = made(tmp_path, [*rows, ("w", "d", 1)])
    whole = split(prepared, Protocol())
    assert whole.test is not None
    assert cold(whole, whole.valid).tolist() == [False, False]  # c and b are in the training of v and u
    assert cold(whole, whole.test).tolist() == [False, True]  # d is w's only event, e is nowhere
    assert (prepared.card.cold_valid_share, prepared.card.cold_test_share) == (0.0, 0.5)


def test_every_confirmed_row_has_separate_scores_of_warm_and_cold_targets(tmp_path):
    rows = [(f"u{user}", item, 10 * user + place) for user in range(12) for place, item in enumerate("abc")]
    rows += [(f"u{user}", "d" if user < 4 else "a", 1000 + user) for user in range(8)]  # d is never trained on
    prepared = made(tmp_path, rows)
    protocol = Protocol("gts", quantile=0.82)
    whole = split(prepared, protocol)
    assert whole.test is not None
    unseen = cold(whole, whole.test)
    assert (unseen.sum(), len(unseen)) == (4, 8)
    trial = Trial(Cell("x", "none", "none", "popularity"), "confirm", 0, 0, 0, {}, protocol, Inputs())
    result, left = run_baseline(trial, whole, spectrum({}, whole.n_items))
    gains = per_user(left.ranks, "ndcg", 10)
    info = result.info
    assert info["test_cold_share"] == pytest.approx(unseen.mean())
    for name, part in (("cold", gains[unseen]), ("warm", gains[~unseen])):
        assert info[f"test_{name}_NDCG@10"] == pytest.approx(part.mean())
    assert splits.target_counts(whole) == {
        "valid_targets": len(whole.valid.users),
        "cold_valid_share": pytest.approx(cold(whole, whole.valid).mean()),
        "test_targets": len(whole.test.users),
        "cold_test_share": pytest.approx(unseen.mean()),
    }


def slow_gts(prepared: Prepared, protocol: Protocol) -> tuple[list[int], list[tuple[int, int]], list[tuple[int, int]]]:
    times = [t.tolist() for t in np.split(np.asarray(prepared.times), prepared.offsets[1:-1])]
    t_test = float(np.quantile(np.concatenate(times), protocol.quantile))
    t_val = float(np.quantile([t for own in times for t in own if t <= t_test], protocol.quantile))
    train, valid, test = [], [], []
    for user, own in enumerate(times):
        before = [t for t in own if t <= t_test]
        late = [(user, end) for end in range(1, len(own)) if own[end] > t_test]
        middle = [(user, end) for end in range(1, len(before)) if before[end] > t_val]
        if protocol.validation == "last_train":
            middle = [(user, len(before) - 1)] if len(before) > 1 else []
            train.append(len(before) - len(middle))
        else:
            train.append(sum(t <= t_val for t in own))
        chosen = {"last": slice(-1, None), "first": slice(0, 1), "successive": slice(None)}[protocol.target]
        valid += middle[chosen]
        test += [(u, end) for u, end in late[chosen] if not protocol.drop_tied_test or own[end] != own[end - 1]]
    return train, valid, test


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("target", ["last", "first", "successive"])
@pytest.mark.parametrize("validation", ["by_time", "last_train"])
def test_the_temporal_split_agrees_with_its_definition(tmp_path, validation, target, tied):
    rng = np.random.default_rng(3)
    rows = [(f"u{rng.integers(40):02d}", "abcde"[rng.integers(5)], int(rng.integers(40))) for _ in range(400)]
    prepared = made(tmp_path, [*rows, ("y", "b", 25), ("z", "a", 39)])
    protocol = Protocol("gts", quantile=0.7, validation=validation, target=target, drop_tied_test=tied)
    found = split(prepared, protocol)
    train, valid, test = slow_gts(prepared, protocol)
    assert found.test is not None
    assert found.train_ends.tolist() == train
    assert list(zip(found.valid.users.tolist(), found.valid.ends.tolist(), strict=True)) == valid
    assert list(zip(found.test.users.tolist(), found.test.ends.tolist(), strict=True)) == test
    assert [found.test.users.dtype, found.test.ends.dtype] == [np.int32, np.int64]
    if target == "successive":
        assert len(test) > len(set(found.test.users.tolist()))
    sealed = found.sealed()
    for user, end in valid:
        start = sealed.offsets[user]
        assert sealed.items[start : start + end + 1].tolist() == found.history(user, end + 1).tolist()
    assert sealed.times is not None
    assert sealed.times.max() <= np.quantile(np.asarray(prepared.times), 0.7)


def test_users_whose_test_event_is_tied_are_not_tested(tmp_path):
    rows = [("u", item, time) for item, time in zip("abc", (1, 2, 3), strict=True)]
    rows += [("v", item, time) for item, time in zip("abc", (1, 3, 3), strict=True)]
    prepared = made(tmp_path, rows)
    found = split(prepared, Protocol(drop_tied_test=True))
    assert found.test is not None
    assert (found.test.users.tolist(), found.test.ends.tolist(), found.valid.users.tolist()) == ([0], [2], [0, 1])
    untimed = made(tmp_path, rows, names="user_id item_id order")
    with pytest.raises(HarnessError, match="made has no timestamps, which --drop-tied-test needs; omit it"):
        split(untimed, Protocol(drop_tied_test=True))


def test_an_invalid_protocol_value_is_a_clear_one_line_error():
    for own, says in {
        ("gts", "validation", "bytime"): r"no validation 'bytime'\. Did you mean 'by_time'",
        ("gts", "target", "all"): r"no target 'all'\. Known: last, first, successive",
        ("loo", "target", "first"): "needs --protocol gts, windows or users; loo allows only 'last'",
        ("loo", "validation", "last_train"): "loo allows only 'by_time'",
    }.items():
        with pytest.raises(HarnessError, match=says):
            presets.check_protocol(Protocol(own[0], **{own[1]: own[2]}))  # type: ignore[arg-type]


def slow_order_ndcg(sequences: list[list[int]], given: list[int], n_items: int) -> float:
    follow: dict[int, Counter[int]] = {}
    for sequence in sequences:
        for first, second in pairwise(sequence[:-1]):
            follow.setdefault(first, Counter())[second] += 1
    gains = []
    for sequence, item in zip(sequences, given, strict=True):
        scores = [follow.get(item, Counter())[other] for other in range(1, n_items + 1)]
        own = scores[sequence[-1] - 1]
        first, tied = 1 + sum(s > own for s in scores), sum(s == own for s in scores)
        gains.append(np.mean([1 / np.log2(1 + place) if place <= 10 else 0.0 for place in range(first, first + tied)]))
    return float(np.mean(gains))


@pytest.mark.parametrize("n_items", [12, 30])  # of 12, items that never followed can be among the first ten
def test_the_order_test_agrees_with_a_slow_one(n_items):
    rng = np.random.default_rng(5)
    told = [rng.integers(1, n_items + 1, rng.integers(1, 12)).tolist() for _ in range(60)]
    asked = [sequence for sequence in told if len(sequence) >= 3]
    flat = np.concatenate([np.array(sequence, np.int32) for sequence in told])
    found = order_test(flat, np.concatenate(([0], np.cumsum([len(s) for s in told]))), n_items)
    assert found is not None
    assert found["users"] == len(asked)
    assert found["ndcg"] == pytest.approx(slow_order_ndcg(asked, [s[-2] for s in asked], n_items), abs=1e-6)
    draws = np.random.default_rng(0)
    lengths = np.array([len(s) for s in asked])
    shuffled = [
        slow_order_ndcg(asked, [s[place] for s, place in zip(asked, draws.integers(lengths - 1), strict=True)], n_items)
        for _ in range(5)
    ]
    assert found["shuffled"] == pytest.approx(np.mean(shuffled), abs=1e-6)
    assert found["drop_percent"] == pytest.approx(100 * (1 - np.mean(shuffled) / found["ndcg"]), abs=0.02)


def test_shuffling_costs_much_only_if_the_next_item_depends_on_the_last(tmp_path):
    home = tmp_path / "home"
    ordered = prepare(open_dataset(str(make_dataset(tmp_path / "a", users=300)), home), OFF, home)
    assert ordered.card.order_test["drop_percent"] > 50
    assert not any("order carries little information" in text for text in ordered.card.warnings)
    rng = np.random.default_rng(0)
    rows = [(f"u{user:03d}", "abcde"[rng.integers(5)], time) for user in range(300) for time in range(12)]
    aimless = made(tmp_path, rows)
    assert abs(aimless.card.order_test["drop_percent"]) < 10
    assert any("order carries little information" in text for text in aimless.card.warnings)


def test_an_old_preparation_without_facts_gets_them_and_nothing_else_is_recomputed(tmp_path):
    first = made(tmp_path, [(user, item, t) for user in "uvw" for t, item in enumerate("abcde")])
    folder = tmp_path / "cache" / "prepared" / first.hash
    stamps = {
        file.name: file.stat().st_mtime_ns
        for file in folder.iterdir()
        if file.name not in ("facts.json", checksums.STAMP)
    }
    for content in (None, '{"version": 0}'):
        (folder / "facts.json").unlink() if content is None else (folder / "facts.json").write_text(content)
        again = made(tmp_path, [(user, item, t) for user in "uvw" for t, item in enumerate("abcde")])
        assert again.card == first.card
        assert json.loads((folder / "facts.json").read_text())["cold_test_share"] == first.card.cold_test_share
    assert {
        file.name: file.stat().st_mtime_ns
        for file in folder.iterdir()
        if file.name not in ("facts.json", checksums.STAMP)
    } == stamps
    (folder / "facts.json").write_text("{")
    assert made(tmp_path, [(user, item, t) for user in "uvw" for t, item in enumerate("abcde")]).card == first.card
    assert (folder / "facts.json.damaged-1").read_text() == "{"


def test_a_large_preparation_prints_its_progress(tmp_path, monkeypatch, capsys):
    made(tmp_path, RATED, names="user_id item_id timestamp rating")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(preparation, "LARGE", 1)
    made(tmp_path, RATED, PrepSpec(0, max_history=3), names="user_id item_id timestamp rating")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"made: {phase}" for phase in preparation.PHASES]


def invoke(folder: Path, *words: str):
    return CliRunner().invoke(main, [*words, "--home", str(folder / "home")])


def test_the_command_line_prepares_by_name_with_overrides(dataset, tmp_path):
    words = ["prepare", str(dataset), "--encoders", "", "--json", "--prep", "spectran"]
    found = json.loads(invoke(tmp_path, *words, "--kcore", "2", "--dedup", "last", "--max-history", "4").stdout)[0]
    wanted = PrepSpec(2, require_text=True, dedup="last", max_history=4)
    assert found["spec"] == json.loads(json.dumps(asdict(wanted)))
    same = prepare(open_dataset(str(dataset), tmp_path), wanted, tmp_path / "home")
    assert found["hash"] == same.hash
    order = ",".join(STEPS[::-1])
    found = json.loads(invoke(tmp_path, *words, "--any-text", "--one-pass", "--order", order).stdout)[0]["spec"]
    assert (found["require_text"], found["iterate"], found["order"]) == (False, False, list(STEPS[::-1]))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--prep", "spectra"], "Did you mean 'spectran'"),
        (["--dedup", "fist"], "Did you mean 'first'"),
        (["--window", "2016:2018"], "two days in order"),
        (["--min-rating", "nan"], "nan is not a finite number"),
        (["--order", "core,dedup"], "must name each of"),
        (["--validation", "last_train"], "needs --protocol gts"),
        (["--protocol", "gts", "--target", "frist"], "Did you mean 'first'"),
        (["--protocol", "gts", "--quantile", "1"], "must lie between 0 and 1"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_read(tmp_path, words, says):
    found = invoke(tmp_path, "plan", "--datasets", str(tmp_path / "nowhere"), *words)
    assert (found.exit_code, found.stderr.count("\n")) == (2, 1)
    assert says in found.stderr


def test_the_help_names_every_preset_and_every_step():
    text = " ".join(CliRunner().invoke(main, ["prepare", "--help"]).stdout.split())
    assert f"Preparation preset: {', '.join(PRESETS)}" in text
    assert ", ".join(STEPS) in text


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared research data are not on this machine")
def test_beauty_has_the_published_counts_under_two_presets_and_its_order_matters(tmp_path):
    source = SHARED / "amazon2014-beauty"
    raw = reader.RawDataset(
        "amazon2014-beauty", source / "interactions_5core.parquet", source / "items.parquet", "{title}"
    )
    for name, users in {"spectran": 22_332, "s3rec": 22_363}.items():
        card = prepare(raw, preset(name), tmp_path).card
        assert card.published["users"] == {"published": users, "ours": users, "percent": 0.0}
        assert card.published["events"]["percent"] == card.published["items"]["percent"] == 0.0
        assert card.order_test["drop_percent"] > 30


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared research data are not on this machine")
@pytest.mark.parametrize(("name", "lines"), [("beauty", (17_890, 2_236, 2_237)), ("toys", (15_529, 1_941, 1_942))])
def test_alphafuse_sets_and_the_split_of_users_have_the_counts_of_the_files_of_its_authors(name, lines, tmp_path):
    """lines: of train_data.txt, valid_data.txt and test_data.txt of PreferDiff, one a user; they round down, we to the
    nearest number."""
    source = SHARED / f"amazon2014-{name}"
    raw = reader.RawDataset(source.name, source / "interactions_5core.parquet", source / "items.parquet", "{title}")
    prepared = prepare(raw, preset("alphafuse"), tmp_path)
    published = prepared.card.published
    assert published is not None
    assert {published[key]["percent"] for key in ("users", "items", "events")} == {0.0}
    found = split(prepared, Protocol("users"))
    assert found.test is not None
    parts = (found.train_ends > 0).sum(), len(found.valid.users), len(found.test.users)
    assert sum(parts) == sum(lines)
    assert np.abs(np.subtract(parts, lines)).max() <= 1


@pytest.mark.slow
def test_32_million_events_are_prepared_in_under_six_gigabytes(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "prepare.py"
    for what in (["make", "32000204"], ["default"]):
        command = [sys.executable, str(script), "--child", str(tmp_path / "large"), *what]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["users"] == 200_948
    assert found["peak"] < 6e9
    assert "large: ordering (3 of 6" in done.stderr
