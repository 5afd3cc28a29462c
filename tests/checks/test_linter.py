"""The linter: synthetic data sets with one fault each, slow recounts, and its findings in the field's data sets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dataset_files import SHARED, columns, make_dataset, write_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.checks import linter
from harness.data import cards, preparation, reader
from harness.data.findings import Finding
from harness.types import HarnessError, PrepSpec

NOW = 1_700_000_000.0
USERS, ITEMS, LENGTH = 30, 24, 8
EVENTS = USERS * LENGTH
NAMES = ["Anvil", "Bell", "Clock", "Drum", "Easel", "Flute", "Globe", "Harp", "Ink", "Jar", "Kite", "Lamp"]
NAMES += ["Mug", "Net", "Oar", "Pan", "Quilt", "Rope", "Saw", "Tent", "Urn", "Vase", "Whip", "Yoke"]
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the research data sets are not beside the checkout")


def sound() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and items without fault: a 5-core, in order, without ties, each item with a distinct title."""
    rng = np.random.default_rng(1)
    rows = [
        (f"u{user:02d}", f"i{item:02d}", 1_500_000_000 + 100_003 * user + 1009 * step)
        for user in range(USERS)
        for step, item in enumerate(rng.permutation(ITEMS)[:LENGTH])
    ]
    items = {"item_id": [f"i{item:02d}" for item in range(ITEMS)], "title": NAMES}
    return pl.DataFrame(columns(rows, "user_id", "item_id", "timestamp")), pl.DataFrame(items)


def found_in(folder: Path, events: Any, items: Any, suffix: str = ".parquet", toml: str = "") -> dict[str, Finding]:
    """Return findings by name, after checking that each is complete."""
    raw = reader.open_dataset(str(write_dataset(folder / "made", events, items, suffix, toml)), folder)
    return by_name(linter.check(raw, now=NOW))


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    for finding in findings:
        assert finding.level in ("error", "warning", "info")
        assert 0 < finding.count <= finding.total, finding
        assert finding.says
        assert finding.remedy.endswith(".")
        assert "\n" not in finding.says + finding.remedy
        assert len(finding.examples) <= 3
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def numbers(found: dict[str, Finding]) -> dict[str, tuple[str, int, int]]:
    return {name: (finding.level, finding.count, finding.total) for name, finding in found.items()}


def when(place: int, value: Any, column: str) -> pl.Expr:
    """Replace one row of a column by `value`."""
    return pl.when(pl.int_range(pl.len()) == place).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)


def times(change: Callable[[pl.Expr], pl.Expr]) -> Callable[..., tuple[pl.DataFrame, pl.DataFrame]]:
    return lambda events, items: (events.with_columns(change(pl.col("timestamp"))), items)


def title(text: str | None) -> Callable[..., tuple[pl.DataFrame, pl.DataFrame]]:
    return lambda events, items: (events, items.with_columns(when(3, text, "title")))


