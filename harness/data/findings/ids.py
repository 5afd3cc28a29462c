"""Find ids that are rounded, have two spellings or invisible characters, or stand for a missing value."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from harness.data.findings import ERROR, EXAMPLES, WARNING, Finding, examples

# Control and format characters (BOM, zero-width spaces, soft hyphens, direction marks), line separators, variation
# selectors, fillers.
INVISIBLE = (
    r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\x{034F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{2800}\x{3164}\x{FE00}-\x{FE0F}"
    r"\x{FFA0}]"
)
VISIBLE = rf"[^\s{INVISIBLE[1:]}"
DASHES, QUOTES = r"[\x{2010}-\x{2015}\x{2212}]", r"[\x{2018}\x{2019}\x{02BC}]"
BLANKS, SMALL = r"^\s|\s$|\s\s|[^\S ]", r"\p{Ll}"
ODD_NUMBER = r"^(?:[+-][\d.,]+|0\d[\d.,]*|\d*[.,][\d.,]*|\d+[eE][+-]?\d+|[\d.,+-]+[eE][+-]?\d+)$"
NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
POWER = r"^\d(?:\.\d+)?[eE]\+\d+$"  # as spreadsheets write long numbers
MISSING = (
    r"(?i)^['\x22]?(?:[+-]?nan|nat|none|null|nil|nul|n\.?a\.?|[#<(\[{]?(?:n/a|na|nan|null|none|nil)[>)\]}]?|undefined|"
    r"unknown|missing|empty|anonymous|not[ _](?:available|set)|not a number|1\.#(?:qnan|ind)|\\n|\\\\n|"
    r"[-+]?inf(?:inity)?|-1(?:\.0*)?|-9{2,}(?:\.0*)?|-+|\?+|\.+|_+|#(?:ref|value|name|div/0)[!?]?|\[object object\]|"
    r"0{8}-0{4}-0{4}-0{4}-0{12}|)['\x22]?$"
)
WORDS = {"as numbers": "number format"}
UNSEEN = ("in invisible characters", "in Unicode form")  # differences visible only in escaped text


def spellings(ids: pl.Series, column: str) -> Iterator[Finding]:
    """Find ids, distinct (n,) str of `column`, that differ from another id only in spelling.

    Each pair is reported once, under the first step that makes it equal: blanks, invisible characters, Unicode form,
    case, number format.
    """
    frame, distinct = pl.DataFrame({"id": ids, "key": ids}), len(ids)
    for name, level, pattern, step in STEPS:
        hit = frame["key"].str.contains(pattern)
        if not hit.any() or (name == "in case" and not frame["key"].str.contains(SMALL).any()):
            continue
        changed = frame.filter(hit).with_columns(coarse=step)
        coarse = pl.concat([changed, frame.filter(~hit).with_columns(coarse="key")])
        before, distinct = distinct, coarse["coarse"].n_unique()
        frame = coarse.select("id", key="coarse")
        if distinct < before:
            yield _spelt(coarse, len(ids), column, name, level)


def _spelt(coarse: pl.DataFrame, total: int, column: str, name: str, level: str) -> Finding:
    """Return the finding on ids with different `key` and equal `coarse` key."""
    several = coarse.filter(pl.col("coarse").is_duplicated())
    several = several.filter(pl.col("key").n_unique().over("coarse") > 1).sort("coarse", "id")
    one, units = several["coarse"].n_unique(), f"{column.removesuffix('_id')}s"
    words = WORDS.get(name, name.removeprefix("in "))
    says = f"{units} whose ids differ only in {words}: counted as {several.height:,}, they may be {one:,}"
    remedy = f"If they are the same, write {column} in one way everywhere."
    shown = several["id"].head(EXAMPLES).to_list()
    who = examples(map(ascii, shown) if name in UNSEEN else shown)
    return Finding(f"{column} that differ {name}", level, several.height, total, units, says, remedy, who)


def _number(key: pl.Expr) -> pl.Expr:
    """Return the id with numbers in plain form: 007, +7, 7.0, 7E+0 and 7. become 7, 1,000 becomes 1000.

    Digits are compared as text, so ids of more than 15 digits stay distinct.
    """
    plain = pl.when(key.str.contains(r"^[+-]?\d{1,3}(,\d{3})+$")).then(key.str.replace_all(",", "")).otherwise(key)
    short = plain.str.replace(r"^\+", "").str.replace(r"^(-?)0+(\d)", "${1}${2}")
    short = short.str.replace(r"^(-?\d+)\.0*$", "${1}").str.replace(r"^(-?\d*\.\d*?[1-9])0+$", "${1}")
    short = short.str.replace(r"^(-?)\.", "${1}0.").str.replace("^-0$", "0")
    power = plain.str.contains(r"[eE]")
    value = plain.cast(pl.Float64, strict=False)
    whole = value.is_finite() & (value == value.floor()) & (value.abs() < 2**53)
    exact = pl.when(whole).then(pl.when(whole).then(value).cast(pl.Int64, strict=False).cast(pl.String))
    exact = exact.otherwise(pl.when(value.is_finite()).then(value.cast(pl.String)).otherwise(plain))
    return pl.when(plain.str.contains(NUMBER)).then(pl.when(power).then(exact).otherwise(short)).otherwise(key)


FORM = pl.col("key").str.normalize("NFKC").str.replace_all(DASHES, "-").str.replace_all(QUOTES, "'").str.strip_chars()
STEPS = [  # name, level, pattern of keys that may change, coarser key computed from the previous step's key
    ("in blanks", ERROR, BLANKS, pl.col("key").str.strip_chars().str.replace_all(r"\s+", " ")),
    ("in invisible characters", ERROR, INVISIBLE, pl.col("key").str.replace_all(INVISIBLE, "").str.strip_chars()),
    ("in Unicode form", ERROR, r"[^\x00-\x7F]", FORM),
    ("in case", WARNING, r"\p{Lu}", pl.col("key").str.to_lowercase()),
    ("as numbers", WARNING, ODD_NUMBER, _number(pl.col("key"))),
]


def marked(ids: pl.Series, column: str) -> Iterator[Finding]:
    """Find ids, distinct (n,) str, with surrounding blanks or invisible characters."""
    units = f"{column.removesuffix('_id')}s"
    blank = ids.filter(ids.str.strip_chars() != ids)
    if len(blank):
        says, remedy = f"{units} whose id starts or ends with blanks", f"Strip {column} in both files."
        yield Finding(f"blanks in {column}", WARNING, len(blank), len(ids), units, says, remedy, examples(blank))
    unseen = ids.filter(ids.str.strip_chars().str.contains(INVISIBLE))
    if len(unseen):
        points = ", ".join(f"U+{ord(point):04X}" for point in _points(unseen))
        says = f"{units} whose id has invisible characters ({points})"
        remedy = f"Remove them from {column} in both files; U+FEFF at the start of a file is its byte order mark."
        name = f"invisible characters in {column}"
        who = examples(map(ascii, unseen.head(EXAMPLES)))
        yield Finding(name, WARNING, len(unseen), len(ids), units, says, remedy, who)


def _points(texts: pl.Series) -> list[str]:
    """Return the distinct invisible characters in the texts."""
    return texts.str.extract_all(INVISIBLE).explode().drop_nulls().unique().sort().to_list()


def missing(ids: pl.Series, events: Callable[[], np.ndarray], column: str) -> Iterator[Finding]:
    """Find ids, distinct (n,) str, that stand for a missing id, such as nan or NULL.

    `events` returns the number of events of each id, (n,).
    """
    plain = ids.str.strip_chars()
    if plain.str.contains(INVISIBLE).any():
        plain = plain.str.replace_all(INVISIBLE, "").str.strip_chars()
    stands = plain.str.contains(MISSING)
    if not stands.any():
        return
    noun, who = column.removesuffix("_id"), examples(ids.filter(stands))
    per_id = events()  # called only when needed: with many events, counting takes longer than everything else
    count, total, unit = int(per_id[stands.to_numpy()].sum()), int(per_id.sum()), "events"
    if not count:  # only the items file has it
        count, total, unit = int(stands.sum()), len(ids), f"{noun}s"
    says = f"{unit} whose {column} looks like a missing value; all events with it count as one {noun}"
    remedy = f"Drop them, or fill in the real {column}."
    yield Finding(f"placeholder {column}", WARNING, count, total, unit, says, remedy, who)


def rounded(ids: pl.Series, column: str) -> Iterator[Finding]:
    """Find ids, distinct (n,) str, in scientific notation, if most are: spreadsheets write long numbers so."""
    hit = ids.str.contains(POWER)
    if hit.sum() > len(ids) / 2:
        units, who = f"{column.removesuffix('_id')}s", examples(ids.filter(hit))
        says = f"{units} whose id is in scientific notation: digits may be lost, and different {units} count as one"
        remedy = f"Export {column} as text from the source, not through a spreadsheet."
        yield Finding(f"{column} in scientific notation", WARNING, int(hit.sum()), len(ids), units, says, remedy, who)


def find(ids: pl.Series, events: Callable[[], np.ndarray], column: str) -> list[Finding]:
    """Run all tests of this module; `events` returns the number of events of each id, (n,)."""
    return [*marked(ids, column), *rounded(ids, column), *spellings(ids, column), *missing(ids, events, column)]
