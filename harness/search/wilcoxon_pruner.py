"""The `wilcoxon` pruner: a trial's validation users, one by one, against those of the best finished trial of its cell.

Of every epoch the same users are told, drawn from the data's hash; the two trials are compared at the same epoch of
each, so that a trial which starts slowly is compared with another one's start. What is told is in the ledger beside the
epoch's value, so that a search that goes on decides as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.record.segments import EPOCH, parse
from harness.training.user_scores import Scores

LEVEL = 0.1  # of the test, as in Optuna's own pruner of the name


def worse(own: Scores, best: Scores) -> bool:
    """Whether users fare worse: the signed-rank test, one-sided at `LEVEL`. Users who fare alike say nothing, as
    Wilcoxon himself had it: most are hit by neither."""
    from scipy.stats import wilcoxon

    if not own or len(own) != len(best):
        return False
    differences = np.subtract(own, best)
    if not differences.any():
        return False
    found = wilcoxon(differences, alternative="less", zero_method="wilcox")
    return bool(found.pvalue < LEVEL)  # pyright: ignore[reportAttributeAccessIssue] - SciPy's result is made at run time


class WilcoxonPruner:
    """What is known of the users of one cell: of its trials under way, and of the best finished one."""

    def __init__(self, grace: int) -> None:
        self._grace = grace
        self._told: dict[str, dict[int, Scores]] = {}
        self._best: tuple[float, dict[int, Scores]] = (float("-inf"), {})

    def epoch(self, trial_id: str, epoch: int, users: Scores) -> bool:
        """Take an epoch's scores; True if the trial is to be stopped."""
        self._told.setdefault(trial_id, {})[epoch] = users
        return epoch >= self._grace and worse(users, self._best[1].get(epoch, ()))

    def ended(self, trial_id: str, best: float | None) -> None:
        """`best`: its best value, None where it does not count."""
        told = self._told.pop(trial_id, {})
        if best is not None and best > self._best[0] and any(told.values()):
            self._best = best, told

    def remember(self, found: Sequence[tuple[str, float, Path]]) -> None:
        """Take up a search again: its finished trials, by number, each with the segment that ended it. The best one
        counts of which anything was told."""
        for trial_id, best, segment in sorted(found, key=lambda trial: -trial[1]):
            self._told[trial_id] = told(segment, trial_id)
            self.ended(trial_id, best)
            if self._best[1]:
                return


def told(segment: Path, trial_id: str) -> dict[int, Scores]:
    """The scores of each epoch of a trial in a segment of the ledger, of those that are there whole."""
    found: dict[int, Scores] = {}
    key = f'"id":"{trial_id}"'.encode()
    with segment.open("rb") as lines:
        for line in lines:
            if line.startswith(EPOCH) and key in line and (event := parse(line.rstrip(b"\n"))):
                found[event["epoch"]] = event.get("users", ())
    return found
