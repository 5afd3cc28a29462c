"""Run a bench end to end: plan, embed, search, confirm, report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.data import slice_facts, splits
from harness.engine import ray_head
from harness.engine import slots as sharing
from harness.record import artifacts, leases, places, tracking_uri
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.report import ledger_frames, report_files, table_scope, tables
from harness.search import plan, selection, warm_start
from harness.search.plan import Plan, Request
from harness.system import cores, failpoints, interpreter
from harness.system.code_hash import code_hash
from harness.system.console import log
from harness.system.signals import Stop
from harness.types import SAMPLERS, HarnessError, Json
from harness.workflows import disk_space, forecast, gpu_memory, remote_encoding, repair, shared_data
from harness.workflows.provenance import launch, names_grid

LARGER = ("amazon2014-office", "amazon2014-beauty", "ml-1m")  # named where `all` finds only what is on this machine


@dataclass(frozen=True)
class Options:
    """Where and how a bench runs. No option here changes a result."""

    address: str | None = None
    labels: str | None = None  # of the nodes to use, key=value or key!=value; None: all nodes
    threads: int | None = None  # torch threads per trial; None: chosen by `slots.layout`
    gpu: float | None = None  # GPU share per trial; None: chosen by `slots.layout`; 0: no GPU
    tracking: str | None = None  # MLflow URI; None: sqlite in the home, "off": no mirror
    watchdog: float = 1800.0  # seconds without a heartbeat after which a trial is ended; 0: never
    top_k: int = 0  # length of the lists stored for each confirmation; 0: none
    artifacts: str | None = None  # place of checkpoints and weights (`places`); None: the home
    together: int | None = None  # most trials of a search at the same time; None: as many as are due
    meter: gpu_memory.Meter | None = None  # replaces the measurement of GPU memory, in tests

    def store(self, home: Path) -> str:
        """Return the address of the MLflow store, or "off". Raises HarnessError as `tracking_uri.check`."""
        uri = self.tracking or tracking_uri.default_uri(home)
        if uri != tracking_uri.OFF:
            tracking_uri.check(uri)
        return uri


@dataclass
class Outcome:
    """Outcome of a bench. `exit_code`: 0 all cells done, 1 some failed, 130 or 143 stopped by signal `signum`."""

    table: tables.Table
    report: Path
    ran: int
    counts: dict[str, int]
    signum: int = 0

    @property
    def exit_code(self) -> int:
        return 128 + self.signum if self.signum else 1 if self.counts["failed"] else 0


def run(request: Request, options: Options) -> Outcome:
    """Run the missing trials of a grid and build its table; if stopped while trials run, the table so far.

    Raises HarnessError for bad input before training starts, Interrupted if stopped twice or while no trial runs
    (finished trials are kept, and the same command continues).
    """
    interpreter.check()
    options.store(request.home)
    with Stop() as stop:
        return _run(request, options, stop)


def check(request: Request, options: Options) -> None:
    """Raise HarnessError for bad input that shows without fetching data or joining a cluster, and for an address at
    which no cluster listens."""
    interpreter.check()
    options.store(request.home)
    if ray_head.address_of(options.address) is None:
        check_threads(options.threads)
    sharing.label_selector(options.labels)
    plan.check(request, Ledger.open(request.home))
    if options.artifacts:
        places.check(options.artifacts)


def check_threads(threads: int | None) -> None:
    """Raise NoRoom if fewer cores are usable here than a trial is to have threads."""
    usable = cores.usable()
    sharing.layout({"cpus": usable, "gpus": 0.0, "node_cpus": usable}, 1, threads, 0.0)


def _run(request: Request, options: Options, stop: Stop) -> Outcome:
    ledger = Ledger.open(request.home)
    for damage in ledger.damages:
        log(f"Warning: {damage}" + ("" if damage.torn else "; that event is ignored"))
    grid = plan.make(request, ledger)
    repair.void_lost(grid, log)
    log(overview(grid))
    for line in [*remarks(grid), *other_code(grid), *without_lists(grid, options.top_k)]:
        log(line)
    for cell, reason in grid.skipped:
        log(f"Skipped {cell}: {reason}")
    begun = time.monotonic()
    if grid.pending:
        disk_space.warn(grid, log, options.top_k)
    describe_targets(grid, grid.encoded_datasets)
    if options.gpu != 0:
        remote_encoding.encode(grid, options.address, sharing.label_selector(options.labels))
    bases = shared_data.prepare(grid) if grid.pending else {}
    work = forecast.key(grid)  # without the cells that cannot be built, as in a forecast
    ran, mirrored = _search(grid, bases, options, stop) if grid.pending else (0, False)
    if ran and not stop.signum and (line := forecast.accuracy(request.home, work, time.monotonic() - begun)):
        log(line)
    if not ran and not stop.signum and not _launched_alike(grid):
        with _segment(request.home) as segment:
            ledger.take(segment.run, segment.append("launched", **launch(grid, {}).to_json()))
            ledger.take(segment.run, segment.append("finished", ran=0))
    if not ran and not stop.signum:
        log("Nothing is left to do: every trial of this grid is in the ledger.")
    failpoints.reach("searched")
    # not the newest launch: a bench beside this one, with other settings, may have begun later
    newest = max((run for run, one in ledger.launches.items() if one.table == grid.request.table_key), default=None)
    inputs = report_files.inputs_hash(ledger, newest)
    table = tables.build(ledger_frames.build(ledger, artifacts.sources(request.home), newest))
    report = report_files.existing(request.home, inputs)
    if report is None:
        report = report_files.write(table, request.home, inputs, table_scope.newest(ledger, newest).study)
        if mirrored:
            _show(options.store(request.home), request.home, ledger, report, newest)
    return Outcome(table, report, ran, grid.counts(), stop.signum)


def overview(grid: Plan) -> str:
    """Return one line: cells, finished and pending trials."""
    c = grid.counts()
    text = f"{c['cells']} cells ({c['done']} done), {c['trials']} trials at budget '{grid.request.budget.name}'"
    return f"{text}, {c['to_run']} to run."


def remarks(grid: Plan) -> list[str]:
    """Return lines about parameters drawn at random, cells with a warm start, a table of another sampler and searches
    in other ranges."""
    lines, engine = [], grid.request.engine
    if names := grid.drawn_at_random():
        lines.append(f"Sampler '{engine.sampler}' cannot model {', '.join(names)}: drawn at random.")
    if transferred := [study for study in grid.studies if study.transferred]:
        run = warm_start.source(transferred[0].ledger, engine.warm_start, grid.request.protocol)
        lines.append(
            f"{len(transferred)} cells are trained as the winners of their searches on {engine.warm_start}, in the "
            f"table of launch {run}."
        )
    elif reached := grid.warm_cells():
        lines.append(f"{reached} cells start with {_origin(engine.warm_start)}")
    return lines + _left_out(grid) + _other_sampler(grid) + _other_ranges(grid)


def _origin(source: str) -> str:
    if source == warm_start.SHARED:
        return (
            "their best configuration and the shared parameters of the best other rows; cells without any start cold."
        )
    return f"the best configurations on {source}; cells of that data set and cells not searched there start cold."


def _left_out(grid: Plan) -> list[str]:
    """Return a line about the data sets that `--datasets all` leaves out, and the command that gets some."""
    away = selection.not_ready(grid.request.datasets, grid.request.home)
    if not away:
        return []
    some = [name for name in LARGER if name in away] or away[:1]
    return [
        f"--datasets all: {', '.join(grid.encoded_datasets)}. {len(away)} other data sets are not on this machine "
        f"(`harness list`); `harness prepare {' '.join(some)}` downloads and adds {'them' if some[1:] else 'it'}."
    ]


def _other_sampler(grid: Plan) -> list[str]:
    """Return a note if the home has this bench's table with another sampler, but none with this one."""
    launches = grid.studies[0].ledger.launches if grid.studies else {}
    tables_here, sampler = {launch.table for launch in launches.values()}, grid.request.engine.sampler
    others = [name for name in SAMPLERS if grid.request.searched_by(name).table_key in tables_here]
    if sampler in others or not others:
        return []
    again = f"--sampler {others[0]}"
    return [
        f"Note: this home has a table of the same settings with {again}. With --sampler {sampler}, a separate table "
        f"begins; it reuses the configurations that both searches try. {again} continues the old table."
    ]


