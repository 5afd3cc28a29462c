"""Find times that are not in seconds, mix units, are implausible, or are rounded to a grid."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from harness.data.findings import ERROR, INFO, WARNING, Finding, examples

FIRST, LAST, FAR = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (1995, 2040, 2100))  # plausible times
DAY = 86400
UNITS = [(1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds")]
MINORITY = 0.01  # share of times; fewer in days or minutes among seconds are reported as early times
NUMBERS = [  # dates written as whole numbers: minimum, maximum, two-digit parts after the year, name
    (1995, 2100, 0, "years"),
    (199501, 210012, 1, "months (YYYYMM)"),
    (19950101, 21001231, 2, "dates (YYYYMMDD)"),
    (199501010000, 210012312359, 4, "dates (YYYYMMDDHHMM)"),
    (19950101000000, 21001231235959, 5, "dates (YYYYMMDDHHMMSS)"),
]
EXCEL, JULIAN = 25569, 2440587.5  # days from their zero to 1970
FILETIME, TICKS = 11644473600, 62135596800  # seconds from their zero to 1970
COUNTS = [  # units per second, seconds from the unit's zero to 1970, name
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
SAMPLE = 5000  # times examined before all of them
MOST = 0.95  # share of times in one unit
ROUNDED = 0.75  # share of times on a grid; of times on a grid of half the step, only 0.5 are on it
SUMMER = (1800, 3600, DAY - 3600, DAY - 1800)  # seconds between a time zone's midnights in summer and winter
EXACT = 2**53  # above it, float64 cannot represent every whole number
LEAST = 20  # distinct times; with fewer, a grid may be chance
GRIDS = {10**k for k in range(1, 8)} | {2**k for k in range(3, 12)} | {60, 300, 600, 900, 1800, 3600, DAY}


def units(times: np.ndarray) -> Iterator[Finding]:
    """Find times (n,), without NaN, that are not in seconds.

    An error, for which harness refuses the file, if they mix units or are in fractions of a second.
    """
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
        says = f"times that look like {name} but are read as seconds: durations and time windows are wrong"
        remedy = "Write seconds since 1970 in UTC."
        yield Finding("unit of time", WARNING, int(which.sum()), total, "events", says, remedy, _some(times, which))
        return
    for least, per_second, unit in UNITS:
        if middle >= least:
            which = times >= least
            says = f"times in {unit}; read as seconds they are in the year {1970 + middle / 31556952:,.0f}"
            remedy = f"Divide timestamp by {per_second:,.0f}."
            yield Finding("unit of time", ERROR, int(which.sum()), total, "events", says, remedy, _some(times, which))
            return


def _sample(times: np.ndarray) -> np.ndarray:
    return times[:: max(1, len(times) // SAMPLE)]


def _middle(times: np.ndarray) -> float:
    """Return the median of a sample of the times (n,)."""
    return float(np.median(_sample(times))) if len(times) else 0.0


def scale(times: np.ndarray) -> float:
    """Return the units per second of most of the times (n,): 1, 1e3, 1e6 or 1e9."""
    middle = _middle(times)
    return next((per_second for least, per_second, _ in UNITS if middle >= least), 1.0)


def _mixed(times: np.ndarray) -> list[Finding]:
    """Return the finding that the times mix units, or []."""
    by_unit = {"seconds": _between(times, 1)} | {unit: _between(times, per) for _, per, unit in UNITS}
    by_unit = {unit: which for unit, which in by_unit.items() if which.any()}
    rest = np.ones(len(times), bool)
    for which in by_unit.values():
        rest &= ~which
    several = by_unit and rest.mean() >= MINORITY and np.ptp(times[rest]) > 0  # one repeated value is a missing time
    if several and (other := _other(times[rest])):
        where = np.flatnonzero(rest)
        by_unit[other[0]] = np.zeros(len(times), bool)
        by_unit[other[0]][where[other[1]]] = True
    if len(by_unit) < 2:
        return []
    parts = sorted(by_unit.items(), key=lambda part: -int(part[1].sum()))
    counts = ", ".join(f"{int(which.sum()):,} in {unit}" for unit, which in parts)
    few = int(sum(which.sum() for _, which in parts[1:]))
    says = f"times in more than one unit ({counts}): read without conversion, they give a wrong order"
    remedy = "Write all of them in seconds since 1970."
    who = tuple(example for _, which in parts for example in _some(times, which)[:1])[:3]
    return [Finding("mixed units of time", ERROR, few, len(times), "events", says, remedy, who)]


def _between(times: np.ndarray, per_second: float, zero: float = 0.0, last: float = FAR) -> np.ndarray:
    """Return which times are from 1995 to `last` in a unit, bool (n,); `zero`: seconds from the unit's zero to 1970."""
    return (times >= (FIRST + zero) * per_second) & (times < (last + zero) * per_second)


