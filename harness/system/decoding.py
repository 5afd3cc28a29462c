"""Decode user-written text: UTF-8, UTF-16 or UTF-32, with or without a byte order mark, any line endings."""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any

from harness.types import HarnessError

BOMS = (  # UTF-32 first: its little-endian mark starts with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LINE_END = re.compile(r"\r+\n?")
ZEROS = {(1, 2, 3): "utf-32-le", (0, 1, 2): "utf-32-be", (1, 3): "utf-16-le", (0, 2): "utf-16-be"}


def encoding(head: bytes) -> tuple[str, int]:
    """Detect the codec of a text and the length of its byte order mark from its first bytes.

    Without a mark, zero bytes in the first two characters indicate UTF-16 or UTF-32: ASCII letters in UTF-8 have none.

    >>> encoding("é".encode("utf-16"))
    ('utf-16-le', 2)
    >>> encoding("item_id".encode("utf-16-be"))
    ('utf-16-be', 0)
    """
    for mark, codec in BOMS:
        if head.startswith(mark):
            return codec, len(mark)
    return ZEROS.get(tuple(place for place, byte in enumerate(head[:4]) if not byte), "utf-8"), 0


def text(path: Path) -> str:
    """Read a small text file without its byte order mark, with line endings `\\n`.

    Raises OSError if it cannot be read, HarnessError with the line number if its bytes are invalid.
    """
    return LINE_END.sub("\n", decoded(path, path.read_bytes()))


def toml(text: str) -> dict[str, Any]:
    """Parse TOML. Raises ValueError if the text is not TOML or its values are nested too deeply."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def decoded(path: Path, data: bytes) -> str:
    """Decode the bytes of the file `path`; keep line endings. Raises HarnessError naming the first invalid line."""
    codec, mark = encoding(data)
    try:
        return data[mark:].decode(codec)
    except UnicodeDecodeError as error:
        if codec == "utf-8":
            raise HarnessError(f"{path}: {invalid_utf8(data, mark + error.start)}") from None
        raise HarnessError(f"{path}: not {name(codec)} text: {error.reason} at byte {mark + error.start:,}.") from None


def name(codec: str) -> str:
    """The usual spelling of a codec.

    >>> name("utf-16-le")
    'UTF-16'
    """
    return "-".join(codec.upper().split("-")[:2])


def invalid_utf8(data: bytes, place: int) -> str:
    """Describe the invalid byte at `place`, with its line and a conversion that may help.

    >>> invalid_utf8(b"item_id,title\\na,caf\\xe9\\n", 19)
    "line 2 is not UTF-8: byte E9, 'é' in cp1252. Convert the file, for example: iconv -f cp1252 -t UTF-8."
    """
    line, byte = data[:place].count(b"\n") + 1, data[place : place + 1]
    codec = "cp1252" if byte not in b"\x81\x8d\x8f\x90\x9d" else "latin-1"  # the five that cp1252 leaves undefined
    shown = byte.decode(codec)
    means = f", '{shown}' in {codec}" if shown.isprintable() else ""
    return (
        f"line {line:,} is not UTF-8: byte {byte.hex().upper()}{means}. Convert the file, for example: "
        f"iconv -f {codec} -t UTF-8."
    )