def _other_ranges(grid: Plan) -> list[str]:
    """Return a note if cells of this table were searched in other ranges, of which this bench continues no search."""
    again, older = 0, {}
    for study in grid.distinct:
        if study.max_trials < 2 or study.begun:
            continue
        ranges = study.record().ranges
        before = [
            record
            for launch in study.ledger.launches.values()
            if launch.table == grid.request.table_key
            for record in launch.studies
            if record.cell == study.cell and study.ledger.studies.get(record.id)
        ]
        others = [{n: r for n, r in record.ranges.items() if ranges.get(n, r) != r} for record in before]
        again, older = again + any(others), next(filter(None, others), older)
    if not again:
        return []
    names = ", ".join(f"{name} {text}" for name, text in older.items())
    return [
        f"Note: {again} {'cell was' if again == 1 else 'cells were'} searched here in other ranges ({names}) and will "
        "be searched again in the current ones. To continue the old searches, give a --spaces folder whose train.toml "
        "has their ranges."
    ]


def other_code(grid: Plan) -> list[str]:
    """Return a note if pending trials will stand next to trials of other code than the installed one."""
    current, codes = code_hash(), []
    for study in grid.studies if grid.pending else []:
        searched = [trial_id for trial_id, _ in study.history().values()]
        for trial_id in [*searched, *study.ledger.confirmations(study.record())]:
            entry = study.ledger.trials.get(trial_id)
            if entry is not None and entry.result is not None and entry.run in study.ledger.launches:
                codes.append(study.ledger.launches[entry.run].provenance.get("code", current))
    others = sorted({*codes} - {current})
    if not others:
        return []
    count = sum(code != current for code in codes)
    return [
        f"Note: {count} of {len(codes)} finished trials ran other code ({', '.join(others)}; now {current}). "
        "They count, since their components have the same versions."
    ]