def more(*rows: tuple) -> Callable[..., tuple[pl.DataFrame, pl.DataFrame]]:
    """Append events; a new item gets a row in the items file."""

    def change(events: pl.DataFrame, items: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        new = pl.DataFrame(list(rows), schema=events.schema, orient="row")
        fresh = sorted({row[1] for row in rows} - set(items["item_id"]))
        added = pl.DataFrame({"item_id": fresh, "title": [f"New {item!r}" for item in fresh]}, schema=items.schema)
        return pl.concat([events, new]), pl.concat([items, added])

    return change


def ids(column: str, old: str, new: str | None) -> Callable[..., tuple[pl.DataFrame, pl.DataFrame]]:
    return lambda events, items: (events.with_columns(pl.col(column).replace(old, new)), items)


T = 1_600_000_000
FIVE = [(f"u{user:02d}", "new", T + user) for user in range(5)]
ONE_FAULT: dict[str, tuple[Callable[..., Any], dict[str, tuple[str, int, int]]]] = {
    "none": (lambda events, items: (events, items), {}),
    "an orphan": (
        lambda events, items: (events, items.filter(pl.col("item_id") != "i04")),
        {"orphans": ("warning", -4, EVENTS)},
    ),
    "nothing but orphans": (
        lambda events, items: (events, items.with_columns(pl.col("item_id") + "x")),
        {"orphans": ("error", EVENTS, EVENTS), "items never met": ("info", ITEMS, ITEMS)},
    ),
    "an item never met": (
        lambda events, items: (events, pl.concat([items, items.head(1).with_columns(item_id=pl.lit("new"))])),
        {"items never met": ("info", 1, ITEMS + 1)},
    ),
    "an exact repeat": (
        lambda events, items: (pl.concat([events, events.tail(1)]), items),
        {"repeated events": ("info", 1, EVENTS + 1), "ties": ("info", 1, EVENTS - USERS + 1)}
        | {"tied tests": ("info", 1, USERS)},
    ),
    "many repeats": (
        lambda events, items: (pl.concat([events, events]), items),
        {"repeated events": ("warning", EVENTS, 2 * EVENTS), "tied tests": ("warning", USERS, USERS)}
        | {"ties": ("info", EVENTS, 2 * EVENTS - USERS), "file not in order": ("info", USERS, 2 * EVENTS - USERS)},
    ),
    "a pair at another time": (
        lambda events, items: (pl.concat([events, events.tail(1).with_columns(pl.col("timestamp") + 5)]), items),
        {"repeated pairs": ("info", 1, EVENTS + 1)},
    ),
    "a file backwards": (
        lambda events, items: (events.reverse(), items),
        {"file not in order": ("info", EVENTS - USERS, EVENTS - USERS)},
    ),
    "order against time": (
        lambda events, items: (events.with_columns(order=-pl.int_range(pl.len())), items),
        {"order against time": ("warning", EVENTS - USERS, EVENTS - USERS)},
    ),
    "no times": (
        lambda events, items: (events.drop("timestamp").with_columns(order=pl.int_range(pl.len())), items),
        {"no time": ("info", EVENTS, EVENTS)},
    ),
    "no order at all": (
        lambda events, items: (events.drop("timestamp"), items),
        {"no time": ("error", EVENTS, EVENTS)},
    ),
    "a missing time": (
        lambda events, items: (events.with_columns(when(9, None, "timestamp")), items),
        {"missing timestamp": ("error", 1, EVENTS)},
    ),
    "a missing time, but an order": (
        lambda events, items: (
            events.with_columns(when(9, None, "timestamp"), order=pl.int_range(pl.len())),
            items,
        ),
        {"missing timestamp": ("warning", 1, EVENTS)},
    ),
    "a missing user": (ids("user_id", "u09", None), {"missing user_id": ("error", LENGTH, EVENTS)}),
    "blank items": (
        ids("item_id", "i05", ""),
        {"missing item_id": ("error", -5, EVENTS), "items never met": ("info", 1, ITEMS)},
    ),
    "milliseconds": (times(lambda t: t * 1000), {"unit of time": ("error", EVENTS, EVENTS)}),
    "milliseconds, one too early, one to come": (
        lambda events, items: (
            events.with_columns(pl.col("timestamp") * 1000)
            .with_columns(when(0, 600_000_000_000, "timestamp"))
            .with_columns(when(EVENTS - 1, int(NOW + 90_000) * 1000, "timestamp")),
            items,
        ),
        {"unit of time": ("error", EVENTS, EVENTS), "early times": ("warning", 1, EVENTS)}
        | {"future times": ("warning", 1, EVENTS)},
    ),
    "microseconds": (times(lambda t: t * 1_000_000), {"unit of time": ("error", EVENTS, EVENTS)}),
    "nanoseconds": (times(lambda t: t * 1_000_000_000), {"unit of time": ("error", EVENTS, EVENTS)}),
    "days": (times(lambda t: t // 1000), {"early times": ("warning", EVENTS, EVENTS)}),
    "a time of the future": (
        lambda events, items: (events.with_columns(when(EVENTS - 1, NOW + 90_000, "timestamp")), items),
        {"future times": ("warning", 1, EVENTS)},
    ),
    "time zero": (
        lambda events, items: (events.with_columns(when(0, 0, "timestamp")), items),
        {"early times": ("warning", 1, EVENTS)},
    ),
    "midnights": (
        times(lambda t: t // 1000 % 3000 * 86_400 + 900_028_800),
        {"day resolution": ("info", EVENTS, EVENTS)},
    ),
    "ties": (
        # steps 0 1 2 3 4 5 6 7 become 0 0 2 2 4 4 6 6: four of seven neighbours, and always the last
        times(lambda t: t - t % 100_000 + (t % 100_000) // 2000 * 2000 + (t - 1_500_000_000) // 100_000),
        {"ties": ("info", 4 * USERS, 7 * USERS), "tied tests": ("warning", USERS, USERS)},
    ),
    "sorted by id": (
        lambda events, items: (
            events.sort("user_id", "item_id").drop("timestamp").with_columns(order=pl.int_range(pl.len())),
            items,
        ),
        {"sorted by id": ("error", 7 * USERS, 7 * USERS), "no time": ("info", EVENTS, EVENTS)},
    ),
    "sorted by id as a number": (
        lambda events, items: (
            events.with_columns(pl.col("item_id").str.slice(1).cast(pl.Int64) + 5)
            .sort("user_id", "item_id")
            .with_columns(timestamp=1_500_000_000 + 1001 * pl.int_range(pl.len()) + pl.int_range(pl.len()) % 7),
            items.with_columns(pl.col("item_id").str.slice(1).cast(pl.Int64) + 5),
        ),
        {"sorted by id": ("warning", 7 * USERS, 7 * USERS)},
    ),
    "a user of one event": (
        more(("once", "i03", T)),
        {"users of one event": ("info", 1, USERS + 1), "no 5-core": ("info", 1, EVENTS + 1)},
    ),
    "a rare item": (more(*FIVE[:4]), {"no 5-core": ("info", 4, EVENTS + 4)}),
    "too small": (
        lambda events, items: (events.head(4), items),
        {"no 5-core": ("error", 4, 4), "items never met": ("info", ITEMS - 4, ITEMS)}
        | {"small catalogue": ("warning", 4, 4)},
    ),
    "a blank behind an item": (
        more(*((user, "new ", time) for user, _, time in FIVE)),
        {"blanks in item_id": ("warning", 1, ITEMS + 1)},
    ),
    "one item, blank or not": (
        more(*((user, "i03 ", time) for user, _, time in FIVE)),
        {"blanks in item_id": ("warning", 1, ITEMS + 1), "item_id that differ in blanks": ("error", 2, ITEMS + 1)},
    ),
    "one item in two cases": (
        more(*((user, "I03", time) for user, _, time in FIVE)),
        {"item_id that differ in case": ("warning", 2, ITEMS + 1)},
    ),
    "one user in two cases": (
        more(*(("U03", f"i{item:02d}", T + place) for place, item in enumerate((5, 3, 9, 1, 7)))),
        {"user_id that differ in case": ("warning", 2, USERS + 1)},
    ),
    "leading zeros": (
        lambda events, items: (
            events.with_columns(pl.col("item_id").str.replace("i", "")),
            items.with_columns(pl.col("item_id").str.replace("i0?", "")),
        ),
        {
            "orphans": ("warning", -10, EVENTS),
            "items never met": ("info", 10, ITEMS),
            "item_id that differ as numbers": ("warning", 20, ITEMS + 10),
        },
    ),
    "one item in two Unicode forms": (
        more(*((user, "i03\u200b", time) for user, _, time in FIVE)),
        {"invisible characters in item_id": ("warning", 1, ITEMS + 1)}
        | {"item_id that differ in invisible characters": ("error", 2, ITEMS + 1)},
    ),
    "one user as a number of two kinds": (
        lambda events, items: (
            events.with_columns(pl.col("user_id").replace({"u03": "7", "u04": "7.0"})),
            items,
        ),
        {"user_id that differ as numbers": ("warning", 2, USERS)},
    ),
    "users that a spreadsheet rounded": (
        lambda events, items: (
            events.with_columns(user_id=pl.format("1.{}E+10", pl.col("user_id").str.slice(1))),
            items,
        ),
        {"user_id in scientific notation": ("warning", USERS, USERS)},
    ),
    "a user who is missing": (ids("user_id", "u07", "nan"), {"placeholder user_id": ("warning", LENGTH, EVENTS)}),
    "a clock of float32": (
        times(lambda t: t.cast(pl.Float32).cast(pl.Int64)),
        {"rounded clock": ("warning", EVENTS, EVENTS)},
    ),
    "a clock of local days": (
        times(lambda t: t // 1000 % 3000 * 86_400 + 900_028_800 - 19_800),
        {"day resolution": ("info", EVENTS, EVENTS)},
    ),
    "a third in milliseconds": (
        times(lambda t: pl.when(pl.int_range(pl.len()) % 3 == 0).then(t * 1000).otherwise(t)),
        {"mixed units of time": ("error", EVENTS // 3, EVENTS), "file not in order": ("info", 70, EVENTS - USERS)},
    ),
    "dates for times": (
        times(lambda t: pl.from_epoch(t).dt.strftime("%Y%m%d").cast(pl.Int64)),
        {"unit of time": ("warning", EVENTS, EVENTS), "ties": ("info", EVENTS - USERS - 1, EVENTS - USERS)}
        | {"tied tests": ("warning", USERS, USERS)},
    ),
    "URLs for titles": (
        lambda events, items: (events, items.with_columns(title="https://x.example/" + pl.col("item_id"))),
        {"titles without words": ("warning", ITEMS, ITEMS)},
    ),
    "a title that cannot be seen": (title("\u200b"), {"missing texts": ("warning", 1, ITEMS)}),
    "a title of two lines": (title("Dr\num"), {"control characters": ("warning", 1, ITEMS)}),
    "a title with NUL": (title("Dr\x00um"), {"control characters": ("warning", 1, ITEMS)}),
    "a soft hyphen": (title("Dr\u00adum"), {"invisible characters": ("info", 1, ITEMS)}),
    "a column that is called Title": (
        lambda events, items: (events, items.rename({"title": "Title"})),
        {"text column": ("info", ITEMS, ITEMS)},
    ),
    "a column of some other name": (
        lambda events, items: (
            events,
            items.select("item_id", url="https://x.example/" + pl.col("title"), about="title"),
        ),
        {"text column": ("warning", ITEMS, ITEMS)},
    ),
    "nothing but URLs": (
        lambda events, items: (events, items.select("item_id", url="https://x.example/" + pl.col("title"))),
        {"no text": ("info", ITEMS, ITEMS)},
    ),
    "titles that are lists of structs": (
        lambda events, items: (events, items.with_columns(title=pl.concat_list(pl.struct(a="title")))),
        {"items": ("error", 1, 1)},
    ),
    "titles that are lists of lists": (
        lambda events, items: (events, items.with_columns(title=pl.Series([[[name]] for name in NAMES]))),
        {"items": ("error", 1, 1)},
    ),
    "no title": (title(None), {"missing texts": ("warning", 1, ITEMS)}),
    "no titles": (
        lambda events, items: (events, items.with_columns(title=pl.lit(None, pl.String))),
        {"missing texts": ("error", ITEMS, ITEMS)},
    ),
    "no text column": (lambda events, items: (events, items.select("item_id")), {"no text": ("info", ITEMS, ITEMS)}),
    "title_7": (title("title_7"), {"placeholder titles": ("warning", 1, ITEMS)}),
    "NaN": (title("NaN"), {"placeholder titles": ("warning", 1, ITEMS)}),
    "Unknown": (title("Unknown"), {"placeholder titles": ("warning", 1, ITEMS)}),
    "a duplicate": (title("Anvil"), {"duplicate texts": ("info", 1, ITEMS)}),
    "20 words in wide lines": (title("  very " * 19 + " long"), {}),
    "21 words": (title("very " * 20 + "long"), {"long titles": ("info", 1, ITEMS)}),
    "1001 characters": (title("x" * 1001), {"long texts": ("info", 1, ITEMS)}),
    "U+FFFD": (title("Mis\ufffdrables"), {"U+FFFD": ("warning", 1, ITEMS)}),
    "utf-8 as latin-1": (title("Les Misérables".encode().decode("latin-1")), {"mojibake": ("warning", 1, ITEMS)}),
    "utf-8 as cp1252": (title("the Office™".encode().decode("cp1252")), {"mojibake": ("warning", 1, ITEMS)}),
    "utf-8 as latin-1, Russian": (title("Мир".encode().decode("latin-1")), {"mojibake": ("warning", 1, ITEMS)}),
    "an entity": (title("Salt &amp; Pepper"), {"entities": ("warning", 1, ITEMS)}),
    "a number entity": (title("Kid&#39;s Drum"), {"entities": ("warning", 1, ITEMS)}),
    "a doubled entity": (
        title("Salt &amp;quot;n"),
        {"entities": ("warning", 1, ITEMS), "doubled entities": ("warning", 1, ITEMS)},
    ),
    "a quote behind a backslash": (title('Drum, 8\\" wide'), {"backslash quotes": ("warning", 1, ITEMS)}),
    "a tag": (title('A <span id="x">Drum</span>'), {"tags": ("warning", 1, ITEMS)}),
    "a style": (title(".caption { font-family: Verdana; }"), {"page code": ("warning", 1, ITEMS)}),
    "a script": (title("var aPageStart = (new Date()).getTime();"), {"page code": ("warning", 1, ITEMS)}),
    "items twice": (
        lambda events, items: (events, pl.concat([items, items.head(2)])),
        {"items twice": ("error", 2, ITEMS + 2)},
    ),
    "an item without id": (
        lambda events, items: (events, items.with_columns(when(2, None, "item_id"))),
        {"items without id": ("error", 1, ITEMS)},
    ),
}
INNOCENT = [
    *(
        "CAFÉ™",
        "São Paulo, IRMÃO",
        "Straße “ä” – é”",
        "Ñandú",
        "Zoë's",
        "1 < 2 > 0",
        "I <3 U",
        "AT&T; R&B",
        "{Brackets}",
        "\u200f\u05d4\u05d0\u05d9\u05e9",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u2764\ufe0f",
    ),
    *("Title 7", "The Unknown", "Nancy", "Nonesuch", "Function (1999)", "variable = 3", "a {b} c", "The Man: {2}"),
]


@pytest.mark.parametrize("fault", ONE_FAULT)
def test_one_fault_is_found_and_counted_and_nothing_else_is_reported(tmp_path, fault):
    change, expected = ONE_FAULT[fault]
    events, items = sound()
    per_item = Counter(events["item_id"].str.slice(1).cast(pl.Int64))
    found = numbers(found_in(tmp_path, *change(events, items)))
    for name, (level, count, total) in expected.items():
        if count < 0:  # as many as item -count has events, or, for 10, the first ten items
            count = sum(per_item[item] for item in range(10)) if count == -10 else per_item[-count]
        assert found.get(name) == (level, count, total)
    assert set(found) == set(expected)


def test_innocent_titles_pass(tmp_path):
    events, items = sound()
    for place, text in enumerate(INNOCENT):
        found = found_in(tmp_path / str(place), events, items.with_columns(when(3, text, "title")))
        assert not found, (text, found)


def test_errors_come_first_and_info_last(tmp_path):
    events, items = sound()
    events, items = times(lambda t: t * 1000)(events.reverse(), items.filter(pl.col("item_id") != "i04"))
    found = found_in(tmp_path, events, items)
    assert [finding.level for finding in found.values()] == ["error", "warning", "info"]
    assert list(found) == ["unit of time", "orphans", "file not in order"]


def test_a_csv_is_checked_as_written(tmp_path):
    events, items = sound()
    events = events.with_columns(pl.col("timestamp").cast(pl.String)).with_columns(when(9, "noon", "timestamp"))
    found = found_in(tmp_path, events, items, ".csv")
    assert numbers(found) == {"missing timestamp": ("error", 1, EVENTS)}
    assert found["missing timestamp"].examples == ("noon",)


def test_a_bot_and_a_dominant_item_are_named(tmp_path):
    rng = np.random.default_rng(2)
    rows = [(f"u{u}", f"i{i:03d}", T + 50 * u + k) for u in range(200) for k, i in enumerate(rng.permutation(300)[:10])]
    rows += [("robot", f"i{i:03d}", T + k) for k, i in enumerate(rng.permutation(300)[:250])]
    rows += [(f"u{u}", "home", T + 50 * u + 20) for u in range(200)] + [(f"u{u}", "home", T) for u in range(150)]
    items = {"item_id": [*(f"i{i:03d}" for i in range(300)), "home"], "title": [f"Thing {i}" for i in range(301)]}
    found = found_in(tmp_path, columns(rows, "user_id", "item_id", "timestamp"), items)
    assert numbers(found)["heavy users"] == ("warning", 1, 201)
    assert found["heavy users"].examples == ("robot",)
    assert numbers(found)["heavy items"] == ("warning", 1, 301)
    assert found["heavy items"].examples == ("home",)


def test_the_title_and_the_text_of_a_template_are_distinguished(tmp_path):
    events, items = sound()
    items = items.with_columns(when(3, None, "title"), brand=pl.lit("Acme")).with_columns(when(5, None, "brand"))
    found = found_in(tmp_path, events, items, toml='text = "{title} by {brand}"')
    assert numbers(found) == {"missing titles": ("warning", 1, ITEMS)}
    assert found["missing titles"].examples == ("i03",)


BAD_FILES: dict[str, tuple[dict[str, Any], dict[str, Any], str, list[str]]] = {
    "no user column": ({"user": ["u"], "item_id": ["i"]}, {"item_id": ["i"]}, "interactions", ["no column user_id"]),
    "fractional ids": (
        {"user_id": [1.0], "item_id": ["i"], "timestamp": [1]},
        {"item_id": ["i"]},
        "interactions",
        ["user_id is Float64"],
    ),
    "no rows": (
        {"user_id": [""], "item_id": ["i"], "timestamp": [1]},
        {"item_id": ["i"]},
        "interactions",
        ["no row has both"],
    ),
    "no item column": (
        {"user_id": ["u"], "item_id": ["i"], "timestamp": [1]},
        {"item": ["i"], "title": ["Ink"]},
        "items",
        ["no column item_id", "item, title"],
    ),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_an_unusable_file_is_a_finding(tmp_path, fault):
    events, items, name, parts = BAD_FILES[fault]
    finding = found_in(tmp_path, events, items)[name]
    assert finding.level == "error"
    for part in [*parts, f"{name}.parquet"]:
        assert part in finding.says


def test_a_damaged_file_is_a_finding_and_the_other_is_checked(tmp_path):
    events, items = sound()
    folder = write_dataset(tmp_path / "made", events, items.with_columns(when(3, "nan", "title")))
    raw = reader.open_dataset(str(folder), tmp_path)
    whole = (folder / "interactions.parquet").read_bytes()
    (folder / "interactions.parquet").write_bytes(whole[: len(whole) // 2])
    found = by_name(linter.check(raw))
    assert numbers(found) == {"interactions": ("error", 1, 1), "placeholder titles": ("warning", 1, ITEMS)}
    (folder / "interactions.parquet").unlink()
    assert "interactions" in by_name(linter.check(raw))


events_of_any_kind = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(0, 4)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=events_of_any_kind)
def test_counts_agree_with_a_slow_recount(tmp_path, rows):
    events = columns([(user, item, T + time) for user, item, time in rows], "user_id", "item_id", "timestamp")
    found = found_in(tmp_path, events, {"item_id": list("abcd"), "title": NAMES[:4]})
    counts = {name: finding.count for name, finding in found.items()}
    assert counts.get("repeated events", 0) == len(rows) - len(set(rows))
    assert counts.get("repeated pairs", 0) == len(set(rows)) - len({row[:2] for row in rows})
    of = {user: [time for u, _, time in rows if u == user] for user in {row[0] for row in rows}}
    steps = [(a, b) for line in of.values() for a, b in pairwise(line)]
    assert counts.get("file not in order", 0) == sum(b < a for a, b in steps)
    inorder = [sorted(line) for line in of.values()]
    tied = sum(a == b for line in inorder for a, b in pairwise(line))
    assert counts.get("ties", 0) == tied
    assert counts.get("tied tests", 0) == sum(len(line) > 1 and line[-1] == line[-2] for line in inorder)
    assert counts.get("users of one event", 0) == sum(len(line) == 1 for line in inorder)
    left = set(rows)
    while True:
        users, items = Counter(row[0] for row in left), Counter(row[1] for row in left)
        kept = {row for row in left if users[row[0]] >= 5 and items[row[1]] >= 5}
        if kept == left:
            break
        left = kept
    assert counts.get("no 5-core", 0) == len(set(rows)) - len(left)


junk = st.text(st.characters(codec="utf-8"), max_size=6) | st.none() | st.sampled_from(["a", " a", "A", "nan", "Ã©"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(junk, junk, st.none() | st.floats()), max_size=12), names=st.lists(junk, max_size=8))
def test_the_linter_reports_on_any_files(tmp_path, rows, names):
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    items = pl.DataFrame({"item_id": names, "title": names[::-1]}, schema={"item_id": pl.String, "title": pl.String})
    found = found_in(tmp_path, events, items)
    report = linter.LintReport("made", {}, list(found.values()))
    assert json.loads(json.dumps(report.to_json()))["found"]["error"] == sum(f.level == "error" for f in found.values())
    assert linter.text(report).isprintable() or "\n" in linter.text(report)


def embedded(folder: Path, E: np.ndarray, lacks: int | None = None) -> dict[str, Finding]:
    """Return the findings on a matrix of the sound items, one of which may lack its title."""
    events, items = sound()
    items = items if lacks is None else items.with_columns(when(lacks, None, "title"))
    raw = reader.open_dataset(str(write_dataset(folder / "made", events, items)), folder)
    prepared = preparation.prepare(raw, PrepSpec(), folder)
    found = by_name(linter.check(raw, prepared, E.astype(np.float32), now=NOW))
    return {name: finding for name, finding in found.items() if name != "missing texts"}


@pytest.fixture
def E() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((ITEMS, 6))


def test_a_sound_embedding_reports_only_its_mean_cosine(tmp_path, E):
    unit = E / np.linalg.norm(E, axis=1, keepdims=True)
    found = embedded(tmp_path, E)
    assert numbers(found) == {"mean cosine": ("info", ITEMS, ITEMS)}
    expected = ((unit @ unit.T).sum() - ITEMS) / (ITEMS * (ITEMS - 1))
    assert f" {expected:.3f}:" in found["mean cosine"].says


def test_a_high_mean_cosine_is_a_warning(tmp_path, E):
    assert embedded(tmp_path, E + 20)["mean cosine"].level == "warning"


def test_nan_and_infinite_rows_are_named(tmp_path, E):
    E[2, 1], E[7, 0] = np.nan, np.inf
    found = embedded(tmp_path, E)
    assert numbers(found)["NaN rows"] == ("error", 2, ITEMS)
    assert found["NaN rows"].examples == ("i02", "i07")
    assert found["mean cosine"].total == ITEMS - 2


def test_zero_rows_are_right_only_for_items_without_text(tmp_path, E):
    E[5] = 0
    assert numbers(embedded(tmp_path / "a", E))["zero rows"] == ("warning", 1, ITEMS)
    assert numbers(embedded(tmp_path / "b", E, lacks=5))["zero rows"] == ("info", 1, ITEMS)


def test_whole_numbers_are_reported_unless_they_are_counts(tmp_path, E):
    assert "whole numbers" not in embedded(tmp_path / "a", np.abs(E).round())
    found = embedded(tmp_path / "b", (30 * E).round())
    assert numbers(found)["whole numbers"] == ("warning", ITEMS, ITEMS)


def test_equal_rows_and_lost_directions_are_counted(tmp_path, E):
    E[4] = E[9] = E[0]
    E[:, 5] = E[:, 3] - E[:, 1]
    found = numbers(embedded(tmp_path, E))
    assert found["duplicate rows"] == ("warning", 2, ITEMS)
    assert found["rank"] == ("info", 1, 6)
    E[:, 2:] = E[:, :1] * np.arange(4)
    assert numbers(embedded(tmp_path, E))["rank"] == ("warning", 4, 6)


def test_an_embedding_of_other_items_or_of_nothing_is_an_error(tmp_path, E):
    assert numbers(embedded(tmp_path, E[:-1])) == {"shape": ("error", ITEMS - 1, ITEMS)}
    assert embedded(tmp_path, 0 * E)["no directions"].level == "error"


def test_a_report_has_everything_from_name_to_remedy(tmp_path, home):
    events, items = sound()
    folder = write_dataset(tmp_path / "shop", events, items)
    clean = linter.examine(str(folder), home)
    assert linter.text(clean).splitlines()[-1] == "Nothing found."
    assert clean.exit_code == 0
    write_dataset(folder, *times(lambda t: t * 1000)(*title("nan")(events, items)))
    report = linter.examine(str(folder), home)
    text = linter.text(report).splitlines()
    assert report.exit_code == 1
    assert text[0] == "shop"
    assert text[1] == f"file:     {USERS} users, {ITEMS} items, {EVENTS} events"
    assert [line.split()[0] for line in text if line.startswith(("error", "warning", "info"))] == ["error", "warning"]
    assert any("240 of 240 events (100.0 %)" in line for line in text)
    assert any("Remedy: Divide timestamp by 1,000." in line for line in text)
    assert text[-1] == "Found: 1 error, 1 warning."
    assert max(map(len, text)) <= 120
    told = report.to_json()
    assert [finding["name"] for finding in told["findings"]] == ["unit of time", "placeholder titles"]
    assert told["findings"][1]["share"] == pytest.approx(1 / ITEMS)
    assert told["findings"][1]["examples"] == ["i03 nan"]
    assert json.loads(json.dumps(told)) == told


def test_a_failed_preparation_or_encoding_is_a_finding(tmp_path, home, E):
    events, items = sound()
    folder = write_dataset(tmp_path / "shop", events, items)
    found = by_name(linter.examine(str(folder), home, spec=PrepSpec(kcore=100)).findings)
    assert "100-core leaves 0 users" in found["preparation"].says
    np.save(tmp_path / "E.npy", E[:-2])
    found = by_name(linter.examine(str(folder), home, f"file:{tmp_path / 'E.npy'}").findings)
    assert "has 22 rows, but the items file has 24" in found["embedding"].says
    E[1] = np.nan
    np.save(tmp_path / "E.npy", E)
    report = linter.examine(str(folder), home, f"file:{tmp_path / 'E.npy'}")
    assert by_name(report.findings)["NaN rows"].examples == ("i01",)
    assert report.exit_code == 1
    assert report.encoder == f"file:{tmp_path / 'E.npy'}"


def test_a_wrong_name_is_a_clear_one_line_error(tmp_path, home):
    folder = write_dataset(tmp_path / "shop", *sound())
    with pytest.raises(HarnessError, match=r"no data set 'ml-100'.*ml-100k"):
        linter.examine("ml-100", home)
    with pytest.raises(HarnessError, match="There is no encoder 'minilmm'"):
        linter.examine(str(folder), home, "minilmm")


def test_published_counts_are_compared_with_the_prepared_ones(tmp_path):
    raw = reader.open_dataset(str(write_dataset(tmp_path / "made", *sound())), tmp_path)
    prepared = preparation.prepare(raw, PrepSpec(), tmp_path)
    same = {"published": USERS, "ours": USERS, "percent": 0.0}
    other = {"published": 300, "ours": EVENTS, "percent": -20.0}
    published = {"users": same, "events": other, "source": "a paper"}
    prepared = replace(prepared, card=replace(prepared.card, published=published))
    found = by_name(linter.check(raw, prepared, now=NOW))
    assert numbers(found) == {"published counts": ("warning", 1, 2)}
    assert "differ from those of a paper: 240 events instead of 300 (-20.00 %)" in found["published counts"].says
    prepared = replace(prepared, card=replace(prepared.card, published={"users": same}))
    assert not linter.check(raw, prepared, now=NOW)


def test_the_module_is_cheap_to_import():
    heavy = (
        "import sys, harness.checks.linter; sys.exit(any(name in sys.modules for name in ('polars', 'torch', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0


def shared(name: str, tmp_path: Path, matrix: str = "") -> linter.LintReport:
    folder = SHARED / name
    return linter.examine(str(folder), tmp_path, f"file:{folder / matrix}" if matrix else "")


@real
def test_the_known_faults_of_movielens_1m_are_found(tmp_path):
    report = shared("ml-1m", tmp_path, "emb_minilm384_meta.npy")
    found = by_name(report.findings)
    assert report.counts["file"] == {"users": 6040, "items": 3416, "events": 999_611}
    assert round(found["ties"].share, 3) == 0.532
    assert round(found["tied tests"].share, 3) == 0.421
    assert found["duplicate texts"].count == 40
    assert numbers(found)["rank"] == ("info", 3, 384)
    assert " 0.368:" in found["mean cosine"].says
    assert not {"U+FFFD", "mojibake", "duplicate rows", "zero rows", "no 5-core", "sorted by id"} & set(found)
    assert report.exit_code == 0


@real
def test_the_known_faults_of_beauty_are_found(tmp_path):
    found = by_name(shared("amazon2014-beauty", tmp_path, "emb_minilm384_title.npy").findings)
    assert round(found["ties"].share, 3) == 0.439
    assert round(found["tied tests"].share, 3) == 0.435
    assert numbers(found)["items never met"] == ("info", 15, 12_101)
    assert numbers(found)["day resolution"] == ("info", 198_215, 198_215)
    assert found["duplicate texts"].count == 28
    assert numbers(found)["duplicate rows"] == ("info", 29, 12_086)
    assert numbers(found)["rank"] == ("info", 3, 384)
    assert " 0.270:" in found["mean cosine"].says
    assert not {"missing texts", "no 5-core", "sorted by id", "entities"} & set(found)


@real
def test_toys_with_titles_only_becomes_a_5_core_after_eight_rounds(tmp_path):
    events = pl.read_parquet(SHARED / "amazon2014-toys" / "interactions_5core.parquet")
    items = pl.read_parquet(SHARED / "amazon2014-toys" / "items.parquet")
    found = found_in(tmp_path / "a", events, items)
    assert numbers(found)["missing texts"] == ("warning", 59, 11_924)
    assert "no 5-core" not in found
    titled = items.filter(pl.col("title").is_not_null())
    found = found_in(tmp_path / "b", events.join(titled, on="item_id", how="semi", maintain_order="left"), titled)
    assert "after 8 rounds, leaves 19,124 users, 11,758 items and 165,247 events" in found["no 5-core"].says
    by_id = events.sort("user_id", "item_id").select("user_id", "item_id", order=pl.int_range(pl.len()))
    found = found_in(tmp_path / "c", by_id, items)
    assert numbers(found)["sorted by id"] == ("error", 167_597 - 19_412, 167_597 - 19_412)


@real
def test_traces_of_page_code_and_encoding_in_office_are_found(tmp_path):
    folder = SHARED / "amazon2014-office"
    text = 'text = "{title}. {brand}. {categories}. {description}"'
    events, items = (pl.read_parquet(folder / f"{name}.parquet") for name in ("interactions", "items"))
    found = numbers(found_in(tmp_path, events, items, toml=text))
    assert found["mojibake"] == ("warning", 2, 2420)
    assert found["U+FFFD"] == ("warning", 6, 2420)
    assert found["page code"] == ("warning", 80, 2420)
    assert found["missing titles"] == ("warning", 3, 2420)
    assert found["no time"] == ("info", 53_258, 53_258)


def test_a_card_is_printed_in_words(tmp_path):
    events, items = sound()
    toml = 'licence = "research only"\ncitation = "Doe 2020"'
    raw = reader.open_dataset(str(write_dataset(tmp_path / "made", *title(None)(events, items), toml=toml)), tmp_path)
    card = preparation.prepare(raw, PrepSpec(), tmp_path).card
    same = {"published": USERS, "ours": USERS, "percent": 0.0}
    other = {"published": 300, "ours": EVENTS, "percent": -20.0}
    published = {"users": same, "events": other, "source": "a paper"}
    info = {"items": ITEMS, "dim": 384, "mean_cosine": 0.25, "notes": ["rank 3 of 11"]}
    card = replace(card, warnings=["Mind the step."], published=published, embeddings={"minilm": info})
    lines = cards.text(card).splitlines()
    said = {line[:12].strip(): line[12:] for line in lines if not line.startswith(" ")}
    assert lines[0] == "made"
    assert said["counts"].startswith("30 users, 24 items, 240 events (8.0 per user, 33.3 % of all pairs)")
    assert said["published"] == "differs: events 300 (-20.00 % here); a paper"
    assert said["prepared"] == "kcore 5; 240 events in the source (30 users, 24 items), 0 duplicates dropped"
    assert said["time"].startswith("0 % of a user's consecutive events have equal times")
    assert said["text"] == "{title}; 1 items without text, 0 with the same text as an earlier item"
    assert said["minilm"] == "24 x 384, mean cosine 0.250; rank 3 of 11"
    assert [said["licence"], said["citation"], said["warning"]] == ["research only", "Doe 2020", "Mind the step."]
    assert max(map(len, lines)) <= 110
    same_card = replace(card, published=published | {"events": same})
    assert "the same users, events; a paper" in cards.text(same_card)


@real
def test_a_card_of_a_data_set_without_times_says_so(tmp_path):
    raw = reader.open_dataset(str(SHARED / "amazon2014-office"), tmp_path)
    text = cards.text(preparation.prepare(raw, PrepSpec(tie_policy="item_id", require_text=True), tmp_path).card)
    assert "kcore 5, tie_policy item_id, require_text yes; 53,258 events" in text
    assert "\ntime        no timestamps; events are ordered by a column of the source\n" in text
    assert "\ntext        {title}; 0 items without" in text


@pytest.mark.parametrize(
    ("dedup", "again", "later"),
    [
        ("exact", "the preparation drops them", "they are kept"),
        ("none", "they are kept (--dedup none)", "they are kept"),
        ("last", "the preparation drops them", "the preparation keeps the last event of each pair"),
    ],
)
def test_what_becomes_of_repeats_is_said_of_the_preparation_that_is_asked_for(tmp_path, dedup, again, later):
    folder = make_dataset(tmp_path / "toy")
    events = pl.read_parquet(folder / "interactions.parquet")
    twice = pl.concat([events, events.tail(1), events.tail(1).with_columns(pl.col("timestamp") + 5)])
    twice.write_parquet(folder / "interactions.parquet")
    found = linter.examine(str(folder), tmp_path, "", PrepSpec(kcore=2, dedup=dedup)).findings
    says = {finding.name: finding.says for finding in found}
    assert says["repeated events"].endswith(again)
    assert says["repeated pairs"].endswith(later)


def test_the_core_is_that_of_the_preparation_also_where_it_fails(tmp_path):
    folder = make_dataset(tmp_path / "toy", users=3, items=40, length=4)
    (folder / "items.parquet").unlink()
    pl.DataFrame({"item_id": ["i000", "i000"], "title": ["a", "b"]}).write_parquet(folder / "items.parquet")
    found = linter.examine(str(folder), tmp_path, "", PrepSpec(kcore=1)).findings
    assert not [finding for finding in found if finding.name.startswith("no ")]


def rated(folder: Path, home: Path, spec: PrepSpec) -> tuple[dict[str, Finding], linter.LintReport]:
    """Return the findings and the report on events of which a third are repeated, with ratings 1 to 5."""
    events, items = sound()
    events = events.with_columns(rating=1 + pl.int_range(pl.len()) % 5)
    events = pl.concat([events, events[: EVENTS // 3]])
    report = linter.examine(str(write_dataset(folder / "made", events, items)), home, "", spec)
    return by_name(report.findings), report


def test_the_core_counts_repeats_only_if_the_preparation_keeps_them(tmp_path, home):
    events, items = sound()
    events = pl.concat([events, events, events[:1].with_columns(item_id=pl.lit("i99"))])
    folder = str(write_dataset(tmp_path / "made", events, items))
    report = linter.examine(folder, home, "", PrepSpec(kcore=9, dedup="none"))
    core, left = by_name(report.findings)["no 9-core"], report.counts["prepared"]
    assert (report.exit_code, core.count, core.total, left["events"]) == (0, 1, 2 * EVENTS + 1, 2 * EVENTS)
    found = by_name(linter.examine(folder, home, "", PrepSpec(kcore=10)).findings)
    assert numbers(found)["no 10-core"] == ("error", EVENTS + 1, EVENTS + 1)


@pytest.mark.parametrize(
    "spec",
    [
        PrepSpec(kcore=3, min_rating=3),
        PrepSpec(kcore=3, min_rating=4, dedup="none", iterate=False),
        PrepSpec(kcore=3, window="2017-07-14:2017-07-28"),
        PrepSpec(kcore=3, dedup="last", max_history=4, order=("history", "dedup", "rating", "window", "text", "core")),
        PrepSpec(kcore=8, iterate=False),
    ],
    ids=["ratings", "ratings, one pass", "a window", "another order", "one pass"],
)
def test_the_core_is_of_the_events_that_the_steps_before_it_keep(tmp_path, home, spec):
    found, report = rated(tmp_path, home, spec)
    core, left = found[f"no {spec.kcore}-core"], report.counts["prepared"]
    assert f"leaves {left['users']:,} users, {left['items']:,} items and {left['events']:,} events" in core.says
    assert core.total - core.count == left["events"]
    assert core.level != "error"


def test_the_core_is_of_the_items_with_text_if_the_preparation_drops_the_others(tmp_path, home):
    events, items = sound()
    items = items.with_columns(title=pl.when(pl.col("item_id") < "i12").then("title"))
    folder = write_dataset(tmp_path / "made", events, items)
    report = linter.examine(str(folder), home, "", PrepSpec(kcore=4, require_text=True))
    core, left = by_name(report.findings)["no 4-core"], report.counts["prepared"]
    assert core.total == events.filter(pl.col("item_id") < "i12").height
    assert core.total - core.count == left["events"]


def test_an_empty_core_of_the_ratings_that_are_kept_is_an_error(tmp_path, home):
    found, _ = rated(tmp_path, home, PrepSpec(kcore=7, min_rating=4))
    assert found["no 7-core"].level == "error"
    assert found["no 7-core"].total == EVENTS * 2 // 5
