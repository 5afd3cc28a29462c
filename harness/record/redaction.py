"""Remove what names a machine from ledger lines before they are published.

Removed: the link to a tracking server, in study files the addresses of servers and clusters, directories of absolute
paths, user and host of URLs with a user, IPv4 addresses. Trials, cells and studies are never touched, because ids are
hashes of them. A changed line gets a new checksum. The result is the same on every machine, and redacting twice changes
nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any

from harness.record import segments

KEPT = {"trial", "cell", "studies", "id", "study", "winner", "params", "text", "spec", "files", "versions"}
# The rest are facts that cannot name a machine but can look like a path or an address.
LINKS = {"tracking"}
_PATH = re.compile(r"(?<![\w.~:/>}-])(?:/(?!/)(?:[^/\s\"'()<>,;:]+/)+|[A-Za-z]:\\(?:[^\\\s\"']+\\)+)")
_QUOTED = re.compile(r"(?<=[\"'])/(?!/)(?:[^/\"',\n]+/)+")  # blanks are part of a quoted path
_FILE = re.compile(r"(?:(?<=file:)//+|(?<=sqlite:)//+|(?<=:)/(?!/))(?:[^/\s\"',]+/)+")  # URLs, `st:/folder/x`
_FLAG = re.compile(
    r"(?:(?<=^-[A-Z])|(?<=[\s\"'=,;(]-[A-Z]))/(?!/)(?:[^/\s\"'()<>,;:]+/)+"
)  # of a compiler: `-I/folder/x`
_SERVER = re.compile(r"^(?:tracking|address|artifacts)\s*=[^\n]*[:/][^\n]*(?:\n|\Z)", re.MULTILINE)
_USER = re.compile(r"(?<=://)[^/\s@]+@[^/\s]+")
_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\d.])")


def redact(line: bytes) -> bytes:
    """Return a whole ledger line (without newline) as it may be published."""
    if line.startswith(segments.EPOCH):
        return line
    event = segments.parse(line)
    if event is None:
        return line
    study = event.get("study") if event["kind"] == "launched" else None
    public = _public(event)
    if isinstance(study, str):  # text of a study file, which names data sets by path
        public["study"] = redact_study(study)
    return line if public == event else segments.sealed(public)


def redact_text(text: str) -> str:
    """Return the text without directories of absolute paths, users of URLs and IPv4 addresses.

    >>> redact_text("OSError: /home/ann/data/items.parquet on 10.0.0.7:6379")
    'OSError: .../items.parquet on <address>'
    """
    text = _USER.sub("<host>", text)
    for places in (_QUOTED, _FILE, _FLAG, _PATH):
        text = places.sub(".../", text)
    return _ADDRESS.sub("<address>", text)


def redact_study(text: str) -> str:
    """Return the text of a study file without the options that name a server or a cluster, and redacted as other texts.

    >>> redact_study('address = "head7.lab:6379"\\ntrials = 4\\ntracking = "off"\\n')
    'trials = 4\\ntracking = "off"\\n'
    """
    return redact_text(_SERVER.sub("", text))


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if name not in LINKS or not isinstance(part, str)}
        return {name: part if name in KEPT else _public(part) for name, part in kept.items()}
    if isinstance(value, list):
        return [_public(part) for part in value]
    return redact_text(value) if isinstance(value, str) else value


def leftovers(content: bytes, words: list[str]) -> str:
    """Return the first of `words`, such as the user's home folder, that the content still holds; '' if none."""
    return next((word for word in words if len(word) > 1 and json.dumps(word)[1:-1].encode() in content), "")