def _other(times: np.ndarray) -> tuple[str, np.ndarray] | None:
    """Return a unit in which nearly all times (n,) are plausible, and which of them, bool (n,), or None.

    Seconds and fractions of them are not considered.
    """
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
    """Return whether the two-digit parts after the year are month, day, hour, minute and second: bool (n,)."""
    fits, rest = np.ones(len(times), bool), np.where(times < EXACT, times, 0).astype(np.int64)
    for least, most in [(1, 12), (1, 31), (0, 23), (0, 59), (0, 59)][:parts][::-1]:
        rest, part = np.divmod(rest, 100)
        fits &= (part >= least) & (part <= most)
    return fits


def _some(times: np.ndarray, which: np.ndarray) -> tuple[str, ...]:
    return examples(f"{time:.0f}" for time in times[np.flatnonzero(which)[:3]])


def grid(times: np.ndarray) -> Iterator[Finding]:
    """Find times (n,) in seconds, without NaN, that are mostly on a grid of more than one second."""
    step_and_offsets = _grid(times)
    if step_and_offsets is None:
        return
    step, offsets = step_and_offsets
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
    remedy = "Use a source with whole seconds if there is one; otherwise report the tie policy with every result."
    kind = INFO if step % 60 == 0 else WARNING
    yield Finding("rounded clock", kind, count, len(times), "events", says, remedy, _some(times, on))


def _days(step: int, offsets: np.ndarray, count: int, total: int) -> Finding:
    zone = offsets % DAY
    where = f"at one time of the day ({_offsets(zone)} past midnight UTC)" if zone.any() else "at midnight"
    resolution = "days" if step == DAY else f"steps of {step // DAY:,} days"
    says = f"times {where}: the clock has a resolution of {resolution}, and events within one have no order"
    remedy = "Use a source with seconds if there is one; otherwise report the tie policy with every result."
    return Finding("day resolution", INFO, count, total, "events", says, remedy)


def _offsets(offsets: np.ndarray) -> str:
    return f"{' or '.join(f'{int(offset):,}' for offset in np.sort(offsets))} s"


def _origin(step: int) -> str:
    if step % 60 == 0:
        return f"the clock was rounded to {f'{step // 3600} h' if step % 3600 == 0 else f'{step // 60} min'}"
    if step & (step - 1) == 0:
        return "the clock was rounded to a power of two, as by float32"
    if str(step).strip("0") == "1":
        return "the clock was rounded to a power of ten, as in 1.505E9"
    return "the clock was rounded"


def _grid(times: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Return the widest grid that most of a sample of the times (n,) are on, as its step and offsets, or None."""
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
    """Find times (n,), without NaN, before 1995 or after `now` (seconds since 1970), in the unit of most of them."""
    if not len(times):
        return
    per_second, total = scale(times), len(times)
    if times.min() >= FIRST * per_second and times.max() <= (now + DAY) * per_second:
        return
    late = times > (now + DAY) * per_second
    if late.any():
        says = "times in the future; the temporal split would test on them"
        remedy = "Drop or correct these events; a few such times are often in another unit."
        yield Finding("future times", WARNING, int(late.sum()), total, "events", says, remedy, _some(times, late))
    early = times < FIRST * per_second
    if early.any():
        says = "times before 1995"
        remedy = "Write seconds since 1970 in UTC: 0 is often a missing time, 14000 a day number, 20140723 a date."
        yield Finding("early times", WARNING, int(early.sum()), total, "events", says, remedy, _some(times, early))


def find(times: np.ndarray, now: float) -> list[Finding]:
    """Run all tests of this module on times (n,) without NaN; `now`: seconds since 1970."""
    findings = list(units(times))
    if any(finding.name == "mixed units of time" or finding.level == WARNING for finding in findings):
        return findings
    per_second = scale(times)
    return [*findings, *strange(times, now), *grid(times if per_second == 1 else times / per_second)]
