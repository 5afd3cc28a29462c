"""Reproduce a row of a table: check its inputs, retrain its runs and compare the results.

Trains with the thread count of the recorded launch, on the CPU (a repeated search: where a bench would); never writes
to the home's ledger, artifacts or mirror.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

from harness import registry
from harness.data import splits
from harness.metrics._all import HEADLINE, means, per_user
from harness.metrics._ties import Ranks
from harness.record import artifacts, ensembles
from harness.record.ledger import Ledger
from harness.report import ledger_frames, row_lookup
from harness.report.row_lookup import LedgerRow
from harness.search import plan, spaces
from harness.stats import crossed_effects, fold_effects, resampling
from harness.stats.folds import Folds
from harness.text import embeddings
from harness.text.encoders import _base
from harness.types import HarnessError, Json, Trial
from harness.workflows import repeated_search
from harness.workflows.provenance import provenance
from harness.workflows.repeated_search import SearchAgain, Tested


@dataclass(frozen=True)
class SeedComparison:
    """One run, recorded and reproduced. ``equal``: how many of the ``queries`` test ranks are bitwise equal."""

    seed: int
    recorded: dict[str, float]
    reproduced: dict[str, float]
    queries: int
    equal: int


@dataclass(frozen=True)
class Reproduction:
    """A reproduced row.

    ``checks``: name -> (recorded, here); ``difference``: reproduced minus recorded headline metric with its 95 %
    interval over users and, if there are several, seeds. ``verdict``: ``equal`` (all ranks bitwise equal), ``within``
    (the interval contains zero, or the difference is within the requested tolerance) or ``differs``.
    """

    row: str
    checks: dict[str, tuple[Any, Any]]
    seeds: tuple[SeedComparison, ...]
    difference: resampling.Interval
    tolerance: float | None
    verdict: str

    @property
    def exit_code(self) -> int:
        return int(self.verdict == "differs")

    def to_json(self) -> Json:
        checks = {name: {"recorded": a, "here": b, "equal": a == b} for name, (a, b) in self.checks.items()}
        return asdict(self) | {"checks": checks}


@dataclass(frozen=True)
class ReproduceRequest:
    """A row to reproduce and how to judge it.

    ``dataset``: name or folder of its data, needed if they are no longer cached; ``launch``: use the table as of this
    launch; ``seeds``: number of seeds to rerun; ``tolerance``: for the headline metric, instead of the interval;
    ``encoder``: of a repeated search, as `--encoders` takes it, where the row's name for it is not enough.
    """

    row: str
    dataset: str = ""
    launch: str | None = None
    seeds: int | None = None
    tolerance: float | None = None
    encoder: str = ""


T = TypeVar("T")
Log = Callable[[str], None]


def run(home: Path, request: ReproduceRequest, log: Log = lambda _: None) -> Reproduction:
    """Retrain the winner of a row with its seeds in this process.

    Raises HarnessError if there is no such row, it has no confirmed run, its data or embedding are missing, or its
    components no longer accept its parameters.
    """
    recorded = _Recorded(home, request, log, device="CPU")
    first = recorded.trials[0]
    prepared = row_lookup.sequences(home, recorded.row, first.inputs.data, request.dataset)
    split_of = {one.protocol: splits.split(prepared, one.protocol) for one in recorded.runs[0]}
    arrays = row_lookup.text(home, recorded.row, first.inputs.embedding, prepared)
    parts = [row_lookup.parts(home, recorded.ledger, trial) for trial in recorded.trials]
    return recorded.compare(
        [
            _train(one, split_of[one.protocol], arrays, recorded.threads(one), log, kept)
            for one, kept in zip(recorded.trials, parts, strict=True)
        ]
    )


def search(
    home: Path, request: ReproduceRequest, source: spaces.SpaceSource, log: Log = lambda _: None
) -> Reproduction:
    """Repeat the search of the row's cell from its first trial in a temporary home, and confirm its winner.

    `source`: the search spaces of its launch. Data and caches are those of `home`. Raises HarnessError as `run` does,
    if the search had a warm start or would differ from the recorded one, or a recorded run fails in it; Interrupted if
    stopped.
    """
    recorded = _Recorded(home, request, log)
    if not recorded.row.study.trials:
        raise HarnessError(f"{recorded.row.words} was not searched; leave out --search.")
    if recorded.row.study.warm:
        raise HarnessError(
            f"{recorded.row.words}: its search began with configurations of other searches (--warm-start), which a "
            "search of this row alone does not have; omit --search to rerun only the winner."
        )
    row, ledger = recorded.row, recorded.ledger
    count = repeated_search.together(row.study.id, ledger)
    again = SearchAgain(source, ledger.planned(row.study), count, request.dataset, request.encoder)
    repeated = repeated_search.run(home, row, recorded.runs, again, recorded.threads(recorded.trials[0]))
    if count > 1:
        log(f"{count} trials of this search ran at the same time: what it draws depends on which of them ended first.")
    same = [trial.params for trial, _ in repeated] == [trial.params for trial in recorded.trials]
    log("The same configuration won." if same else f"Another configuration won: {repeated[0][0].params}")
    return recorded.compare([tested for _, tested in repeated])


class _Recorded:
    """The recorded side of a row: its confirmed runs, their results and ranks, and the checks of their inputs."""

    def __init__(self, home: Path, request: ReproduceRequest, log: Log, device: str = "") -> None:
        self.ledger = ledger = Ledger.open(home)
        self.tolerance = request.tolerance
        self.row = row_lookup.find(row_lookup.of(ledger, request.launch), request.row)
        self.runs = row_lookup.by_seed(self.row, row_lookup.confirmed(ledger, self.row))[: request.seeds]
        self.trials = [trial for run in self.runs for trial in run]
        row_lookup.check_components(self.row, self.trials[0])
        tests = [result.test for trial in self.trials if (result := ledger.result(trial.id)) is not None]
        self.tests = [_over_folds(part) for part in self._by_run(tests)]
        frames = [artifacts.of_folds([row_lookup.ranks(home, trial) for trial in run]) for run in self.runs]
        self.users, self.ranks = frames[0]["user"].to_numpy(), [artifacts.bounds(frame) for frame in frames]
        ran = ledger_frames.provenance(ledger, [trial.id for trial in self.trials], self.row.launch)
        self.checks = check(home, self.row, self.trials[0], ran, request.dataset, device)
        for name, (was, here) in self.checks.items():
            if was != here:
                log(f"{name}: recorded {was}, here {here}")

    def threads(self, trial: Trial) -> int | None:
        """Return the threads with which a trial of the row was trained; None if they are not recorded."""
        launch = self.ledger.launches.get(self.ledger.trials[trial.id].run, self.row.launch)
        return launch.provenance.get("threads")

    def compare(self, reproduced: list[Tested]) -> Reproduction:
        """Compare the recorded and the reproduced trials, seed by seed."""
        seeds = []
        by_trial = [self._as_recorded(trial, *run) for trial, run in zip(self.trials, reproduced, strict=True)]
        reproduced = [_together(part) for part in self._by_run(by_trial)]
        firsts = [run[0] for run in self.runs]
        for trial, test, was, (new_test, now) in zip(firsts, self.tests, self.ranks, reproduced, strict=True):
            if len(was) != len(now):
                raise HarnessError(f"{self.row.words} has ranks of {len(was)} targets, but its split has {len(now)}.")
            seeds.append(SeedComparison(trial.seed, test, new_test, len(was), int(was.equal(now).sum())))
        if all(seed.equal == seed.queries for seed in seeds):
            difference, verdict = resampling.Interval(0.0, 0.0, 0.0), "equal"
        else:
            one, other = (_headline(ranks, self.users) for ranks in (self.ranks, [now for _, now in reproduced]))
            if self.row.study.folds:
                gap = fold_effects.compare(other, one, Folds.of(self.users))
            else:
                gap = crossed_effects.compare(other, one, self.row.cell.is_baseline)
            difference = resampling.Interval(gap.mean, *gap.within(1.0))
            verdict = _verdict(difference, self.tolerance)
        return Reproduction(self.row.words, self.checks, tuple(seeds), difference, self.tolerance, verdict)

    def _by_run(self, of_trials: list[T]) -> list[list[T]]:
        """Group values of trials by seed."""
        size = len(self.runs[0])
        return [of_trials[at : at + size] for at in range(0, len(of_trials), size)]

    def _as_recorded(self, trial: Trial, test: dict[str, float], ranks: Ranks) -> Tested:
        """Return a new run's results under the tie rule of the recorded run."""
        if not artifacts.mid_ranked(trial):
            return test, ranks
        middle = Ranks.untied(ranks.middle)
        return means(middle, self.users), middle


