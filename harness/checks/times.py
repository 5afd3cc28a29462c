"""Times: their unit and range, whether they order the events, and how often they do not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from harness.checks._base import Facts, Sequences, ids_at
from harness.checks._read import RawEvents
from harness.data.findings import ERROR, INFO, WARNING, Finding, clocks, examples, level

INCREASING_SHARE = 0.95  # in files that are ordered by time it is 0.69 to 0.72 (Amazon)
FEW = 20  # neighbours that tell nothing about a share
TESTS_TIED = 0.1


def find(facts: Facts) -> Iterator[Finding]:
    """Unit, range and order of the times; ties; sequences that are sorted by id."""
    events = facts.events
    if events is not None and events.time is not None:
        yield from clocks.find(events.time[~np.isnan(events.time)], facts.now)
        yield from _chronology(events)
    if facts.sequences is not None:
        yield from _ties(facts.sequences)
        yield from _sorted_by_id(facts.sequences)


def refused(facts: Facts) -> Iterator[Finding]:
    """Units of time for which harness refuses the file."""
    events = facts.events
    if events is not None and events.timed and events.time is not None:
        yield from (finding for finding in clocks.units(events.time) if finding.level == ERROR)


def _chronology(events: RawEvents) -> Iterator[Finding]:
    """Steps back in time from an event to the user's next one in the file, or in the column `order`."""
    back = np.flatnonzero(events.steps_back)
    if not len(back):
        return
    total = int((np.maximum(events.per_user, 1) - 1).sum())
    who = ids_at(events.users, np.unique(events.user[events.walk[back]]))
    if events.order is None:
        says = "steps back in time from one event of a user to the next in the file; harness sorts by time"
        remedy = "Nothing need be done; other tools may rely on the order of the file."
        yield Finding("file not in order", INFO, len(back), total, "neighbours", says, remedy, examples(who))
    else:
        says = "steps back in time along the column order: it contradicts timestamp, which harness follows"
        remedy = "See which of the two is right, and drop the other."
        yield Finding("order against time", WARNING, len(back), total, "neighbours", says, remedy, examples(who))


def _ties(made: Sequences) -> Iterator[Finding]:
    if made.times is None:
        return
    tied = made.times[1:] == made.times[:-1]
    count, total = int((tied & made.neighbours).sum()), int(made.neighbours.sum())
    if count:
        says = "neighbouring events of a user at one time (tie_share): the tie policy orders them"
        remedy = "Compare --tie-policy source with random:0; if numbers move, say which you used."
        yield Finding("ties", INFO, count, total, "neighbours", says, remedy)
    several = np.flatnonzero(np.diff(made.offsets) > 1)
    last = tied[made.offsets[several + 1] - 2]
    if last.any():
        says = "users whose last two events share their time (test_tie_share): which is the test is arbitrary"
        remedy = "Report the tie policy; leave-one-out numbers of two policies do not compare."
        kind = level(float(last.mean()), TESTS_TIED)
        who = examples(ids_at(made.users, several[last]))
        yield Finding("tied tests", kind, int(last.sum()), len(several), "users", says, remedy, who)


def _sorted_by_id(made: Sequences) -> Iterator[Finding]:
    total = int(made.neighbours.sum())
    if total < FEW:
        return
    along = (rank[made.items] for rank in _ranks(made.ids))
    count = max(int((made.neighbours & (places[1:] > places[:-1])).sum()) for places in along)
    if count > INCREASING_SHARE * total:
        says = "neighbouring events of a user have increasing item ids: sorted by id, not by time?"
        remedy = "Go back to a source with times; a model trained on this learns the order of the ids."
        kind = ERROR if made.times is None else WARNING
        yield Finding("sorted by id", kind, count, total, "neighbours", says, remedy)


def _ranks(ids: pl.Series) -> Iterator[np.ndarray]:
    """Place int32 of each id in the order of texts and, if all are whole numbers, in that of numbers."""
    yield ids.rank("dense").to_numpy().astype(np.int32)
    numbers = ids.cast(pl.Int64, strict=False)
    if not numbers.null_count():
        yield numbers.rank("dense").to_numpy().astype(np.int32)
