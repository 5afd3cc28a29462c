"""Choose the text column, and find titles that are URLs, paths, ids, constant or have invisible characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl

from harness.data.findings import INFO, WARNING, Finding, examples
from harness.data.findings.ids import INVISIBLE

CONTROL = r"[\x00-\x1F\x7F\x{2028}\x{2029}]"  # U+0080 to U+009F count as mojibake
HIDDEN = r"[\x{AD}\x{200B}\x{202A}-\x{202E}\x{2060}-\x{2069}\x{FEFF}]"  # without joiners, which some scripts need
KINDS = [  # name, pattern of the whole text
    ("URLs", r"(?i)^(?:[a-z][a-z0-9+.-]*://|//[\w-]+\.|www\.)\S+$|^data:\w+/|^(?:[\w-]+\.)+[a-z]{2,}/\S+$"),
    ("paths of files", r"(?i)^[^\s]*\.(?:jpe?g|png|gif|webp|svg|bmp|tiff?|mp[34]|wav|html?|php|pdf|json)(?:\?\S*)?$"),
    ("paths of files", r"^(?:[A-Za-z]:\\|\.{0,2}/)[^\s]+$"),
    ("UUIDs", r"(?i)^\{?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\}?$"),
    ("hashes", r"(?i)^(?:0x)?[0-9a-f]{16,}$"),
    ("numbers", r"^[+-]?\p{Sc}?[\d.,\s]*\d[\d.,]*(?:[eE][+-]?\d+)?\s?[%\p{Sc}]?$"),
    ("dates", r"^\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?(?:[T ][\d:.]+\S*)?$|^\d{1,2}[-/.]\d{1,2}[-/.]\d{4}$"),
    ("emails", r"^[^\s@]+@[^\s@]+\.[^\s@]+$"),
    ("ids", r"^(?:[A-Za-z]{0,8}[-_:#]?\d+|(?:[A-Z]{1,4}\d|\d+[A-Z])[A-Z0-9]{4,})$"),
    ("ids", r"^[\w-]*(?:[A-Za-z]\d+[A-Za-z]|\d[A-Za-z]+\d)[\w-]*$"),
    ("JSON", r"^(?:\{.*:.*\}|\[.*\])$"),
]
ANY = ("URLs", "paths of files", "UUIDs")  # a fault even if only one title is of this kind
HALF = 0.5
LONGEST_TITLE = 200  # characters; a longer first field is a description, which may have line ends
MANY = 10  # items; with so many, a column of two values is not a title
NAMES = (  # column names, best first, in lower case, letters and digits only
    *("title", "name", "productname", "producttitle", "itemname", "itemtitle", "movietitle", "booktitle", "gametitle"),
    *("tracktitle", "trackname", "songtitle", "songname", "appname", "articletitle", "displayname", "fullname"),
    *("originaltitle", "headline", "caption", "label", "subject"),
    *("titel", "titre", "titulo", "titolo", "nombre", "nom", "nome", "naam", "bezeichnung"),
)
OTHERS = (  # part of a column name that refers to something other than the item
    r"sub|brand|categor|seller|store|shop|user|author|artist|director|file|image|img|column|nick|host|domain|genre|publi"
)
PROSE = ("description", "productdescription", "summary", "overview", "abstract", "synopsis", "plot", "text", "content")


@dataclass(frozen=True)
class TextColumn:
    """The column read as text if none is called title; `column` is empty if no column is suitable.

    `sure`: its name shows that it is a title. `passed`: rejected column -> reason.
    """

    column: str
    sure: bool
    passed: dict[str, str]

    @property
    def sentence(self) -> str:
        """Return which column is read and which are rejected, as a sentence without full stop."""
        rejected = ", ".join(f"{name} ({why})" for name, why in self.passed.items())
        if not self.column:
            return "no column is called title" + (f", and no other column is suitable: {rejected}" if rejected else "")
        return f"no column is called title: the text is read from {self.column}" + (
            f", not from {rejected}" if rejected else ""
        )


def choose(names: list[str], read: Callable[[str], pl.Series]) -> TextColumn:
    """Choose the column to read as text among the string columns `names`, in file order; `read` returns its values.

    Columns called title or name, in any case, come first, then other titles and names, then descriptions, then the
    rest. URLs, paths, ids, numbers, dates and constant columns are rejected.
    """
    passed: dict[str, str] = {}
    for name in sorted(names, key=_rank):
        if not name.isidentifier():
            passed[name] = "a template cannot name it: rename it"
        elif why := unfit(read(name)):
            passed[name] = why
        else:
            return TextColumn(name, _rank(name) < len(NAMES), passed)
    return TextColumn("", False, passed)


def _rank(name: str) -> int:
    """Return the rank in which a column is tried, by its name; equal ranks are tried in file order."""
    plain = re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name).casefold())
    if plain in NAMES:
        return NAMES.index(plain)
    if re.search("title|name", plain) and not re.search(OTHERS, plain):
        return len(NAMES) + ("title" not in plain)
    return len(NAMES) + (2 if plain in PROSE else 3)


def chosen(choice: TextColumn, items: int) -> Iterator[Finding]:
    """Yield the finding that the text of `items` is read from a column not called title."""
    if not choice.column and not choice.passed:
        return
    remedy = f'Set text = "{{{choice.column or "column"}}}" in dataset.toml, or another template.'
    kind = INFO if choice.sure else WARNING
    yield Finding("text column", kind, items, items, "items", choice.sentence, remedy)


def unfit(values: pl.Series) -> str:
    """Return why a string column (n,) cannot be the items' text, "" if it can."""
    texts = values.drop_nulls().cast(pl.String).str.strip_chars()
    texts = texts.filter(texts.str.replace_all(INVISIBLE, "") != "")
    if not len(texts):
        return "empty"
    if len(values) > 1 and texts.n_unique() == 1:
        return "one value for all"
    if len(values) >= MANY and texts.n_unique() == 2:
        return "two values for all"
    return _kind(texts)


