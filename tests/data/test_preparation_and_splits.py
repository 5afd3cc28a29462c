"""Preparation and splits, tested on hand-made examples, against slow recomputations and on the real Amazon files."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dataset_files import SHARED, columns, sequences, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import preparation, reader, steps
from harness.data.preparation import prepare
from harness.data.reader import open_dataset
from harness.data.splits import Prepared, split
from harness.system import checksums
from harness.types import HarnessError, PrepSpec, Protocol

OFF = PrepSpec(kcore=0)
ITEMS = {"item_id": ["a", "b", "c", "d", "e"], "title": ["Anvil", "Bell", "Clock", "Drum", "Easel"]}


def made(
    folder: Path, rows: list[tuple], spec: PrepSpec = OFF, *, names: str = "user_id item_id timestamp"
) -> Prepared:
    written = write_dataset(folder / "made", columns(rows, *names.split()), ITEMS)
    return prepare(open_dataset(str(written), folder), spec, folder)


def test_a_hand_made_set_is_numbered_by_id_and_ordered_by_time(tmp_path):
    prepared = made(tmp_path, [("v", "c", 30), ("u", "d", 20), ("v", "a", 10), ("u", "a", 5), ("u", "c", 25)])
    assert prepared.users.to_list() == ["u", "v"]
    assert prepared.catalogue.to_dicts() == [
        {"item_id": "a", "text": "Anvil", "source_row": 0},
        {"item_id": "c", "text": "Clock", "source_row": 2},
        {"item_id": "d", "text": "Drum", "source_row": 3},
    ]
    assert prepared.items.tolist() == [1, 3, 2, 1, 2]
    assert prepared.offsets.tolist() == [0, 3, 5]
    assert prepared.times is not None
    assert prepared.times.tolist() == [5, 20, 25, 10, 30]
    assert [prepared.items.dtype, prepared.offsets.dtype, prepared.times.dtype] == [np.int32, np.int64, np.int64]
    assert isinstance(prepared.items, np.memmap)


TIED = [("u", "c", 1), ("u", "a", 1), ("u", "b", 1), ("u", "d", 0), ("v", "b", 7), ("v", "a", 7)]


def test_the_tie_policy_orders_events_of_equal_time(tmp_path):
    assert sequences(made(tmp_path, TIED)) == {"u": "dcab", "v": "ba"}
    assert sequences(made(tmp_path, TIED, PrepSpec(0, "item_id"))) == {"u": "dabc", "v": "ab"}
    ordered = [(*row, order) for row, order in zip(TIED, [2, 1, 0, 5, 0, 1], strict=True)]
    names = "user_id item_id timestamp order"
    assert sequences(made(tmp_path, ordered, names=names)) == {"u": "dbac", "v": "ba"}
    assert sequences(made(tmp_path, ordered, PrepSpec(0, "item_id"), names=names)) == {"u": "dabc", "v": "ab"}


def test_random_ties_depend_on_the_seed_and_not_on_the_order_of_the_file(tmp_path):
    rows = [(f"u{user}", item, 1) for user in range(40) for item in "abcde"]
    backwards = [made(tmp_path, rows[::-1], PrepSpec(0, f"random:{seed}")) for seed in range(3)]
    orders = []
    for seed in range(3):
        found = sequences(made(tmp_path, rows, PrepSpec(0, f"random:{seed}")))
        assert found == sequences(backwards[seed])
        assert all(sorted(sequence) == list("abcde") for sequence in found.values())
        orders.append(found)
    assert orders[0] != orders[1] != orders[2]
    first = Counter(sequence[0] for found in orders for sequence in found.values())
    assert min(first[item] for item in "abcde") >= 10  # 24 expected of 120, standard deviation 4.4


def test_an_unknown_tie_policy_or_a_negative_kcore_is_refused(tmp_path):
    for policy in ("sources", "random", "random:x", "item_id:3", "random:-1", "random:00", "random:٣"):
        with pytest.raises(HarnessError, match=f"no tie policy '{policy}'.*Known: source, item_id, random:<seed>"):
            made(tmp_path, TIED, PrepSpec(0, policy))
    with pytest.raises(HarnessError, match="kcore is -1"):
        made(tmp_path, TIED, PrepSpec(-1))


def test_exact_repeats_are_dropped_and_repeats_at_another_time_stay(tmp_path):
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "a", 1), ("u", "a", 3), ("v", "a", 1), ("v", "b", 1)]
    prepared = made(tmp_path, rows)
    assert sequences(prepared) == {"u": "aba", "v": "ab"}
    assert prepared.card.duplicates_dropped == 1
    assert sequences(made(tmp_path, [("u", "b", 1), ("u", "a", 1), ("u", "b", 1), ("v", "a", 1)]))["u"] == "ba"


def test_without_times_the_order_column_orders_and_times_are_none(tmp_path):
    rows = [("u", "a", 3), ("u", "b", 1), ("u", "a", 2), ("v", "b", 0), ("v", "a", 1)]
    prepared = made(tmp_path, rows, names="user_id item_id order")
    assert sequences(prepared) == {"u": "baa", "v": "ba"}
    assert prepared.times is None
    assert prepared.card.tie_share is None
    assert "There are no timestamps" in prepared.card.warnings[0]
    some = [(*row[:2], time, row[2]) for row, time in zip(rows, [9, None, 7, 5, 5], strict=True)]
    partly = made(tmp_path, some, names="user_id item_id timestamp order")
    assert (sequences(partly), partly.times) == ({"u": "baa", "v": "ba"}, None)
    assert "Events without a timestamp: 1;" in partly.card.warnings[0]


def test_times_with_fractions_order_events_cut_them_and_tie_only_if_equal(tmp_path):
    rows = [("u", "a", 1.75), ("u", "b", 1.25), ("u", "c", 1.75), ("v", "a", -0.5), ("v", "b", 2.0), ("v", "c", 2.25)]
    prepared = made(tmp_path, rows)
    assert prepared.times.tolist() == [1.25, 1.75, 1.75, -0.5, 2.0, 2.25]
    assert (prepared.card.tie_share, prepared.card.test_tie_share) == (1 / 4, 1 / 2)
    cut = split(prepared, Protocol(drop_tied_test=True))
    assert cut.test.users.tolist() == [1], "only the last two events of u have one time"
    assert (cut.seconds.dtype, cut.seconds.tolist()) == (np.int64, [1, 1, 1, -1, 2, 2]), "backbones read whole seconds"
    again = made(tmp_path, rows)
    assert (again.hash, again.times.dtype) == (prepared.hash, np.float64)
    whole = made(tmp_path, [(user, item, 4 * time) for user, item, time in rows])
    assert whole.times.dtype == np.int64
    assert split(whole, Protocol()).seconds.tolist() == whole.times.tolist()


def test_an_item_without_a_row_keeps_its_events_and_has_no_text(tmp_path):
    rows = [("u", "a", 1), ("u", "x", 2), ("u", "b", 3), ("v", "a", 1), ("v", "b", 2)]
    prepared = made(tmp_path, rows)
    assert prepared.catalogue.row(2) == ("x", None, None)
    assert (prepared.card.orphans, prepared.card.missing_text) == (1, 1)
    assert sequences(made(tmp_path, rows, PrepSpec(0, require_text=True))) == {"u": "ab", "v": "ab"}


def test_text_is_required_before_the_core_is_taken(tmp_path):
    # without x, u has one event: the 2-core then loses u, and with it nothing else
    rows = [("u", "a", 1), ("u", "x", 2)] + [(user, item, time) for user in "vw" for time, item in enumerate("abc")]
    rows.append(("v", "x", 9))
    assert set(sequences(made(tmp_path, rows, PrepSpec(2)))) == {"u", "v", "w"}
    assert sequences(made(tmp_path, rows, PrepSpec(2, require_text=True))) == {"v": "abc", "w": "abc"}


def slow_kcore(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        left = [(u, i) for u, i in pairs if users[u] >= k and items[i] >= k]
        if left == pairs:
            return left
        pairs = left


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=80), st.integers(0, 5))
def test_the_core_is_the_fixed_point_that_a_slow_loop_finds(pairs, k):
    users, items = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    keep = steps.core(users, items, k, iterate=True)
    assert [pairs[place] for place in np.flatnonzero(keep)] == slow_kcore(pairs, k)


ROWS = st.lists(
    st.tuples(st.sampled_from(["u", "v", "w", "10", "9"]), st.sampled_from("abcde"), st.integers(0, 4)), max_size=25
)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, policy=st.sampled_from(["source", "item_id", "random:5"]), order=st.randoms(use_true_random=False))
def test_shuffling_the_rows_changes_nothing_where_a_column_decides_the_order(rows, policy, order, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shuffled")
    rows = [*rows, ("u", "a", 9), ("v", "b", 9)]
    rows = [(*row, place) for place, row in enumerate(rows)]
    names, spec = "user_id item_id timestamp order", PrepSpec(0, policy)
    before = made(folder, rows, spec, names=names)
    was = [before.items.tolist(), before.offsets.tolist(), np.asarray(before.times).tolist(), before.users.to_list()]
    order.shuffle(rows)
    after = made(folder, rows, spec, names=names)
    assert [
        after.items.tolist(),
        after.offsets.tolist(),
        np.asarray(after.times).tolist(),
        after.users.to_list(),
    ] == was
    assert after.catalogue.equals(before.catalogue)


@pytest.mark.parametrize("kind", [pl.String, pl.Int32])
def test_csv_and_parquet_with_text_or_number_ids_give_the_same_result(tmp_path, home, kind):
    events = {"user_id": [2, 2, 10, 10, 10], "item_id": [7, 30, 7, 30, 4], "timestamp": [5, 6, 1, 2, 3]}
    items = {"item_id": [4, 7, 30], "title": ["Anvil", None, 'A "quoted", bell\nof two lines'], "year": [1, 2, None]}
    ids = [pl.col("item_id").cast(kind)]
    frames = (
        pl.DataFrame(events).with_columns(*ids, pl.col("user_id").cast(kind)),
        pl.DataFrame(items).with_columns(ids),
    )
    found = [
        prepare(open_dataset(str(write_dataset(tmp_path / f"as{suffix}", *frames, suffix, toml)), home), OFF, home)
        for suffix in (".parquet", ".csv")
        for toml in ["name = 'same'\ntext = '{title} ({year})'"]
    ]
    assert found[0].users.to_list() == found[1].users.to_list() == ["10", "2"]
    assert found[0].items.tolist() == found[1].items.tolist() == [3, 1, 2, 3, 1]
    assert found[0].catalogue.equals(found[1].catalogue)
    assert replace(found[0].card, files={}) == replace(found[1].card, files={})
    assert found[0].catalogue["text"].to_list() == ['A "quoted", bell\nof two lines', "Anvil (1)", "(2)"]


def test_ids_of_a_csv_are_text_and_keep_their_zeros(tmp_path, home):
    events = {"user_id": ["07", "07", "7", "7"], "item_id": ["001", "1", "1", "001"], "timestamp": [1, 2, 3, 4]}
    items = {"item_id": ["1", "001"], "title": ["Anvil", "Bell"]}
    prepared = prepare(open_dataset(str(write_dataset(tmp_path / "a", events, items, ".csv")), home), OFF, home)
    assert prepared.users.to_list() == ["07", "7"]
    assert prepared.catalogue.rows() == [("001", "Bell", 1), ("1", "Anvil", 0)]


def test_the_second_call_reuses_the_files_of_the_first(tmp_path, monkeypatch):
    first = made(tmp_path, TIED)
    folder = tmp_path / "cache" / "prepared" / first.hash
    stamps = {file.name: file.stat().st_mtime_ns for file in folder.iterdir() if file.name != checksums.STAMP}
    monkeypatch.setattr(preparation, "read_events", lambda *given: pytest.fail("the raw file was read again"))
    second = made(tmp_path, TIED)
    assert {n: (folder / n).stat().st_mtime_ns for n in stamps} == stamps
    assert (second.items.tolist(), second.card) == (first.items.tolist(), first.card)


FILES = ["items.npy", "offsets.npy", "times.npy", "catalogue.parquet", "users.parquet", "card.json", "seal.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["flip", "cut", "lose"])
def test_a_damaged_preparation_is_reported_set_aside_and_rebuilt(tmp_path, capsys, name, harm):
    first = made(tmp_path, TIED)
    items = first.items.tolist()
    file = tmp_path / "cache" / "prepared" / first.hash / name
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content if harm == "flip" else content[:-3])
    if harm == "lose":
        file.unlink()
    second = made(tmp_path, TIED)
    assert (second.hash, second.items.tolist(), second.card) == (first.hash, items, first.card)
    aside = file.parent.with_name(f"{first.hash}.damaged-1")
    if (name, harm) != ("seal.json", "lose"):  # without a seal it counts as one of an earlier harness
        assert aside.is_dir()
        assert f"{first.hash} is damaged" in (said := capsys.readouterr().err)
        assert aside.name in said
    assert (file.parent / "seal.json").is_file()


def test_the_hash_follows_files_and_spec(tmp_path):
    hashes = [made(tmp_path, TIED, spec).hash for spec in (OFF, PrepSpec(1), PrepSpec(0, "item_id"))]
    hashes += [
        made(tmp_path, TIED, PrepSpec(0, require_text=True)).hash,
        made(tmp_path, [*TIED[:-1], ("v", "a", 8)]).hash,
    ]
    assert len(set(hashes)) == 5


@pytest.mark.parametrize("name", ["interactions", "items"])
def test_a_file_that_changes_while_it_is_read_is_not_cached_under_the_hash_of_the_old_one(tmp_path, monkeypatch, name):
    folder = write_dataset(tmp_path / "made", columns(TIED, "user_id", "item_id", "timestamp"), ITEMS)
    path, read = folder / f"{name}.parquet", preparation.read_events
    whole = path.read_bytes()

    def read_while_another_process_writes(*given):
        pl.read_parquet(path)[:-1].write_parquet(path)
        return read(*given)

    monkeypatch.setattr(preparation, "read_events", read_while_another_process_writes)
    with pytest.raises(
        HarnessError, match=r"^The files of made changed while they were read; run the command again\.$"
    ):
        prepare(open_dataset(str(folder), tmp_path), OFF, tmp_path)
    monkeypatch.undo()
    path.write_bytes(whole)
    assert prepare(open_dataset(str(folder), tmp_path), OFF, tmp_path).card.raw_events == len(TIED)


def test_the_card_has_the_right_counts(tmp_path):
    items = ITEMS | {"title": ["Anvil", "Anvil", "unknown", "Mis\ufffdrables", None]}
    rows = [("u", item, time) for time, item in enumerate("abcde")] + [("v", item, 7) for item in "abc"]
    written = write_dataset(tmp_path / "set", columns(rows, "user_id", "item_id", "timestamp"), items)
    card = prepare(open_dataset(str(written), tmp_path), OFF, tmp_path).card
    assert (card.users, card.items, card.events, card.mean_length) == (2, 5, 8, 4.0)
    assert card.density == 8 / 10
    assert (card.missing_text, card.duplicate_texts, card.orphans, card.source_rows) == (1, 1, 0, 5)
    assert card.tie_share == 2 / 6
    assert card.test_tie_share == 1 / 2
    assert card.id_increasing_share == 1.0
    assert [sentence.split(" ")[0] for sentence in card.warnings] == ["100%", "The", "Items", "Texts", "A"]
    rows = [(user, f"i{(5 * step) % 21:02d}", 10**9 + step**3) for user in "uv" for step in range(21)]
    items = {"item_id": [f"i{item:02d}" for item in range(21)], "title": [f"Thing {item}" for item in range(21)]}
    written = write_dataset(tmp_path / "plain", columns(rows, "user_id", "item_id", "timestamp"), items)
    assert prepare(open_dataset(str(written), tmp_path), OFF, tmp_path).card.warnings == []


def test_the_linter_compares_numeric_ids_as_numbers(tmp_path):
    rows = [(user, str(item), item) for user in "uv" for item in range(8, 13)]
    items = {"item_id": [str(item) for item in range(8, 13)], "title": list("abcde")}
    written = write_dataset(tmp_path / "set", columns(rows, "user_id", "item_id", "timestamp"), items)
    assert prepare(open_dataset(str(written), tmp_path), OFF, tmp_path).card.id_increasing_share == 1.0


def test_leave_one_out_by_hand(tmp_path):
    rows = [("u", item, time) for time, item in enumerate("abcd")] + [
        ("v", item, time) for time, item in enumerate("bac")
    ]
    prepared = made(tmp_path, [*rows, ("w", "a", 0), ("w", "b", 1), ("x", "c", 0)])
    found = split(prepared, Protocol("loo"))
    assert found.test is not None
    assert found.train_ends.tolist() == [2, 1, 2, 1]
    assert (found.valid.users.tolist(), found.valid.ends.tolist()) == ([0, 1], [2, 1])
    assert (found.test.users.tolist(), found.test.ends.tolist()) == ([0, 1], [3, 2])
    assert found.history(0, 3).tolist() == [1, 2, 3]
    assert found.items[found.offsets[0] + 3] == 4
    assert [found.valid.users.dtype, found.valid.ends.dtype, found.train_ends.dtype] == [np.int32, np.int64, np.int64]

    sealed = found.sealed()
    assert sealed.test is None
    assert sealed.offsets.tolist() == [0, 3, 5, 7, 8]
    assert sealed.items.tolist() == [1, 2, 3, 2, 1, 1, 2, 3]
    assert sealed.times is not None
    assert sealed.times.tolist() == [0, 1, 2, 0, 1, 0, 1, 0]
    assert sealed.history(1, 1).tolist() == found.history(1, 1).tolist()


def test_global_temporal_split_by_hand(tmp_path):
    # times 0..10: T_test = 8 (quantile .8), T_val = 6.4 (of 0..8)
    rows = [("u", item, time) for item, time in zip("abcde", (0, 1, 7, 8, 10), strict=True)]
    rows += [("v", item, time) for item, time in zip("abc", (2, 3, 4), strict=True)]
    rows += [("w", "a", 5), ("w", "b", 9), ("x", "c", 6)]
    found = split(made(tmp_path, rows), Protocol("gts", quantile=0.8))
    assert found.test is not None
    assert found.train_ends.tolist() == [2, 3, 1, 1]
    assert (found.valid.users.tolist(), found.valid.ends.tolist()) == ([0], [3])
    assert (found.test.users.tolist(), found.test.ends.tolist()) == ([0, 2], [4, 1])
    sealed = found.sealed()
    assert sealed.items.tolist() == [1, 2, 3, 4, 1, 2, 3, 1, 3]
    assert sealed.offsets.tolist() == [0, 4, 7, 8, 9]


def slow_gts(prepared: Prepared, quantile: float) -> tuple[list[int], dict[int, int], dict[int, int]]:
    times = [t.tolist() for t in np.split(np.asarray(prepared.times), prepared.offsets[1:-1])]
    t_test = float(np.quantile(np.concatenate(times), quantile))
    t_val = float(np.quantile([t for user in times for t in user if t <= t_test], quantile))
    train, valid, test = [], {}, {}
    for user, own in enumerate(times):
        train.append(sum(t <= t_val for t in own))
        seen = [t for t in own if t <= t_test]
        if len(seen) > 1 and seen[-1] > t_val:
            valid[user] = len(seen) - 1
        if len(own) > 1 and own[-1] > t_test:
            test[user] = len(own) - 1
    return train, valid, test


def test_global_temporal_split_agrees_with_its_definition_and_seals_the_future(tmp_path):
    rng = np.random.default_rng(3)
    rows = [(f"u{rng.integers(40):02d}", "abcde"[rng.integers(5)], int(rng.integers(60))) for _ in range(400)]
    prepared = made(tmp_path, [*rows, ("y", "b", 35), ("z", "a", 59)])  # y and z: alone in a window
    train, valid, test = slow_gts(prepared, 0.7)
    found = split(prepared, Protocol("gts", quantile=0.7))
    assert found.test is not None
    assert found.train_ends.tolist() == train
    assert dict(zip(found.valid.users.tolist(), found.valid.ends.tolist(), strict=True)) == valid
    assert dict(zip(found.test.users.tolist(), found.test.ends.tolist(), strict=True)) == test
    sealed = found.sealed()
    assert sealed.times is not None
    assert sealed.times.max() <= np.quantile(np.asarray(prepared.times), 0.7)
    for user, end in valid.items():
        start = sealed.offsets[user]
        assert sealed.items[start : start + end + 1].tolist() == found.history(user, end + 1).tolist()


def test_a_split_that_cannot_be_made_is_refused_by_name(tmp_path):
    short = made(tmp_path, [("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "b", 2)])
    with pytest.raises(HarnessError, match="made: --protocol loo leaves no user for validation"):
        split(short, Protocol("loo"))
    late = made(tmp_path, [("u", "a", 1), ("u", "b", 2), ("x", "b", 3), ("x", "a", 5), ("y", "a", 9)])
    with pytest.raises(HarnessError, match="made: --protocol gts leaves no user for the test"):
        split(late, Protocol("gts", quantile=0.8))
    untimed = made(
        tmp_path, [("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "b", 2)], names="user_id item_id order"
    )
    with pytest.raises(HarnessError, match="made has no timestamps, but the split 'gts' needs them"):
        split(untimed, Protocol("gts"))
    with pytest.raises(HarnessError, match="--quantile is 1"):
        split(short, Protocol("gts", quantile=1.0))
    with pytest.raises(HarnessError, match=r"no split 'lou'\. Did you mean 'loo'"):
        split(short, Protocol("lou"))  # type: ignore[arg-type]


GOLDEN = {"beauty": (22_332, 12_086, 198_215), "toys": (19_124, 11_758, 165_247), "clothing": (39_230, 22_948, 277_534)}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared research data are not on this machine")
@pytest.mark.parametrize("name", GOLDEN)
def test_the_classic_amazon_sets_without_untitled_items_have_the_published_counts(name, tmp_path):
    source = SHARED / f"amazon2014-{name}"
    raw = reader.RawDataset(name, source / "interactions_5core.parquet", source / "items.parquet", "{title}")
    prepared = prepare(raw, PrepSpec(5, require_text=True), tmp_path)
    assert (prepared.card.users, prepared.card.items, prepared.card.events) == GOLDEN[name]
    users = prepared.users.gather(np.repeat(np.arange(len(prepared.users)), np.diff(prepared.offsets)))
    items = prepared.catalogue["item_id"].gather(np.asarray(prepared.items) - 1)
    wanted = pl.read_parquet(source / "interactions.parquet", columns=["user_id", "item_id"])
    assert set(zip(users, items, strict=True)) == set(wanted.iter_rows())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared research data are not on this machine")
def test_one_pass_of_the_core_does_not_give_the_published_toys(tmp_path):
    source = SHARED / "amazon2014-toys"
    titled = pl.read_parquet(source / "items.parquet").filter(pl.col("title").is_not_null())
    pairs = pl.read_parquet(source / "interactions_5core.parquet").join(titled, on="item_id", how="semi")
    once = pairs.filter((pl.len().over("user_id") >= 5) & (pl.len().over("item_id") >= 5))
    assert once.height > GOLDEN["toys"][2]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared research data are not on this machine")
def test_the_shares_of_ties_are_those_measured_on_the_files(tmp_path):
    beauty = prepare(open_dataset(str(SHARED / "amazon2014-beauty"), tmp_path), PrepSpec(), tmp_path)
    assert beauty.card.test_tie_share == pytest.approx(0.435, abs=5e-4)
    assert beauty.card.id_increasing_share == pytest.approx(0.694, abs=5e-4)
    order = pl.read_parquet(SHARED / "amazon2014-beauty" / "interactions.parquet")
    given_order: dict[str, list[str]] = defaultdict(list)
    for user, item in order.sort("user_id", "order").select("user_id", "item_id").iter_rows():
        given_order[user].append(item)
    ids = beauty.catalogue["item_id"].to_list()
    parts = np.split(np.asarray(beauty.items), beauty.offsets[1:-1])
    assert {user: [ids[i - 1] for i in part] for user, part in zip(beauty.users, parts, strict=True)} == given_order
