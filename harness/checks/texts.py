"""Check texts: missing, placeholder, duplicate and long ones, and traces of a wrong encoding or a web page."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from harness.checks._base import Facts
from harness.data import plausibility
from harness.data.findings import ERROR, INFO, WARNING, Finding, examples, level, titles

PLACEHOLDER = r"(?i)^(title_\d+|nan|none|null|n/?a|unknown|untitled|no title|not available|[-?.]+)$"
LONG_TITLE = 20  # words; D3 and MiniOneRec drop longer titles
LONG_TEXT = 1000  # characters, about the 256 tokens that MiniLM reads
DUPLICATES = 0.05

# UTF-8 read as latin-1 or cp1252: a first byte and as many bytes of 0x80 to 0xBF as it requires. Sequences of two bytes
# count only with the first bytes of western letters, or twice in a row with those of Cyrillic: CAFÉ™ is no mojibake.
NEXT = "[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
MOJIBAKE = f"[ÃÂ]{NEXT}|(?:[ÐÑ]{NEXT}){{2}}|[à-ï]{NEXT}{{2}}|ð{NEXT}{{3}}"
TAGS = (
    "a|abbr|b|big|body|br|center|div|em|font|h[1-6]|head|hr|html|i|img|li|ol|p|pre|small|span|strong|sub|sup|table|td"
    "|th|tr|u|ul"
)
ENTITY = r"&(?:#\d{2,7}|#[xX][0-9a-fA-F]{2,6}|[a-zA-Z]{2,8}\d{0,2});"
PAGE = (
    r"(?i)<(?:script|style)\b|\bfunction\s*\w*\s*\([^)]*\)\s*\{|\bvar\s+\w+\s*=|\bdocument\.\w+\s*[.(=]"
    r"|!important|@media\b|[.#\w][\w-]*\s*\{\s*[a-z-]+\s*:[^}]*[;}]"
)

PATTERNS = [  # name, regular expression, content, remedy
    ("U+FFFD", "\ufffd", "U+FFFD: characters lost in a wrong encoding", "Read the source as latin-1 or cp1252."),
    ("mojibake", MOJIBAKE, "UTF-8 that was read as latin-1 (Ã© for é)", "Read the source as UTF-8."),
    ("doubled entities", r"&amp;(?:#?\w{2,8});", "HTML entities escaped twice", "Unescape twice."),
    ("entities", ENTITY, "HTML entities", "Unescape them, for example with Python's html.unescape."),
    ("backslash quotes", r'\\"', 'quotes after a backslash (\\")', "Read the source with backslash as escape."),
    ("tags", rf"(?i)</?(?:{TAGS})(?:\s[^<>]*)?/?>", "HTML tags", "Strip the tags."),
    ("page code", PAGE, "CSS or JavaScript of a web page", "Drop these texts or take the field from another source."),
]


def find(facts: Facts) -> Iterator[Finding]:
    """Find faults of the template's texts, and of the titles (its first field), for items with events."""
    items = facts.texts
    if items is None:
        return
    if facts.events is not None:
        items = items.filter(pl.col("item_id").is_in(facts.events.items.implode()))
    choice = facts.raw.choice
    if not facts.raw.text:
        why = "" if choice is None or not choice.passed else f" ({choice.sentence})"
        says = f"there is no text column: adapters that use text cannot be run{why}"
        remedy = "Add a column title, or set text in dataset.toml."
        yield Finding("no text", INFO, items.height, items.height, "items", says, remedy)
        return
    if choice is not None and items.height:
        yield from titles.chosen(choice, items.height)
    yield from titles.find(items)
    yield from titles.unseen(items)
    yield from plausibility.of_fields(facts.raw)
    yield from _missing(items)
    present = items.filter(pl.col("text").is_not_null())
    yield from _titles(present.filter(pl.col("head").is_not_null()), items.height)
    yield from _texts(present, items.height)


def _missing(items: pl.DataFrame) -> Iterator[Finding]:
    for column, noun in (("text", "text"), ("head", "title")):
        lacks = items.filter(pl.col(column).is_null())
        if column == "head":
            lacks = lacks.filter(pl.col("text").is_not_null())
        if lacks.height:
            says = f"items without {noun}" + ("; their embedding is a zero row" if column == "text" else "")
            kind = ERROR if lacks.height == items.height else WARNING
            remedy = "Fill them in, or drop these items with --require-text." if column == "text" else "Fill them in."
            who = examples(lacks["item_id"])
            yield Finding(f"missing {noun}s", kind, lacks.height, items.height, "items", says, remedy, who)


def _titles(named: pl.DataFrame, total: int) -> Iterator[Finding]:
    fake = named.filter(pl.col("head").str.contains(PLACEHOLDER))
    if fake.height:
        says = "items with a placeholder title; encoders give all of them the same meaning"
        shown = examples(f"{item} {head}" for item, head in fake.select("item_id", "head").head(3).rows())
        remedy = "Leave the title empty, so that they count as items without text."
        yield Finding("placeholder titles", WARNING, fake.height, total, "items", says, remedy, shown)
    long = named.filter(pl.col("head").str.count_matches(r"\S+") > LONG_TITLE)
    if long.height:
        says = f"items with a title of more than {LONG_TITLE} words"
        remedy = "Inspect them: page junk and keyword lists hide the name."
        yield Finding("long titles", INFO, long.height, total, "items", says, remedy, examples(long["head"]))


def _texts(present: pl.DataFrame, total: int) -> Iterator[Finding]:
    copies = present.filter(~pl.col("text").is_first_distinct())
    if copies.height:
        says = "items with the same text as an earlier item, hence with the same embedding"
        kind = level(copies.height / total, DUPLICATES)
        remedy = "Add a field to the text (year, brand), or merge the items if they are the same."
        yield Finding("duplicate texts", kind, copies.height, total, "items", says, remedy, examples(copies["text"]))
    long = present.filter(pl.col("text").str.len_chars() > LONG_TEXT)
    if long.height:
        says = f"items with a text of more than {LONG_TEXT:,} characters: encoders of 256 tokens truncate it"
        remedy = "Put the most important fields first in the template, or use an encoder that reads more."
        who = examples(long["item_id"])
        yield Finding("long texts", INFO, long.height, total, "items", says, remedy, who)
    for name, pattern, content, remedy in PATTERNS:
        hits = present.filter(pl.col("text").str.contains(pattern))
        if hits.height:
            place = hits["text"].head(3).str.extract(f"((?s).{{0,20}}(?:{pattern}).{{0,20}})")
            says = f"items whose texts contain {content}"
            yield Finding(name, WARNING, hits.height, total, "items", says, remedy, examples(place))
