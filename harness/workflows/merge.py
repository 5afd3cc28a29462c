"""Join publications into a home. Everything is compared before anything is written."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from harness.record import artifacts
from harness.record.entries import TrialEntry
from harness.record.ledger import Ledger
from harness.record.segments import segment_files
from harness.system import checksums
from harness.system.files import atomic, sha256
from harness.types import HarnessError, Json
from harness.workflows import publication, publish
from harness.workflows.publication import Publication

SHOWN = 10  # conflicts that a message names
BLOCK = 2**20  # bytes of two segments that are compared at a time


@dataclass
class Merged:
    """What a merge added. `known`: trials that several sources have, counted once."""

    segments: int = 0
    ranks: int = 0
    trials: int = 0
    known: int = 0


@dataclass
class Source:
    """A publication or a home: its ledger, its segments in their public form, and its ranks by trial.

    Of a home, only segments that a publication has too are in that form.
    """

    name: str
    ledger: Ledger
    segments: dict[str, Path]
    ranks: Callable[[str], pl.DataFrame | None]
    publication: Publication | None = None
    data: dict[tuple[str, str], str] = field(default_factory=dict)  # (table, data set) -> hash

    def __post_init__(self) -> None:
        for launch in self.ledger.launches.values():
            self.data |= {(launch.table, name): card.get("hash", "") for name, card in launch.data.items()}


def run(folders: Sequence[Path], home: Path) -> Merged:
    """Add publications to a home. Merging one twice changes nothing.

    Raises HarnessError, before anything is written, if a folder is no publication or differs from its manifest, or if
    two sources have different content for one trial, segment or data set.
    """
    with contextlib.ExitStack() as stack:
        published = [stack.enter_context(_opened(folder)) for folder in folders]
        place = Path(stack.enter_context(TemporaryDirectory(prefix="harness-merge-")))
        sources = [_home(home, {run for source in published for run in source.segments}, place), *published]
        found: dict[str, None] = {}
        for at, one in enumerate(sources):
            with _replayable(one.name):  # the results of trials are read here
                found |= dict.fromkeys(_conflicts(one, sources[:at]))
        if conflicts := list(found):
            more = f"; and {len(conflicts) - SHOWN} more" if len(conflicts) > SHOWN else ""
            raise HarnessError(
                f"Not merged, nothing was changed: {'; '.join(conflicts[:SHOWN])}{more}. {_rounding(sources)}"
                "Leave one of the two out, or merge them into different homes and use: harness compare"
            )
        result = Merged(known=_known(sources), trials=len(set().union(*(s.ledger.trials.rows for s in sources))))
        _check_ranks(home, sources[1:])
        for source, ranks in [(source, _current(source, sources)) for source in sources[1:]]:
            _add_ranks(source, ranks, sources[0].ledger, home, result)
        _add_segments(sources, home, result)
    return result


def _check_ranks(home: Path, sources: Sequence[Source]) -> None:
    """Raise HarnessError if the home has damaged ranks of a trial of the sources."""
    for trial_id in sorted({trial_id for source in sources for trial_id in _rank_files(source)}):
        if artifacts.fault(home, trial_id, artifacts.RANKS) == "damaged":
            folder = artifacts.artifact_folder(home, trial_id)
            raise HarnessError(f"{folder} is damaged in {home}; remove this folder and run the same command again.")


def _rank_files(source: Source) -> dict[str, Path]:
    assert source.publication is not None
    return source.publication.named("ranks", ".parquet")


def _current(source: Source, sources: Sequence[Source]) -> dict[str, Path]:
    """Return the rank files of a source by trial, without trials that a later state of it has repeated."""
    later = [other.ledger for other in sources if other is not source and _within(source, other)]
    found = _rank_files(source).items()
    return {i: path for i, path in found if all(_end(ledger, i) == _end(source.ledger, i) for ledger in later)}


def _end(ledger: Ledger, trial_id: str) -> tuple[str, float] | None:
    """Return segment and time of the end that counts for a trial; None if it is not done."""
    entry = ledger.trials.get(trial_id)
    return (entry.run, entry.ended) if entry is not None and entry.status == "done" else None


def _home(home: Path, runs: set[str], place: Path) -> Source:
    """Open a home, with the public form of the segments `runs` in the folder `place`."""
    files = {path.stem: path for path in segment_files(home)}
    files |= {run: _public(files[run], place) for run in files.keys() & runs}
    return Source(f"home {home}", Ledger.open(home), files, lambda trial_id: artifacts.load_ranks(home, trial_id))


def _public(segment: Path, place: Path) -> Path:
    """Write a segment in its public form to the folder `place`; return its path there."""
    with (place / segment.name).open("wb") as file:
        file.writelines(publish.public_lines(segment))
    return place / segment.name


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[Source]:
    """Open a publication, whose files must be those of its manifest."""
    found = publication.find(folder)
    unreadable = (
        f"ranks/{name}.parquet: unreadable" for name in found.named("ranks", ".parquet") if found.ranks(name) is None
    )
    if faults := publication.faults(found) or list(unreadable):
        raise HarnessError(f"{folder} is damaged ({faults[0]}); for all faults run: harness verify {folder}")
    with contextlib.ExitStack() as stack:
        with _replayable(str(folder)):
            ledger = stack.enter_context(found.ledger())
            if ledger.damages:
                raise HarnessError(f"{folder} has a damaged ledger ({ledger.damages[0]}); ask for a new copy.")
            place = Path(stack.enter_context(TemporaryDirectory(prefix="harness-merge-")))
            assert ledger.home is not None
            # redacted as today, so that a publication of an older version agrees with its home
            segments = {path.stem: _public(path, place) for path in segment_files(ledger.home)}
            source = Source(str(folder), ledger, segments, found.ranks, found)
        yield source


@contextlib.contextmanager
def _replayable(name: str) -> Iterator[None]:
    """Raise HarnessError for records of a publication that no harness wrote, although their checksums are valid."""
    try:
        yield
    except (HarnessError, OSError):
        raise
    except Exception as error:  # any type, as their values may be anything
        kind = type(error).__name__
        raise HarnessError(
            f"{name} has records that cannot be replayed ({kind}); run: harness verify {name}"
        ) from error


def _conflicts(one: Source, others: Sequence[Source]) -> Iterator[str]:
    for other in others:
        if _within(one, other) or _within(other, one):
            continue
        for run in sorted(one.segments.keys() & other.segments.keys()):
            mine, theirs = one.segments[run], other.segments[run]
            if not (_starts_with(mine, theirs) or _starts_with(theirs, mine)):
                yield f"segment {run} differs between {other.name} and {one.name}"
        for table, name in sorted(one.data.keys() & other.data.keys()):
            mine, theirs = one.data[table, name], other.data[table, name]
            if mine != theirs:
                yield f"data set {name} has content {theirs} in {other.name} and {mine} in {one.name}"
        for trial_id in sorted(one.ledger.trials.rows.keys() & other.ledger.trials.rows.keys()):
            if reason := _difference(one, other, trial_id):
                yield f"trial {trial_id} has {reason} in {other.name} and {one.name}"

        yield from _searches(one, other)


def _within(old: Source, new: Source) -> bool:
    """Whether a source is an earlier state of another, which may have repeated trials since."""
    return all(_starts_with(new.segments.get(run), path) for run, path in old.segments.items())


def _starts_with(path: Path | None, beginning: Path) -> bool:
    """Whether the content of a file (None: nothing) starts with that of another."""
    left = beginning.stat().st_size
    if path is None or not left or path.stat().st_size < left:
        return not left
    with path.open("rb") as whole, beginning.open("rb") as part:
        return all(whole.read(len(block)) == block for block in iter(lambda: part.read(BLOCK), b""))


def _searches(one: Source, other: Source) -> Iterator[str]:
    """Name the searches of one study that drew different configurations: together they would be neither of the two.

    A search trains a configuration as its own trial, with another id, if another search's pruner has stopped it.
    """
    for study in sorted(one.ledger.studies.keys() & other.ledger.studies.keys()):
        mine, theirs = one.ledger.studies[study], other.ledger.studies[study]
        for number in sorted(mine.keys() & theirs.keys()):
            if mine[number] == theirs[number]:
                continue
            entries = one.ledger.trials[mine[number]], other.ledger.trials[theirs[number]]
            cell, where = entries[0].trial.cell, f"in {other.name} and {one.name}"
            if len({replace(entry.trial, study="").id for entry in entries}) > 1:
                yield f"the searches of {cell} draw different configurations from trial {number} on {where}"
                break
            if reason := _scores(*entries):
                yield f"trial {number} of the search of {cell} has {reason} {where}"


def _scores(one: TrialEntry, other: TrialEntry) -> str:
    """Return how the validation scores of two results of a configuration differ; '' if they agree or one has none."""
    if any(entry.status != "done" for entry in (one, other)) or one.best == other.best:
        return ""
    return f"two validation scores ({other.best:.8g} and {one.best:.8g})"


def _rounding(sources: Sequence[Source]) -> str:
    """Explain small differences if the sources ran on processors with different vector instructions."""
    launches = [launch for source in sources for launch in source.ledger.launches.values()]
    machines = [launch.provenance.get("machine", {}).get("vectors", "not recorded") for launch in launches]
    kinds = sorted(set(machines))
    return f"Vector instructions ({', '.join(kinds)}) round sums differently. " if len(kinds) > 1 else ""


def _difference(one: Source, other: Source, trial_id: str) -> str:
    """Return what differs between two results of a trial; '' if they agree or one has not finished.

    Times and memory are facts of a machine and may differ.
    """
    entries = one.ledger.trials[trial_id], other.ledger.trials[trial_id]
    if reason := _scores(*entries):
        return reason
    if entries[0].role == "search" or any(entry.status != "done" for entry in entries):
        return ""
    results = [entry.result for entry in entries]
    if results[0] and results[1] and results[0].test != results[1].test:
        return "two test scores"
    ranks, others = one.ranks(trial_id), other.ranks(trial_id)
    return "two rank files" if ranks is not None and others is not None and not ranks.equals(others) else ""


def _known(sources: Sequence[Source]) -> int:
    """The number of trials that several sources have."""
    times = Counter(trial_id for source in sources for trial_id in source.ledger.trials.rows)
    return sum(count > 1 for count in times.values())


def _add_ranks(source: Source, ranks: dict[str, Path], before: Ledger, home: Path, result: Merged) -> None:
    """Write the ranks and spectra that the home lacks, before the segments, so that no event lacks its files.

    before: the home's ledger. Files of a run that the source has repeated since are set aside.
    """
    assert source.publication is not None
    spectra = source.publication.named("spectra", ".json")
    for trial_id, path in ranks.items():
        folder = artifacts.artifact_folder(home, trial_id)
        repeated = folder.exists() and _end(before, trial_id) != _end(source.ledger, trial_id)
        if repeated and not _has_ranks(home, source, trial_id, path):
            checksums.set_aside(folder, "it is of an earlier run of this trial")
        if (folder / artifacts.RANKS).is_file():
            continue
        _write(folder / artifacts.RANKS, path.read_bytes())
        if trial_id in spectra:
            _write(folder / artifacts.SPECTRUM, spectra[trial_id].read_bytes())
        if not (folder / checksums.SEAL).exists():
            checksums.seal(folder)
        result.ranks += 1


def _add_segments(sources: Sequence[Source], home: Path, result: Merged) -> None:
    """Write the segments that the home, the first source, lacks or has in an earlier state."""
    for run in sorted(set().union(*(source.segments for source in sources))):
        states = [source.segments.get(run) for source in sources]
        newest = max(filter(None, states), key=lambda path: path.stat().st_size)
        if newest != states[0] and newest.stat().st_size > 0:
            with atomic(home / "ledger" / f"{run}.jsonl") as temporary:
                shutil.copyfile(newest, temporary)
            result.segments += 1


def _has_ranks(home: Path, source: Source, trial_id: str, path: Path) -> bool:
    """Whether the ranks that a home has, or by its checksums had, are those of a source in `path`."""
    kept, added = artifacts.load_ranks(home, trial_id), source.ranks(trial_id)
    if kept is not None and added is not None:
        return kept.equals(added)
    try:
        expected = (checksums.sums(artifacts.artifact_folder(home, trial_id)) or {}).get(artifacts.RANKS)
    except ValueError:
        return False
    return expected in (None, sha256(path))


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def to_json(result: Merged) -> Json:
    return vars(result)
