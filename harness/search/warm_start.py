"""Warm start: begin a search with the best configurations of the same cell on another data set, or with the best shared
parameters of the other rows of its own data set; or, without a search, train the winner of another search."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger
from harness.search.spaces import Space
from harness.types import Cell, HarnessError, Json, Params, PrepSpec, Protocol, Trial

SHARED = "shared"  # in place of a data set: from the other rows
POINTS = 3  # configurations to copy: few enough to leave most of a search of 16 trials to the sampler


def starts(ledger: Ledger, cell: Cell, space: Space, dataset: str) -> tuple[Json, ...]:
    """Return up to `POINTS` best finished configurations of this cell's newest search on `dataset`, best first.

    Each has all parameters. Parameters that this space fixes keep its value; configurations outside of this space are
    left out. Empty for the cells of `dataset` itself, for cells without a search there, and for dataset "". Launches
    with this warm start do not count, so a resumed one finds the same.
    """
    if not dataset or cell.dataset == dataset:
        return ()
    source = replace(cell, dataset=dataset)
    for run in sorted(ledger.launches, reverse=True):
        launch = ledger.launches[run]
        for study in launch.studies if launch.engine.warm_start != dataset else ():
            if study.cell == source and (configurations := _best(ledger, study, space)):
                return configurations
    return ()


@dataclass(frozen=True)
class Winner:
    """The winning configuration of a search of `trials` trials, as this space takes it."""

    params: Json
    trials: int


def source(ledger: Ledger, dataset: str, protocol: Protocol) -> str:
    """Return the newest launch under this protocol that searched `dataset` with several trials a cell; "" without one.

    Its table is the source of all winners of a bench: rows of several tables would not be comparable.
    """
    for run in sorted(ledger.launches, reverse=True):
        launch = ledger.launches[run]
        searches = [one for study in launch.studies for one in study.parts or (study,)]
        if launch.protocol == protocol and any(s.cell.dataset == dataset and s.trials > 1 for s in searches):
            return run
    return ""


def winner(ledger: Ledger, cell: Cell, space: Space, dataset: str, protocol: Protocol) -> Winner | None:
    """Return the winner of this cell's newest decided search in the table of `source`.

    `dataset` may be the cell's own: then the search had another preparation or budget. As in `starts`, this space's
    fixed parameters keep its values. None without such a search, or if the configuration is outside of this space.
    """
    run, wanted = source(ledger, dataset, protocol), replace(cell, dataset=dataset)
    table = ledger.launches[run].table if run else None
    for launch in (ledger.launches[run] for run in sorted(ledger.launches, reverse=True)):
        for study in launch.studies if launch.table == table else ():
            if study.cell != wanted or not study.trials:
                continue
            trials = ledger.planned(study)
            decided = ledger.winner(study.id, trials)
            if decided is not None and (params := _transferred(decided.params, space)) is not None:
                return Winner(params, trials)
    return None


def shared_starts(
    ledger: Ledger, cell: Cell, space: Space, protocol: Protocol, prep: PrepSpec, data: str
) -> tuple[Json, ...]:
    """Return this cell's best finished configuration, and the shared parameters (all but the adapter's) of the best one
    of each of up to `POINTS` other rows of its data set and backbone.

    Parameters that the other row lacks, and those of the adapter, have this cell's defaults. Only searches under the
    same protocol and preparation, of data of this hash, count: elsewhere, validation may contain this test. Searches
    that started so do not count, so a resumed launch finds the same.
    """
    best: dict[Cell, tuple[float, Params]] = {}
    for study in _cold(ledger, protocol, prep):
        row = study.cell
        done = [(score, trial.params) for score, trial in _done(ledger, study) if trial.inputs.data == data]
        if done and (row.dataset, row.backbone) == (cell.dataset, cell.backbone):
            best[row] = max([best.get(row, done[0]), done[0]], key=lambda run: run[0])
    own = [_transferred(best.pop(cell)[1], space)] if cell in best else []
    others = [_shared(params, space) for _, params in sorted(best.values(), key=lambda run: -run[0])]
    found: list[Json] = []
    for point in [*own, *others]:
        if point is not None and point != space.default and point not in found:
            found.append(point)
    return tuple(found[: POINTS + len(own)])


def _cold(ledger: Ledger, protocol: Protocol, prep: PrepSpec) -> list[StudyRecord]:
    launches = [ledger.launches[run] for run in sorted(ledger.launches)]
    same = [one for one in launches if one.engine.warm_start != SHARED and (one.protocol, one.prep) == (protocol, prep)]
    return [study for launch in same for study in launch.studies if study.cell.is_trained]


def _best(ledger: Ledger, study: StudyRecord, space: Space) -> tuple[Json, ...]:
    configurations: list[Json] = []
    for _, trial in _done(ledger, study):
        params = _transferred(trial.params, space)
        if params is not None and params != space.default and params not in configurations:
            configurations.append(params)
    return tuple(configurations[:POINTS])


def _done(ledger: Ledger, study: StudyRecord) -> list[tuple[float, Trial]]:
    """Scores and finished trials of a search, best first."""
    history = ledger.history(study.id, ledger.planned(study))
    done = [(-r.best, n, i) for n, (i, r) in history.items() if r is not None and r.status == "done"]
    return [(-score, ledger.trials[i].trial) for score, _, i in sorted(done)]


def _shared(params: Params, space: Space) -> Json | None:
    """Convert the configuration of another row: with this space's values of the adapter and of what the row lacks."""
    names = [name for name in space.searched if name in params and not name.startswith("adapter.")]
    return _transferred(space.default | {name: params[name] for name in names}, space)


def _transferred(params: Params, space: Space) -> Json | None:
    """Convert a configuration to this space; None if it is outside."""
    if any(name not in params for name in space.searched):
        return None
    point = space.default | {name: params[name] for name in space.searched}
    for name, axis in space.searched.items():
        if axis.when is not None and not axis.when.holds(point):
            point[name] = space.default[name]
        elif not axis.holds(point[name]):
            return None
    return point


def check(ledger: Ledger, dataset: str, trials: int) -> None:
    """Raise HarnessError if the ledger has no search on a data set of that name, or none at all for `SHARED`, or if a
    search of `trials` trials tries nothing but the default; without a search, winners of `dataset` are trained."""
    if dataset and trials < (2 if dataset == SHARED or trials else 0):
        raise HarnessError(
            f"--warm-start {dataset} tries several configurations of each row, and this bench has "
            f"{trials or 'no'} search trial{'s' if not trials else ''}. Add --trials 5, or --budget standard"
            f"{'' if dataset == SHARED else '; --trials 0 trains the winners of that data set'}."
        )
    searched = sorted({study.cell.dataset for launch in ledger.launches.values() for study in launch.studies})
    if dataset == SHARED and searched:
        return
    if dataset and dataset not in searched:
        from harness.registry import suggest

        hint = suggest(dataset, searched) if searched else "This home has no searches yet."
        raise HarnessError(f"--warm-start {dataset}: there is no search on this data set. {hint}")
