"""Raw interactions in, filtered, ordered and split sequences out: each raw data set is read here and nowhere else.

An event is one (user, item, time). Item numbers start at 1 (0 is the padding of every model), users at 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness import registry
from harness.types import HarnessError

PREPARATION = 1  # raise it when the same files and spec come to other sequences
MAX_ORPHAN_SHARE = 0.5  # of interactions whose item is not in the items file: beyond it the ids do not fit
SUFFIXES = (".parquet", ".csv")
TIE_POLICIES = ["source", "item_id", "random:<seed>"]
PLACEHOLDER = r"(?i)^(title_\d+|nan|unknown)$"
ARRAYS = {"items": np.int32, "offsets": np.int64, "times": np.int64}


@dataclass(frozen=True)
class RawDataset:
    """Two files and how to read them.

    `interactions` (.parquet or .csv): user_id, item_id, and timestamp (seconds) or order or both; `items`: item_id
    and text columns. `text`: template of an item's text such as `{title} ({year}). {genres}`; a field that is missing
    drops out with the words and brackets around it.
    """

    name: str
    interactions: Path
    items: Path
    text: str
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Sequences of one raw data set under one `PrepSpec`; the arrays are memory-mapped from the cache.

    `items` int32 (events,): item numbers, users one after the other, each in order. `offsets` int64 (users + 1,).
    `times` int64 (events,) seconds, None when the source orders by `order` alone. `catalogue`: row i is item number
    i + 1: item_id str, text str or null, source_row i64 or null (row of the items file). `users`: user ids. `card`:
    what the data are, for people: counts, shares of ties, warnings.
    """

    name: str
    hash: str
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    catalogue: pl.DataFrame
    users: pl.Series
    card: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Queries:
    """`users` int32 (q,), `ends` int64 (q,): the history is the user's first `ends` events, the target the next."""

    users: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """Sequences with what is trained on and what is asked. `train_ends` int64 (users,): the first `train_ends[u]`
    events of user u are for training. `test` is None where it is sealed."""

    n_items: int
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    train_ends: np.ndarray
    valid: Queries
    test: Queries | None

    def history(self, user: int, end: int) -> np.ndarray:
        """Item numbers int32 (end,) of the user's first `end` events."""
        start = self.offsets[user]
        return self.items[start : start + end]

    def sealed(self) -> Split:
        """The split a search may see: no test, and no event that neither training nor validation needs."""
        keep = self.train_ends.copy()
        keep[self.valid.users] = np.maximum(keep[self.valid.users], self.valid.ends + 1)
        lengths = np.diff(self.offsets)
        within = np.arange(self.offsets[-1]) - np.repeat(self.offsets[:-1], lengths)
        kept = within < np.repeat(keep, lengths)
        times = None if self.times is None else self.times[kept]
        return Split(self.n_items, self.items[kept], _starts(keep), times, self.train_ends, self.valid, None)


def open_dataset(word: str, home: Path) -> RawDataset:
    """The data set of that name, fetched under `home` if need be, or the one in that folder.

    A folder holds interactions.{parquet,csv}, items.{parquet,csv} and, if wanted, dataset.toml (name, text, licence,
    citation). Raises HarnessError if it is neither, or is not as it should be.
    """
    stem = word.replace("-", "_")
    if "/" not in word and stem in registry.names(registry.DATASETS):
        known = registry.load(registry.DATASETS, stem)
        return RawDataset(known.name, *_two_files(known.fetch(home)), known.text, known.licence, known.citation)
    folder = Path(word).expanduser()
    if "/" in word or folder.is_dir():
        return _open_folder(folder)
    names = [_builtin(name).name for name in registry.names(registry.DATASETS)]
    raise HarnessError(f"There is no data set '{word}', nor a folder. {registry.suggest(word, names)}")


def ready(home: Path) -> list[str]:
    """Names of the built-in data sets whose files lie under `home`."""
    known = [registry.load(registry.DATASETS, name) for name in registry.names(registry.DATASETS)]
    return [dataset.name for dataset in known if dataset.ready(home)]
