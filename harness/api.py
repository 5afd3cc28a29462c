"""The Python API behind `import harness`: a bench, its table, a comparison. Keywords are command-line options.

Keywords are parsed by the click options of the commands, so defaults, types and checks cannot differ between the two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from harness.registry import suggest
from harness.types import HarnessError, Interrupted, Json

if TYPE_CHECKING:
    import polars as pl

Names = str | Sequence[str]
NOT_HERE = (
    "json",
    "dry_run",
    "save",
    "detach",
    "format",
    "output",
    "help",
)  # options that only make sense on a terminal


class BenchOptions(TypedDict, total=False):
    """A study file, whose options the others override, and the options of `harness bench` (`harness bench --help`
    explains each and its default)."""

    study: str | os.PathLike[str] | None
    suite: str | None
    components: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
    datasets: Names
    adapters: Names
    backbones: Names
    encoders: Names
    budget: str
    trials: int | None
    epochs: int | None
    patience: int | None
    cell_seconds: float | None
    seeds: int | None
    protocol: str
    quantile: float
    validation: str
    target: str
    train_users: float
    cold_items: float
    split_seed: int
    folds: int
    drop_tied_test: bool
    filter_seen: bool
    prep: str
    text: str
    tie_policy: str | None
    kcore: int | None
    iterate: bool | None
    require_text: bool | None
    max_title_words: int | None
    dedup: str | None
    min_rating: float | None
    window: str | None
    max_history: int | None
    order: Names | None
    sampler: str
    pruner: str
    warm_start: str
    search_seed: int
    spaces: str | os.PathLike[str] | None
    set: Mapping[str, Any]
    home: str | os.PathLike[str] | None
    address: str | None
    labels: str | None
    threads: int | None
    gpu: float | None
    tracking: str | None
    watchdog: float
    top_k: int
    artifacts: str | os.PathLike[str] | None


def bench(options: Mapping[str, Any]) -> pl.DataFrame:
    """Run the missing trials of a grid and return its table as a frame. Raises Interrupted if a signal stopped it."""
    from harness.verbs import bench as verb

    others = {name: value for name, value in options.items() if name != "study"}
    outcome = verb.run(parsed("bench", verb.command, others, _study(options.get("study"))))
    if outcome.signum:  # a script would take the table so far for the whole one
        raise Interrupted(outcome.signum)
    return outcome.table.frame()


def _study(path: str | os.PathLike[str] | None) -> list[str]:
    """Return the word that names a study file. Raises HarnessError if the command line would not take it for one."""
    word = "" if path is None else os.fspath(path)
    if word and not word.endswith(".toml"):
        raise HarnessError(f"harness.bench: study is '{word}'; it takes the path of a study file, which ends in .toml.")
    return [word] if word else []


def leaderboard(home: str | os.PathLike[str] | None, run: str | None, from_mlflow: str | None) -> pl.DataFrame:
    """Return the table of a home, of one of its launches or of an MLflow store as a frame."""
    from harness.record import artifacts
    from harness.record.ledger import Ledger
    from harness.report import ledger_frames, tables

    folder = home_of(home)
    if from_mlflow is None:
        ledger, beside = Ledger.open(folder), artifacts.sources(folder)
    else:
        from harness.record import tracking

        ledger, beside = tracking.read(from_mlflow, folder)
    return tables.build(ledger_frames.build(ledger, beside, run)).frame()


def compare(a: str, b: str, home: str | os.PathLike[str] | None) -> pl.DataFrame:
    """Compare two launches, homes or MLflow stores; return a frame of the cells they share."""
    from harness.report import comparison

    return comparison.compare(a, b, home_of(home)).frame()


def home_of(home: str | os.PathLike[str] | None) -> Path:
    """Return the home folder: `home`, else HARNESS_HOME, else the default."""
    from harness.record.artifacts import find_home
    from harness.verbs._options import HOME

    return find_home(Path(home or os.environ.get("HARNESS_HOME") or HOME))


def parsed(verb: str, command: click.Command, options: Mapping[str, Any], plain: Sequence[str] = ()) -> Json:
    """Parse plain words and keywords as a command would. Raises HarnessError where the command line does."""
    by_name = {
        option.opts[0].lstrip("-").replace("-", "_"): option
        for option in command.params
        if isinstance(option, click.Option)
    }
    offered = [name for name in by_name if name not in NOT_HERE]
    words: list[str] = [*plain]
    for name, value in options.items():
        if name not in offered:
            raise HarnessError(f"harness.{verb} has no option '{name}'. {suggest(name, offered)}")
        words += _words(by_name[name], value)
    try:
        with command.make_context(verb, words) as context:
            return context.params
    except click.UsageError as error:
        raise HarnessError(error.format_message()) from error


def _words(option: click.Option, value: Any) -> list[str]:
    """Write an option and its value as command-line words.

    >>> _words(click.Option(["--filter-seen/--keep-seen"]), False), _words(click.Option(["--set"]), {"train.d": 64})
    (['--keep-seen'], ['--set', 'train.d=64'])
    """
    word = option.opts[0]
    if value is None:
        return []
    if option.is_flag:
        if value not in (True, False):  # bool("false") is True
            raise HarnessError(f"{word.lstrip('-').replace('-', '_')} is {value!r}; it takes True or False.")
        return [word] if value else option.secondary_opts[:1]
    if isinstance(value, Mapping):
        return [part for key, setting in value.items() for part in (word, f"{key}={setting}")]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return (
            [part for one in value for part in (word, str(one))]
            if option.multiple
            else [word, ",".join(map(str, value))]
        )
    return [word, os.fspath(value) if isinstance(value, os.PathLike) else str(value)]
