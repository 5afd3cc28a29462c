"""Doubtful data as prepare, show and tables report them: on the card, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dataset_files import columns, write_dataset

from harness.checks import linter
from harness.data import plausibility, preparation, reader, splits
from harness.data.findings import Finding
from harness.system import checksums
from harness.types import HarnessError, PrepSpec

OFF = PrepSpec(kcore=0)
ITEMS = [f"i{item:02d}" for item in range(30)]
TITLES = [f"A thing of kind {item}" for item in range(30)]


def sound() -> tuple[pl.DataFrame, pl.DataFrame]:
    """40 users of 8 events each, in a learnable sequence, with times in seconds."""
    rng = np.random.default_rng(1)
    rows = [
        (f"u{user:02d}", ITEMS[(3 * user + 7 * step) % 30], 1_500_000_000 + 100_003 * user + 1009 * step + int(jitter))
        for user in range(40)
        for step, jitter in enumerate(rng.integers(0, 900, 8))
    ]
    return pl.DataFrame(columns(rows, "user_id", "item_id", "timestamp")), pl.DataFrame(
        {"item_id": ITEMS, "title": TITLES}
    )


def prepared(folder: Path, events: Any, items: Any, toml: str = "") -> splits.Prepared:
    raw = reader.open_dataset(str(write_dataset(folder / "made", events, items, toml=toml)), folder)
    return preparation.prepare(raw, OFF, folder)


def warnings(folder: Path, events: Any, items: Any, toml: str = "") -> list[str]:
    return prepared(folder, events, items, toml).card.warnings


def user(old: str, new: str) -> Any:
    return lambda events, items: (events.with_columns(pl.col("user_id").replace(old, new)), items)


def times(change: Any) -> Any:
    return lambda events, items: (events.with_columns(change(pl.col("timestamp"))), items)


FAMILIES = {
    "two Unicode forms": (user("u07", "u08\u200b"), "Users whose ids differ only in invisible characters"),
    "a BOM": (user("u07", "\ufeffu07"), "Users whose id has invisible characters (U+FEFF)"),
    "two numbers": (lambda e, i: user("u07", "8.0")(*user("u08", "8")(e, i)), "differ only in number format"),
    "a missing user": (user("u07", "nan"), "Events whose user_id looks like a missing value"),
    "a rounded clock": (times(lambda t: t // 1000 * 1000), "Times that are multiples of 1,000 s"),
    "days, with ties": (times(lambda t: t // 86_400 * 86_400), "Times at midnight"),
    "a unit that is read as seconds": (times(lambda t: t / 86_400), "Times that look like days since 1970"),
    "a time of zero": (
        lambda e, i: (e.with_columns(timestamp=pl.when(pl.int_range(pl.len()) == 5).then(0).otherwise("timestamp")), i),
        "Times before 1995 (1 of 320",
    ),
    "URLs": (lambda e, i: (e, i.with_columns(title="https://x.example/" + pl.col("item_id"))), "not words but URLs"),
    "one text": (lambda e, i: (e, i.with_columns(title=pl.lit("A thing"))), "all have the same text"),
    "a guessed column": (lambda e, i: (e, i.rename({"title": "about"})), "the text is read from about"),
    "no column that will do": (
        lambda e, i: (e, i.select("item_id", url="https://x.example/" + pl.col("item_id"))),
        "no other column is suitable: url (URLs)",
    ),
    "few items": (
        lambda e, i: (
            e.with_columns(item_id="i0" + (pl.col("item_id").str.slice(1).cast(pl.Int64) % 9).cast(pl.String)),
            i,
        ),
        "every row has HR@10, HR@20 = 1 by construction (9 of 9 items)",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_card_warns_once(tmp_path, family):
    change, words = FAMILIES[family]
    found = [sentence for sentence in warnings(tmp_path, *change(*sound())) if words in sentence]
    assert len(found) == 1
    assert found[0].endswith(".")
    assert "\n" not in found[0]


@pytest.mark.parametrize("column", ["title", "Name", "product_title"])
def test_clean_data_have_no_warnings(tmp_path, column):
    events, items = sound()
    assert warnings(tmp_path, events, items.rename({"title": column})) == []


YEARS = [None if place == 3 else 1990.0 + place for place in range(30)]
TEXT = 'text = "{title} ({year})"'


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(
    ("years", "toml", "count"),
    [
        (YEARS, TEXT, 29),
        ([*YEARS[:-1], 1990.5], TEXT, 0),
        ([year and int(year) for year in YEARS], TEXT, 0),
        ([None] * 30, TEXT, 0),
        (YEARS, "", 0),
    ],
    ids=["years as floats", "a fraction", "integers", "no years", "not in the text"],
)
def test_whole_numbers_with_a_point_in_texts_are_on_the_card_and_in_check(tmp_path, suffix, years, toml, count):
    events, items = sound()
    folder = write_dataset(tmp_path / "made", events, items.with_columns(year=pl.Series(years)), suffix, toml)
    raw = reader.open_dataset(str(folder), tmp_path)
    card = preparation.prepare(raw, OFF, tmp_path).card
    says = "Items whose year is a whole number with a decimal point, which their texts contain"
    shown = f"({count} of 30 items, e.g. 1990.0; 1991.0; 1992.0)."
    assert [line for line in card.warnings if "decimal" in line] == [f"{says} {shown}"] * bool(count)
    found = [f for f in linter.check(raw) if f.name.startswith("decimal")]
    assert [(f.name, f.level, f.count, f.total) for f in found] == [
        ("decimal points in year", "warning", count, 30)
    ] * bool(count)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (pl.when(pl.int_range(pl.len()) % 4 == 0).then(1000).otherwise(1), "240 in seconds, 80 in milliseconds"),
        (pl.when(pl.int_range(pl.len()) == 4).then(10**6).otherwise(1), "319 in seconds, 1 in microseconds"),
        (pl.lit(1000), "times in milliseconds"),
        (pl.lit(10**6), "times in microseconds"),
        (pl.lit(10**9), "times in nanoseconds"),
    ],
)
def test_times_that_are_not_in_seconds_are_refused_before_anything_is_written(tmp_path, factor, words):
    events, items = sound()
    with pytest.raises(HarnessError, match=words) as caught:
        prepared(tmp_path, events.with_columns(pl.col("timestamp") * factor), items)
    assert "interactions.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npy"))


def test_an_old_preparation_is_checked_once_and_keeps_its_hash(tmp_path, monkeypatch):
    events, items = user("u07", "nan")(*sound())
    first = prepared(tmp_path, events, items)
    folder = tmp_path / "cache" / "prepared" / first.hash
    card = json.loads((folder / "card.json").read_text())
    card["warnings"] = []
    del card[preparation.DOUBTED]
    (folder / "card.json").write_text(json.dumps(card))
    checksums.seal(folder, without=("facts.json",))
    again = prepared(tmp_path, events, items)
    assert again.hash == first.hash
    assert again.card.warnings == first.card.warnings != []
    monkeypatch.setattr(plausibility, "read_events", lambda path: pytest.fail("the files were read twice"))
    assert prepared(tmp_path, events, items).card.warnings == first.card.warnings


def test_a_coarse_clock_is_on_the_card_only_if_it_causes_ties():
    coarse = Finding("day resolution", "info", 5, 5, "events", "times at midnight", "None.")
    assert plausibility.sentences([coarse], True) == ["Times at midnight (5 of 5 events)."]
    assert plausibility.sentences([coarse], False) == []


def test_ids_of_the_items_file_without_events_are_checked_too():
    (found,) = plausibility.of_ids(
        pl.Series("item_id", ["a", "b"]), lambda: np.array([3, 4]), pl.Series(["a", "c", "null"])
    )
    assert (found.name, found.count, found.total, found.unit) == ("placeholder item_id", 1, 4, "items")
