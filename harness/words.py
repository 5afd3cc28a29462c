"""Comma lists of names with brackets, braces and quotes, as selections and options write them."""

from __future__ import annotations

import ast
import re
from typing import Any

from harness.types import HarnessError


def split_list(text: str) -> list[str]:
    """Split a comma list.

    Brackets may hold commas, braces are alternatives as in a shell, and double quotes keep a part unchanged.

    >>> split_list("id, mlp[hidden=256,dropout=0.1]")
    ['id', 'mlp[hidden=256,dropout=0.1]']
    >>> split_list("ml-100k,amazon2014-{beauty,toys}")
    ['ml-100k', 'amazon2014-beauty', 'amazon2014-toys']
    >>> split_list('minilm,file:"runs, old/E.npy"')
    ['minilm', 'file:runs, old/E.npy']
    """
    hidden, kept = _without_quoted(text)
    return [_restored(word, kept) for word in _words(hidden)]


def quoted(word: str) -> str:
    """Quote a word for a comma list, if it needs quotes.

    >>> quoted("file:a,b.npy"), quoted("mlp[hidden=256,dropout=0.1]")
    ('"file:a,b.npy"', 'mlp[hidden=256,dropout=0.1]')
    """
    return word if split_list(word) == [word] else f'"{word}"'


def unquoted(word: str) -> str:
    """Unquote a comma list of one word; return any other text unchanged.

    >>> unquoted('file:"a,b.npy"'), unquoted("file:a,b.npy")
    ('file:a,b.npy', 'file:a,b.npy')
    """
    words = split_list(word)
    return words[0] if len(words) == 1 else word


def _without_quoted(text: str) -> tuple[str, list[str]]:
    """Replace double-quoted parts outside brackets by their numbers between NULs; returns the text and the parts."""
    hidden, kept, depth, place = "", [], 0, 0
    while place < len(text):
        char = text[place]
        depth += (char == "[") - (char == "]")
        end = text.find('"', place + 1) if char == '"' and depth <= 0 else -1
        if end >= 0:
            hidden += f"\0{len(kept)}\0"
            kept.append(text[place + 1 : end])
            place = end
        else:
            hidden += char
        place += 1
    return hidden, kept


def _restored(word: str, kept: list[str]) -> str:
    return re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])] if int(match[1]) < len(kept) else match[0], word)


def _words(text: str) -> list[str]:
    return [word for part in _split(text) for word in _alternatives(part)]


def _alternatives(word: str) -> list[str]:
    """Expand a pair of braces that holds a comma; without one, return the word itself."""
    braces = re.fullmatch(r"([^{}]*)\{([^{}]*,[^{}]*)\}(.*)", word)
    if braces is None:
        return [word]
    return [end for middle in braces[2].split(",") for end in _alternatives(f"{braces[1]}{middle.strip()}{braces[3]}")]


def _split(text: str) -> list[str]:
    words, depth = [""], 0
    for char in text:
        depth += (char in "[{") - (char in "]}")
        if char == "," and depth <= 0:
            words.append("")
        else:
            words[-1] += char
    return [word.strip() for word in words if word.strip()]


def split_overrides(word: str) -> tuple[str, dict[str, Any]]:
    """Split a name from the parameters fixed in its brackets. Raises HarnessError for a malformed bracket.

    >>> split_overrides("mlp[hidden=256,activation=relu]")
    ('mlp', {'hidden': 256, 'activation': 'relu'})
    """
    name, bracket, rest = word.partition("[")
    if not bracket:
        return word, {}
    if not rest.endswith("]"):
        raise HarnessError(f"'{word}': the bracket is not closed. Write {name}[parameter=value].")
    return name, dict(pairs(rest[:-1], f"'{word}':"))


def check_once(word: str) -> None:
    """Raise HarnessError if the brackets of a word fix a parameter twice."""
    names = [name for name, _ in pairs(word.partition("[")[2].removesuffix("]"), f"'{word}':")]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise HarnessError(f"'{word}' fixes {twice} twice; keep one of its values.")


def pairs(text: str, where: str) -> list[tuple[str, Any]]:
    """Read a comma list of parameter=value. Raises HarnessError, with `where`, for anything else.

    >>> pairs("train.d=16,train.loss=bce", "--set")
    [('train.d', 16), ('train.loss', 'bce')]
    """
    found = []
    for pair in _words(text):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise HarnessError(f"{where} '{pair}' is not parameter=value.")
        found.append((name.strip(), _value(value.strip())))
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text.lower(), text)
