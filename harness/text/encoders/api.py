"""An OpenAI-compatible ``/v1/embeddings`` endpoint: ``api:<model>`` or ``api:<model>@<url>``.

Without a URL the base is ``HARNESS_API_BASE``, else https://api.openai.com/v1. The key is read only from the
environment (``HARNESS_API_KEY``, else ``OPENAI_API_KEY``), before the first request, and never written to disk. Each
reply is saved before the next request is sent, so nothing is paid for twice. Requests and replies follow OpenAI's API
reference, "Create embeddings".

Token counts are estimates, because each model has its own tokenizer: one token per three bytes of UTF-8
(`TOKEN_BYTES`). With WordPiece, Amazon Office 2014 has 3.4 bytes per token in titles and 4.2 in descriptions, so costs
are overestimated and texts are cut at ``max_tokens`` too early rather than too late.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from harness.system import networks
from harness.text.encoders._base import Job, TextEncoder, Texts, distinct, spans, whole
from harness.text.encoders._parts import Parts
from harness.types import HarnessError, Json

if TYPE_CHECKING:
    import requests

OPENAI = "https://api.openai.com/v1"
KEYS = ("HARNESS_API_KEY", "OPENAI_API_KEY")
TOKEN_BYTES = 3
BATCH_TOKENS = 100_000  # estimated tokens per request; OpenAI rejects more than 300,000
TIMEOUT = (10, 120)  # seconds to connect, and between two blocks of a reply
REPLY_SECONDS = 600  # limit for a whole reply
REPLY_BYTES = 1 << 28
TRIES = 7  # per request
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between tries: doubled each time, with jitter
MAX_RETRY_AFTER = 600.0  # seconds; a longer Retry-After ends the run
RETRYABLE = (408, 409, 425, 429)  # statuses besides 5xx after which the same request may succeed


@dataclass(frozen=True)
class EncodingCost:
    """Remaining cost: `texts` to send, their estimated `tokens`, `money` in the currency of the price."""

    texts: int
    tokens: int
    money: float


class Api(TextEncoder):
    takes = "a model's name, api:<model> or api:<model>@<url>,"
    keep_seconds = 0.0  # save each reply at once: it is paid for

    def __init__(
        self,
        argument: str,
        home: Path,
        *,
        dimensions: int = 0,
        max_tokens: int = 8191,
        batch: int = 256,
        per_minute: int = 0,
    ) -> None:
        """`dimensions`: requested from the model, 0: its default. `batch`: max texts per request. `per_minute`: max
        requests per minute, 0: no limit. Raises HarnessError."""
        super().__init__(
            argument, home, dimensions=dimensions, max_tokens=max_tokens, batch=batch, per_minute=per_minute
        )
        word = f"{self.name}:{argument}"
        self.dimensions = whole(word, "dimensions", dimensions, 0, 65_536)
        self.max_tokens = whole(word, "max_tokens", max_tokens, 1, 1_000_000)
        self.batch = whole(word, "batch", batch, 1, 2048)
        self.pause = 60 / per_minute if whole(word, "per_minute", per_minute, 0, 1_000_000) else 0.0
        self.model, self.base = _split(argument)

    @property
    def label(self) -> str:
        where = "" if self.base == OPENAI else f"@{urlsplit(self.base).netloc}"
        return f"{self.name}:{Path(self.model).name}{where}{self._shown_options()}"

    def identity(self) -> Json:
        options = {"model": self.model, "base": self.base, "dimensions": self.dimensions, "max_tokens": self.max_tokens}
        return super().identity() | options

    def job(self, distinct: list[str]) -> Job:
        """Raises HarnessError if a key is missing, a reply is invalid, or every try of a request fails."""
        order, lengths = self._order(distinct)
        longest = self.max_tokens * TOKEN_BYTES
        cut = sum(len(text.encode()) > longest for text in order)

        def batches(start: int) -> Iterator[np.ndarray]:
            width, due = self.dimensions, 0.0
            with _session(_key(self.word, self.base)) as session:
                for span in spans(lengths, start, BATCH_TOKENS, self.batch):
                    time.sleep(max(due - time.monotonic(), 0.0))
                    due = time.monotonic() + self.pause
                    rows = self._rows(session, [_cut(text, longest) for text in order[span]], width)
                    width = rows.shape[1]
                    yield rows

        return Job(order, batches, cut, f"{self.max_tokens:,} estimated tokens, {longest:,} bytes")

    def cost(self, texts: Texts, price: float, folder: Path | None = None) -> EncodingCost:
        """Estimate the remaining cost without sending anything.

        `price`: per million tokens. `folder`: that of the rows encoded so far. Raises HarnessError if no item has text.
        """
        order, lengths = self._order(distinct(texts))
        left = lengths[Parts(folder, order).done :] if folder else lengths
        return EncodingCost(len(left), sum(left), sum(left) * price / 1e6)

    def _order(self, texts: list[str]) -> tuple[list[str], list[int]]:
        """Return the texts, longest first, and the estimated tokens of each."""
        order = sorted(texts, key=lambda text: (-len(text.encode()), text))
        return order, [min(-(-len(text.encode()) // TOKEN_BYTES), self.max_tokens) for text in order]

    def _rows(self, session: requests.Session, texts: list[str], width: int) -> np.ndarray:
        """Return the rows of one request, (n, D) float32. `width`: the expected D, 0: any."""
        request: Json = {"model": self.model, "input": texts, "encoding_format": "float"}
        request |= {"dimensions": self.dimensions} if self.dimensions else {}
        try:
            return _parse(self._send(session, request), len(texts), width)
        except _Invalid as error:
            raise HarnessError(f"'{self.word}': {self.base} sent an invalid reply: {error}.") from None

    def _send(self, session: requests.Session, request: Json) -> Any:
        """Return the JSON of a reply after up to `TRIES` tries. Raises HarnessError."""
        for number in range(1, TRIES + 1):
            try:
                return _post(session, f"{self.base}/embeddings", request)
            except _Failed as error:
                message = _hide_keys(str(error))
                if not error.retry or number == TRIES:
                    tries = f" ({number} tries)" if number > 1 else ""
                    kept = " Earlier replies are kept; rerun the command to resume." if error.retry else ""
                    raise HarnessError(f"'{self.word}': {self.base} {message}{tries}.{kept}") from None
                wait = error.wait if error.wait is not None else _backoff(number)
                if wait >= 5:
                    line = f"{self.word}: {message}; waiting {wait:.0f} s (try {number} of {TRIES})."
                    print(line, file=sys.stderr, flush=True)
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")


class _Failed(Exception):
    """Why a request failed. `retry`: the same request may succeed. `wait`: the seconds that the server requests."""

    def __init__(self, reason: str, *, retry: bool, wait: float | None = None) -> None:
        super().__init__(reason)
        self.retry, self.wait = retry, wait


class _Invalid(Exception):
    """Why a reply is invalid."""


def _split(argument: str) -> tuple[str, str]:
    """Return the model name and the base URL without a trailing slash. Raises HarnessError for an invalid URL."""
    model, at, url = argument.partition("@http")
    tail = argument[1:].partition("@")[2]  # a model's name may begin with @
    if not at and any(char in tail for char in ":/."):
        raise HarnessError("api: the part after @ must be a URL that begins with http:// or https://.")
    base = f"http{url}" if at else os.environ.get("HARNESS_API_BASE", "").strip() or OPENAI
    source = "the URL" if at else "HARNESS_API_BASE"
    if any(char in base for char in "@?#"):  # the URL may hold a secret: do not repeat it
        raise HarnessError(f"api: {source} must not contain a user, a password, ? or #; put the key into {KEYS[0]}.")
    try:
        parts = urlsplit(base)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good, parts = False, urlsplit("")
    if not good or not model:
        raise HarnessError(f"api: {source} '{base}' is not a URL such as http://localhost:8000/v1.")
    path = parts.path.rstrip("/").removesuffix("/embeddings")
    return model, f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def _key(word: str, base: str) -> str:
    """Return the key, or "". Raises HarnessError if it is missing, malformed or would be sent unencrypted."""
    name = next((name for name in KEYS if os.environ.get(name, "").strip()), "")
    key = os.environ.get(name, "").strip() if name else ""
    if not key and base == OPENAI:
        raise HarnessError(f"'{word}' needs a key: set {' or '.join(KEYS)}, or HARNESS_API_BASE for your own server.")
    if not key.isascii() or not key.isprintable():
        raise HarnessError(f"'{word}': {name} contains characters that are not allowed in a key.")
    parts = urlsplit(base)
    if key and parts.scheme == "http" and not networks.is_loopback(parts.hostname or ""):
        raise HarnessError(f"'{word}': {name} would be sent unencrypted to {parts.hostname}. Use https, or unset it.")
    return key


def _hide_keys(text: str) -> str:
    """Replace keys by ***: servers may repeat them in their messages."""
    for name in KEYS:
        if key := os.environ.get(name, "").strip():
            text = text.replace(key, "***")
    return text


def _session(key: str) -> requests.Session:
    import requests

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    session = requests.Session()
    session.auth = sign  # a plain header would be overridden by ~/.netrc
    return session


def _post(session: requests.Session, url: str, request: Json) -> Any:
    """Send one request and return the JSON of its reply. Raises _Failed."""
    import requests

    try:
        options: Json = {"timeout": TIMEOUT, "stream": True, "allow_redirects": False}
        with session.post(url, json=request, proxies=networks.proxies(url), **options) as reply:
            body = _body(reply)
            status, retry_after = reply.status_code, reply.headers.get("Retry-After")
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as error:
        raise _Failed(f"cannot be requested ({type(error).__name__})", retry=False) from None
    except requests.RequestException as error:
        raise _Failed(_reason(error), retry=not isinstance(error, requests.exceptions.SSLError)) from None
    if status != 200:
        raise _failure(status, body, retry_after)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _Failed("sent a reply that is not JSON", retry=True) from None


def _body(reply: requests.Response) -> bytes:
    """Read the body of a reply within limits of size and time. Raises _Failed."""
    body, deadline = bytearray(), time.monotonic() + REPLY_SECONDS
    for block in reply.iter_content(1 << 16):
        body += block
        if len(body) > REPLY_BYTES:
            raise _Failed(f"sent more than {REPLY_BYTES:,} bytes", retry=False)
        if time.monotonic() > deadline:
            raise _Failed(f"did not finish its reply within {REPLY_SECONDS} s", retry=True)
    return bytes(body)


def _failure(status: int, body: bytes, retry_after: str | None) -> _Failed:
    """Describe a status other than 200, with the server's message if there is one."""
    message, code = "", ""
    try:
        error = json.loads(body[:65_536])
        error = error.get("error", error)
        message = str(error.get("message", "")) if isinstance(error, dict) else str(error)
        code = str(error.get("code", "")) if isinstance(error, dict) else ""
    except (ValueError, AttributeError, RecursionError):
        pass
    detail = f": {' '.join(_hide_keys(message).split())[:200].rstrip('.')}" if message else ""
    retry = (status in RETRYABLE or status >= 500) and code != "insufficient_quota"
    wait = _seconds(retry_after) if retry else None
    if wait is not None and wait > MAX_RETRY_AFTER:
        return _Failed(f"returned HTTP {status} and requests a wait of {wait:,.0f} s{detail}", retry=False)
    return _Failed(f"returned HTTP {status}{detail}", retry=retry, wait=wait)


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None if it is neither."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", retry_after):
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _backoff(number: int) -> float:
    """Return the seconds before the next try: doubled each time, with jitter so that clients do not retry together."""
    return min(FIRST_WAIT * 2 ** (number - 1), LONGEST_WAIT) * random.uniform(0.5, 1)


