"""Repeat the recorded search of a row in a temporary home, and confirm its winner there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from harness import registry
from harness.data import library
from harness.engine.slots import NoRoom
from harness.metrics._ties import Ranks
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import row_lookup
from harness.report.row_lookup import LedgerRow
from harness.search import axes, plan, spaces
from harness.system import tempdirs
from harness.types import NO_TEXT, HarnessError, Interrupted, Trial, TrialResult
from harness.workflows import run_bench

Tested = tuple[dict[str, float], Ranks]  # test metrics and test ranks of a run


@dataclass(frozen=True)
class SearchAgain:
    """How a recorded search is repeated.

    ``spaces``: its search spaces; ``trials``: its search trials; ``together``: most search trials at the same time
    (`together` of the recorded search), since what it draws depends on which have ended; ``dataset``: name or folder,
    "" for the row's; ``encoder``: the encoder as `--encoders` takes it, "" for the row's name of it.
    """

    spaces: spaces.SpaceSource
    trials: int
    together: int
    dataset: str = ""
    encoder: str = ""


def run(
    home: Path,
    row: LedgerRow,
    runs: list[list[Trial]],
    again: SearchAgain,
    threads: int | None,
) -> list[tuple[Trial, Tested]]:
    """Repeat the search of a row's cell; return the trials that confirm its winner with the seeds and folds of `runs`.

    `runs`: recorded confirmations by seed; `threads`: torch threads per trial, None if they are not recorded. Raises
    HarnessError if the search would differ from the recorded one, needs a larger machine, or one of these trials fails;
    Interrupted if stopped.
    """
    with tempdirs.folder("reproduce") as folder:
        bench = _as_recorded(_request(home, folder, row, again), row)
        try:
            outcome = run_bench.run(bench, run_bench.Options(threads=threads, tracking="off", together=again.together))
        except NoRoom as error:
            raise HarnessError(
                f"{row.words}: --search trains with as many threads per trial as its launch ({threads}), for which no "
                "machine here has the cores. Use a larger one, or omit --search to rerun only the winner."
            ) from error
        if outcome.signum:
            raise Interrupted(outcome.signum)
        ledger = Ledger.open(folder)
        return [
            (trial, (dict(result.test), artifacts.bounds(row_lookup.ranks(folder, trial))))
            for trial, result in _confirmed(ledger, row, runs)
        ]


def together(study: str, ledger: Ledger) -> int:
    """Return the most search trials of a study that ran at the same time, at least 1."""
    trials, changes = ledger.trials, []
    for row in (trials.rows[trial_id] for trial_id in ledger.studies.get(study, {}).values()):
        changes.append((trials.time[row], trials.place("start", row).offset, 1))
        if trials.status[row]:
            changes.append((trials.ended[row], trials.place("end", row).offset, -1))
    running = accumulate(change for *_, change in sorted(changes))  # equal times are in the order of their segment
    return max(running, default=1)


def _confirmed(ledger: Ledger, row: LedgerRow, runs: list[list[Trial]]) -> list[tuple[Trial, TrialResult]]:
    """Return the finished confirmations with the seeds of `runs`, in this order, and their results.

    Raises HarnessError, with the first reason of a failure, if some are missing.
    """
    done: dict[int, list[tuple[Trial, TrialResult]]] = {}
    rows = row_lookup.of(ledger).values()  # the data set may have another name here
    again = next((one for one in rows if one.study.id == row.study.id), None)
    for trial_id in again.planned if again else ():
        if (result := ledger.result(trial_id)) is not None and result.status == "done":
            trial = ledger.trials[trial_id].trial
            done.setdefault(trial.seed, []).append((trial, result))
    repeated = [done.get(run[0].seed, []) for run in runs]
    if missing := sum(map(len, runs)) - sum(map(len, repeated)):
        failed = (e.result for e in ledger.trials.values() if e.status == "failed")
        reason = next((result.reason for result in failed if result is not None), "its search found no winner")
        raise HarnessError(
            f"{row.words} is not reproduced: {missing} of its {sum(map(len, runs))} recorded runs did not finish when "
            f"its search was repeated ({reason})."
        )
    return [pair for run in repeated for pair in run]


def _as_recorded(bench: plan.Request, row: LedgerRow) -> plan.Request:
    """Return the bench with the row's recorded search: with or without the parameters that its budget sets, in the
    ranges of today or in the recorded ones, since the launch may be older than either. Raises HarnessError if none of
    them is that search."""
    recorded = {name: axes.recorded(text) for name, text in row.study.ranges.items()}
    ranges = {name: axis for name, axis in recorded.items() if axis is not None}
    today = (bench.spaces.under(bench.budget.name), bench.spaces)
    for source in (*today, *(replace(source, ranges=ranges) for source in today)):
        one = replace(bench, spaces=source)
        if row.study.id in {study.id for study in plan.make(one, Ledger()).studies}:
            return one
    raise HarnessError(
        f"{row.words}: the search here would differ from the recorded one: space, data, versions or sampler are not "
        "those of the launch. Give its --spaces and --set (--encoder for a matrix in another folder), or omit --search "
        "to rerun only the winner."
    )


def _request(home: Path, into: Path, row: LedgerRow, again: SearchAgain) -> plan.Request:
    """Return a bench of only the row's cell, in the home `into`, which shares data and caches with `home`."""
    for name in ("data", "cache"):
        (home / name).mkdir(exist_ok=True)
        (into / name).symlink_to((home / name).resolve())
    matrices = library.matrices(home)
    for name, folder in library.folders(home).items():
        library.write_entry(name, folder, into, matrices.get(name, {}))
    launch = row.launch
    encoder = again.encoder or ("noise" if row.cell.encoder == NO_TEXT else registry.quoted(row.cell.encoder))
    return plan.Request(
        home=into,
        datasets=again.dataset or row.cell.dataset,
        adapters=row.cell.adapter,
        backbones=row.cell.backbone,
        encoders=encoder,
        budget=replace(launch.budget, trials=again.trials, cell_seconds=None, seeds=row.study.seeds),
        protocol=launch.protocol,
        prep=launch.prep,
        text=row.card.text or "",
        engine=replace(launch.engine, warm_start=""),  # this row began cold, and the home has no searches to start from
        spaces=again.spaces,
    )
