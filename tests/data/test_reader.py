"""Raw data sets: opened by name or folder, refused with a clear line, texts rendered from their template."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dataset_files import sequences, write_dataset, write_frame

from harness.checks import _read, linter
from harness.data import reader
from harness.data.findings import Finding
from harness.data.preparation import prepare
from harness.data.reader import open_dataset, raw_hash, ready
from harness.types import HarnessError, PrepSpec, digest

EVENTS = {"user_id": ["u", "u", "v", "v"], "item_id": ["a", "b", "a", "b"], "timestamp": [1, 2, 3, 4]}
ITEMS = {"item_id": ["a", "b"], "title": ["Anvil", "Bell"]}
DAYS = [datetime.date(2020, 1, day) for day in (1, 2, 3, 4)]
CLOCK = [datetime.time(hour) for hour in (1, 2, 3, 4)]


def refusal(folder: Path, home: Path) -> str:
    with pytest.raises(HarnessError) as caught:
        prepare(open_dataset(str(folder), home), PrepSpec(kcore=0), home)
    text = str(caught.value)
    assert "\n" not in text
    assert not list((home / "cache").rglob("*.npy"))
    return text


def without(columns: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values for name, values in columns.items() if name not in names}


BAD_EVENTS = {
    "no user column": (without(EVENTS, "user_id") | {"userid": [1] * 4}, ["no column 'user_id'", "mean 'userid'"]),
    "no item column": (without(EVENTS, "item_id"), ["no column 'item_id'"]),
    "no order at all": (without(EVENTS, "timestamp"), ["neither a column 'timestamp' nor a column 'order'"]),
    "null user": (EVENTS | {"user_id": ["u", None, "v", "v"]}, ["user_id is missing in 1 of 4 rows"]),
    "blank item": (EVENTS | {"item_id": ["a", "b", "", "b"]}, ["item_id is missing in 1 of 4 rows"]),
    "fractional ids": (EVENTS | {"user_id": [1.0, 1.0, 2.0, 2.0]}, ["user_id", "text or whole numbers", "Float64"]),
    "null timestamp": (EVENTS | {"timestamp": [1, None, 3, None]}, ["timestamp is missing in 2 of 4 rows"]),
    "null order": (
        EVENTS | {"timestamp": [1, None, 3, 4], "order": [0, 1, None, 1]},
        ["order is missing in 1 of 4 rows", "only if every event has a timestamp"],
    ),
    "times of day": (
        EVENTS | {"timestamp": CLOCK},
        ["timestamp must be numbers (seconds since 1970) or dates", "Time"],
    ),
    "order by date": (EVENTS | {"order": DAYS}, ["order must be numbers, not Date"]),
    "two columns": ({"user": ["u"], "timestamp": [1]}, ["no column 'user_id' nor column 'item_id'"]),
    "no such day": (EVENTS | {"timestamp": ["2020-02-28", "2020-02-30", None, "x"]}, ["a row has '2020-02-30'"]),
    "number among dates": (EVENTS | {"timestamp": ["2020-02-28", "17", "18", "19"]}, ["has dates", "a row has '17'"]),
    "date among numbers": (EVENTS | {"timestamp": ["17", "2020-02-28", "18", "19"]}, ["a row has '2020-02-28'"]),
    "words for times": (EVENTS | {"timestamp": ["1", "2", "noon", "4"]}, ["timestamp must be numbers", "'noon'"]),
    "infinite time": (EVENTS | {"timestamp": [1.0, 2.0, float("inf"), 4.0]}, ["timestamp must be numbers", "'inf'"]),
    "no rows": ({name: values[:0] for name, values in EVENTS.items()}, ["is empty"]),
    "one user": (
        {name: values[:2] for name, values in EVENTS.items()},
        ["0-core leaves 1 users and 2 items", "The data are too small."],
    ),
}


TYPED = ("fractional ids", "times of day", "order by date")  # a csv holds only text, so these cannot be in one


@pytest.mark.parametrize(
    ("case", "suffix"),
    [(case, ".parquet") for case in BAD_EVENTS] + [(case, ".csv") for case in BAD_EVENTS if case not in TYPED],
)
def test_a_bad_interactions_file_is_refused_with_its_column_and_rule(tmp_path, home, case, suffix):
    events, words = BAD_EVENTS[case]
    text = refusal(write_dataset(tmp_path / "bad", events, ITEMS, suffix), home)
    for word in words:
        assert word in text
    assert ("interactions" + suffix in text) == (case != "one user")


BAD_ITEMS = {
    "no id column": ({"asin": ["a", "b"], "title": ["A", "B"]}, "", ["no column 'item_id'"]),
    "null id": ({"item_id": ["a", None], "title": ["A", "B"]}, "", ["item_id is missing in 1 of 2 rows"]),
    "id twice": ({"item_id": ["a", "b", "a"], "title": ["A", "B", "C"]}, "", ["item_id 'a'", "more than once"]),
    "no rows": ({"item_id": pl.Series([], dtype=pl.String)}, "", ["is empty"]),
    "unknown field": (ITEMS, "text = '{titel}'", ["no column 'titel'", "Did you mean 'title'?"]),
    "open brace": (ITEMS, "text = '{title'", ["malformed"]),
    "format spec": (ITEMS, "text = '{title:>9}'", ["only column names in braces"]),
    "attribute access": (ITEMS, "text = '{title.__class__}'", ["only column names in braces"]),
    "no field": (ITEMS, "text = 'an item'", ["names no column"]),
    "struct": ({"item_id": ["a", "b"], "title": [{"en": "A"}, {"en": "B"}]}, "", ["title must be text", "Struct"]),
    "list of structs": (
        {"item_id": ["a", "b"], "title": [[{"en": "A"}], []]},
        "",
        ["title must be text", "List(Struct"],
    ),
    "list of lists": ({"item_id": ["a", "b"], "title": [[["A"]], []]}, "", ["title must be text", "List(List"]),
    "list of bytes": ({"item_id": ["a", "b"], "title": [[b"A"], []]}, "", ["title must be text", "List(Binary"]),
    "foreign ids": ({"item_id": ["x", "y"], "title": ["A", "B"]}, "", ["4 of 4", "such as 'a'", "its first is 'x'"]),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_a_bad_items_file_is_refused_with_its_column_and_rule(tmp_path, home, case):
    items, toml, words = BAD_ITEMS[case]
    text = refusal(write_dataset(tmp_path / "bad", EVENTS, items, toml=toml), home)
    for word in ["items.parquet", *words]:
        assert word in text


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("titel = 'x'", ["unknown key 'titel'", "Known: name, text, licence, citation"]),
        ("licens = 'x'", ["Did you mean 'licence'?"]),
        ("name = 3", ["'name' must be a string"]),
        ("name = ", ["not TOML"]),
        ("name = '.hidden'", ["'.hidden' is not a valid data set name"]),
        ("name = 'a/b'", ["'a/b' is not a valid data set name"]),
        (f"name = '{'a' * 65}'", ["1 to 64"]),
    ],
)
def test_a_bad_dataset_toml_is_refused(tmp_path, home, toml, words):
    text = refusal(write_dataset(tmp_path / "bad", EVENTS, ITEMS, toml=toml), home)
    assert all(word in text for word in [str(tmp_path / "bad"), *words])


def test_files_that_are_missing_or_unreadable_are_named(tmp_path, home):
    folder = write_dataset(tmp_path / "bad", EVENTS, ITEMS)
    (folder / "items.parquet").write_bytes(b"not a parquet file")
    assert "items.parquet cannot be read as parquet" in refusal(folder, home)
    (folder / "items.parquet").unlink()
    assert "has neither items.parquet nor items.csv" in refusal(folder, home)
    (folder / "items.csv").write_bytes(b"")
    assert "items.csv is empty" in refusal(folder, home)
    (folder / "interactions.parquet").unlink()
    assert "has neither interactions.parquet nor interactions.csv" in refusal(folder, home)
    with pytest.raises(HarnessError, match=r"gone\.csv does not exist"):
        raw_hash(reader.RawDataset("x", folder / "gone.csv", folder / "items.csv", ""))
    with pytest.raises(HarnessError, match=r"a\.json is not a data file; its name must end in \.parquet, \.csv"):
        raw_hash(reader.RawDataset("x", folder / "a.json", folder / "items.csv", ""))


def test_an_unknown_name_suggests_the_nearest_and_a_path_must_be_a_folder(home):
    with pytest.raises(HarnessError, match=r"no data set 'ml-10k' .*Did you mean 'ml-100k'\?"):
        open_dataset("ml-10k", home)
    with pytest.raises(HarnessError, match="is not a folder"):
        open_dataset("./nowhere", home)
    assert ready(home) == []


def test_a_data_set_has_the_settings_of_its_toml_and_the_name_of_its_folder(tmp_path, home):
    toml = "name = 'anvils-2'\ntext = '{title}'\nlicence = 'CC0'\ncitation = 'Smith 2020'"
    found = open_dataset(str(write_dataset(tmp_path / "a b", EVENTS, ITEMS, ".csv", toml)), home)
    assert (found.name, found.text, found.licence, found.citation) == ("anvils-2", "{title}", "CC0", "Smith 2020")
    assert open_dataset(str(write_dataset(tmp_path / "plain", EVENTS, ITEMS)), home).name == "plain"
    card = prepare(found, PrepSpec(kcore=0), home).card
    assert (card.name, card.licence, card.citation) == ("anvils-2", "CC0", "Smith 2020")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_default_text_is_the_title_or_the_first_text_column(tmp_path, home, suffix):
    def text_of(name: str, items: dict[str, list]) -> str:
        return open_dataset(str(write_dataset(tmp_path / name, EVENTS, items, suffix)), home).text

    ids = {"item_id": ["a", "b"]}
    assert text_of("one", ids | {"brand": ["X", "Y"], "title": ["A", "B"]}) == "{title}"
    assert text_of("two", ids | {"price": [1.5, 2.0], "brand": ["X", "Y"], "about": ["s", "t"]}) == "{brand}"
    assert text_of("three", ids | {"price": [1.5, 2.0]}) == ""
    assert text_of("four", ids | {"image": ["a.jpg", "b.jpg"], "Name": ["A", "B"]}) == "{Name}"
    assert text_of("five", ids | {"image": ["a.jpg", "b.jpg"], "url": ["https://x.y/a", "https://x.y/b"]}) == ""
    assert text_of("six", ids | {"title": ["a.jpg", "b.jpg"], "Name": ["A", "B"]}) == "{title}"


def test_a_column_is_judged_by_its_text_even_if_a_later_row_is_of_another_kind(tmp_path, home):
    rows = [f"i{place}" for place in range(300)]
    items = {"item_id": rows, "size": [*map(str, range(299)), "large"], "about": [f"a thing {row}" for row in rows]}
    found = open_dataset(str(write_dataset(tmp_path / "late", EVENTS, items, ".csv")), home)
    assert found.text == "{about}"


def texts(folder: Path, items: dict[str, list], template: str) -> list[str | None]:
    write_frame(folder / "items.parquet", items)
    return reader.read_items(folder / "items.parquet", template)["text"].to_list()


def test_a_missing_field_is_left_out_with_the_words_around_it(tmp_path):
    items = {
        "item_id": list("abcdefg"),
        "title": ["Heat", "Heat", "Heat", None, None, None, "  "],
        "year": [1995, None, 1995, 1995, None, None, None],
        "genres": [["Crime", "Drama"], ["Crime"], [], ["Crime"], ["Crime"], None, [None]],
    }
    assert texts(tmp_path, items, "{title} ({year}). {genres}") == [
        "Heat (1995). Crime, Drama",
        "Heat. Crime",
        "Heat (1995)",
        "(1995). Crime",
        "Crime",
        None,
        None,
    ]


def test_an_invisible_text_counts_as_missing_and_others_keep_their_characters(tmp_path):
    titles = ["\u200b", "\ufeff \u2060", "\u00ad\x00", "\u00a0", "\u200bAnvil", "A\nB"]
    found = texts(tmp_path, {"item_id": list("abcdef"), "title": titles}, "{title}")
    assert found == [None, None, None, None, "\u200bAnvil", "A\nB"]


def test_words_of_a_template_belong_to_the_field_after_them(tmp_path):
    items = {
        "item_id": list("abcd"),
        "title": ["... And Justice", "Anvil", None, None],
        "brand": ["X", None, "Y", None],
    }
    assert texts(tmp_path, items, "Title: {title}. Brand: {brand}!") == [
        "Title: ... And Justice. Brand: X!",
        "Title: Anvil!",
        "Brand: Y!",
        None,
    ]
    assert texts(tmp_path, items, "{title}") == ["... And Justice", "Anvil", None, None]
    assert texts(tmp_path, items, "{{{title}}} [{brand}]")[:3] == ["{... And Justice} [X]", "{Anvil}", "[Y]"]
    assert texts(tmp_path, items, "") == [None] * 4


FIELDS = ["title", "year", "brand"]
ROWS = [("T", "Y", "B"), ("T", "Y", None), ("T", None, "B"), ("T", None, None), (None, "Y", None), (None, None, "B")]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{title} ({year}, {brand})", ["T (Y, B)", "T (Y)", "T (B)", "T", "(Y)", "(B)"]),
        ("{title} [from {year} by {brand}]", ["T [from Y by B]", "T [from Y]", "T [by B]", "T", "[from Y]", "[by B]"]),
        ("({year}, {brand}) {title}", ["(Y, B) T", "(Y) T", "(B) T", "T", "(Y)", "(B)"]),
        (
            "{title} ({year} edition) by {brand}",
            ["T (Y edition) by B", "T (Y edition)", "T by B", "T", "(Y edition)", "by B"],
        ),
        ("{title} [{year} ({brand})]", ["T [Y (B)]", "T [Y]", "T [(B)]", "T", "[Y]", "[(B)]"]),
        # brackets without a pair are as they were
        ("{title} :) {year}, {brand})", ["T :) Y, B)", "T :) Y", "T, B)", "T", ") Y", "B)"]),
    ],
)
def test_brackets_around_several_fields_stay_in_pairs_if_some_are_missing(tmp_path, template, expected):
    items = {"item_id": list("abcdef"), **{name: [row[place] for row in ROWS] for place, name in enumerate(FIELDS)}}
    assert texts(tmp_path, items, template) == expected


def test_the_hash_tells_texts_whose_brackets_were_not_in_pairs_from_those_of_earlier_versions(tmp_path, home):
    def is_as_before(brands: list[str | None]) -> bool:
        items = ITEMS | {"year": ["1", "2"], "brand": brands}
        folder = write_dataset(tmp_path / "made", EVENTS, items, toml="text = '{title} ({year}, {brand})'")
        raw = open_dataset(str(folder), home)
        return raw_hash(raw) == digest({"text": raw.text, **reader.file_hashes(raw)})

    assert is_as_before(["Acme", "Bravo"])
    assert not is_as_before(["Acme", None])


def test_the_hash_depends_on_content_and_template_not_on_name_or_path(tmp_path, home):
    one = open_dataset(str(write_dataset(tmp_path / "one", EVENTS, ITEMS)), home)
    two = open_dataset(str(write_dataset(tmp_path / "two", EVENTS, ITEMS, toml="licence = 'CC0'")), home)
    other_text = open_dataset(str(write_dataset(tmp_path / "three", EVENTS, ITEMS, toml="text = '{item_id}'")), home)
    other_time = write_dataset(tmp_path / "four", EVENTS | {"timestamp": [1, 2, 3, 5]}, ITEMS)
    assert raw_hash(one) == raw_hash(two)
    assert raw_hash(one) != raw_hash(other_text)
    assert raw_hash(one) != raw_hash(open_dataset(str(other_time), home))


def test_a_data_set_module_is_cheap_to_import():
    code = "import sys, harness.data.datasets.ml_100k; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"polars", "numpy", "requests", "torch", "filelock"} & set(loaded)


def no_time(folder: Path) -> Finding | None:
    findings = linter.check(open_dataset(str(folder), folder))
    return next((finding for finding in findings if finding.name == "missing timestamp"), None)


UTC = datetime.UTC
WRITTEN = [  # as text, and the same moment
    ("2020-02-29", datetime.datetime(2020, 2, 29, tzinfo=UTC)),
    ("1969-12-31 23:59", datetime.datetime(1969, 12, 31, 23, 59, tzinfo=UTC)),
    (" 2020-02-29T01:02:03Z ", datetime.datetime(2020, 2, 29, 1, 2, 3, tzinfo=UTC)),
    ("2020-02-29 01:02:03.25 UTC", datetime.datetime(2020, 2, 29, 1, 2, 3, 250_000, tzinfo=UTC)),
    ("2020-02-29T01:02:03+0530", datetime.datetime(2020, 2, 28, 19, 32, 3, tzinfo=UTC)),
    ("2020-02-29T01:02:03-05", datetime.datetime(2020, 2, 29, 6, 2, 3, tzinfo=UTC)),
]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_dates_as_text_are_read_as_seconds(tmp_path, suffix):
    texts, moments = zip(*WRITTEN, strict=True)
    events = {"user_id": ["u"] * 6, "item_id": ["a", "b"] * 3, "timestamp": texts}
    folder = write_dataset(tmp_path / "dated", events, ITEMS, suffix)
    assert reader.read_events(folder / f"interactions{suffix}")["timestamp"].to_list() == [
        moment.timestamp() for moment in moments
    ]
    assert no_time(folder) is None


@pytest.mark.parametrize(
    ("kind", "step"),
    [(pl.Date, 86_400), (pl.Datetime("ms"), 3_600), (pl.Datetime("ns", "Asia/Tokyo"), 3_600)],
    ids=["dates", "times", "times with a zone"],
)
def test_date_types_are_read_as_seconds(tmp_path, kind, step):
    seconds = [1_600_041_600 + step * place for place in range(4)]
    moments = pl.from_epoch(pl.Series(seconds)).dt.replace_time_zone("UTC")
    zone = getattr(kind, "time_zone", None)
    column = moments.dt.convert_time_zone(zone) if zone else moments.dt.replace_time_zone(None)
    folder = write_dataset(tmp_path / "dated", EVENTS | {"timestamp": column.cast(kind)}, ITEMS)
    times = reader.read_events(folder / "interactions.parquet")["timestamp"]
    assert times.dtype == pl.Int64
    assert times.to_list() == seconds
    assert no_time(folder) is None


@pytest.mark.parametrize(
    ("times", "odd"), [(["2020-02-28", "17", "18", "19"], "17"), (["17", "2020-02-28", "18", "19"], "2020-02-28")]
)
def test_check_finds_what_the_reader_refuses_among_dates(tmp_path, times, odd):
    folder = write_dataset(tmp_path / "mixed", EVENTS | {"timestamp": times}, ITEMS)
    found = no_time(folder)
    assert found is not None
    assert odd in found.examples


LARGE = [10**18 + 10 * k for k in (3, 1, 2, 0)]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series(LARGE, dtype=pl.Int64),
        pl.Series(LARGE, dtype=pl.UInt64),
        pl.Series(LARGE, dtype=pl.Decimal(38, 0)),
        pl.Series([f"{value}.00" for value in LARGE], dtype=pl.Decimal(38, 2)),
        pl.Series([str(value) for value in LARGE]),
        pl.Series([f"{value}.0" if k else f"{value}." for k, value in enumerate(LARGE)]),
    ],
    ids=["int", "uint", "decimal", "decimal with a point", "text", "text with a point"],
)
def test_an_order_of_long_numbers_is_not_rounded(tmp_path, values):
    events = pl.DataFrame(EVENTS).drop("timestamp").with_columns(order=values, user_id=pl.lit("u"))
    write_dataset(tmp_path / "x", events, ITEMS)
    read = reader.read_events(tmp_path / "x" / "interactions.parquet")
    assert read["order"].to_list() == LARGE
    ranks = _read.events(tmp_path / "x" / "interactions.parquet").order
    assert ranks.tolist() == [4, 2, 3, 1]


def test_a_time_that_is_not_a_number_is_missing_where_an_order_replaces_it(tmp_path, home):
    times = pl.Series([1.0, float("nan"), 3.0, 4.0])
    events = pl.DataFrame(EVENTS).with_columns(timestamp=times, order=pl.Series([4, 3, 2, 1]))
    write_dataset(tmp_path / "x", events, ITEMS)
    assert reader.read_events(tmp_path / "x" / "interactions.parquet")["timestamp"].null_count() == 1
    prepared = prepare(open_dataset(str(tmp_path / "x"), home), PrepSpec(kcore=0), home)
    assert sequences(prepared) == {"u": "ba", "v": "ba"}
    write_dataset(tmp_path / "y", events.drop("order"), ITEMS)
    assert "timestamp" in refusal(tmp_path / "y", tmp_path / "other home")


@pytest.mark.parametrize("other", ["0.5", str(2**63), "1e300"])
def test_long_numbers_that_would_be_rounded_are_refused(tmp_path, other):
    events = pl.DataFrame(EVENTS).drop("timestamp").with_columns(order=pl.Series([other, *map(str, LARGE[1:])]))
    write_dataset(tmp_path / "x", events, ITEMS)
    with pytest.raises(HarnessError, match=r"order has .*, and not all are whole numbers"):
        reader.read_events(tmp_path / "x" / "interactions.parquet")


def test_a_rating_in_single_precision_is_the_number_that_was_written(tmp_path):
    events = pl.DataFrame(EVENTS).with_columns(rating=pl.Series([4.1, 5.0, 4.0, 4.1], dtype=pl.Float32))
    folder = write_dataset(tmp_path / "x", events, ITEMS)
    made = prepare(open_dataset(str(folder), tmp_path), PrepSpec(kcore=0, min_rating=4.1), tmp_path)
    assert len(made.items) == 3


def test_a_number_that_is_none_is_not_in_a_text(tmp_path):
    items = pl.DataFrame(ITEMS).with_columns(price=pl.Series([float("nan"), 3.5]))
    write_dataset(tmp_path / "x", EVENTS, items)
    read = reader.read_items(tmp_path / "x" / "items.parquet", "{title} {price}")
    assert read["text"].to_list() == ["Anvil", "Bell 3.5"]


@pytest.mark.parametrize("time", ["2017-07-14T0٢:40:00", "2017-07-1٤", "٢٠١٧-07-14"])
def test_a_date_with_digits_of_another_script_is_named(tmp_path, time):
    write_dataset(tmp_path / "x", EVENTS | {"timestamp": ["2017-07-14T02:40:00"] * 3 + [time]}, ITEMS, suffix=".csv")
    assert f"a row has '{time}'" in refusal(tmp_path / "x", tmp_path)