def without_lists(grid: Plan, top_k: int) -> list[str]:
    """Return a note if finished runs have no stored lists of `top_k` items."""
    trials = [(study, trial_id) for study in grid.studies for trial_id in study.ledger.confirmations(study.record())]
    done = [i for study, i in trials if (result := study.ledger.result(i)) is not None and result.status == "done"]
    count = sum(artifacts.list_length(grid.request.home, trial_id) < top_k for trial_id in done)
    if not count:
        return []
    return [
        f"Note: {count} of {len(done)} finished runs have no stored lists of {top_k} items. Write those of a row with: "
        f"harness export ROW --lists --top-k {top_k} --output FILE"
    ]


def describe_targets(grid: Plan, names: Iterable[str]) -> None:
    """Save the facts about test targets that tables show, once per prepared data set of these, protocol and fold.

    Raises HarnessError for data that the protocol cannot split."""
    home = grid.request.home
    for name in names:
        prepared = grid.encoded_datasets[name].prepared
        for part in grid.request.protocol.parts:
            key = artifacts.queries_key(prepared.hash, part.identity())
            artifacts.save_queries(
                home, key, lambda data=prepared, of=part: slice_facts.describe(data, splits.split(data, of))
            )


def _search(grid: Plan, bases: shared_data.Bases, options: Options, stop: Stop) -> tuple[int, bool]:
    """Run all pending trials, or until stopped; return how many ended, and whether all ran and MLflow has them."""
    from harness.engine import ray_cluster, ray_tune
    from harness.record import mirror as mirrors
    from harness.search import other_benches, studies
    from harness.workflows.progress import Progress

    pending = grid.pending
    home, ledger = grid.request.home, pending[0].ledger
    selector = sharing.label_selector(options.labels)
    place = places.check(options.artifacts) if options.artifacts else ""
    with _segment(home) as segment, ray_cluster.cluster(options.address, selector) as resources:
        shared = shared_data.collect(grid, pending, bases) | {"top_k": options.top_k, "place": place}
        layout, where = _laid_out(grid, shared, resources, options)
        where |= {"artifacts": place} if place else {}
        record = launch(grid, where, disk_space.needed(grid, options.top_k))
        ledger.take(segment.run, segment.append("launched", **record.to_json()))
        failpoints.reach("launched")
        uri = options.store(home)
        progress = Progress(pending, layout.slots, shown=grid.studies)
        mirror = None if uri == tracking_uri.OFF else mirrors.Mirror(uri, home, ledger, progress.line)
        share = f" and {layout.gpu:g} GPU" if layout.gpu else ""
        progress.line(
            f"Running on {layout.slots} slots of {layout.threads} thread(s){share}, {resources['nodes']} node(s)."
        )

        def listen(event: studies.GridEvent) -> None:
            progress(event)
            if event.kind in ("ended", "reused") and mirror is not None:
                mirror.put(event.assignment.trial.id)

        try:
            with leases.Leases(home, segment.run, progress.line) as held:
                others = other_benches.OtherBenches(held, ledger, segment.run, progress.line)
                queue = studies.TrialQueue(pending, segment, listen, others, options.together)
                ray_tune.run(queue, shared, home, layout, options.watchdog, stop, progress.line)
        finally:
            progress.close()
            behind = mirror.close(2.0 if stop.signum else 60.0) if mirror is not None else 0
            if behind:
                log(f"{behind} trials are not in MLflow yet; run `harness sync` to write them.")
        if stop.signum:
            ledger.take(segment.run, segment.append("stopped", signal=stop.signum))
        else:
            page = {"tracking": mirror.page} if mirror is not None and mirror.page else {}
            ledger.take(segment.run, segment.append("finished", ran=progress.ended, **page))
        return progress.ended, mirror is not None and not behind and not stop.signum


