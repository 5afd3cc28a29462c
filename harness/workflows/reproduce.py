"""A number of a table, made again: what it was made of is checked, its runs are trained anew, the two are compared.

Trains with the thread count of the recorded launch, and writes to no ledger, artifact or mirror of the home.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import registry
from harness.data import library, splits
from harness.metrics._all import HEADLINE, means, per_user
from harness.metrics._ties import Ranks
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import row_lookup
from harness.report.row_lookup import LedgerRow
from harness.search import plan, spaces
from harness.stats import crossed_effects, resampling
from harness.system import tempdirs
from harness.text import embeddings
from harness.text.encoders import _base
from harness.types import NO_TEXT, HarnessError, Trial
from harness.workflows import run_bench
from harness.workflows.provenance import provenance


@dataclass(frozen=True)
class SeedComparison:
    """One run, recorded and made again. ``equal``: of ``queries`` test ranks, how many are the same to the last bit."""

    seed: int
    recorded: dict[str, float]
    reproduced: dict[str, float]
    queries: int
    equal: int


@dataclass(frozen=True)
class Reproduction:
    """A row made again.

    ``checks``: what -> (recorded, here) where both are equal or not; ``difference``: reproduced minus recorded of the
    headline metric with its 95 % interval over users and seeds. ``verdict``: ``equal`` (every rank to the last bit),
    ``within`` (the interval holds zero, or the difference is within the tolerance asked for) or ``differs``.
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

    def to_json(self) -> dict[str, Any]:
        checks = {name: {"recorded": a, "here": b, "equal": a == b} for name, (a, b) in self.checks.items()}
        return asdict(self) | {"checks": checks}


@dataclass(frozen=True)
class ReproduceRequest:
    """What is to be made again and how it is judged.

    ``dataset``: name or folder of its data, where the cache has them no more; ``launch``: of the table as it stood
    then; ``seeds``: only the first so many; ``tolerance``: of the headline metric, in place of the interval.
    """

    row: str
    dataset: str = ""
    launch: str | None = None
    seeds: int | None = None
    tolerance: float | None = None


Say = Callable[[str], None]
Made = tuple[dict[str, float], Ranks]  # test metrics and test ranks of a run


def run(home: Path, asked: ReproduceRequest, say: Say = lambda _: None) -> Reproduction:
    """Train the winner of a row again, with its seeds, in this process.

    Raises HarnessError if the row is none or has no confirmed run, its data or embedding are not here, or its
    components no longer take its parameters.
    """
    known = _Recorded(home, asked, say)
    prepared = row_lookup.sequences(home, known.row, known.trials[0].inputs.data, asked.dataset)
    split = splits.split(prepared, known.trials[0].protocol)
    arrays = row_lookup.text(home, known.row, known.trials[0].inputs.embedding, prepared)
    threads = known.row.launch.provenance.get("threads")
    return known.beside([_train(own, split, arrays, threads, say) for own in known.trials])


def search(home: Path, asked: ReproduceRequest, source: spaces.SpaceSource, say: Say = lambda _: None) -> Reproduction:
    """Search the row's cell again, from its first trial, in a scratch home, and confirm what wins there.

    `source`: the search spaces of its launch. Data and caches are those of `home`. Raises HarnessError as `run` does,
    or if the search would be another one.
    """
    known = _Recorded(home, asked, say)
    row = known.row
    if not row.study.trials:
        raise HarnessError(f"{row.words} was not searched; leave out --search.")
    with tempdirs.folder("reproduce") as folder:
        request = _request(home, folder, asked, row, source)
        grid = plan.make(request, Ledger())
        [study] = [study for study in grid.studies if not study.cell.is_baseline]
        if study.id != row.study.id:
            raise HarnessError(
                f"{row.words}: the search here would be another one: its space, data, versions or sampler are not "
                "those of the launch. Give its --spaces and --set; without --search the winner alone is run again."
            )
        run_bench.run(request, run_bench.Options(threads=row.launch.provenance.get("threads"), tracking="off"))
        made = Ledger.open(request.home)
        trials = row_lookup.confirmed(made, row_lookup.of(made)[study.cell])[: len(known.trials)]
        again = [
            (dict(result.test), artifacts.bounds(row_lookup.ranks(request.home, own)))
            for own in trials
            if (result := made.result(own.id)) is not None
        ]
    same = [own.params for own in trials] == [own.params for own in known.trials]
    say("The same configuration won." if same else f"Another configuration won: {trials[0].params}")
    return known.beside(again)