def _kind(texts: pl.Series) -> str:
    """Return the kind (see `KINDS`) of more than half of the texts, "" if they are words."""
    counts: dict[str, int] = {}
    for name, pattern in KINDS:
        counts[name] = counts.get(name, 0) + int(texts.str.contains(pattern).sum())
        if counts[name] > HALF * len(texts):
            return name
    return ""


def find(items: pl.DataFrame) -> Iterator[Finding]:
    """Find faults of titles; columns of `items`: item_id str, `head` and `text` str or null."""
    heads = items.filter(pl.col("head").is_not_null())
    yield from _wordless(heads, items.height)
    texts = items["text"].drop_nulls()
    if len(texts) > 1 and texts.n_unique() == 1:
        says = "items that all have the same text"
        remedy = "Choose other columns: set text in dataset.toml, or use --text."
        yield Finding("one text", WARNING, len(texts), items.height, "items", says, remedy, examples(texts.head(1)))


def _wordless(heads: pl.DataFrame, total: int) -> Iterator[Finding]:
    texts = heads["head"].str.strip_chars()
    masks: dict[str, pl.Series] = {}
    for name, pattern in KINDS:
        hit = texts.str.contains(pattern)
        masks[name] = masks[name] | hit if name in masks else hit
    masks = {"the item's id": texts == heads["item_id"], **masks}
    for name, hit in masks.items():
        count = int(hit.sum())
        if count > HALF * len(texts) or (count and name in ANY):
            says = f"items whose titles are not words but {name}"
            remedy = "Choose another column: set text in dataset.toml, or use --text '{column}'."
            who = examples(
                f"{item} {head}" for item, head in heads.filter(hit).select("item_id", "head").head(3).rows()
            )
            yield Finding("titles without words", WARNING, count, total, "items", says, remedy, who)
            return


def unseen(items: pl.DataFrame) -> Iterator[Finding]:
    """Find invisible characters in texts and control characters: any in titles, in texts except line ends and tabs."""
    text, head = pl.col("text").fill_null(""), pl.col("head").fill_null("")
    broken = head.str.contains(CONTROL) & (head.str.len_chars() <= LONGEST_TITLE)
    control = items.filter(broken | text.str.contains(r"[\x00-\x08\x0E-\x1F\x7F]"))
    hidden = items.filter(text.str.contains(HIDDEN))
    for name, hits, content in (
        ("control characters", control, "a line end, NUL or another control character"),
        ("invisible characters", hidden, "invisible characters, such as U+200B or a soft hyphen"),
    ):
        if hits.height:
            rows = hits.select("item_id", pl.coalesce("head", "text")).head(3).rows()
            field = "title or text" if hits is control else "text"
            says = f"items whose {field} contains {content}, which encoders read"
            who = examples(f"{item} {value!r}" for item, value in rows)
            kind = WARNING if hits is control else INFO
            yield Finding(name, kind, hits.height, items.height, "items", says, "Remove them from the source.", who)
