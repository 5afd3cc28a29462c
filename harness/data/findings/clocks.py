"""Times in another unit than seconds, in several units, or rounded to a grid."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from harness.data.findings import ERROR, INFO, WARNING, Finding, examples

FIRST, LAST, FAR = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (1995, 2040, 2100))  # plausible times
DAY = 86400
UNITS = [(1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds")]
MINORITY = 0.01  # of the times: fewer in days or minutes among seconds are called early times
NUMBERS = [  # least, most, digits of a date behind the year, name: dates that are written as whole numbers
    (1995, 2100, 0, "years"),
    (199501, 210012, 1, "months (YYYYMM)"),
    (19950101, 21001231, 2, "dates (YYYYMMDD)"),
    (199501010000, 210012312359, 4, "dates (YYYYMMDDHHMM)"),
    (19950101000000, 21001231235959, 5, "dates (YYYYMMDDHHMMSS)"),
]
EXCEL, JULIAN = 25569, 2440587.5  # days from their zero to 1970
FILETIME, TICKS = 11644473600, 62135596800  # seconds from their zero to 1970
COUNTS = [  # units a second, seconds between zero and 1970, name
    (10, 0, "tenths of a second"),
    (100, 0, "hundredths of a second"),
    (1 / DAY, 0, "days since 1970"),
    (1 / DAY, JULIAN * DAY, "Julian days"),
    (1 / DAY, EXCEL * DAY, "days since 1900 (a spreadsheet)"),
    (1 / 3600, 0, "hours since 1970"),
    (1 / 60, 0, "minutes since 1970"),
    (1e7, FILETIME, "100-nanosecond ticks since 1601"),
    (1e6, FILETIME, "microseconds since 1601"),
    (1e7, TICKS, "100-nanosecond ticks since year 1"),
]
SAMPLE = 5000  # times that are looked at before all are
MOST = 0.95  # of the times: in one unit
ROUNDED = 0.75  # of the times: on a grid; of those on half as wide a one, every second is
SUMMER = (1800, 3600, DAY - 3600, DAY - 1800)  # between the two midnights of a time zone
EXACT = 2**53  # beyond it, float64 does not hold every whole number
LEAST = 20  # different times, below which a grid may be chance
GRIDS = {10**k for k in range(1, 8)} | {2**k for k in range(3, 12)} | {60, 300, 600, 900, 1800, 3600, DAY}


def units(times: np.ndarray) -> Iterator[Finding]:
    """Times (n,), none of them NaN, that are not seconds. An error where harness refuses the file: times in two units,
    or in a fraction of a second."""
    if not len(times) or (times.min() >= FIRST and times.max() < FAR):
        return
    mixed = _mixed(times)
    yield from mixed
    if mixed:
        return
    middle, total = _middle(times), len(times)
    other = _other(times)
    if other:
        name, which = other
        says = f"times that look like {name}, and are read as seconds: durations and windows of time are wrong"
        remedy = "Write seconds since 1970 in UTC."
        yield Finding("unit of time", WARNING, int(which.sum()), total, "events", says, remedy, _some(times, which))
        return
    for least, per_second, unit in UNITS:
        if middle >= least:
            which = times >= least
            says = f"times in {unit}; read as seconds they lie in the year {1970 + middle / 31556952:,.0f}"
            remedy = f"Divide timestamp by {per_second:,.0f}."
            yield Finding("unit of time", ERROR, int(which.sum()), total, "events", says, remedy, _some(times, which))
            return


def _sample(times: np.ndarray) -> np.ndarray:
    return times[:: max(1, len(times) // SAMPLE)]


def _middle(times: np.ndarray) -> float:
    """The median of some of the times (n,)."""
    return float(np.median(_sample(times))) if len(times) else 0.0


def scale(times: np.ndarray) -> float:
    """Units of a time a second: 1, or what most of the times (n,) say that it is."""
    middle = _middle(times)
    return next((per_second for least, per_second, _ in UNITS if middle >= least), 1.0)


def _mixed(times: np.ndarray) -> list[Finding]:
    """The finding that some times are in one unit and some in another, if so."""
    found = {"seconds": _between(times, 1)} | {unit: _between(times, per) for _, per, unit in UNITS}
    found = {unit: which for unit, which in found.items() if which.any()}
    rest = np.ones(len(times), bool)
    for which in found.values():
        rest &= ~which
    several = found and rest.mean() >= MINORITY and np.ptp(times[rest]) > 0  # one value over and over is a missing time
    if several and (other := _other(times[rest])):
        where = np.flatnonzero(rest)
        found[other[0]] = np.zeros(len(times), bool)
        found[other[0]][where[other[1]]] = True
    if len(found) < 2:
        return []
    parts = sorted(found.items(), key=lambda part: -int(part[1].sum()))
    counts = ", ".join(f"{int(which.sum()):,} in {unit}" for unit, which in parts)
    few = int(sum(which.sum() for _, which in parts[1:]))
    says = f"times in more than one unit ({counts}): read as they stand, they come in a wrong order"
    remedy = "Write all of them in seconds since 1970."
    who = tuple(example for _, which in parts for example in _some(times, which)[:1])[:3]
    return [Finding("mixed units of time", ERROR, few, len(times), "events", says, remedy, who)]


def _between(times: np.ndarray, per_second: float, zero: float = 0.0, last: float = FAR) -> np.ndarray:
    """Times from 1995 to `last` in a unit, bool (n,); `zero`: seconds from the unit's zero to 1970."""
    return (times >= (FIRST + zero) * per_second) & (times < (last + zero) * per_second)