def _reason(error: Exception) -> str:
    import requests

    if "timed out" in str(error).lower():  # a timeout within a body has no class of its own
        return "timed out"
    for kind, words in (
        (requests.Timeout, "timed out"),
        (requests.exceptions.ChunkedEncodingError, "closed the connection during its reply"),
        (requests.exceptions.SSLError, "has no trusted certificate"),
        (requests.ConnectionError, "cannot be reached or closed the connection"),
    ):
        if isinstance(error, kind):
            return words
    return f"sent an unreadable reply ({type(error).__name__})"


def _parse(reply: Any, count: int, width: int) -> np.ndarray:
    """Return the rows of a reply, (count, D) float32, ordered by index. Raises _Invalid."""
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise _Invalid("it has no list 'data' of objects")
    if len(data) != count:
        raise _Invalid(f"{len(data):,} embeddings for {count:,} texts")
    indices: list[Any] = [entry.get("index") for entry in data]
    if any(type(index) is not int for index in indices) or sorted(indices) != list(range(count)):
        raise _Invalid(f"the indices are not 0 to {count - 1:,}, each once")
    rows: list[Any] = [None] * count
    for index, entry in zip(indices, data, strict=True):
        rows[index] = entry.get("embedding")
    return _matrix(rows, width)


def _matrix(rows: list[Any], width: int) -> np.ndarray:
    if not all(isinstance(row, list) for row in rows):
        raise _Invalid("an embedding is not a list of numbers")
    widths = sorted({len(row) for row in rows})
    if len(widths) != 1 or not widths[0]:
        raise _Invalid(
            f"the embeddings have lengths {', '.join(map(str, widths[:5]))}; all must have the same, above 0"
        )
    if width and widths[0] != width:
        raise _Invalid(f"the embeddings have {widths[0]:,} dimensions, not {width:,}")
    try:
        matrix = np.array(rows)
    except (ValueError, OverflowError):
        matrix = np.array(None)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise _Invalid("an embedding is not a list of numbers")
    with np.errstate(over="ignore"):
        matrix = matrix.astype(np.float32)
    if not np.isfinite(matrix).all():
        raise _Invalid("an embedding contains NaN, infinity or a number too large for float32")
    if not matrix.any(1).all():
        raise _Invalid("an embedding is all zeros")
    return matrix


def _cut(text: str, limit: int) -> str:
    """Return the start of a text, up to `limit` bytes of UTF-8, without splitting a character."""
    return text if len(text) * 4 <= limit else text.encode()[:limit].decode(errors="ignore")
