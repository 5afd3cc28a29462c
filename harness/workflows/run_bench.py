"""The walk of a bench, top to bottom: plan, prepare vectors, search, confirm, report."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import slice_facts, splits
from harness.engine import slots as sharing
from harness.record import artifacts, leases
from harness.record.ledger import SCHEMA, Ledger
from harness.record.segments import Segment
from harness.report import ledger_frames, report_files, tables
from harness.search import plan
from harness.search.plan import Plan, Request, Study
from harness.system import failpoints, interpreter
from harness.system.code_hash import code_hash
from harness.system.signals import Stop
from harness.text import embeddings
from harness.types import EXPECTED, HarnessError, Protocol
from harness.workflows import disk_space, forecast, repair


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


def say(text: str) -> None:
    """A line of progress; stdout is kept for the result."""
    print(text, file=sys.stderr, flush=True)


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
        say(f"Warning: {damage}" + ("" if damage.torn else "; that event counts as not recorded"))
    grid = plan.make(request, ledger)
    repair.void_lost(grid, say)
    say(overview(grid))
    for line in [*remarks(grid), *other_code(grid)]:
        say(line)
    for cell, reason in grid.skipped:
        say(f"Skipped {cell}: {reason}")
    begun, about = time.monotonic(), forecast.key(grid)
    if grid.pending:
        disk_space.warn(grid, say)
    _describe_targets(grid)
    bases = ready(grid) if grid.pending else {}
    ran = _search(grid, bases, options, stop) if grid.pending else 0
    if ran and not stop.signum and (line := forecast.told(request.home, about, time.monotonic() - begun)):
        say(line)
    if not ran and not stop.signum and not _launched_alike(grid):
        with _segment(request.home) as segment:
            ledger.take(segment.run, segment.append("launched", **launch(grid, {})))
    if not ran and not stop.signum:
        say("Nothing is left to do: every trial of this grid is in the ledger.")
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
    """What of the search is not as its options alone say: parameters without a model, cells without a warm start."""
    found, search = [], grid.search()
    if names := search.get("drawn_at_random"):
        found.append(f"Sampler '{search['sampler']}' has no model of {', '.join(names)}: drawn at random.")
    if "warm_cells" in search:
        found.append(
            f"{search['warm_cells']} cells begin with the best configurations on {search['warm_start']}; cells of that "
            "data set and cells not searched there begin cold."
        )
    return found


def other_code(grid: Plan) -> list[str]:
    """A line if something is to run beside trials that were made by other code than is installed now."""
    own, made = code_hash(), []
    for study in grid.studies if grid.pending else []:
        searched = [trial_id for trial_id, _ in study.history().values()]
        for trial_id in [*searched, *ledger_frames.confirmations(study.ledger, study.describe())]:
            entry = study.ledger.trials.get(trial_id)
            if entry is not None and entry.result is not None and entry.run in study.ledger.launches:
                made.append(study.ledger.launches[entry.run]["provenance"].get("code", own))
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
    for material in grid.materials.values():
        prepared = material.prepared
        key = artifacts.queries_key(prepared.hash, protocol.identity())
        artifacts.save_queries(home, key, lambda own=prepared: slice_facts.describe(own, splits.split(own, protocol)))


def ready(grid: Plan) -> Bases:
    """Vectors of what still runs; cells that cannot be built are out of the grid afterwards."""
    bases = _vectors(grid)
    _skip_unbuildable(grid, bases)
    _warn_of_slow_products(grid)
    return bases


def _warn_of_slow_products(grid: Plan) -> None:
    """bfloat16 is asked for to be faster; on a processor without the instructions it is far slower."""
    from harness.training import trial

    if any(study.space.default.get("train.precision") == "bfloat16" for study in grid.pending):
        times = trial.bfloat16_slows()
        if times > 1.5:
            say(f"Warning: train.precision=bfloat16, but this processor makes such products {times:.0f}x slower.")


def _search(grid: Plan, bases: Bases, options: Options, stop: Stop) -> int:
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
        event = launch(grid, {"resources": resources, **asdict(layout)}) | {"room": disk_space.needed(grid)}
        ledger.take(segment.run, segment.append("launched", **event))
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
            shared = shared_of(grid, pending, bases)
            with leases.Leases(home, segment.run, progress.line) as held:
                others = other_benches.OtherBenches(held, ledger, segment.run, progress.line)
                made = studies.TrialQueue(pending, segment, listen, others)
                ray_tune.run(made, shared, home, layout, options.watchdog, stop, progress.line)
        finally:
            progress.close()
            behind = mirror.close(2.0 if stop.signum else 60.0) if mirror is not None else 0
            if behind:
                say(f"{behind} trials are not in MLflow yet; `harness sync` writes them.")
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
    """Whether the newest launch already names this very grid and what is skipped of it, so that its table is ours."""
    if not grid.studies or not (launches := grid.studies[0].ledger.launches):
        return False
    newest, wanted = launches[max(launches)], launch_cells(grid)
    return newest["table"] == grid.request.table_key and {key: newest[key] for key in wanted} == wanted


Bases = dict[str, tuple[embeddings.Basis, Any]]


def _vectors(grid: Plan) -> Bases:
    """Embeddings and bases of the studies that still run, by embedding hash; computed now if they are not cached."""
    wanted = {(s.cell.dataset, s.cell.encoder, s.inputs["embedding"]) for s in grid.pending if s.inputs["embedding"]}
    found: Bases = {}
    for dataset, word, key in sorted(wanted):
        material = grid.materials[dataset]
        E = embeddings.embed(material.encoders[word], material.texts, grid.request.home)
        basis = embeddings.basis(E, key, grid.request.home)
        for note in basis.info["notes"]:
            say(f"{dataset} / {word}: {note}")
        found[key] = (basis, E)
    return found


def arrays(basis: embeddings.Basis, E: Any) -> dict[str, Any]:
    return {"U": basis.U, "S": basis.S, "V": basis.V, "mean": basis.mean, "E": E}


def _skip_unbuildable(grid: Plan, bases: Bases) -> None:
    """Build every pending cell's default model once; what cannot be built is skipped with its sentence."""
    from harness.training import trial

    kept: list[Study] = []
    split_of = {name: splits.split(m.prepared, grid.request.protocol) for name, m in grid.materials.items()}
    for study in grid.studies:
        reason = None
        if study.state == "pending" and not study.cell.is_baseline:
            key, n = study.inputs["embedding"], grid.materials[study.cell.dataset].prepared.catalogue.height
            spectrum = trial.spectrum(arrays(*bases[key]) if key else {}, n)
            try:
                trial.build(study.trial("search", 0, study.space.default), split_of[study.cell.dataset], spectrum)
            except ValueError as error:
                reason = str(error)
            except Exception as error:  # a fault of the component: its trials fail with their reason, and are counted
                say(f"{study.cell} cannot be built: {type(error).__name__}: {error}")
        if reason is None:
            kept.append(study)
        else:
            grid.skipped.append((study.cell, reason))
            say(f"Skipped {study.cell}: {reason}")
    if grid.skipped and not any(not s.cell.is_baseline for s in kept):
        cell, reason = grid.skipped[0]
        raise HarnessError(f"No cell of this grid can be built; {cell}: {reason}")
    grid.studies[:] = kept


