"""Run searches: one Optuna study per cell, rebuilt from the ledger, and the queue of trials over all cells.

A cell's states: SEARCH (n trials, trial 0 is the default point) -> CONFIRM (the winner is retrained over seeds and
tested) -> DONE. Does not import Ray: the engine calls `TrialQueue.next`, `TrialQueue.epoch` and `TrialQueue.ended`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from harness.record import events
from harness.record.segments import Segment
from harness.search.other_benches import NoOtherBenches
from harness.search.plan import check_engine
from harness.search.samplers import PRUNERS, REPLAYED, SAMPLERS, grace
from harness.search.study import Study
from harness.search.wilcoxon_pruner import WilcoxonPruner
from harness.system import failpoints
from harness.training.user_scores import Scores
from harness.types import Json, Params, Trial, TrialResult

optuna.logging.set_verbosity(optuna.logging.ERROR)  # without its hints on speed

_STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Assignment:
    """A trial to run now; number: its search number, or the position of a confirmation."""

    trial: Trial
    study: Study
    number: int


class StudySearch:
    """The search of one cell. Every draw is seeded from (study id, number), so that it depends neither on interruptions
    nor on how many commands the search took."""

    def __init__(self, study: Study) -> None:
        self.study = study
        engine = study.engine
        check_engine(engine)
        pruner = PRUNERS[engine.pruner](study.epochs)
        self._optuna = optuna.create_study(study_name=study.id, direction="maximize", pruner=pruner)
        self._replayed = bool({engine.sampler, engine.pruner} & REPLAYED)
        self._wilcoxon = WilcoxonPruner(grace(study.epochs)) if engine.pruner == "wilcoxon" else None
        self._open_trials: dict[int, optuna.trial.Trial] = {}
        self._waiting: list[Assignment] = []  # drawn, not yet handed out
        self.in_flight: dict[str, Assignment] = {}
        self._rebuild()

    def _rebuild(self) -> None:
        history = self.study.history()
        for number in range(max(history, default=-1) + 1):
            trial_id, result = history.get(number, ("", None))
            entry = self.study.ledger.trials.get(trial_id)
            if entry is not None and result is not None and self._replayed:
                self._replay(number, entry.trial, result)
            elif entry is not None and result is not None:
                self._optuna.add_trial(self._frozen(entry.trial, result))
            else:
                self._waiting.append(self._ask(number, entry.trial.params if entry else None))
        if self._wilcoxon is not None:
            self._wilcoxon.restore(self.study.finished())

    def _replay(self, number: int, trial: Trial, result: TrialResult) -> None:
        """Ask and tell a past trial again, for samplers and pruners with state outside of the trials."""
        self._ask(number, trial.params)
        drawn = self._open_trials.pop(number)
        for epoch, value in enumerate(result.curve):
            drawn.report(value, epoch)
            drawn.should_prune()
        self._optuna.tell(drawn, result.best if result.status == "done" else None, state=_STATES[result.status])

    def _frozen(self, trial: Trial, result: TrialResult) -> optuna.trial.FrozenTrial:
        searched = self.study.space.free() | self.study.space.conditional(trial.params)
        return optuna.trial.create_trial(
            params={name: trial.params[name] for name in searched},
            distributions=searched,
            intermediate_values=dict(enumerate(result.curve)),
            state=_STATES[result.status],
            value=result.best if result.status == "done" else None,
        )

    def _ask(self, number: int, params: Params | None = None) -> Assignment:
        """Return the trial of a search number: preset by the plan, else as recorded (`params`), else drawn."""
        space = self.study.space
        params = self.study.preset_params(number) or params
        if params is not None:
            self._optuna.enqueue_trial({name: params[name] for name in space.searched})
        self._optuna.sampler = SAMPLERS[self.study.engine.sampler](int(self.study.id[:7], 16) + number, space)
        drawn = self._optuna.ask()
        if self._replayed:
            drawn.relative_params  # noqa: B018 - drawn even if all values are preset, so that a replay draws the same
        for name, axis in space.free().items():
            _suggest(drawn, name, axis)
        for name, axis in space.conditional(drawn.params | space.fixed).items():
            _suggest(drawn, name, axis)
        if drawn.number != number:
            raise AssertionError(f"study {self.study.cell} is at {drawn.number}, expected {number}")
        self._open_trials[number] = drawn
        return Assignment(self.study.trial("search", 0, space.default | drawn.params), self.study, number)

    def next(self) -> Assignment | None:
        """Return the next trial to run, or None if there is none now (or ever)."""
        if self._waiting:
            return self._waiting.pop(0)
        if (number := len(self._optuna.get_trials(deepcopy=False))) < self.study.trials:
            return self._ask(number)
        return self._next_confirmation()

    def launch(self, assignment: Assignment) -> None:
        self.in_flight[assignment.trial.id] = assignment

    def postpone(self, assignment: Assignment) -> None:
        """Hand out an assignment again later."""
        self._waiting.insert(0, assignment)

    def _next_confirmation(self) -> Assignment | None:
        if any(a.trial.role == "search" for a in self.in_flight.values()):
            return None
        winner = self.study.winner()
        if winner is None:
            return None
        for position, trial in enumerate(self.study.confirmations(winner)):
            # one that ended here is due again if another process finds its ranks lost
            if trial.id not in self.in_flight and self.study.ledger.result(trial.id) is None:
                return Assignment(trial, self.study, position)
        return None

    def epoch(self, trial_id: str, epoch: int, value: float, users: Scores = ()) -> bool:
        """Report a validation value and scores by user to the pruner; return whether the trial is to be pruned."""
        assignment = self.in_flight[trial_id]
        if assignment.trial.role == "confirm":
            return False
        drawn = self._open_trials[assignment.number]
        drawn.report(value, epoch)
        return self._wilcoxon.epoch(trial_id, epoch, users) if self._wilcoxon is not None else drawn.should_prune()

    def reuse(self, trial_id: str, result: TrialResult) -> None:
        """Report a result that the ledger has already, with its curve, as after a restart."""
        assignment = self.in_flight[trial_id]
        if assignment.trial.role == "search":
            drawn = self._open_trials[assignment.number]
            for epoch, value in enumerate(result.curve):
                drawn.report(value, epoch)
                drawn.should_prune()
            if self._wilcoxon is not None:
                self._wilcoxon.restore([own for own in self.study.finished() if own[0] == trial_id])
        self.ended(trial_id, result)

    def ended(self, trial_id: str, result: TrialResult) -> Assignment:
        """Report the end of a trial to the study. It must be in the ledger already."""
        assignment = self.in_flight.pop(trial_id)
        if assignment.trial.role == "search":
            value = result.best if result.status == "done" else None
            self._optuna.tell(self._open_trials.pop(assignment.number), value, state=_STATES[result.status])
            if self._wilcoxon is not None:
                self._wilcoxon.ended(trial_id, value)
        return assignment

    @property
    def over(self) -> bool:
        return not self.in_flight and not self._waiting and self.study.to_run() == 0

    def close(self) -> None:
        """Give back the memory of a search that is over: Optuna keeps every trial of a study."""
        del self._optuna


def _is_of_others(assignment: Assignment) -> bool:
    """Whether a searched configuration needs a trial of this study alone: another study's pruner has stopped it, and it
    might go on under this one's; or another study has begun it, will resume it, and must not take this one's pruning
    for its own."""
    study, trial = assignment.study, assignment.trial
    entry = study.ledger.trials.get(trial.id)
    if trial.role != "search" or entry is None or any(own == study.id for own, _ in study.ledger.places(trial.id)):
        return False
    return entry.status == "pruned" or (entry.status is None and study.engine.pruner != "none")


@dataclass(frozen=True)
class GridEvent:
    """An event of kind `started`, `epoch`, `ended` or `reused`, for progress lines and the mirror."""

    kind: str
    assignment: Assignment
    epoch: int = -1
    value: float = 0.0
    result: TrialResult | None = None


class TrialQueue:
    """The trials of all searches of a plan. Every event is written to the ledger before listeners get it."""

    def __init__(
        self,
        studies: list[Study],
        segment: Segment,
        on_event: Callable[[GridEvent], None],
        others: NoOtherBenches | None = None,
        together: int | None = None,  # most trials of a search at the same time
    ) -> None:
        self._segment, self._on_event, self._others = segment, on_event, others or NoOtherBenches()
        self._ledger, self._together = studies[0].ledger if studies else None, together
        self.searches = [StudySearch(study) for study in studies]
        self._owner: dict[str, StudySearch] = {}
        self._decided: set[str] = set()
        self._over: set[str] = set()  # studies with nothing left to do
        self._unbegun = {study.id for study in studies if not study.cell.is_ensemble and not study.begun}
        self._place = {study.id: place for place, study in enumerate(studies)}
        self._due: list[tuple[bool, int, int]] = []  # heap of ranks; one that is not in `_ranked` is out of date
        self._ranked: dict[int, tuple[bool, int, int]] = {}  # place -> rank
        self._asleep: set[int] = set()  # places of cells that have no trial until one of theirs ends
        for search in self.searches:
            self._queue(search)
        for study in studies:
            self._catch_up(study)

    def next(self) -> Assignment | None:
        """Return the next trial of the first cell with the fewest running trials, or None.

        Cells of which no trial was started come first, so that every cell soon has its default point. From then on,
        while there are enough cells, the trials of a cell run one after another, and cells finish in order.
        """
        asked = []
        try:
            while (place := self._first_due()) is not None:
                asked.append(place)
                if (assignment := self._next_of(self.searches[place])) is not None:
                    return assignment
        finally:
            for place in asked:
                if place not in self._asleep:
                    self._queue(self.searches[place])
        if not self._owner:
            self._others.wait()
        return None

    def _next_of(self, search: StudySearch) -> Assignment | None:
        """Start the next trial of a cell, if it has one now and no other process works on it."""
        if not self._others.take(search.study.id):
            return None
        search = self._current(search)
        if self._together and len(search.in_flight) >= self._together and search.study.winner() is None:
            self._asleep.add(self._place[search.study.id])
            return None
        while (drawn := search.next()) is not None:
            if not self._free(drawn.trial.id):  # it is running already: its result counts
                search.postpone(drawn)
                return None
            if (assignment := self._own(drawn)) is None:
                search.postpone(drawn)
                return None
            search.launch(assignment)
            self._unbegun.discard(search.study.id)
            if self._settled(search, assignment):
                self._others.release(assignment.trial.id)
                continue
            self._owner[assignment.trial.id] = search
            self._take(events.started(self._segment, assignment.trial, assignment.study.id, assignment.number))
            if assignment.trial.role == "confirm":
                self._take(events.opened(self._segment, assignment.trial))
            self._on_event(GridEvent("started", assignment))
            return assignment
        self._close(search)
        if search.in_flight:  # only the end of one of them can make another trial due
            self._asleep.add(self._place[search.study.id])
        return None

    def _queue(self, search: StudySearch) -> None:
        """Queue a cell by its present rank: cells without a started trial first, then those with few running ones."""
        place = self._place[search.study.id]
        rank = (search.study.id not in self._unbegun, len(search.in_flight), place)
        if search.study.id in self._over:
            self._ranked.pop(place, None)
        elif self._ranked.get(place) != rank:
            self._ranked[place] = rank
            heapq.heappush(self._due, rank)

    def _first_due(self) -> int | None:
        """Take the place of the first cell out of the queue; None if it is empty."""
        while self._due:
            rank = heapq.heappop(self._due)
            if self._ranked.get(rank[2]) == rank:
                del self._ranked[rank[2]]
                return rank[2]
        return None

    def _current(self, search: StudySearch) -> StudySearch:
        """Return the search, rebuilt if another bench process may have worked on its cell."""
        if search.in_flight or not self._others.news(search.study):
            return search
        rebuilt = StudySearch(search.study)
        self.searches[self._place[search.study.id]] = rebuilt
        return rebuilt

    def _own(self, drawn: Assignment) -> Assignment | None:
        """Return the assignment, as a trial of its study alone if it needs one, with the lease of that trial; None if
        that one is running already."""
        if not _is_of_others(drawn):
            return drawn
        own = replace(drawn, trial=replace(drawn.trial, study=drawn.study.id))
        self._others.release(drawn.trial.id)
        return own if self._free(own.trial.id) else None

    def _free(self, trial_id: str) -> bool:
        """Whether a trial runs neither here nor in another bench process."""
        return trial_id not in self._owner and self._others.take(trial_id)

    def _close(self, search: StudySearch) -> None:
        if search.over:
            search.close()
            self._over.add(search.study.id)
            self._others.release(search.study.id)

    def _settled(self, search: StudySearch, assignment: Assignment) -> bool:
        """Reuse the result of a configuration that was drawn before; False if there is none."""
        result = assignment.study.ledger.result(assignment.trial.id)
        if result is None:
            return False
        self._take(events.started(self._segment, assignment.trial, assignment.study.id, assignment.number))
        search.reuse(assignment.trial.id, result)
        self._on_event(GridEvent("reused", assignment, result=result))
        self._decide(assignment)
        return True

    def epoch(self, trial_id: str, epoch: int, value: float, users: Scores = ()) -> bool:
        """Record a validation value and scores by user, if any; return whether the trial is to be pruned."""
        search = self._owner[trial_id]
        scores = {"users": list(users)} if users else {}
        self._segment.append("epoch", id=trial_id, epoch=epoch, value=round(value, 8), **scores)
        self._on_event(GridEvent("epoch", search.in_flight[trial_id], epoch, value))
        return search.epoch(trial_id, epoch, value, users)

    def ended(self, trial_id: str, result: TrialResult) -> None:
        """Record the end of a trial durably, then report it to its study."""
        search = self._owner.pop(trial_id)
        self._asleep.discard(self._place[search.study.id])
        self._take(events.ended(self._segment, trial_id, result))
        self._others.release(trial_id)
        assignment = search.ended(trial_id, result)
        self._queue(search)
        self._decide(assignment)
        if not search.in_flight and self._unbegun:
            self._others.release(search.study.id)  # another process may go on with this cell: it is not due here soon
        self._on_event(GridEvent("ended", assignment, result=result))

    def _catch_up(self, study: Study) -> None:
        """Write the decision of a complete search whose process died before it wrote it."""
        winner, decisions = study.winner(), study.ledger.decisions.get(study.id, ())
        if winner is not None and study.max_trials and all(one["trials"] != study.trials for one in decisions):
            self._take(self._segment.append("decided", study=study.id, trials=study.trials, winner=winner.id))

    def _decide(self, assignment: Assignment) -> None:
        study = assignment.study
        winner = study.winner()
        if winner is None or not study.max_trials or assignment.trial.role == "confirm" or study.id in self._decided:
            return
        failpoints.reach("ended")
        self._decided.add(study.id)
        self._take(self._segment.append("decided", study=study.id, trials=study.trials, winner=winner.id))

    def _take(self, event: Json) -> None:
        if self._ledger is not None:
            place = self._segment.last if self._ledger.home else None
            self._ledger.take(self._segment.run, event, place)

    @property
    def keep_user_scores(self) -> bool:
        """Whether a pruner needs scores by user."""
        return any(search.study.engine.pruner == "wilcoxon" for search in self.searches)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do. A run of a closed cell that another process withdrew is left to the next
        bench."""
        return not self._owner and all(search.study.id in self._over or search.over for search in self.searches)


def _suggest(trial: optuna.trial.Trial, name: str, axis: BaseDistribution) -> None:
    """Draw one parameter of an open Optuna trial."""
    if isinstance(axis, CategoricalDistribution):
        trial.suggest_categorical(name, axis.choices)
    elif isinstance(axis, IntDistribution):
        trial.suggest_int(name, axis.low, axis.high, step=axis.step, log=axis.log)
    elif isinstance(axis, FloatDistribution):
        trial.suggest_float(name, axis.low, axis.high, step=axis.step, log=axis.log)
