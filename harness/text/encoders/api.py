"""An OpenAI-compatible ``/v1/embeddings`` endpoint: ``api:<model>`` or ``api:<model>@<url>``.

Without a URL the base is ``HARNESS_API_BASE``, else https://api.openai.com/v1. The key is read from the environment
alone, ``HARNESS_API_KEY`` before ``OPENAI_API_KEY``, when the first request is made; it is not written anywhere. The
reply to every request is on disk before the next is sent, so that nothing is paid for twice. Request and reply are as
in OpenAI's API reference, "Create embeddings".

Tokens are estimated, since each model has its own tokenizer: three bytes of UTF-8 are one token (`TOKEN_BYTES`).
Titles of Amazon Office 2014 have 3.4 and descriptions 4.2 under WordPiece, so that a cost is estimated too high
rather than too low, and a text is cut at ``max_tokens`` too early rather than too late.
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

from harness.text.encoders._base import Job, TextEncoder, Texts, distinct, spans, whole
from harness.text.encoders._parts import Parts
from harness.types import HarnessError

if TYPE_CHECKING:
    import requests

OPENAI = "https://api.openai.com/v1"
KEYS = ("HARNESS_API_KEY", "OPENAI_API_KEY")
TOKEN_BYTES = 3
BATCH_TOKENS = 100_000  # estimated, of one request; OpenAI refuses more than 300,000
TIMEOUT = (10, 120)  # seconds to connect, and between two pieces of a reply
REPLY_SECONDS = 600  # for a whole reply
REPLY_BYTES = 1 << 28
TRIES = 7  # of one request
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between tries: doubled each time, with jitter
LONGEST_ASKED = 600.0  # seconds that a Retry-After may ask for
AGAIN = (408, 409, 425, 429)  # statuses, beside 5xx, after which the same request may succeed
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class EncodingCost:
    """What is left to pay: `texts` to send, `tokens` (estimated) in them, `money` in the currency of the price."""

    texts: int
    tokens: int
    money: float


class Api(TextEncoder):
    takes = "a model's name, api:<model> or api:<model>@<url>,"
    keep_seconds = 0.0  # each reply at once: it is paid for

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
        """`dimensions`: asked of the model, 0: its own. `batch`: texts of one request. `per_minute`: requests at most,
        0: as fast as they are answered. Raises HarnessError."""
        super().__init__(
            argument, home, dimensions=dimensions, max_tokens=max_tokens, batch=batch, per_minute=per_minute
        )
        written = f"{self.name}:{argument}"
        self.dimensions = whole(written, "dimensions", dimensions, 0, 65_536)
        self.max_tokens = whole(written, "max_tokens", max_tokens, 1, 1_000_000)
        self.batch = whole(written, "batch", batch, 1, 2048)
        self.pause = 60 / per_minute if whole(written, "per_minute", per_minute, 0, 1_000_000) else 0.0
        self.model, self.base = _split(argument)

    @property
    def label(self) -> str:
        where = "" if self.base == OPENAI else f"@{urlsplit(self.base).netloc}"
        return f"{self.name}:{Path(self.model).name}{where}{self._shown_options()}"

    def identity(self) -> dict[str, Any]:
        about = {"model": self.model, "base": self.base, "dimensions": self.dimensions, "max_tokens": self.max_tokens}
        return super().identity() | about

    def job(self, distinct: list[str]) -> Job:
        """Raises HarnessError if a key is missing, a reply is wrong, or no try of a request succeeds."""
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

        return Job(order, batches, cut, f"{self.max_tokens:,} tokens by estimate, {longest:,} bytes")

    def cost(self, texts: Texts, price: float, made: Path | None = None) -> EncodingCost:
        """What it comes to, nothing being sent. `price`: of a million tokens. `made`: the folder of rows kept so far.

        Raises HarnessError if no item has text.
        """
        order, lengths = self._order(distinct(texts))
        left = lengths[Parts(made, order).done :] if made else lengths
        return EncodingCost(len(left), sum(left), sum(left) * price / 1e6)

    def _order(self, texts: list[str]) -> tuple[list[str], list[int]]:
        """The texts, longest first, and the tokens estimated for each."""
        order = sorted(texts, key=lambda text: (-len(text.encode()), text))
        return order, [min(-(-len(text.encode()) // TOKEN_BYTES), self.max_tokens) for text in order]

    def _rows(self, session: requests.Session, texts: list[str], width: int) -> np.ndarray:
        """The rows of one request, (n, D) float32; `width`: the D that is expected, 0: any."""
        asked: dict[str, Any] = {"model": self.model, "input": texts, "encoding_format": "float"}
        asked |= {"dimensions": self.dimensions} if self.dimensions else {}
        try:
            return _read(self._ask(session, asked), len(texts), width)
        except _Wrong as error:
            raise HarnessError(f"'{self.word}': the reply of {self.base} is wrong: {error}.") from None

    def _ask(self, session: requests.Session, asked: dict[str, Any]) -> Any:
        """The JSON of a reply, tried `TRIES` times where that can help. Raises HarnessError."""
        for number in range(1, TRIES + 1):
            try:
                return _post(session, f"{self.base}/embeddings", asked)
            except _Refused as error:
                if not error.again or number == TRIES:
                    tried = f" ({number} tries)" if number > 1 else ""
                    kept = "" if not error.again else " What came before is kept; the same command goes on from there."
                    raise HarnessError(f"'{self.word}': {self.base} {_hidden(str(error))}{tried}.{kept}") from None
                wait = error.wait if error.wait is not None else _wait(number)
                if wait >= 5:
                    said = f"{self.word}: {_hidden(str(error))}; waiting {wait:.0f} s (try {number} of {TRIES})."
                    print(said, file=sys.stderr, flush=True)
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")


class _Refused(Exception):
    """Why there is no reply. `again`: the same request may succeed. `wait`: the seconds that the server asks for."""

    def __init__(self, reason: str, *, again: bool, wait: float | None = None) -> None:
        super().__init__(reason)
        self.again, self.wait = again, wait


class _Wrong(Exception):
    """What is wrong with a reply."""


def _split(argument: str) -> tuple[str, str]:
    """Model name and base URL, without the slash at its end. Raises HarnessError for a URL that cannot be one."""
    model, at, url = argument.partition("@http")
    tail = argument[1:].partition("@")[2]  # a model's name may begin with @
    if not at and any(char in tail for char in ":/."):
        raise HarnessError("api: what stands behind the @ must be a URL that begins with http:// or https://.")
    base = f"http{url}" if at else os.environ.get("HARNESS_API_BASE", "").strip() or OPENAI
    source = "the URL" if at else "HARNESS_API_BASE"
    if any(char in base for char in "@?#"):  # what is there could be secret: it is not repeated
        raise HarnessError(f"api: {source} must not hold a user, a password, a ? or a #; the key goes into {KEYS[0]}.")
    try:
        parts = urlsplit(base)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good, parts = False, urlsplit("")
    if not good or not model:
        raise HarnessError(f"api: {source} '{base}' is no URL such as http://localhost:8000/v1.")
    path = parts.path.rstrip("/").removesuffix("/embeddings")
    return model, f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def _key(word: str, base: str) -> str:
    """The key, empty if there is none. Raises HarnessError if one is needed, or would be sent to be read by all."""
    name = next((name for name in KEYS if os.environ.get(name, "").strip()), "")
    key = os.environ.get(name, "").strip() if name else ""
    if not key and base == OPENAI:
        raise HarnessError(f"'{word}' needs a key: set {' or '.join(KEYS)}, or HARNESS_API_BASE for a server of yours.")
    if not key.isascii() or not key.isprintable():
        raise HarnessError(f"'{word}': {name} holds characters that a key cannot have.")
    parts = urlsplit(base)
    if key and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise HarnessError(f"'{word}': {name} would be sent unencrypted to {parts.hostname}. Use https, or unset it.")
    return key


def _hidden(text: str) -> str:
    """The text without the keys, which a server may repeat."""
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
    session.auth = sign  # as a header it would give way to what ~/.netrc says
    return session


def _post(session: requests.Session, url: str, asked: dict[str, Any]) -> Any:
    """The JSON that a request brings. Raises _Refused."""
    import requests

    try:
        with session.post(url, json=asked, timeout=TIMEOUT, stream=True, allow_redirects=False) as reply:
            body = _body(reply)
            status, asks = reply.status_code, reply.headers.get("Retry-After")
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as error:
        raise _Refused(f"cannot be asked ({type(error).__name__})", again=False) from None
    except requests.RequestException as error:
        raise _Refused(_reason(error), again=not isinstance(error, requests.exceptions.SSLError)) from None
    if status != 200:
        raise _refusal(status, body, asks)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _Refused("sent something that is not JSON", again=True) from None


def _body(reply: requests.Response) -> bytes:
    """The body of a reply, of bounded size and time. Raises _Refused."""
    body, until = bytearray(), time.monotonic() + REPLY_SECONDS
    for block in reply.iter_content(1 << 16):
        body += block
        if len(body) > REPLY_BYTES:
            raise _Refused(f"sent more than {REPLY_BYTES:,} bytes", again=False)
        if time.monotonic() > until:
            raise _Refused(f"was not done after {REPLY_SECONDS} s", again=True)
    return bytes(body)


def _refusal(status: int, body: bytes, asks: str | None) -> _Refused:
    """What a status other than 200 means, in the server's words where it has some."""
    message, code = "", ""
    try:
        error = json.loads(body[:65_536])
        error = error.get("error", error)
        message = str(error.get("message", "")) if isinstance(error, dict) else str(error)
        code = str(error.get("code", "")) if isinstance(error, dict) else ""
    except (ValueError, AttributeError, RecursionError):
        pass
    said = f": {' '.join(_hidden(message).split())[:200].rstrip('.')}" if message else ""
    again = (status in AGAIN or status >= 500) and code != "insufficient_quota"
    wait = _asked_wait(asks) if again else None
    if wait is not None and wait > LONGEST_ASKED:
        return _Refused(f"answered HTTP {status} and asks to wait {wait:,.0f} s{said}", again=False)
    return _Refused(f"answered HTTP {status}{said}", again=again, wait=wait)