def _request(
    home: Path, into: Path, asked: ReproduceRequest, row: LedgerRow, source: spaces.SpaceSource
) -> plan.Request:
    """A bench of the row's cell alone, in a home that shares data and caches with `home`."""
    for name in ("data", "cache"):
        (home / name).mkdir(exist_ok=True)
        (into / name).symlink_to((home / name).resolve())
    matrices = library.matrices(home)
    for name, folder in library.folders(home).items():
        library.write_entry(name, folder, into, matrices.get(name, {}))
    launch = row.launch
    budget = launch.budget
    return plan.Request(
        home=into,
        datasets=asked.dataset or row.cell.dataset,
        adapters=row.cell.adapter,
        backbones=row.cell.backbone,
        encoders="noise" if row.cell.encoder == NO_TEXT else registry.quoted(row.cell.encoder),
        budget=replace(budget, trials=max(row.study.trials, 1), seeds=row.study.seeds),
        protocol=launch.protocol,
        prep=launch.prep,
        text=row.card.text or "",
        engine=launch.engine,
        spaces=source,
    )


class _Recorded:
    """What the home holds of a row: its confirmed runs, their results and ranks, and what they rest on."""

    def __init__(self, home: Path, asked: ReproduceRequest, say: Say) -> None:
        ledger = Ledger.open(home)
        self.asked = asked
        self.row = row_lookup.find(row_lookup.of(ledger, asked.launch), asked.row)
        self.trials = row_lookup.confirmed(ledger, self.row)[: asked.seeds]
        self.tests = [result.test for own in self.trials if (result := ledger.result(own.id)) is not None]
        frames = [row_lookup.ranks(home, own) for own in self.trials]
        self.users, self.ranks = frames[0]["user"].to_numpy(), [artifacts.bounds(frame) for frame in frames]
        self.checks = check(home, self.row, self.trials[0], asked.dataset)
        for name, (was, here) in self.checks.items():
            if was != here:
                say(f"{name}: recorded {was}, here {here}")

    def beside(self, made: list[Made]) -> Reproduction:
        """The recorded runs and those made again, seed by seed."""
        found = []
        made = [self._as_recorded(own, *one) for own, one in zip(self.trials, made, strict=True)]
        for own, test, was, (new_test, now) in zip(self.trials, self.tests, self.ranks, made, strict=True):
            if len(was) != len(now):
                raise HarnessError(f"{self.row.words}: its ranks are of {len(was)} targets, its split has {len(now)}.")
            found.append(SeedComparison(own.seed, test, new_test, len(was), int(was.equal(now).sum())))
        if all(seed.equal == seed.queries for seed in found):
            difference, verdict = resampling.Interval(0.0, 0.0, 0.0), "equal"
        else:
            one, other = (_headline(ranks, self.users) for ranks in (self.ranks, [now for _, now in made]))
            gap = crossed_effects.compare(other, one, self.row.cell.is_baseline)
            difference = resampling.Interval(gap.mean, *gap.within(1.0))
            verdict = _verdict(difference, self.asked.tolerance)
        return Reproduction(self.row.words, self.checks, tuple(found), difference, self.asked.tolerance, verdict)

    def _as_recorded(self, own: Trial, test: dict[str, float], ranks: Ranks) -> Made:
        """A new run under the tie rule of its record."""
        if not artifacts.mid_ranked(own):
            return test, ranks
        middle = Ranks.untied(ranks.middle)
        return means(middle, self.users), middle


def _verdict(difference: resampling.Interval, tolerance: float | None) -> str:
    if tolerance is not None:
        return "within" if abs(difference.mean) <= tolerance else "differs"
    return "within" if difference.low <= 0 <= difference.high else "differs"


def _train(
    own: Trial,
    split: splits.Split,
    arrays: dict[str, np.ndarray],
    threads: int | None,
    say: Say,
) -> Made:
    """A trial from its first epoch to its test ranks."""
    import torch

    from harness.training import trial

    torch.set_num_threads(threads or 1)
    say(f"Training {own.cell}, seed {own.seed}: {own.epochs} epochs at most.")
    try:
        result, left = trial.run(own, split, trial.spectrum(arrays, split.n_items))
    except (TypeError, ValueError, HarnessError) as error:
        raise HarnessError(f"{own.cell} cannot be built any more: {error}") from error
    except trial.TrialFailed as error:
        raise HarnessError(f"{own.cell}, seed {own.seed}, failed this time: {error}.") from error
    return result.test, left.ranks


