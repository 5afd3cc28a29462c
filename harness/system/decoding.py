"""Text that people write: UTF-8, UTF-16 or UTF-32, with or without a byte order mark, with any line ends."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from harness.types import HarnessError

BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LINE_END = re.compile(r"\r+\n?")
ZEROS = {(1, 2, 3): "utf-32-le", (0, 1, 2): "utf-32-be", (1, 3): "utf-16-le", (0, 2): "utf-16-be"}


def encoding(head: bytes) -> tuple[str, int]:
    """Codec of a text and the bytes of its byte order mark, from its first bytes.

    Without a mark, zeros around the first two characters show UTF-16 or UTF-32: no letter of ASCII has one in UTF-8.

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
    """A small text file without its byte order mark, all line ends `\\n`.

    Raises OSError if it cannot be read, HarnessError if its bytes are not in the encoding, naming the line.
    """
    return LINE_END.sub("\n", decoded(path, path.read_bytes()))


def decoded(path: Path, data: bytes) -> str:
    """The bytes of the file `path` as text, line ends kept. Raises HarnessError, naming the first bad line."""
    codec, mark = encoding(data)
    try:
        return data[mark:].decode(codec)
    except UnicodeDecodeError as error:
        if codec == "utf-8":
            raise HarnessError(f"{path}: {invalid_utf8(data, mark + error.start)}") from None
        raise HarnessError(f"{path}: not {name(codec)} text: {error.reason} at byte {mark + error.start:,}.") from None


def name(codec: str) -> str:
    """The codec as people write it.

    >>> name("utf-16-le")
    'UTF-16'
    """
    return "-".join(codec.upper().split("-")[:2])


def invalid_utf8(data: bytes, place: int) -> str:
    """Why the byte at `place` is refused, with its line and the conversion that would probably help.

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
