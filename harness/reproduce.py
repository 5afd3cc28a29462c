"""A number of a table, made again: what it was made of is checked, its runs are trained anew, the two are compared.

Trains in this process, with the thread count of the recorded launch, and writes to no ledger, artifact or mirror.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import data, plan, registry, rows, stats, walk
from harness.ledger import Ledger
from harness.metrics._all import HEADLINE, per_user
from harness.rows import Row
from harness.types import HarnessError, Trial, TrialResult


@dataclass(frozen=True)
class Seed:
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
    seeds: tuple[Seed, ...]
    difference: stats.Interval
    tolerance: float | None
    verdict: str

    @property
    def exit_code(self) -> int:
        return int(self.verdict == "differs")

    def to_json(self) -> dict[str, Any]:
        checks = {name: {"recorded": a, "here": b, "equal": a == b} for name, (a, b) in self.checks.items()}
        return asdict(self) | {"checks": checks}


def run(
    home: Path,
    word: str,
    *,
    dataset: str = "",
    launch: str | None = None,
    seeds: int | None = None,
    tolerance: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Make the row that `word` names again: its winner's confirmed runs, or the first `seeds` of them.

    `dataset`: name or folder of its data, where the cache has them no more; `launch`: of the table as it stood then;
    `tolerance`: of the headline metric, in place of the interval. Raises HarnessError if the row is none or has no
    confirmed run, its data or embedding are not here, or its components no longer take its parameters.
    """
    ledger = Ledger.open(home)
    row = rows.find(rows.of(ledger, launch), word)
    trials = rows.confirmed(ledger, row)[:seeds]
    recorded = [rows.ranks(home, own) for own in trials]
    checks = check(home, row, trials[0], dataset)
    for name, (was, here) in checks.items():
        if was != here:
            say(f"{name}: recorded {was}, here {here}")
    prepared = rows.sequences(home, row, trials[0].inputs["data"], dataset)
    split = data.split(prepared, trials[0].protocol)
    arrays = rows.text(home, row, trials[0].inputs["embedding"], prepared)
    found, again = [], []
    for own, was in zip(trials, recorded, strict=True):
        result, ranks = _train(own, split, arrays, row.launch["provenance"].get("threads"), say)
        old = was["rank"].to_numpy()
        if len(old) != len(ranks):
            raise HarnessError(f"{row.words}: the stored ranks are of {len(old)} targets, its split has {len(ranks)}.")
        stored = ledger.result(own.id)
        assert stored is not None
        found.append(Seed(own.seed, stored.test, result.test, len(old), int((old == ranks).sum())))
        again.append(ranks)
    assert split.test is not None
    users = split.test.users
    one, other = (_headline(columns, users) for columns in ([w["rank"].to_numpy() for w in recorded], again))
    difference = stats.compare(other, one).difference
    return Reproduction(row.words, checks, tuple(found), difference, tolerance, _verdict(found, difference, tolerance))


def _verdict(seeds: list[Seed], difference: stats.Interval, tolerance: float | None) -> str:
    if all(seed.equal == seed.queries for seed in seeds):
        return "equal"
    if tolerance is not None:
        return "within" if abs(difference.mean) <= tolerance else "differs"
    return "within" if difference.low <= 0 <= difference.high else "differs"


def _train(
    own: Trial,
    split: data.Split,
    arrays: dict[str, np.ndarray],
    threads: int | None,
    say: Callable[[str], None],
) -> tuple[TrialResult, np.ndarray]:
    """A trial from its first epoch to its test ranks."""
    import torch

    from harness import trial

    torch.set_num_threads(threads or 1)
    say(f"Training {own.cell}, seed {own.seed}: {own.epochs} epochs at most.")
    try:
        result, left = trial.run(own, split, trial.spectrum(arrays, split.n_items))
    except (TypeError, ValueError, HarnessError) as error:
        raise HarnessError(f"{own.cell} cannot be built any more: {error}") from error
    except trial.TrialFailed as error:
        raise HarnessError(f"{own.cell}, seed {own.seed}, failed this time: {error}.") from error
    return result, left.ranks


def _headline(columns: list[np.ndarray], users: np.ndarray) -> np.ndarray:
    metric, _, k = HEADLINE.lower().partition("@")
    return np.stack([per_user(ranks, metric, int(k), users) for ranks in columns], 1)


def check(home: Path, row: Row, own: Trial, dataset: str = "") -> dict[str, tuple[Any, Any]]:
    """Everything a number rests on, as (recorded, here): data, embedding, component versions, code, packages, machine.

    A data set or encoder that cannot be found here counts as "not here".
    """
    found: dict[str, tuple[Any, Any]] = {"data": (own.inputs["data"], None)}
    try:
        prepared = rows.prepare(home, row, dataset)
        found["data"] = (own.inputs["data"], prepared.hash)
    except HarnessError:
        found["data"] = (own.inputs["data"], "its source is not here")
        prepared = None
    if own.inputs["embedding"]:
        found["embedding"] = (own.inputs["embedding"], _embedding(home, row, prepared))
        found["basis"] = (own.inputs["basis"], rows.vectors.BASIS_VERSION)
    here = _versions(own)
    found |= {f"version of {name}": (was, here.get(name)) for name, was in own.inputs["versions"].items()}
    was, now = row.launch["provenance"], walk.provenance()
    found["code (git)"] = (_code(was), _code(now))
    found["python"] = (was["python"], now["python"])
    found |= {name: (version, now["versions"].get(name)) for name, version in was["versions"].items()}
    found["processor"] = (was["machine"]["processor"], now["machine"]["processor"])
    return found


def _code(provenance: dict[str, Any]) -> str:
    return (provenance["git"][:12] or "not a checkout") + (" and changes" if provenance["dirty"] else "")


def _embedding(home: Path, row: Row, prepared: data.Prepared | None) -> str:
    """The hash of what the row's encoder would make here."""
    if prepared is None:
        return "its texts are not here"
    try:
        encoder = rows.vectors.encoder(row.cell.encoder, home)
        return rows.vectors.embedding_hash(encoder, rows.vectors.texts_of(prepared))
    except HarnessError:
        return "its encoder is not here"


def _versions(own: Trial) -> dict[str, int | str]:
    """The versions, here, of what a trial names in its inputs."""
    if own.cell.is_baseline:
        packages = {own.cell.adapter: (registry.BASELINES, own.cell.adapter)}
    else:
        words = (own.cell.adapter, own.cell.backbone, own.params["train.loss"])
        kinds = (registry.ADAPTERS, registry.BACKBONES, registry.LOSSES)
        packages = {kind: (kind, registry.split_overrides(word)[0]) for kind, word in zip(kinds, words, strict=True)}
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