def _headline(columns: list[Ranks], users: np.ndarray) -> np.ndarray:
    metric, _, k = HEADLINE.lower().partition("@")
    return np.stack([per_user(ranks, metric, int(k), users) for ranks in columns], 1)


def check(home: Path, row: LedgerRow, own: Trial, dataset: str = "") -> dict[str, tuple[Any, Any]]:
    """Everything a number rests on, as (recorded, here): data, embedding, component versions, code, packages, machine.

    The data are those that are used: prepared ones out of the cache, unless `dataset` names a source to be held
    against them; a name alone may mean another source than it did. A data set or encoder that cannot be found here
    counts as "not here".
    """
    was = own.inputs.data
    found: dict[str, tuple[Any, Any]] = {}
    try:
        cached = not dataset and row_lookup.cached(home, was)
        prepared = row_lookup.sequences(home, row, was) if cached else row_lookup.prepare(home, row, dataset)
        found["data"] = (was, prepared.hash)
    except HarnessError:
        found["data"] = (was, "its source is not here")
        prepared = None
    if own.inputs.embedding:
        found["embedding"] = (own.inputs.embedding, _embedding(home, row, prepared))
        found["basis"] = (own.inputs.basis, embeddings.BASIS_VERSION)
    here = _versions(own)
    found |= {f"version of {name}": (old, here.get(name)) for name, old in own.inputs.versions.items()}
    then, now = row.launch.provenance, provenance()
    found["code (git)"] = (_code(then), _code(now))
    found["python"] = (then["python"], now["python"])
    found |= {name: (version, now["versions"].get(name)) for name, version in then["versions"].items()}
    found["processor"] = (then["machine"]["processor"], now["machine"]["processor"])
    return found


def _code(provenance: dict[str, Any]) -> str:
    return (provenance["git"][:12] or "not a checkout") + (" and changes" if provenance["dirty"] else "")


def _embedding(home: Path, row: LedgerRow, prepared: splits.Prepared | None) -> str:
    """The hash of what the row's encoder would make here."""
    if prepared is None:
        return "its texts are not here"
    try:
        encoder = _base.encoder(row.cell.encoder, home)
        return embeddings.embedding_hash(encoder, embeddings.texts_of(prepared))
    except HarnessError:
        return "its encoder is not here"


def _versions(own: Trial) -> dict[str, int | str]:
    """The versions, here, of what a trial names in its inputs."""
    if own.cell.is_baseline:
        packages = {own.cell.adapter: (registry.BASELINES, own.cell.adapter)}
    else:
        words = (own.cell.adapter, own.cell.backbone, own.params["train.loss"])
        kinds = (registry.ADAPTERS, registry.BACKBONES, registry.LOSSES)
        packages = {
            plan.VERSION_NAMES[kind]: (kind, registry.split_overrides(word)[0])
            for kind, word in zip(kinds, words, strict=True)
        }
    here: dict[str, int | str] = {"core": plan.CORE_VERSION}
    for key, (package, name) in packages.items():
        there = name in registry.names(package)
        here[key] = registry.schema(package, name).version if there else "not here"
    return here


WORDS = {
    "equal": "Equal to the last bit.",
    "within": "Not equal, and not distinguishable: the difference lies within {limit}.",
    "differs": "Differs: the difference does not lie within {limit}.",
}


def text(found: Reproduction) -> str:
    """A reproduction as lines: what differs here, recorded and reproduced metrics, the verdict."""
    off = {name: pair for name, pair in found.checks.items() if pair[0] != pair[1]}
    lines = [found.row, ""]
    if off:
        width = max(map(len, off))
        lines += ["Not as it was recorded (recorded / here)"]
        lines += [f"  {name:{width}s}  {was} / {here}" for name, (was, here) in off.items()]
    lines += [f"As recorded: {', '.join(name for name in found.checks if name not in off) or 'nothing'}", ""]
    lines += [f"{'seed':>4s}  {HEADLINE}: recorded  reproduced  difference  equal ranks"]
    for seed in found.seeds:
        was, now = seed.recorded[HEADLINE], seed.reproduced[HEADLINE]
        lines.append(
            f"{seed.seed:4d}  {was:17.4f}  {now:10.4f}  {now - was:+10.4f}  {seed.equal:,} of {seed.queries:,}"
        )
    gap = found.difference
    if found.verdict == "equal":
        return "\n".join([*lines, "", WORDS["equal"]])
    lines += ["", f"Reproduced - recorded: {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"]
    limit = f"{found.tolerance:g}" if found.tolerance is not None else "the interval over users and seeds around zero"
    return "\n".join([*lines, WORDS[found.verdict].format(limit=limit)])
