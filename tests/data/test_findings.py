"""Doubtful ids, times and texts: examples of each kind, and similar values that are fine."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from harness.data.findings import Finding, clocks, ids, titles

NOW = 1_700_000_000.0
TIMES = np.sort(np.random.default_rng(0).integers(1_400_000_000, 1_600_000_000, 2000))
DATES = [datetime.fromtimestamp(time, UTC) for time in TIMES]
DAYS = TIMES // 86_400


def spelt(*found: str) -> list[tuple[str, str, int]]:
    values = pl.Series("id", found)
    return [(f.name.removeprefix("user_id that differ "), f.level, f.count) for f in ids.spellings(values, "user_id")]


@pytest.mark.parametrize(
    ("one", "other", "family", "level"),
    [
        ("caf\u00e9", "cafe\u0301", "in Unicode form", "error"),
        ("u7", "\uff55\uff17", "in Unicode form", "error"),
        ("fix", "\ufb01x", "in Unicode form", "error"),
        ("a-b", "a\u2011b", "in Unicode form", "error"),
        ("o'b", "o\u2019b", "in Unicode form", "error"),
        ("u1", "\ufeffu1", "in invisible characters", "error"),
        ("u1", "u\u00ad1", "in invisible characters", "error"),
        ("u1", "u1\u200b", "in invisible characters", "error"),
        ("u1", "\u200eu1", "in invisible characters", "error"),
        ("u1", "u\u20601", "in invisible characters", "error"),
        ("u1", "u1\ufe0f", "in invisible characters", "error"),
        ("u1", "u1\x00", "in invisible characters", "error"),
        ("u1", "u1\u00a0", "in blanks", "error"),
        ("u1", "\u3000u1", "in blanks", "error"),
        ("a b", "a\u00a0b", "in blanks", "error"),
        ("Abc", "aBC", "in case", "warning"),
        ("7", "+7", "as numbers", "warning"),
        ("7", "7E+0", "as numbers", "warning"),
        ("7", "7.0", "as numbers", "warning"),
        ("7", "007", "as numbers", "warning"),
        ("7", "7.", "as numbers", "warning"),
        ("7", "70e-1", "as numbers", "warning"),
        ("0", "-0", "as numbers", "warning"),
        (".5", "0.50", "as numbers", "warning"),
        ("1000", "1,000", "as numbers", "warning"),
        ("1234567890123456789", "01234567890123456789", "as numbers", "warning"),
    ],
)
def test_two_spellings_of_one_id_are_reported_once_under_their_smallest_difference(one, other, family, level):
    assert spelt(one, other, "v", "w") == [(family, level, 2)]


@pytest.mark.parametrize(
    "innocent",
    [
        ["12345678901234567890", "12345678901234567891"],
        ["1e400", "9e400"],
        ["a.0", "a"],
        ["B00", "B0"],
        ["10", "1", "100"],
        ["7.5", "7.05"],
        ["\u00e9", "e"],
        ["stra\u00dfe", "strase"],
    ],
)
def test_ids_that_differ_in_more_than_their_spelling_pass(innocent):
    assert spelt(*innocent) == []


def test_differences_add_up_from_one_step_to_the_next_and_no_pair_is_reported_twice():
    assert spelt("Abc", "abc", "ABC ", "x", "y") == [("in case", "warning", 3)]
    found = list(ids.spellings(pl.Series(["7", "7 ", "\uff17", "7.0"]), "item_id"))
    assert [(f.name, f.count) for f in found] == [
        ("item_id that differ in blanks", 2),
        ("item_id that differ in Unicode form", 3),
        ("item_id that differ as numbers", 4),
    ]
    assert "counted as 4, they may be 1" in found[-1].says
    assert found[1].examples == ("'7'", "'7 '", "'\\uff17'")


@pytest.mark.parametrize(
    ("values", "count"),
    [
        (["1.67E+10", "1e+5", "7"], 2),
        (["1.67E+10", "8", "7"], 0),
        (["1E5", "12E+3", "1.5"], 0),
        (["3e+12f", "b1e+5"], 0),
    ],
)
def test_ids_in_scientific_notation_are_found_if_most_are(values, count):
    found = ids.rounded(pl.Series(values), "user_id")
    assert [(f.name, f.level, f.count) for f in found] == [("user_id in scientific notation", "warning", count)] * bool(
        count
    )


def test_invisible_characters_are_named_by_their_code_points():
    (found,) = ids.marked(pl.Series(["\ufeffu1", "u\u200b2", "u3"]), "user_id")
    assert (found.name, found.count, found.total) == ("invisible characters in user_id", 2, 3)
    assert "U+200B, U+FEFF" in found.says
    assert found.examples == ("'\\ufeffu1'", "'u\\u200b2'")


MISSING = (
    "nan NaN -nan None NULL null NA N/A n/a n.a. <NA> #N/A NaT nil undefined unknown (null) -1 -1.0 -999 inf ? - -- \\N"
)
BLANK = ["  ", "\u200b", "'nan'", "None ", "00000000-0000-0000-0000-000000000000", "not available"]


@pytest.mark.parametrize("word", [*MISSING.split(" "), *BLANK])
def test_a_placeholder_id_is_counted_by_its_events(word):
    (found,) = ids.missing(pl.Series(["u1", word, "u2"]), lambda: np.array([5, 7, 8]), "item_id")
    assert (found.name, found.level, found.count, found.total) == ("placeholder item_id", "warning", 7, 20)
    (found,) = ids.missing(pl.Series(["u1", word]), lambda: np.array([5, 0]), "item_id")
    assert (found.count, found.total, found.unit) == (1, 2, "items")


@pytest.mark.parametrize("word", ["Nan Goldin", "nana", "NAB", "u-1", "10", "0", "Nona", "x?", "NULL1", "1", "-10"])
def test_an_id_that_only_resembles_a_placeholder_passes(word):
    assert not list(ids.missing(pl.Series(["u1", word]), lambda: np.array([5, 7]), "user_id"))


def at(times: object) -> list[Finding]:
    return clocks.find(np.asarray(times), NOW)


def one(times: object) -> Finding:
    (found,) = at(times)
    return found


@pytest.mark.parametrize("step", [2, 10, 64, 100, 128, 1000, 10_000, 1_000_000])
@pytest.mark.parametrize("offset", [0, 1])
def test_a_rounded_clock_is_detected_by_the_grid_of_its_times(step, offset):
    found = one(TIMES // step * step + offset)
    assert (found.name, found.level, found.count) == ("rounded clock", "warning", 2000)
    assert f"multiples of {step:,} s{' plus 1 s' * offset}:" in found.says


@pytest.mark.parametrize(
    ("times", "step"),
    [
        (TIMES.astype(np.float32).astype(np.int64), "128"),
        (TIMES.astype(np.float32).astype(np.float64), "128"),
        ([float(f"{time:.5e}") for time in TIMES], "10,000"),
        (TIMES // 60 * 60, "60"),
        (TIMES // 900 * 900, "900"),
        (TIMES // 3600 * 3600, "3,600"),
        (TIMES // 3600 * 3600 + 1234, "3,600 s plus 1,234"),
        (np.where(np.arange(2000) % 10 == 0, TIMES, TIMES // 100 * 100), "100"),
    ],
)
def test_every_kind_of_rounding_is_reported(times, step):
    found = one(times)
    assert found.name == "rounded clock"
    assert f"multiples of {step} s" in found.says


@pytest.mark.parametrize("offset", [0, -19_800, 17])
def test_midnight_of_any_time_zone_is_day_resolution(offset):
    found = one(DAYS * 86_400 + offset)
    assert (found.name, found.level, found.count) == ("day resolution", "info", 2000)
    assert ("at midnight" if not offset else f"{offset % 86_400:,} s past midnight UTC") in found.says


def test_summer_time_has_two_midnights():
    summer = np.array([3 < date.month < 11 for date in DATES])
    found = one(DAYS * 86_400 - np.where(summer, 7200, 3600))
    assert found.name == "day resolution"
    assert "79,200 or 82,800 s" in found.says


@pytest.mark.parametrize("times", [TIMES, TIMES + 0.25, TIMES[:1] + np.arange(100), TIMES[:1].repeat(50), TIMES[:0]])
def test_a_clock_of_seconds_passes(times):
    assert at(times) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("times", [[1e300, -1e300] * 20, [1e19, 5e18] * 20, [-5.0, 0.5] * 20])
def test_extreme_times_do_not_break_the_check(times):
    assert all(finding.level in ("warning", "error") for finding in at(times))


def test_half_an_hour_is_not_reported_as_an_hour():
    assert "multiples of 1,800 s" in one(TIMES // 1800 * 1800).says


@pytest.mark.parametrize(
    ("part", "unit"),
    [
        (lambda times: times * 1000, "milliseconds"),
        (lambda times: times * 10**6, "microseconds"),
        (lambda times: times * 10**9, "nanoseconds"),
        (lambda times: times // 86_400, "days since 1970"),
        (lambda times: times // 60, "minutes since 1970"),
        (
            lambda times: np.array([int(f"{DATES[0]:%Y%m}01"), 20_200_131]).repeat(len(times) // 2 + 1),
            "dates (YYYYMMDD)",
        ),
    ],
)
def test_two_units_of_time_are_an_error_that_counts_both(part, unit):
    times = TIMES.copy()
    times[::4] = part(TIMES[::4])[:500]
    found = one(times)
    assert (found.name, found.level, found.count, found.total) == ("mixed units of time", "error", 500, 2000)
    assert f"1,500 in seconds, 500 in {unit}" in found.says


def test_one_time_in_another_unit_is_enough():
    times = TIMES.copy()
    times[7] *= 1000
    assert one(times).name == "mixed units of time"
    times = TIMES * 1000
    times[7] //= 1000
    assert one(times).name == "mixed units of time"


def dated(pattern: str) -> list[int]:
    return [int(date.strftime(pattern)) for date in DATES]


@pytest.mark.parametrize(
    ("times", "unit", "level"),
    [
        (TIMES * 1000, "milliseconds", "error"),
        (TIMES * 10**6, "microseconds", "error"),
        (TIMES * 10**9, "nanoseconds", "error"),
        (TIMES * 10, "tenths of a second", "warning"),
        (TIMES * 100, "hundredths of a second", "warning"),
        (DAYS, "days since 1970", "warning"),
        (TIMES // 3600, "hours since 1970", "warning"),
        (TIMES // 60, "minutes since 1970", "warning"),
        (dated("%Y"), "years", "warning"),
        (dated("%Y%m"), "months (YYYYMM)", "warning"),
        (dated("%Y%m%d"), "dates (YYYYMMDD)", "warning"),
        (dated("%Y%m%d%H%M"), "dates (YYYYMMDDHHMM)", "warning"),
        (dated("%Y%m%d%H%M%S"), "dates (YYYYMMDDHHMMSS)", "warning"),
        (DAYS + 25_569, "days since 1900", "warning"),
        (TIMES / 86_400 + 2_440_587.5, "Julian days", "warning"),
        ((TIMES + 11_644_473_600) * 10**7, "100-nanosecond ticks since 1601", "warning"),
        ((TIMES + 11_644_473_600) * 10**6, "microseconds since 1601", "warning"),
    ],
)
def test_a_unit_other_than_seconds_is_named(times, unit, level):
    found = one(times)
    assert (found.name, found.level, found.count) == ("unit of time", level, 2000)
    assert unit in found.says


@pytest.mark.parametrize(("value", "name"), [(0, "early times"), (-1, "early times"), (9_999_999_999, "future times")])
def test_one_value_for_missing_times_is_not_a_unit(value, name):
    times = TIMES.copy()
    times[:40] = value
    found = one(times)
    assert (found.name, found.level, found.count) == (name, "warning", 40)


WORDS = [f"A thing of kind {place}" for place in range(50)]
NO_WORDS = {
    "URLs": [
        "https://x.example/{}",
        "//cdn.example/{}.png",
        "www.x.example/{}",
        "s3://bucket/{}",
        "x.example/p/{}",
        "data:image/png;base64,{}",
    ],
    "paths of files": ["images/{}.jpg", "/data/{}", "C:\\shop\\{}", "{}.PNG"],
    "UUIDs": ["550e8400-e29b-41d4-a716-4466554400{:02d}", "{{550e8400-e29b-41d4-a716-4466554400{:02d}}}"],
    "ids": ["i{}", "B0{:08d}", "item_{}", "ab{}Xk9z"],
    "numbers": ["{}", "{}.99", "${}.99", "1,{:03d}"],
    "dates": ["2020-01-{:02d}", "2020-01-{:02d}T10:00:00Z"],
    "emails": ["a{}@b.example"],
    "JSON": ['{{"a": {}}}'],
}


@pytest.mark.parametrize(
    ("kind", "pattern"), [(kind, pattern) for kind, found in NO_WORDS.items() for pattern in found]
)
def test_a_column_without_words_is_rejected_and_reported_as_titles(kind, pattern):
    values = [pattern.format(place) for place in range(50)]
    assert titles.unfit(pl.Series(values)) == kind
    frame = pl.DataFrame({"item_id": [f"x{place}x" for place in range(50)], "text": values, "head": values})
    (found,) = titles.find(frame)
    assert (found.name, found.level, found.count) == ("titles without words", "warning", 50)
    assert kind in found.says


def test_a_constant_or_empty_column_is_not_a_text():
    assert titles.unfit(pl.Series(["shop"] * 20)) == "one value for all"
    assert titles.unfit(pl.Series(["en", "de"] * 20)) == "two values for all"
    assert titles.unfit(pl.Series([None, " ", "\u200b"])) == "empty"
    assert not titles.unfit(pl.Series(WORDS))
    frame = pl.DataFrame({"item_id": ["a", "b"], "text": ["shop", "shop"], "head": ["shop", "shop"]})
    assert [found.name for found in titles.find(frame)] == ["one text"]


def test_titles_that_repeat_the_id_are_reported_and_few_odd_titles_pass():
    frame = pl.DataFrame({"item_id": WORDS, "text": WORDS, "head": WORDS})
    (found,) = titles.find(frame)
    assert "but the item's id" in found.says
    values = ["300", "1984", "B0001", *WORDS]
    frame = pl.DataFrame({"item_id": [str(place) for place in range(53)], "text": values, "head": values})
    assert not list(titles.find(frame))
    values[0] = "https://x.example/1"
    (found,) = titles.find(frame.with_columns(head=pl.Series(values)))
    assert (found.count, found.examples) == (1, ("0 https://x.example/1",))


def test_line_ends_in_a_long_first_field_are_no_fault_but_nul_is():
    texts = ["a\nb", "a\n" + "word " * 60, "word " * 60 + "\x00", "plain"]
    frame = pl.DataFrame({"item_id": list("abcd"), "text": texts, "head": texts})
    (found,) = titles.unseen(frame)
    assert (found.name, found.count) == ("control characters", 2)
    assert found.examples[0] == "a 'a\\nb'"


URLS = [f"https://x.example/{place}" for place in range(50)]


@pytest.mark.parametrize(
    ("columns", "read", "sure"),
    [
        ({"image_url": URLS, "Title": WORDS}, "Title", True),
        ({"brand": WORDS, "TITLE": WORDS}, "TITLE", True),
        ({"brand": WORDS, "Name": WORDS}, "Name", True),
        ({"brand": WORDS, "product_name": WORDS}, "product_name", True),
        ({"brand": WORDS, "productTitle": WORDS}, "productTitle", True),
        ({"product_title": URLS, "name": WORDS}, "name", True),
        ({"name": ["x"] * 50, "product_title": WORDS}, "product_title", True),
        ({"image_url": URLS, "name_en": WORDS}, "name_en", False),
        ({"brand_name": WORDS, "description": WORDS}, "description", False),
        ({"image_url": URLS, "about": WORDS}, "about", False),
        ({"image_url": URLS, "uuid": [f"i{place}" for place in range(50)]}, "", False),
        ({"product name": WORDS}, "", False),
    ],
)
def test_the_column_most_like_a_title_is_read_and_never_one_without_words(columns, read, sure):
    choice = titles.choose(list(columns), lambda name: pl.Series(columns[name]))
    assert (choice.column, choice.sure) == (read, sure)
    assert set(choice.passed) <= set(columns) - {read}
    assert all(f"{name} ({why})" in choice.sentence for name, why in choice.passed.items())
    assert f"read from {read}" in choice.sentence or not read
