"""Reports of a worker to the driver, one after each step.

A report is sent as one JSON string in Tune's result, next to the `value` that Tune requires.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from harness.training.user_scores import Scores
from harness.types import Json, TrialResult


@dataclass(frozen=True)
class Epoch:
    """An epoch after which the trial continues."""

    curve: list[float]  # validation NDCG@10 of every epoch so far
    seconds: float  # spent training and validating so far
    saved: bool  # whether a checkpoint contains this epoch
    users: list[Scores]  # scores by user of the epochs not reported yet

    @property
    def info(self) -> dict[str, float]:
        """What a result says of a trial that ends here."""
        return {"seconds": self.seconds, "epochs": float(len(self.curve))}

    @property
    def value(self) -> float:
        return self.curve[-1]


@dataclass(frozen=True)
class Ended:
    """The end of a trial, done or failed."""

    result: TrialResult
    users: list[Scores]

    @property
    def value(self) -> float:
        return self.result.best


@dataclass(frozen=True)
class Refusal:
    """The worker cannot take part in this bench; it has run no trial."""

    reason: str

    value = 0.0  # no metric


Report = Epoch | Ended | Refusal


def to_tune(report: Report) -> Json:
    """Convert a report to the result of a Tune trainable."""
    text = json.dumps({"kind": type(report).__name__, **asdict(report)}, separators=(",", ":"))
    return {"value": report.value, "report": text}


def from_tune(result: Json) -> Report:
    """Return the report in a result of `to_tune`.

    >>> from_tune(to_tune(Epoch([0.1, 0.2], 3.5, True, [[1, 2]])))
    Epoch(curve=[0.1, 0.2], seconds=3.5, saved=True, users=[[1, 2]])
    """
    fields = json.loads(result["report"])
    kind = fields.pop("kind")
    if kind == "Epoch":
        return Epoch(**fields)
    if kind == "Refusal":
        return Refusal(**fields)
    return Ended(TrialResult(**fields["result"]), fields["users"])