def _other(times: np.ndarray) -> tuple[str, np.ndarray] | None:
    """The unit that nearly all times (n,) are plausible in, and which are, bool (n,); not seconds or a fraction."""
    for least, most, parts, name in NUMBERS:
        which = (times >= least) & (times <= most) & (times == np.floor(times))
        if which.mean() > MOST and (which := which & _dates(times, parts)).mean() > MOST:
            return name, which
    for per_second, zero, name in COUNTS:
        which = _between(times, per_second, zero, LAST)
        if which.mean() > MOST:
            return name, which
    return None


def _dates(times: np.ndarray, parts: int) -> np.ndarray:
    """Whether the two-digit numbers behind the year are a month, a day, an hour, a minute, a second: bool (n,)."""
    fits, rest = np.ones(len(times), bool), np.where(times < EXACT, times, 0).astype(np.int64)
    for least, most in [(1, 12), (1, 31), (0, 23), (0, 59), (0, 59)][:parts][::-1]:
        rest, part = np.divmod(rest, 100)
        fits &= (part >= least) & (part <= most)
    return fits


def _some(times: np.ndarray, which: np.ndarray) -> tuple[str, ...]:
    return examples(f"{time:.0f}" for time in times[np.flatnonzero(which)[:3]])


def grid(times: np.ndarray) -> Iterator[Finding]:
    """Times (n,) in seconds, none of them NaN, that nearly all stand on a grid of more than one second."""
    found = _grid(times)
    if found is None:
        return
    step, offsets = found
    left = times % step
    on = np.logical_or.reduce([left == offset for offset in offsets])
    count = int(on.sum())
    if count <= ROUNDED * len(times):
        return
    if step % DAY == 0:
        yield _days(step, offsets, count, len(times))
        return
    at = f" plus {_offsets(offsets)}" if offsets.any() else ""
    says = f"times that are multiples of {step:,} s{at}: {_origin(step)}"
    remedy = "Take a source with whole seconds if there is one; else report the tie policy with every number."
    kind = INFO if step % 60 == 0 else WARNING
    yield Finding("rounded clock", kind, count, len(times), "events", says, remedy, _some(times, on))


def _days(step: int, offsets: np.ndarray, count: int, total: int) -> Finding:
    zone = offsets % DAY
    where = f"at one time of the day ({_offsets(zone)} past midnight UTC)" if zone.any() else "at midnight"
    tells = "days" if step == DAY else f"steps of {step // DAY:,} days"
    says = f"times {where}: the clock tells {tells}, and what a user did in one of them has no order"
    remedy = "Take a source with seconds if there is one; else report the tie policy with every number."
    return Finding("day resolution", INFO, count, total, "events", says, remedy)


def _offsets(offsets: np.ndarray) -> str:
    return f"{' or '.join(f'{int(offset):,}' for offset in np.sort(offsets))} s"


def _origin(step: int) -> str:
    if step % 60 == 0:
        return f"the clock was rounded to {f'{step // 3600} h' if step % 3600 == 0 else f'{step // 60} min'}"
    if step & (step - 1) == 0:
        return "the clock was rounded, to a power of two as float32 does it"
    if str(step).strip("0") == "1":
        return "the clock was rounded, to a power of ten as in 1.505E9"
    return "the clock was rounded"


def _grid(times: np.ndarray) -> tuple[int, np.ndarray] | None:
    """The widest grid that nearly all of a sample of the times (n,) stand on: its step and what they leave over."""
    sample = _sample(times)
    whole = sample[(sample == np.floor(sample)) & (np.abs(sample) < EXACT)].astype(np.int64)
    if len(whole) < ROUNDED * len(sample) or len(np.unique(whole)) < LEAST:
        return None
    steps = {int(np.gcd.reduce(whole - whole[0])), int(np.gcd.reduce(whole)), *GRIDS}
    for step in sorted(steps - {0, 1}, reverse=True):
        left, counts = np.unique(whole % step, return_counts=True)
        most = np.argsort(-counts, kind="stable")[:2]
        if step != DAY or int(np.ptp(left[most])) not in SUMMER:
            most = most[:1]
        if counts[most].sum() > ROUNDED * len(whole) and len(np.unique(whole // step)) >= LEAST // 2:
            return step, left[most]
    return None


def strange(times: np.ndarray, now: float) -> Iterator[Finding]:
    """Times (n,), none of them NaN, before 1995 or after `now`, seconds since 1970, in the unit of most of them."""
    if not len(times):
        return
    per_second, total = scale(times), len(times)
    if times.min() >= FIRST * per_second and times.max() <= (now + DAY) * per_second:
        return
    late = times > (now + DAY) * per_second
    if late.any():
        says = "times in the future; the temporal split would test on them"
        remedy = "Drop or mend these events; a few among many are often in another unit."
        yield Finding("future times", WARNING, int(late.sum()), total, "events", says, remedy, _some(times, late))
    early = times < FIRST * per_second
    if early.any():
        says = "times before 1995"
        remedy = "Write seconds since 1970 in UTC: 0 is often a missing time, 14000 a day, 20140723 a date."
        yield Finding("early times", WARNING, int(early.sum()), total, "events", says, remedy, _some(times, early))


def find(times: np.ndarray, now: float) -> list[Finding]:
    """All of this module, for times (n,) that are none of them NaN; `now`: seconds since 1970."""
    found = list(units(times))
    if any(finding.name == "mixed units of time" or finding.level == WARNING for finding in found):
        return found
    per_second = scale(times)
    return [*found, *strange(times, now), *grid(times if per_second == 1 else times / per_second)]