def _asked_wait(asks: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3); None if it says nothing."""
    if asks is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", asks):
        return float(asks)
    try:
        until = parsedate_to_datetime(asks)
    except (ValueError, TypeError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _wait(number: int) -> float:
    """Seconds before the next try: doubled each time, and different for each who waits."""
    return min(FIRST_WAIT * 2 ** (number - 1), LONGEST_WAIT) * random.uniform(0.5, 1)


def _reason(error: Exception) -> str:
    import requests

    if "timed out" in str(error).lower():  # in the middle of a body it has no class of its own
        return "did not answer in time"
    for kind, words in (
        (requests.Timeout, "did not answer in time"),
        (requests.exceptions.ChunkedEncodingError, "broke off its answer"),
        (requests.exceptions.SSLError, "has no certificate that can be trusted"),
        (requests.ConnectionError, "cannot be reached or broke off"),
    ):
        if isinstance(error, kind):
            return words
    return f"cannot be read ({type(error).__name__})"


def _read(reply: Any, count: int, width: int) -> np.ndarray:
    """The rows of a reply, (count, D) float32, each at its index. Raises _Wrong."""
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise _Wrong("it has no list 'data' of objects")
    if len(data) != count:
        raise _Wrong(f"{len(data):,} embeddings came for {count:,} texts")
    indices: list[Any] = [entry.get("index") for entry in data]
    if any(type(index) is not int for index in indices) or sorted(indices) != list(range(count)):
        raise _Wrong(f"the indices are not 0 to {count - 1:,}, each once")
    rows: list[Any] = [None] * count
    for index, entry in zip(indices, data, strict=True):
        rows[index] = entry.get("embedding")
    return _matrix(rows, width)


def _matrix(rows: list[Any], width: int) -> np.ndarray:
    if not all(isinstance(row, list) for row in rows):
        raise _Wrong("an embedding is not a list of numbers")
    widths = sorted({len(row) for row in rows})
    if len(widths) != 1 or not widths[0]:
        raise _Wrong(f"the embeddings are of lengths {', '.join(map(str, widths[:5]))}; they must be of one length")
    if width and widths[0] != width:
        raise _Wrong(f"the embeddings have {widths[0]:,} dimensions, not {width:,}")
    try:
        matrix = np.array(rows)
    except (ValueError, OverflowError):
        matrix = np.array(None)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise _Wrong("an embedding is not a list of numbers")
    with np.errstate(over="ignore"):
        matrix = matrix.astype(np.float32)
    if not np.isfinite(matrix).all():
        raise _Wrong("an embedding holds NaN, infinity or a number too large for float32")
    if not matrix.any(1).all():
        raise _Wrong("an embedding is zero in all dimensions")
    return matrix


def _cut(text: str, most: int) -> str:
    """The beginning of a text, at most `most` bytes of UTF-8, no character cut in two."""
    return text if len(text) * 4 <= most else text.encode()[:most].decode(errors="ignore")