def _laid_out(grid: Plan, shared: Json, resources: Json, options: Options) -> tuple[sharing.Layout, Json]:
    """Return how trials share the cluster, and what a launch records of it; say what bears on GPUs."""
    memory = None if options.gpu is not None else gpu_memory.measure(grid, shared, resources, options.meter)
    layout = sharing.layout(resources, grid.width, options.threads, options.gpu, memory)
    usable = [] if memory else gpu_memory.unusable(layout, resources.get("labels", {}))  # a measurement has used them
    for line in [*gpu_memory.lines(memory, layout), *usable]:
        log(line)
    return layout, {"resources": resources, **layout.to_json()} | ({"gpu_memory": memory.to_json()} if memory else {})


def _show(uri: str, home: Path, ledger: Ledger, report: Path, run: str | None) -> None:
    """Show the report of a launch in MLflow too; a store that went away costs one line."""
    from harness.workflows import mlflow_page

    try:
        mlflow_page.show(uri, home, ledger, report, run)
    except HarnessError as error:
        log(f"{error} `harness sync` writes it later.")


@contextmanager
def _segment(home: Path) -> Iterator[Segment]:
    segment = Segment(home)
    try:
        yield segment
    finally:
        segment.close()


def _launched_alike(grid: Plan) -> bool:
    """Return whether the newest launch already recorded this grid, so that its table is current."""
    launches = grid.studies[0].ledger.launches if grid.studies else {}
    return bool(launches) and names_grid(launches[max(launches)], grid)
