"""The search itself: one Optuna study a cell, rebuilt from the ledger, and the grid that hands out their trials.

A cell's life: SEARCH (n trials, trial 0 the default point) -> CONFIRM (the winner retrained over seeds, test opened)
-> DONE. Knows no Ray: whoever runs trials asks `TrialQueue.next` and tells `TrialQueue.epoch` and `TrialQueue.ended`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from harness.record import ledger as ledger_events
from harness.record.segments import Segment
from harness.search.other_benches import NoOtherBenches
from harness.search.plan import Study, check_engine
from harness.search.samplers import PRUNERS, REPLAYED, SAMPLERS, grace
from harness.search.wilcoxon_pruner import WilcoxonPruner
from harness.system import failpoints
from harness.training.user_scores import Scores
from harness.types import Trial, TrialResult

optuna.logging.set_verbosity(optuna.logging.ERROR)  # its hints on speed are none of a bench's lines

_STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Assignment:
    """One trial to run now, and its place in its cell: a search number, or a confirmation's position."""

    trial: Trial
    study: Study
    number: int


class StudySearch:
    """One cell's study. `seed` of every draw comes from (study id, number): the stream does not depend on
    interruptions or on how the search was split over commands."""

    def __init__(self, study: Study) -> None:
        self.plan = study
        engine = study.engine
        check_engine(engine)
        pruner = PRUNERS[engine.pruner](study.epochs)
        self._study = optuna.create_study(study_name=study.id, direction="maximize", pruner=pruner)
        self._replayed = bool({engine.sampler, engine.pruner} & REPLAYED)
        self._paired = WilcoxonPruner(grace(study.epochs)) if engine.pruner == "wilcoxon" else None
        self._asked: dict[int, optuna.trial.Trial] = {}
        self._waiting: list[Assignment] = []  # asked of the study, not yet handed out
        self.in_flight: dict[str, Assignment] = {}
        self._confirmed: set[str] | None = None  # ids handed out for confirmation, once that began
        self._rebuild()

    def _rebuild(self) -> None:
        history = self.plan.history()
        for number in range(max(history, default=-1) + 1):
            trial_id, result = history.get(number, ("", None))
            known = self.plan.ledger.trials.get(trial_id)
            if known is not None and result is not None and self._replayed:
                self._replay(number, known.trial, result)
            elif known is not None and result is not None:
                self._study.add_trial(self._frozen(known.trial, result))
            else:
                self._waiting.append(self._ask(number, known.trial.params if known else None))
        if self._paired is not None:
            self._paired.remember(self.plan.finished())

    def _replay(self, number: int, trial: Trial, result: TrialResult) -> None:
        """Ask and tell a past trial again, for samplers and pruners that keep what they know beside the trials."""
        self._ask(number, trial.params)
        asked = self._asked.pop(number)
        for epoch, value in enumerate(result.curve):
            asked.report(value, epoch)
            asked.should_prune()
        self._study.tell(asked, result.best if result.status == "done" else None, state=_STATES[result.status])

    def _frozen(self, trial: Trial, result: TrialResult) -> optuna.trial.FrozenTrial:
        searched = self.plan.space.free() | self.plan.space.conditional(trial.params)
        return optuna.trial.create_trial(
            params={name: trial.params[name] for name in searched},
            distributions=searched,
            intermediate_values=dict(enumerate(result.curve)),
            state=_STATES[result.status],
            value=result.best if result.status == "done" else None,
        )

    def _ask(self, number: int, params: dict[str, Any] | None = None) -> Assignment:
        """The trial of a search number: what the plan gives or the ledger knows of it, else the sampler's."""
        space = self.plan.space
        params = self.plan.given(number) or params
        if params is not None:
            self._study.enqueue_trial({name: params[name] for name in space.searched})
        self._study.sampler = SAMPLERS[self.plan.engine.sampler](int(self.plan.id[:7], 16) + number, space)
        asked = self._study.ask()
        if self._replayed:
            asked.relative_params  # noqa: B018 - drawn even where every value is given, so that a replay draws it too
        for name, axis in space.free().items():
            _suggest(asked, name, axis)
        for name, axis in space.conditional(asked.params | space.fixed).items():
            _suggest(asked, name, axis)
        if asked.number != number:
            raise AssertionError(f"study {self.plan.cell} is at {asked.number}, expected {number}")
        self._asked[number] = asked
        return Assignment(self.plan.trial("search", 0, space.default | asked.params), self.plan, number)

    def next(self) -> Assignment | None:
        """The next trial to run, or None if nothing is due now (or ever)."""
        if self._waiting:
            found = self._waiting.pop(0)
        elif (number := len(self._study.get_trials(deepcopy=False))) < self.plan.trials:
            found = self._ask(number)
        else:
            found = self._next_confirmation()
        return found

    def launch(self, assignment: Assignment) -> None:
        self.in_flight[assignment.trial.id] = assignment

    def postpone(self, assignment: Assignment) -> None:
        """Hand this one out again later."""
        self._waiting.insert(0, assignment)

    def _next_confirmation(self) -> Assignment | None:
        if any(a.trial.role == "search" for a in self.in_flight.values()):
            return None
        winner = self.plan.winner()
        if winner is None:
            return None
        self._confirmed = set() if self._confirmed is None else self._confirmed
        for position, trial in enumerate(self.plan.confirmations(winner)):
            if trial.id not in self._confirmed and self.plan.ledger.result(trial.id) is None:
                self._confirmed.add(trial.id)
                return Assignment(trial, self.plan, position)
        return None

    def epoch(self, trial_id: str, epoch: int, value: float, users: Scores = ()) -> bool:
        """Take a validation value, and what it is of each user told; True if the pruner wants the trial stopped."""
        assignment = self.in_flight[trial_id]
        if assignment.trial.role == "confirm":
            return False
        asked = self._asked[assignment.number]
        asked.report(value, epoch)
        return self._paired.epoch(trial_id, epoch, users) if self._paired is not None else asked.should_prune()

    def ended(self, trial_id: str, result: TrialResult) -> Assignment:
        """Tell the study how a trial ended. The ledger has to know it already."""
        assignment = self.in_flight.pop(trial_id)
        if assignment.trial.role == "search":
            value = result.best if result.status == "done" else None
            self._study.tell(self._asked.pop(assignment.number), value, state=_STATES[result.status])
            if self._paired is not None:
                self._paired.ended(trial_id, value)
        return assignment

    @property
    def over(self) -> bool:
        return not self.in_flight and not self._waiting and self.plan.to_run() == 0


