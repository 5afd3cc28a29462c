"""Run a bench end to end: plan, embed, search, confirm, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.data import slice_facts, splits
from harness.engine import slots as sharing
from harness.record import artifacts, leases
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.report import ledger_frames, report_files, tables
from harness.search import plan
from harness.search.plan import Plan, Request
from harness.system import failpoints, interpreter
from harness.system.code_hash import code_hash
from harness.system.console import log
from harness.system.signals import Stop
from harness.workflows import disk_space, forecast, repair, shared_data
from harness.workflows.provenance import launch, names_grid


@dataclass(frozen=True)
class Options:
    """Where and how a bench runs: nothing here changes a result."""

    address: str | None = None
    threads: int | None = None  # torch threads a trial; None: as `layout.layout` finds it
    gpu: float | None = None  # share of a GPU a trial; None: as `layout.layout` finds it; 0: none
    tracking: str | None = None  # MLflow URI; None: sqlite in the home, "off": no mirror
    watchdog: float = 1800.0  # seconds without a sign of life after which a trial is ended; 0: never


@dataclass
class Outcome:
    """What a bench came to. `exit_code`: 0 all cells done, 1 some failed, 130 or 143 asked to stop by `signum`."""

    table: tables.Table
    report: Path
    ran: int
    counts: dict[str, int]
    signum: int = 0

    @property
    def exit_code(self) -> int:
        return 128 + self.signum if self.signum else 1 if self.counts["failed"] else 0


def run(request: Request, options: Options) -> Outcome:
    """Run what is missing of a grid and make its table; asked to stop while trials run, the table so far.

    Raises HarnessError for bad input before anything is trained, Interrupted if asked to stop while there is nothing
    to bring to an end, or twice (what ended is kept, and the same command goes on).
    """
    interpreter.check()
    with Stop() as stop:
        return _run(request, options, stop)


def _run(request: Request, options: Options, stop: Stop) -> Outcome:
    ledger = Ledger.open(request.home)
    for damage in ledger.damages:
        log(f"Warning: {damage}" + ("" if damage.torn else "; that event counts as not recorded"))
    grid = plan.make(request, ledger)
    repair.void_lost(grid, log)
    log(overview(grid))
    for line in [*remarks(grid), *other_code(grid)]:
        log(line)
    for cell, reason in grid.skipped:
        log(f"Skipped {cell}: {reason}")
    begun, about = time.monotonic(), forecast.key(grid)
    if grid.pending:
        disk_space.warn(grid, log)
    _describe_targets(grid)
    bases = shared_data.prepare(grid) if grid.pending else {}
    ran = _search(grid, bases, options, stop) if grid.pending else 0
    if ran and not stop.signum and (line := forecast.told(request.home, about, time.monotonic() - begun)):
        log(line)
    if not ran and not stop.signum and not _launched_alike(grid):
        with _segment(request.home) as segment:
            ledger.take(segment.run, segment.append("launched", **launch(grid, {}).to_json()))
    if not ran and not stop.signum:
        log("Nothing is left to do: every trial of this grid is in the ledger.")
    failpoints.reach("searched")
    made_of = report_files.made_of(ledger)
    table = tables.build(ledger_frames.build(ledger, artifacts.sources(request.home)))
    report = report_files.kept(request.home, made_of) or report_files.write(table, request.home, made_of)
    return Outcome(table, report, ran, grid.counts(), stop.signum)


def overview(grid: Plan) -> str:
    """One line: cells, what is done, what is to run."""
    c = grid.counts()
    text = f"{c['cells']} cells ({c['done']} done), {c['trials']} trials at budget '{grid.request.budget.name}'"
    return f"{text}, {c['to_run']} to run."


def remarks(grid: Plan) -> list[str]:
    """Lines about searches that differ from their options: parameters without a model, cells without a warm start."""
    lines, engine = [], grid.request.engine
    if names := grid.drawn_at_random():
        lines.append(f"Sampler '{engine.sampler}' has no model of {', '.join(names)}: drawn at random.")
    if reached := grid.warm_cells():
        lines.append(
            f"{reached} cells begin with the best configurations on {engine.warm_start}; cells of that data set and "
            "cells not searched there begin cold."
        )
    return lines


def other_code(grid: Plan) -> list[str]:
    """A line if something is to run beside trials that were made by other code than is installed now."""
    own, made = code_hash(), []
    for study in grid.studies if grid.pending else []:
        searched = [trial_id for trial_id, _ in study.history().values()]
        for trial_id in [*searched, *study.ledger.confirmations(study.record())]:
            entry = study.ledger.trials.get(trial_id)
            if entry is not None and entry.result is not None and entry.run in study.ledger.launches:
                made.append(study.ledger.launches[entry.run].provenance.get("code", own))
    others = sorted({*made} - {own})
    if not others:
        return []
    count = sum(code != own for code in made)
    return [
        f"Note: {count} of {len(made)} trials that are done were made by other code ({', '.join(others)}; now {own}). "
        "They count, since the versions of their components are the same."
    ]


def _describe_targets(grid: Plan) -> None:
    """What tables want to know of the test targets, written once a prepared data set and protocol."""
    protocol, home = grid.request.protocol, grid.request.home
    for encoded in grid.encoded_datasets.values():
        prepared = encoded.prepared
        key = artifacts.queries_key(prepared.hash, protocol.identity())
        artifacts.save_queries(home, key, lambda own=prepared: slice_facts.describe(own, splits.split(own, protocol)))


def _search(grid: Plan, bases: shared_data.Bases, options: Options, stop: Stop) -> int:
    """Run all that is pending, or until asked to stop; returns how many trials ended."""
    from harness.engine import ray_tune
    from harness.record import mirror as mirrors
    from harness.record import tracking
    from harness.search import other_benches, studies
    from harness.workflows.progress import Progress

    pending = grid.pending
    home, ledger = grid.request.home, pending[0].ledger
    with _segment(home) as segment, ray_tune.cluster(options.address) as resources:
        layout = sharing.layout(resources, grid.width, options.threads, options.gpu)
        record = launch(grid, {"resources": resources, **asdict(layout)}, disk_space.needed(grid))
        ledger.take(segment.run, segment.append("launched", **record.to_json()))
        failpoints.reach("launched")
        uri = options.tracking or tracking.default_uri(home)
        progress = Progress(pending, layout.slots)
        mirror = None if uri == "off" else mirrors.Mirror(uri, home, ledger, progress.line)
        share = f" and {layout.gpu:g} GPU" if layout.gpu else ""
        progress.line(
            f"Running on {layout.slots} slots of {layout.threads} thread(s){share}, {resources['nodes']} node(s)."
        )

        def listen(event: studies.GridEvent) -> None:
            progress(event)
            if event.kind == "ended" and mirror is not None:
                mirror.put(event.assignment.trial.id)

        try:
            shared = shared_data.collect(grid, pending, bases)
            with leases.Leases(home, segment.run, progress.line) as held:
                others = other_benches.OtherBenches(held, ledger, segment.run, progress.line)
                made = studies.TrialQueue(pending, segment, listen, others)
                ray_tune.run(made, shared, home, layout, options.watchdog, stop, progress.line)
        finally:
            progress.close()
            behind = mirror.close(2.0 if stop.signum else 60.0) if mirror is not None else 0
            if behind:
                log(f"{behind} trials are not in MLflow yet; `harness sync` writes them.")
        if stop.signum:
            segment.append("stopped", signal=stop.signum)
        else:
            page = {"tracking": mirror.page} if mirror is not None and mirror.page else {}
            ledger.take(segment.run, segment.append("finished", ran=progress.ended, **page))
        return progress.ended


@contextmanager
def _segment(home: Path) -> Iterator[Segment]:
    segment = Segment(home)
    try:
        yield segment
    finally:
        segment.close()


def _launched_alike(grid: Plan) -> bool:
    """Whether the newest launch already recorded this grid, so that its table is the one to report."""
    launches = grid.studies[0].ledger.launches if grid.studies else {}
    return bool(launches) and names_grid(launches[max(launches)], grid)
