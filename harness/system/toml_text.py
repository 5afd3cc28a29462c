"""Write values as TOML; the standard library only reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def value(content: object) -> str:
    """Format a string, number, truth value, list, or an inline table of strings or other values.

    >>> value({"a": 1, "b c": [True, "x"]}), value(1e-3)
    ('{ "a" = 1, "b c" = [true, "x"] }', '0.001')
    """
    if isinstance(content, bool):
        return str(content).lower()
    if isinstance(content, int | float):
        return repr(content)
    if isinstance(content, Mapping):
        return "{ " + ", ".join(f"{string(str(key))} = {value(part)}" for key, part in content.items()) + " }"
    if isinstance(content, Sequence) and not isinstance(content, str):
        return "[" + ", ".join(map(value, content)) + "]"
    return string(str(content))


def string(text: str) -> str:
    """Format a TOML basic string.

    >>> string('a"b'), string("a\\tb")
    ('"a\\\\"b"', '"a\\\\u0009b"')
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'
