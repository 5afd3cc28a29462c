"""Read starts and ends of trials off their lines without parsing them as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

from harness.record.segments import TAIL, parse
from harness.types import Json, TrialResult

_STARTED = re.compile(
    rb'\{"kind":"started","seq":\d+,"time":([\d.]+),"id":"(\w+)","study":"(\w*)","number":(\d+),'
    rb'"trial":\{"cell":\{[^{}]*\},"role":"(\w+)",'
)
_DRAWN = re.compile(rb'"seed":(\d+),"epochs":\d+,"patience":\d+,"params":(\{.*?\}),"protocol":\{"')
_ENDED = re.compile(
    rb'\{"kind":"ended","seq":\d+,"time":([\d.]+),"id":"(\w+)","result":'
    rb'\{"status":"(\w+)","reason":("(?:[^"\\]|\\.)*"),"best":(-?[\d.]+(?:[eE][-+]?\d+)?),'
    rb'"best_epoch":(-?\d+),"curve":(\[[^\]]*\]),'
)
_INFO = b',"info":{'
_TIME = re.compile(rb'\{"kind":"\w+","seq":\d+,"time":([\d.]+),')
_EPOCH = re.compile(rb'\{"kind":"epoch","seq":\d+,"time":[\d.]+,"id":"(\w+)","epoch":(\d+),')


class Start(NamedTuple):
    """The start of a trial, under `number` in the search of `study` or among its seeds."""

    trial: str
    study: str
    number: int
    role: str
    time: float


class End(NamedTuple):
    """The end of a trial; ``seconds`` and ``epochs`` that it trained, validated and ranked."""

    trial: str
    time: float
    status: str
    reason: str
    best: float
    seconds: float
    epochs: int


def start(line: bytes) -> Start | None:
    """Return the start that a line records; None for other lines and unusual starts."""
    if not (match := _STARTED.match(line)):
        return None
    time, trial, study, number, role = match.groups()
    return Start(trial.decode(), study.decode(), int(number), role.decode(), float(time))


def end(line: bytes) -> End | None:
    """Return the end that a line records; None for other lines and unusual ends."""
    if not (match := _ENDED.match(line)):
        return None
    time, trial, status, reason, best, _, curve = match.groups()
    info = line.rfind(_INFO)
    seconds, epochs = _number(line, b'"seconds":', info), _number(line, b'"epochs":', info)
    trained = curve.count(b",") + (len(curve) > 2) if epochs is None else int(epochs)
    why = json.loads(reason) if len(reason) > 2 else ""
    return End(trial.decode(), float(time), status.decode(), why, float(best), seconds or 0.0, trained)


def configuration(line: bytes) -> tuple[int, bytes]:
    """Return seed and parameters, as JSON, of a line that starts a trial."""
    begin = _STARTED.match(line)
    if match := begin and _DRAWN.match(line, begin.end()):
        return int(match[1]), match[2]
    trial = cast("Json", parse(line))["trial"]
    return trial["seed"], json.dumps(trial["params"]).encode()


class Course(NamedTuple):
    """Best epoch, curve and info of a trial, the latter as JSON."""

    best_epoch: int
    curve: bytes
    info: bytes

    @classmethod
    def of(cls, result: TrialResult) -> Course:
        return cls(result.best_epoch, json.dumps(result.curve).encode(), json.dumps(result.info).encode())


def course(line: bytes) -> Course:
    """Return best epoch, curve and info of a line that ends a trial."""
    match, info = _ENDED.match(line), line.rfind(_INFO) + len(_INFO) - 1
    if match and info > match.end() and line.find(b"}", info) == len(line) - TAIL - 2:  # nothing follows the info
        return Course(int(match[6]), match[7], line[info : -TAIL - 1])
    return Course.of(result_of(cast("Json", parse(line))))


def epoch(line: bytes) -> tuple[str, int] | None:
    """Return the trial and number of the epoch that a line records; None for other lines."""
    match = _EPOCH.match(line)
    return match and (match[1].decode(), int(match[2]))


def times(found: Iterable[bytes]) -> Iterator[float]:
    """Yield the times of lines that record one."""
    yield from (float(match[1]) for match in map(_TIME.match, found) if match)


def _number(line: bytes, key: bytes, start: int) -> float | None:
    """Return the number that follows `key` (with quotes and colon) after `start`, or None."""
    at = line.find(key, start)
    if at < 1 or line[at - 1] not in b"{,":
        return None
    at += len(key)
    try:
        return float(line[at : line.find(b",", at)].rstrip(b"}"))
    except ValueError:
        return None


def end_of(event: Json) -> End:
    """Return the end that an `ended` event records."""
    result = result_of(event)
    epochs = int(result.info.get("epochs", len(result.curve)))
    facts = (result.status, result.reason, result.best, result.info.get("seconds", 0.0), epochs)
    return End(event["id"], event["time"], *facts)


def result_of(event: Json) -> TrialResult:
    """Return the result of an `ended` event; missing or null fields get their defaults."""
    return TrialResult(**{name: value for name, value in event["result"].items() if value is not None})
