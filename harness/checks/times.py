"""Check times: their unit and range, steps back, ties, and sequences sorted by id instead of time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from harness.checks._base import Facts, Sequences, ids_at
from harness.checks._read import RawEvents
from harness.data.findings import ERROR, INFO, WARNING, Finding, clocks, examples, level

INCREASING_SHARE = 0.95  # in files ordered by time it is 0.69 to 0.72 (Amazon)
FEW = 20  # consecutive pairs; with fewer, a share means nothing
TESTS_TIED = 0.1


def find(facts: Facts) -> Iterator[Finding]:
    """Find faults in unit, range and order of the times, ties, and sequences sorted by id."""
    events = facts.events
    if events is not None and events.time is not None:
        yield from clocks.find(events.time[~np.isnan(events.time)], facts.now)
        yield from _chronology(events)
    if facts.sequences is not None:
        yield from _ties(facts.sequences)
        yield from _sorted_by_id(facts.sequences)


def refused(facts: Facts) -> Iterator[Finding]:
    """Find units of time for which harness refuses the file."""
    events = facts.events
    if events is not None and events.timed and events.time is not None:
        yield from (finding for finding in clocks.units(events.time) if finding.level == ERROR)


def _chronology(events: RawEvents) -> Iterator[Finding]:
    """Find steps back in time from an event to the user's next one in the file, or by the column `order`."""
    back = np.flatnonzero(events.steps_back)
    if not len(back):
        return
    total = int((np.maximum(events.per_user, 1) - 1).sum())
    who = ids_at(events.users, np.unique(events.user[events.walk[back]]))
    if events.order is None:
        says = "steps back in time from one event of a user to the next in the file; harness sorts by time"
        remedy = "No action needed; other tools may rely on the order of the file."
        yield Finding("file not in order", INFO, len(back), total, "neighbours", says, remedy, examples(who))
    else:
        says = "steps back in time along the column order: it contradicts timestamp, which harness follows"
        remedy = "Find out which of the two is right, and drop the other."
        yield Finding("order against time", WARNING, len(back), total, "neighbours", says, remedy, examples(who))


def _ties(sequences: Sequences) -> Iterator[Finding]:
    if sequences.times is None:
        return
    tied = sequences.times[1:] == sequences.times[:-1]
    count, total = int((tied & sequences.neighbours).sum()), int(sequences.neighbours.sum())
    if count:
        says = "consecutive events of a user with equal times (tie_share): the tie policy orders them"
        remedy = "Compare --tie-policy source with random:0; if results differ, report the policy you used."
        yield Finding("ties", INFO, count, total, "neighbours", says, remedy)
    several = np.flatnonzero(np.diff(sequences.offsets) > 1)
    last = tied[sequences.offsets[several + 1] - 2]
    if last.any():
        says = "users whose last two events have equal times (test_tie_share): which one is the test is arbitrary"
        remedy = "Report the tie policy; leave-one-out results of different policies are not comparable."
        kind = level(float(last.mean()), TESTS_TIED)
        who = examples(ids_at(sequences.users, several[last]))
        yield Finding("tied tests", kind, int(last.sum()), len(several), "users", says, remedy, who)


def _sorted_by_id(sequences: Sequences) -> Iterator[Finding]:
    total = int(sequences.neighbours.sum())
    if total < FEW:
        return
    along = (rank[sequences.items] for rank in _ranks(sequences.ids))
    count = max(int((sequences.neighbours & (places[1:] > places[:-1])).sum()) for places in along)
    if count > INCREASING_SHARE * total:
        says = "consecutive events of a user have increasing item ids: sorted by id, not by time?"
        remedy = "Use a source with times; a model trained on this learns the order of the ids."
        kind = ERROR if sequences.times is None else WARNING
        yield Finding("sorted by id", kind, count, total, "neighbours", says, remedy)


def _ranks(ids: pl.Series) -> Iterator[np.ndarray]:
    """Yield the rank int32 of each id as text and, if all are whole numbers, as a number."""
    yield ids.rank("dense").to_numpy().astype(np.int32)
    numbers = ids.cast(pl.Int64, strict=False)
    if not numbers.null_count():
        yield numbers.rank("dense").to_numpy().astype(np.int32)
