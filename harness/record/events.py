"""Events of a trial, as lines of a segment: its start, the opening of the test, its end, and the withdrawal of that."""

from __future__ import annotations

from dataclasses import asdict

from harness.record.segments import Segment
from harness.types import Json, Trial, TrialResult


def started(segment: Segment, trial: Trial, study: str, number: int) -> Json:
    """Record the start of a trial under a number of a study's search, or as its confirmation of that number."""
    return segment.append("started", id=trial.id, study=study, number=number, trial=trial.to_json())


def opened(segment: Segment, trial: Trial) -> Json:
    """Record that a confirming trial gets the test: a separate event, so that a second opening cannot be hidden."""
    return segment.append("opened", id=trial.id)


def ended(segment: Segment, trial_id: str, result: TrialResult) -> Json:
    """Record the end of a trial."""
    return segment.append("ended", id=trial_id, result=asdict(result))


def voided(segment: Segment, trial_id: str, reason: str, of: str) -> Json:
    """Record that a trial's result in segment `of` no longer counts: its artifacts are lost, and it will be rerun."""
    return segment.append("voided", id=trial_id, reason=reason, of=of)
