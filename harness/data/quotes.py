"""Detect how quotes are used in delimited text: doubled, escaped or plain, and where they join rows by mistake."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator

DOUBLED = rb'[^"]++|""'  # inside a quoted value: a quote is doubled
ESCAPED = rb'[^"\\]++|\\[\s\S]|""'  # or escaped

Content = bytes | mmap.mmap


def quoting(data: Content, separator: str) -> tuple[str | None, bool]:
    """Return the quote character, and whether quotes are escaped by backslashes.

    Quotes are taken as doubled unless the file cannot be read that way. Quotes that open and do not close are plain
    characters in tab-separated files, which databases write without quoting.
    """
    suspects = data.find(b'\\"') >= 0 or (separator == "\t" and data.find(b'"') >= 0)
    if not suspects or _well_quoted(data, separator, DOUBLED):
        return '"', False
    if data.find(b'\\"') >= 0 and _well_quoted(data, separator, ESCAPED):
        return '"', True
    return (None if separator == "\t" else '"'), False


def _well_quoted(data: Content, separator: str, inner: bytes) -> bool:
    """Return whether every quote that opens a value also closes, right before a separator or the end of a line."""
    ends = rb"(?=([\r\n" + re.escape(separator.encode()) + rb"]|\Z)?)"
    quoted = re.compile(opens(separator) + rb'"(?:' + inner + rb')*+("?)' + ends)
    return all(match[1] and match[2] is not None for match in quoted.finditer(data))


def swallows(data: Content, separator: str, separators: int) -> bool:
    """Return whether a quoted value spans lines that all look like rows: with the header's number of separators."""
    mark = separator.encode()
    return any(all(line.count(mark) == separators for line in lines) for lines in _spanned(data, separator))


def joined(data: Content, separator: str, separators: int) -> Iterator[list[bytes]]:
    """Yield the values of each line within a quoted value that looks like a row."""
    mark = separator.encode()
    for lines in _spanned(data, separator):
        yield from (line.split(mark) for line in lines if line.count(mark) == separators)


def _spanned(data: Content, separator: str) -> Iterator[list[bytes]]:
    """Yield the lines of each quoted value of several lines, without the first."""
    if data.find(b'"') >= 0:
        quoted = re.compile(opens(separator) + rb'"((?:' + DOUBLED + rb')*+)"')
        yield from (match[1].split(b"\n")[1:] for match in quoted.finditer(data) if b"\n" in match[1])


def unpaired(data: Content, separator: str, *, escaped: bool = False) -> str:
    """Return a sentence on the first row before the last with an odd number of quotes in unquoted values.

    Polars counts quotes to find the end of a row, so it joins such a row with the next ones. Returns "" if there is
    none, or if the odd quote opens a value: then polars finds the fault.
    """
    if data.find(b'"') < 0:
        return ""
    inner = ESCAPED if escaped else DOUBLED
    pairs = re.compile(rb'(?:[^"]++|' + opens(separator) + rb'"(?:' + inner + rb')*+"|"[^"\r\n]*+")*+')
    place = pairs.match(data).end()  # type: ignore[union-attr]
    last = data.find(b"\n", place) < 0 and data.find(b"\r", place) < 0
    return "" if last or re.compile(opens(separator)).match(data, place) else _stray(data, place)


def stray(data: Content, separator: str) -> str:
    """Return a sentence on the first quote in an unquoted value; "" if there is none."""
    quotes = re.compile(opens(separator) + rb'"(?:' + DOUBLED + rb')*+"|(")')
    return next((_stray(data, match.start()) for match in quotes.finditer(data) if match[1]), "")


def _stray(data: Content, place: int) -> str:
    line = bytes(data[:place]).count(b"\n") + 1
    remedy = "Put the value in quotes and double the quotes inside it."
    return f"line {line:,} has a quote inside an unquoted value. {remedy}"


def opens(separator: str) -> bytes:
    """Return the pattern of the place where a value begins."""
    return rb"(?:(?<=[\r\n" + re.escape(separator.encode()) + rb"])|\A)"


def doubled(data: bytes, separator: str) -> bytes:
    """Return the text with escaped quotes in quoted values turned into doubled ones."""
    return re.sub(opens(separator) + rb'"(?:' + ESCAPED + rb')*+"', _doubled, data)


def _doubled(quoted: re.Match[bytes]) -> bytes:
    return re.sub(rb'\\(["\\])', lambda match: b'""' if match[1] == b'"' else match[1], quoted[0])