def shared_of(grid: Plan, pending: list[Study], bases: Bases) -> dict[str, Any]:
    """What actors read, by hash: sealed split_of for searches, open ones for confirmations, bases with their E."""
    split_of: dict[tuple[str, str], splits.Split] = {}
    for name in {study.cell.dataset for study in pending}:
        prepared = grid.materials[name].prepared
        whole = splits.split(prepared, grid.request.protocol)
        split_of[prepared.hash, "confirm"] = whole
        split_of[prepared.hash, "search"] = whole.sealed()
    spectra = {key: arrays(basis, E) for key, (basis, E) in bases.items()}
    return {
        "splits": split_of,
        "spectra": spectra,
        "sizes": {m.prepared.hash: m.prepared.catalogue.height for m in grid.materials.values()},
    }


def launch(grid: Plan, extra: dict[str, Any]) -> dict[str, Any]:
    """The launch event: all that a reader of the table has to know of how it came about."""
    request = grid.request
    return {
        "schema": SCHEMA,
        "table": request.table_key,
        "protocol": request.protocol.identity(),
        "ties": EXPECTED,
        "prep": request.prep.identity(),
        "budget": request.budget.to_json(),
        "engine": grid.search(),
        **launch_cells(grid),
        "data": {name: _card(m.prepared, request.protocol) for name, m in grid.materials.items()},
        "provenance": provenance() | extra,
    }


def _card(prepared: splits.Prepared, protocol: Protocol) -> dict[str, Any]:
    """A data set's card with what this protocol, not leave-one-out, asks of it."""
    return prepared.card | splits.target_counts(splits.split(prepared, protocol)) | {"hash": prepared.hash}


def launch_cells(grid: Plan) -> dict[str, Any]:
    """The part of a launch event that names its cells: `studies` and `skipped`."""
    skipped = [{"cell": asdict(cell), "reason": reason} for cell, reason in grid.skipped]
    return {"studies": [study.describe() for study in grid.studies], "skipped": skipped}


def provenance() -> dict[str, Any]:
    """Code, versions and machine. No paths, no host name, no environment."""
    root = registry.folder_of("harness").parent
    git = ["git", "-C", str(root)]
    sha = _output([*git, "rev-parse", "HEAD"]) if (root / ".git").exists() else ""
    packages = ("torch", "ray", "optuna", "mlflow", "polars", "numpy", "sentence-transformers")
    return {
        "harness": metadata.version("harness-bench"),
        "git": sha,
        "code": code_hash(),
        "dirty": bool(sha and _output([*git, "status", "--porcelain", "--untracked-files=no"])),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "machine": machine(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def machine() -> dict[str, Any]:
    return {"system": platform.system(), "processor": _processor(), "cores": os.cpu_count()}


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
