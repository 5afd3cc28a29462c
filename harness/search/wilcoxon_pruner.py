"""The `wilcoxon` pruner: test a trial's validation users, pairwise, against those of the cell's best finished trial.

The same users, sampled by the data's hash, are reported at every epoch. Trials are compared at equal epochs, so that a
slow start is compared with the best trial's start. The scores are in the ledger next to the epoch's value, so that a
resumed search decides like one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.record.segments import EPOCH, parse
from harness.training.user_scores import Scores

LEVEL = 0.1  # significance level, as in Optuna's WilcoxonPruner


def worse(scores: Scores, best: Scores) -> bool:
    """Whether `scores` are lower on average and significantly so: Wilcoxon's signed-rank test, one-sided at `LEVEL`.

    Users with equal scores, which is most of them, are dropped as in Wilcoxon's original test. The test counts users
    who lose and can contradict the mean, by which trials are ranked; Optuna's pruner keeps the higher mean, too.
    """
    from scipy.stats import wilcoxon

    if not scores or len(scores) != len(best):
        return False
    differences = np.subtract(scores, best)
    if differences.mean() >= 0:
        return False
    test = wilcoxon(differences, alternative="less", zero_method="wilcox")
    return bool(test.pvalue < LEVEL)  # pyright: ignore[reportAttributeAccessIssue] - SciPy builds the class at run time


class WilcoxonPruner:
    """Scores by user of one cell: of its running trials and of the best finished one."""

    def __init__(self, grace: int) -> None:
        self._grace = grace
        self._running: dict[str, dict[int, Scores]] = {}  # trial id -> epoch -> scores
        self._best: tuple[float, dict[int, Scores]] = (float("-inf"), {})

    def epoch(self, trial_id: str, epoch: int, users: Scores) -> bool:
        """Add the scores of an epoch; return whether the trial is to be pruned."""
        self._running.setdefault(trial_id, {})[epoch] = users
        return epoch >= self._grace and worse(users, self._best[1].get(epoch, ()))

    def ended(self, trial_id: str, best: float | None) -> None:
        """Compare a finished trial with the best one. best: its best value, None if it failed or was pruned."""
        scores = self._running.pop(trial_id, {})
        if best is not None and best > self._best[0] and any(scores.values()):
            self._best = best, scores

    def restore(self, finished: Sequence[tuple[str, float, Path]]) -> None:
        """Resume a search from its finished trials, by number: id, best value and the segment that ended it. The best
        trial with recorded scores is used."""
        for trial_id, best, segment in sorted(finished, key=lambda trial: -trial[1]):
            self._running[trial_id] = epoch_scores(segment, trial_id)
            self.ended(trial_id, best)
            if self._best[1]:
                return


def epoch_scores(segment: Path, trial_id: str) -> dict[int, Scores]:
    """Read a trial's scores by epoch from a segment of the ledger; damaged lines are skipped."""
    scores: dict[int, Scores] = {}
    key = f'"id":"{trial_id}"'.encode()
    with segment.open("rb") as lines:
        for line in lines:
            if line.startswith(EPOCH) and key in line and (event := parse(line.rstrip(b"\n"))):
                scores[event["epoch"]] = event.get("users", ())
    return scores
