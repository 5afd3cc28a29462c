"""Read delimited text with any separator, encoding, line end or quoting, and with RecBole's typed headers.

`dialect` detects how a file is written; `scan` reads it with every value as text, so that the id 007 stays 007.
"""

from __future__ import annotations

import csv
import io
import mmap
import re
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from gzip import BadGzipFile
from gzip import decompress as gunzip
from pathlib import Path
from typing import Any

import polars as pl

from harness.data import data_files, quotes
from harness.data.quotes import Content
from harness.system import decoding
from harness.types import HarnessError

SEPARATORS = {",": "comma-separated", "\t": "tab-separated", ";": "semicolon-separated", "|": "pipe-separated"}
USUAL = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t"}
HEAD = 1 << 16  # the header ends within these bytes
TYPED = re.compile(r"(.+):(token|token_seq|float|float_seq)")  # RecBole's atomic files
KINDS = {"token_seq": pl.String(), "float": pl.Float64(), "float_seq": pl.List(pl.Float64())}
NUMBERS = ("timestamp", "order", "rating")
DECIMAL_COMMA = r"^\s*[+-]?(?:\d+,(?:\d{1,2}|\d{4,})|(?:0|\d{4,}),\d{3})\s*$"  # not 1,505: maybe a thousands separator
BINARY = {b"PAR1": "Parquet", b"PK\x03\x04": "zip or Excel", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written.

    `quote`: the quote character, None if quotes are plain characters. `escaped`: a quote in a quoted value is `\\"`, as
    Spark writes it, not `""`. `old_mac`: a bare carriage return ends a line. `blank`: some lines have no value.
    `swallows`: quotes that join lines, each with as many values as a row: plain characters, or a fault. `joins`: some
    line within a quoted value has as many values as a row. `plain`: polars can read the file unchanged. `empty`: it has
    no bytes. `skip`: number of lines before the header. `types`: column -> RecBole's type. `twice`: names of several
    columns. `form`, `traits`: the separator and other properties that the file name does not show, in words.
    """

    separator: str = ","
    quote: str | None = '"'
    escaped: bool = False
    swallows: bool = False
    joins: bool = False
    old_mac: bool = False
    blank: bool = False
    plain: bool = True
    empty: bool = False
    skip: int = 0
    types: dict[str, str] = field(default_factory=dict)
    twice: tuple[str, ...] = ()
    form: str = ""
    traits: tuple[str, ...] = ()


def scan(path: Path) -> pl.LazyFrame:
    """Return the non-blank rows of a delimited file; every column is text.

    Raises HarnessError if the file is not delimited text; errors of polars are raised when the rows are collected.
    """
    style = dialect(path)
    frame = _scanned(path, style)
    if style.blank:
        frame = frame.filter(~pl.all_horizontal(pl.all().str.strip_chars().fill_null("") == ""))
    if style.separator == ";":
        names = [name for name in frame.collect_schema() if name in NUMBERS]
        frame = frame.with_columns(map(_with_point, names))
    return frame


def kinds(path: Path) -> pl.Schema:
    """Return column -> type: RecBole's, or inferred from the first rows. Raises as `scan` does."""
    style = dialect(path)
    schema = _scanned(path, style, infer=True).collect_schema()
    declared = {name: KINDS[kind] for name, kind in style.types.items() if kind in KINDS}
    return pl.Schema({name: declared.get(name, kind) for name, kind in schema.items()})


def _scanned(path: Path, style: Dialect, *, infer: bool = False) -> pl.LazyFrame:
    frame = pl.scan_csv(
        path if style.plain else _rewritten(path, style),
        separator=style.separator,
        quote_char=style.quote,
        skip_lines=style.skip,
        infer_schema=infer,
        glob=False,
    )
    return frame.rename({f"{name}:{kind}": name for name, kind in style.types.items()})


def _with_point(name: str) -> pl.Expr:
    value = pl.col(name)
    pointed = value.str.replace(",", ".", literal=True)
    return pl.when(value.str.contains(DECIMAL_COMMA)).then(pointed).otherwise(value).alias(name)


def dialect(path: Path) -> Dialect:
    """Detect how a delimited file is written; cached until its size or modification time changes.

    Raises HarnessError if it is binary, truncated or not text, or if a quote in an unquoted value would join rows.
    """
    stat = path.stat()
    return _dialect(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _dialect(path: Path, size: int, mtime_ns: int) -> Dialect:
    data, traits = _content(path)
    head = bytes(data[:HEAD])
    old_mac = b"\r" in head.partition(b"\n")[0].removesuffix(b"\r")
    lines = _lines(head)
    skip, separator = _before_header(lines)
    if "\0" in lines[skip]:
        raise HarnessError(f"{path} is not a text file; its first line contains NUL bytes. Write it as UTF-8 text.")
    if "\ufffd" in lines[skip] and (bad := _invalid(bytes(data))):
        raise HarnessError(f"{path}: {bad}")
    usual = USUAL.get(data_files.kind(path), ",")
    separator = separator or _separator(lines[skip], usual)
    fields = _fields(lines[skip], separator)
    types = _types(fields)
    quote, escaped = quotes.quoting(data, separator)
    separators = lines[skip].count(separator)
    swallows = not escaped and quotes.swallows(data, separator, separators)
    if quote and (bad := quotes.unpaired(data, separator, escaped=escaped)):
        if separator != "\t" or escaped:
            raise HarnessError(f"{path}: {bad}")
        swallows = True
    quote = None if swallows and separator == "\t" else quote
    traits = [*["RecBole types in the header"] * bool(types), *traits]
    traits += [*["carriage returns as line ends"] * old_mac, *["backslash-escaped quotes"] * escaped]
    traits += ["quotes as plain characters"] if quote is None else []
    traits += ["quotes that may join rows by mistake"] if quote and swallows else []
    return Dialect(
        separator=separator,
        quote=quote,
        escaped=escaped,
        swallows=swallows,
        joins=bool(quote and not escaped and next(quotes.joined(data, separator, separators), None)),
        old_mac=old_mac,
        blank=old_mac or _has_blank(data, separator),
        plain=isinstance(data, mmap.mmap) and not (old_mac or escaped),
        empty=not len(data),
        skip=skip,
        types=types,
        twice=_twice(fields),
        form=SEPARATORS[separator] if separator != usual else "",
        traits=tuple(traits),
    )


def _content(path: Path) -> tuple[Content, list[str]]:
    """Return a file's text in UTF-8, memory-mapped if no conversion was needed, and the conversions in words.

    Raises HarnessError if the file is binary or damaged.
    """
    named = path.name.lower().endswith(".gz")
    data = _mapped(path)
    traits = ["no compression"] if named and data[:2] != GZIP else []
    if data[:2] == GZIP:
        data = _gunzipped(path, data)
        traits += [] if named else ["gzip compression"]
    head = bytes(data[:HEAD])
    for magic, name in (*BINARY.items(), (GZIP, "gzip")):
        if head.startswith(magic):
            raise HarnessError(f"{path} contains {name} data, not delimited text. Unpack or rename it.")
    codec, _ = decoding.encoding(head)
    if codec != "utf-8":
        return decoding.decoded(path, bytes(data)).encode("utf-8"), [*traits, f"{decoding.name(codec)} encoding"]
    return data, traits


def _mapped(path: Path) -> Content:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def _gunzipped(path: Path, data: Content) -> bytes:
    try:
        return gunzip(data)
    except (EOFError, BadGzipFile, zlib.error) as error:
        reason = "it is truncated" if isinstance(error, EOFError) else "it is damaged"
        raise HarnessError(f"{path} cannot be decompressed: {reason}. Copy or write the file again.") from None


def _lines(head: bytes) -> list[str]:
    return decoding.LINE_END.sub("\n", head.decode("utf-8", "replace").lstrip("\ufeff")).split("\n")


def _before_header(lines: list[str]) -> tuple[int, str]:
    """Return the number of lines before the header, and the separator if one of them is Excel's line `sep=;`."""
    separator = ""
    for place, line in enumerate(lines[:-1]):
        if (match := re.fullmatch(r"sep=(.)", line.strip('\n" '))) and match[1] in SEPARATORS:
            separator = match[1]
        elif line.strip():
            return place, separator
    return len(lines) - 1, separator


def _separator(header: str, usual: str) -> str:
    """Return the separator with which the header has a column item_id, otherwise the one with most columns.

    If several qualify, `usual` is preferred.
    """
    fields = {separator: _fields(header, separator) for separator in (usual, *SEPARATORS)}
    named = [s for s, names in fields.items() if {"item_id", "item_id:token"} & set(names)]
    return named[0] if named else max(fields, key=lambda separator: len(fields[separator]))


def _fields(header: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([header], delimiter=separator), [])
    except csv.Error:
        return header.split(separator)


def _types(names: list[str]) -> dict[str, str]:
    """Return column -> type of a RecBole header; empty for other headers."""
    types = {match[1]: match[2] for name in names if (match := TYPED.fullmatch(name))}
    bare = [TYPED.sub(r"\1", name) for name in names]
    return types if "item_id" in types and len(set(bare)) == len(bare) else {}


def _has_blank(data: Content, separator: str) -> bool:
    blank = rb"\n[\s" + re.escape(separator.encode()) + rb"]"
    return bool(re.search(blank + rb"*\n", data) or re.search(blank + rb"+\Z", bytes(data[-HEAD:])))


def _rewritten(path: Path, style: Dialect) -> bytes:
    """Return the file as UTF-8 with `\\n` between lines and doubled quotes."""
    data = bytes(_content(path)[0])
    if style.old_mac:
        inner = quotes.ESCAPED if style.escaped else quotes.DOUBLED
        line_end = quotes.opens(style.separator) + rb'"(?:' + inner + rb')*+"|\r+\n?'
        data = re.sub(line_end, lambda match: b"\n" if match[0][:1] == b"\r" else match[0], data)
    return quotes.doubled(data, style.separator) if style.escaped else data


def fault(path: Path) -> str:
    """Return why a delimited file cannot be read, with the line; "" if no fault is found."""
    style, data = dialect(path), bytes(_content(path)[0])
    if bad := _invalid(data):
        return bad
    text = (data if style.plain else _rewritten(path, style)).decode("utf-8-sig")
    quoting = csv.QUOTE_MINIMAL if style.quote else csv.QUOTE_NONE
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    for strict in (False, True):  # rows with too many values first: polars accepts most malformed quotes
        lines = io.StringIO(text, newline="\n")
        if odd := _odd_row(lines, style.skip, delimiter=style.separator, quoting=quoting, strict=strict):
            return odd
    return quotes.stray(data, style.separator)


def _twice(names: list[str]) -> tuple[str, ...]:
    bare = [TYPED.sub(r"\1", name) for name in names]
    return tuple(name for name in dict.fromkeys(bare) if bare.count(name) > 1)


def joined(path: Path, column: str) -> tuple[list[str], int]:
    """Return the values of `column` in lines within quoted values that have as many values as a row, and all lines.

    The values are empty if there are no such lines.
    """
    style = dialect(path)
    if not style.joins:
        return [], 0
    data = _content(path)[0]
    header = _lines(bytes(data[:HEAD]))[style.skip]
    place = [TYPED.sub(r"\1", name) for name in _fields(header, style.separator)].index(column)
    rows = quotes.joined(data, style.separator, header.count(style.separator))
    values = [row[place].decode("utf-8", "replace").strip('" \r') for row in rows]
    return values, bytes(data).count(b"\n")


def _invalid(data: bytes) -> str:
    """Return why the bytes are not valid UTF-8; "" if they are."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return decoding.invalid_utf8(data, error.start)
    return ""


def _odd_row(lines: io.StringIO, skip: int, **how: Any) -> str:
    """Describe the first row, after `skip` lines, with more values than the header has names or unmatched quotes."""
    for _ in range(skip):
        lines.readline()
    rows, header, first = csv.reader(lines, **how), 0, skip + 1
    try:
        for row in rows:
            if header and len(row) > header:
                remedy = "Put values that contain the separator in quotes."
                return f"line {first:,} has {len(row):,} values, but the header has {header:,} names. {remedy}"
            header, first = header or len(row), skip + rows.line_num + 1
    except csv.Error as error:
        if "new-line character" in str(error):
            return f"line {first:,} contains a bare carriage return. End every line with \\n or \\r\\n."
        if "end of data" in str(error):
            return f"line {first:,} opens a quote that does not close. Close it, or double quotes inside a value."
        return f"line {first:,} cannot be read: {error}."
    return ""