def _over_folds(tests: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean over folds of each test metric."""
    return {name: fmean(test[name] for test in tests) for name in tests[0]}


def _together(folds: list[Tested]) -> Tested:
    """Return test metrics and ranks of a seed, from those of its folds."""
    low, high = (np.concatenate([getattr(ranks, side) for _, ranks in folds]) for side in ("low", "high"))
    return _over_folds([test for test, _ in folds]), Ranks(low, high)


def _verdict(difference: resampling.Interval, tolerance: float | None) -> str:
    if tolerance is not None:
        return "within" if abs(difference.mean) <= tolerance else "differs"
    return "within" if difference.low <= 0 <= difference.high else "differs"


def _train(
    recorded: Trial,
    split: splits.Split,
    arrays: dict[str, np.ndarray],
    threads: int | None,
    log: Log,
    parts: list[tuple[Trial, bytes]],
) -> Tested:
    """Run a trial from its first epoch to its test ranks; an ensemble from the kept weights of its parts."""
    import torch

    from harness.training import ensemble, trial

    torch.set_num_threads(threads or 1)
    spectrum = trial.spectrum(arrays, split.n_items)
    todo = "combining kept weights" if parts else f"max {recorded.epochs} epochs"
    log(f"{'Ranking' if parts else 'Training'} {recorded.cell}, seed {recorded.seed}: {todo}.")
    try:
        if parts:
            result, left = ensemble.run(recorded, parts, split, ensemble.text_of(spectrum))
        else:
            result, left = trial.run(recorded, split, spectrum)
    except (TypeError, ValueError, HarnessError) as error:
        raise HarnessError(f"{recorded.cell} can no longer be built: {error}") from error
    except trial.TrialFailed as error:
        raise HarnessError(f"{recorded.cell}, seed {recorded.seed}, failed when rerun: {error}.") from error
    return result.test, left.ranks


def _headline(columns: list[Ranks], users: np.ndarray) -> np.ndarray:
    metric, _, k = HEADLINE.lower().partition("@")
    return np.stack([per_user(ranks, metric, int(k), users) for ranks in columns], 1)


def check(
    home: Path, row: LedgerRow, trial: Trial, then: Json, dataset: str = "", device: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Return everything a number depends on as (recorded, here): data, embedding, versions, code, packages, machine.

    `then`: provenance of the launches that ran the row; where they differ, the recorded value is a list. `device`: on
    which it trains here, "" if that is not known.
    Checks the data that are used: the cached ones, unless `dataset` gives a source to compare (the row's name may refer
    to another source now). A data set or encoder that cannot be found is reported as "not here".
    """
    was = trial.inputs.data
    checks: dict[str, tuple[Any, Any]] = {}
    try:
        cached = not dataset and row_lookup.cached(home, was)
        prepared = row_lookup.sequences(home, row, was) if cached else row_lookup.prepare(home, row, dataset)
        checks["data"] = (was, prepared.hash)
    except HarnessError:
        checks["data"] = (was, "its source is not here")
        prepared = None
    if trial.inputs.embedding:
        checks["embedding"] = (trial.inputs.embedding, _embedding(home, row, prepared))
        checks["basis"] = (trial.inputs.basis, embeddings.BASIS_VERSION)
    here = _versions(trial)
    checks |= {f"version of {name}": (old, here.get(name)) for name, old in trial.inputs.versions.items()}
    now = provenance()
    if "code" in then:
        checks["code"] = (then["code"], now["code"])
    if then["git"] and now["git"]:
        checks["code (git)"] = (_git(then), _git(now))
    checks["python"] = (then["python"], now["python"])
    checks |= {name: (version, now["versions"].get(name)) for name, version in then["versions"].items()}
    if device and "gpu" in then:
        gpus = then["gpu"] if isinstance(then["gpu"], list) else [then["gpu"]]
        checks["device"] = (" and ".join(sorted({"GPU" if gpu else "CPU" for gpu in gpus})), device)
    checks["processor"] = (then["machine"]["processor"], now["machine"]["processor"])
    checks[VECTORS] = (then["machine"].get("vectors", "not recorded"), now["machine"]["vectors"])
    return checks


def _git(provenance: Json) -> str:
    commits = provenance["git"] if isinstance(provenance["git"], list) else [provenance["git"]]
    return ", ".join(commit[:12] or "none" for commit in commits) + (" with changes" if provenance["dirty"] else "")


def _embedding(home: Path, row: LedgerRow, prepared: splits.Prepared | None) -> str:
    """Return the hash of the embedding that the row's encoder would produce here."""
    if prepared is None:
        return "its texts are not here"
    try:
        encoder = _base.encoder(row.cell.encoder, home)
        return embeddings.embedding_hash(encoder, embeddings.texts_of(prepared))
    except HarnessError:
        return "not checked: its encoder is not found by its name in the table"


def _versions(trial: Trial) -> dict[str, int | str]:
    """Return the versions installed here of the components that a trial's inputs name."""
    if trial.cell.is_ensemble:
        return {"core": plan.CORE_VERSION, "ensemble": ensembles.VERSION}
    if trial.cell.is_baseline:
        packages = {trial.cell.adapter: (registry.BASELINES, trial.cell.adapter)}
    else:
        words = (trial.cell.adapter, trial.cell.backbone, trial.params["train.loss"])
        kinds = (registry.ADAPTERS, registry.BACKBONES, registry.LOSSES)
        packages = {
            plan.VERSION_NAMES[kind]: (kind, registry.split_overrides(word)[0])
            for kind, word in zip(kinds, words, strict=True)
        }
    here: dict[str, int | str] = {"core": plan.CORE_VERSION}
    for key, (package, name) in packages.items():
        there = name in registry.names(package)
        here[key] = registry.schema(package, name).revision if there else "not here"
    return here


VECTORS = "vector instructions"
OTHER_SUMS = (
    "Kernels for other vector instructions sum in another order. To compute with AVX2: ATEN_CPU_CAPABILITY=avx2"
)
WORDS = {
    "equal": "Equal to the last bit.",
    "within": "Not equal, but indistinguishable: the difference is within {limit}.",
    "differs": "Differs: the difference is not within {limit}.",
}


def text(result: Reproduction) -> str:
    """Format a reproduction as lines: differences in the inputs, recorded and reproduced metrics, the verdict."""
    off = {name: pair for name, pair in result.checks.items() if pair[0] != pair[1]}
    lines = [result.row, ""]
    if off:
        width = max(map(len, off))
        lines += ["Not as recorded (recorded / here)"]
        lines += [f"  {name:{width}s}  {was} / {here}" for name, (was, here) in off.items()]
    lines += [f"As recorded: {', '.join(name for name in result.checks if name not in off) or 'nothing'}", ""]
    lines += [f"{'seed':>4s}  {HEADLINE}: recorded  reproduced  difference  equal ranks"]
    for seed in result.seeds:
        was, now = seed.recorded[HEADLINE], seed.reproduced[HEADLINE]
        lines.append(
            f"{seed.seed:4d}  {was:17.4f}  {now:10.4f}  {now - was:+10.4f}  {seed.equal:,} of {seed.queries:,}"
        )
    gap = result.difference
    if result.verdict == "equal":
        return "\n".join([*lines, "", WORDS["equal"]])
    lines += ["", f"Reproduced - recorded: {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"]
    over = "users and seeds" if len(result.seeds) > 1 else "users (not over seeds: there is one)"
    limit = f"{result.tolerance:g}" if result.tolerance is not None else f"the interval over {over} around zero"
    lines += [WORDS[result.verdict].format(limit=limit), *([OTHER_SUMS] if VECTORS in off else [])]
    return "\n".join(lines)