@dataclass(frozen=True)
class GridEvent:
    """What happened in the grid, for progress lines and the mirror: `started`, `epoch` or `ended`."""

    kind: str
    assignment: Assignment
    epoch: int = -1
    value: float = 0.0
    result: TrialResult | None = None


class TrialQueue:
    """All searches of a plan. Every event goes to the ledger before anyone else hears of it."""

    def __init__(
        self,
        studies: list[Study],
        segment: Segment,
        listen: Callable[[GridEvent], None],
        peers: NoOtherBenches | None = None,
    ) -> None:
        self._segment, self._listen, self._peers = segment, listen, peers or NoOtherBenches()
        self._ledger = studies[0].ledger if studies else None
        self.searches = [StudySearch(study) for study in studies]
        self._owner: dict[str, StudySearch] = {}
        self._decided: set[str] = set()
        self._over: set[str] = set()  # studies with nothing left to do
        for study in studies:
            self._catch_up(study)

    def next(self) -> Assignment | None:
        """The next trial of whichever cell is due: the earliest cell with the fewest trials in flight, so that a
        cell's trials follow one another while there are cells enough, and cells come to their end in order."""
        due = [search for search in self.searches if search.plan.id not in self._over]
        for search in sorted(due, key=lambda s: len(s.in_flight)):
            if not self._peers.take(search.plan.id):
                continue
            search = self._current(search)
            while (found := search.next()) is not None:
                if not self._free(found.trial.id):  # the same configuration is under way: its result will count
                    search.postpone(found)
                    break
                search.launch(found)
                if self._settled(search, found):
                    self._peers.release(found.trial.id)
                    continue
                self._owner[found.trial.id] = search
                self._take(ledger_events.started(self._segment, found.trial, found.study.id, found.number))
                if found.trial.role == "confirm":
                    self._take(ledger_events.opened(self._segment, found.trial))
                self._listen(GridEvent("started", found))
                return found
            self._close(search)
        if not self._owner:
            self._peers.wait()
        return None

    def _current(self, search: StudySearch) -> StudySearch:
        """The search, built anew if another bench process may have worked on its cell."""
        if search.in_flight or not self._peers.news(search.plan):
            return search
        self.searches[self.searches.index(search)] = made = StudySearch(search.plan)
        return made

    def _free(self, trial_id: str) -> bool:
        """Whether a trial is not under way, here or in another bench process."""
        return trial_id not in self._owner and self._peers.take(trial_id)

    def _close(self, search: StudySearch) -> None:
        if search.over:
            self._over.add(search.plan.id)
            self._peers.release(search.plan.id)

    def _settled(self, search: StudySearch, found: Assignment) -> bool:
        """A configuration drawn twice is not run twice: its first result counts for both numbers."""
        result = found.study.ledger.result(found.trial.id)
        if result is None:
            return False
        self._take(ledger_events.started(self._segment, found.trial, found.study.id, found.number))
        self._decide(search.ended(found.trial.id, result))
        return True

    def epoch(self, trial_id: str, epoch: int, value: float, users: Scores = ()) -> bool:
        """Record a validation value, and scores by user where they are told; True if the trial is to be stopped."""
        search = self._owner[trial_id]
        told = {"users": list(users)} if users else {}
        self._segment.append("epoch", id=trial_id, epoch=epoch, value=round(value, 8), **told)
        self._listen(GridEvent("epoch", search.in_flight[trial_id], epoch, value))
        return search.epoch(trial_id, epoch, value, users)

    def ended(self, trial_id: str, result: TrialResult) -> None:
        """Record a trial's end, durably, then let its cell go on."""
        search = self._owner.pop(trial_id)
        self._take(ledger_events.ended(self._segment, trial_id, result))
        self._peers.release(trial_id)
        assignment = search.ended(trial_id, result)
        self._decide(assignment)
        self._listen(GridEvent("ended", assignment, result=result))

    def _catch_up(self, study: Study) -> None:
        """The decision of a search that was complete when its process died before it was written."""
        winner, known = study.winner(), study.ledger.winners.get(study.id)
        if winner is not None and study.most and (known is None or known["trials"] != study.trials):
            self._take(self._segment.append("decided", study=study.id, trials=study.trials, winner=winner.id))

    def _decide(self, assignment: Assignment) -> None:
        study = assignment.study
        winner = study.winner()
        if winner is None or not study.most or assignment.trial.role == "confirm" or study.id in self._decided:
            return
        failpoints.reach("ended")
        self._decided.add(study.id)
        self._take(self._segment.append("decided", study=study.id, trials=study.trials, winner=winner.id))

    def _take(self, event: dict[str, Any]) -> None:
        if self._ledger is not None:
            self._ledger.take(self._segment.run, event)

    @property
    def tells_users(self) -> bool:
        """Whether a pruner asks what each user's score is."""
        return any(search.plan.engine.pruner == "wilcoxon" for search in self.searches)

    @property
    def over(self) -> bool:
        return not self._owner and all(search.over for search in self.searches)


def _suggest(asked: optuna.trial.Trial, name: str, axis: BaseDistribution) -> None:
    """Draw one more parameter of a trial that was asked for."""
    if isinstance(axis, CategoricalDistribution):
        asked.suggest_categorical(name, axis.choices)
    elif isinstance(axis, IntDistribution):
        asked.suggest_int(name, axis.low, axis.high, step=axis.step, log=axis.log)
    elif isinstance(axis, FloatDistribution):
        asked.suggest_float(name, axis.low, axis.high, step=axis.step, log=axis.log)
