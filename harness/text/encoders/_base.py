"""What an encoder is given (`Texts`) and what it owes (`Encoder`); light to import: no torch before `encode`.

An encoder is written ``name``, ``name:argument`` or ``name:argument[option=value,...]``; the name is its file's, what
is behind the colon is its own. Options are the keyword-only parameters of its class.
"""

from __future__ import annotations

import copy
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness import registry
from harness.system import files
from harness.text.encoders._parts import Parts
from harness.types import HarnessError

Progress = Callable[[int, int], None]  # told (done, total) as the work goes on


@dataclass(frozen=True)
class Texts:
    """A catalogue as an encoder sees it, one entry an item, in the order of the rows of E.

    ``texts``: None where an item has none. ``source_rows``: the item's row in the raw items file, which has
    ``n_source_rows`` rows; None for an item that the file does not hold. ``matrices``: files of embeddings that the
    data set, which is called ``dataset``, brings along, by name.
    """

    item_ids: list[str]
    texts: list[str | None]
    source_rows: list[int | None]
    n_source_rows: int
    matrices: dict[str, Path] = field(default_factory=dict)
    dataset: str = ""

    def __len__(self) -> int:
        return len(self.item_ids)


class Encoder:
    """Texts become a matrix E. A subclass is one module of this folder.

    ``version`` is raised when behaviour changes. ``takes`` says what is written behind the colon; empty: nothing.
    ``optional``: it may be left out.
    """

    version = 1
    takes = ""
    optional = False

    def __init__(self, argument: str, home: Path, **options: Any) -> None:
        """Raises HarnessError if an argument is missing or too many; reads nothing heavy. `options`: all it has."""
        self.name = type(self).__module__.rpartition(".")[2]
        self.argument, self.home, self.options = argument, home, options
        if self.takes and not argument and not self.optional:
            raise HarnessError(f"The encoder '{self.name}' needs {self.takes} behind a colon: {self.name}:...")
        if argument and not self.takes:
            raise HarnessError(f"The encoder '{self.name}' takes nothing behind a colon, but was given '{argument}'.")

    @property
    def word(self) -> str:
        """The encoder as it is written on the command line, without options that are at their default."""
        return self.name + (f":{self.argument}" if self.argument else "") + self._given()

    @property
    def label(self) -> str:
        """The word as it stands in tables: folders left out."""
        return ":".join([self.name, *(Path(part).name for part in self.argument.split(":") if part)]) + self._given()

    def _given(self) -> str:
        """The options that are not at their default, in brackets."""
        usual = registry.schema(registry.ENCODERS, self.name).params if self.options else {}
        given = ",".join(f"{key}={value}" for key, value in self.options.items() if value != usual[key])
        return f"[{given}]" if given else ""

    def on(self, texts: Texts) -> Encoder:
        """The encoder that makes this catalogue's matrix: itself, but where a data set says which it is."""
        return self

    def identity(self) -> dict[str, Any]:
        """What makes the output what it is, as JSON: weights, pooling, seeds; never a path. Imports nothing heavy."""
        return {"encoder": self.name, "version": self.version}

    def inputs(self, texts: Texts) -> list[Any]:
        """What of the catalogue the output depends on, as JSON."""
        return list(texts.texts)

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        """E, (N, D) float32; a zero row where an item has no text."""
        raise NotImplementedError


@dataclass(frozen=True)
class Job:
    """The encoding of distinct texts, ready to begin.

    ``order``: the texts in the order in which they are encoded. ``batches(start)``: the rows of ``order[start:]``, a
    few, (n, D), at a time; where a start is the end of an earlier batch, the later batches are the same as then.
    ``cut``: how many of the texts are longer than ``limit``, in words, and lose their end.
    """

    order: list[str]
    batches: Callable[[int], Iterator[np.ndarray]]
    cut: int = 0
    limit: str = ""


class TextEncoder(Encoder):
    """An encoder whose rows depend on their text alone: every distinct text is encoded once, and what is made is kept.

    ``keep_seconds``: rows are written to disk when that much time has passed since the last ones.
    """

    keep_seconds = 5.0

    def job(self, distinct: list[str]) -> Job:
        """The work to do for the texts, which are distinct, longest first, at least one."""
        raise NotImplementedError

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            return self.encode_in(Path(folder), texts, progress)[0]

    def encode_in(
        self,
        folder: Path,
        texts: Texts,
        progress: Progress,
        make: Callable[[tuple[int, int]], np.ndarray] | None = None,
    ) -> tuple[np.ndarray, dict[str, int]]:
        """E, (N, D) float32, and the counts `missing`, `distinct` and `cut`. `make` gives the zeros that E fills.

        Rows are kept in `folder`, by name the key of E, and taken from there if they are there already. Raises
        HarnessError if no item has text, or as `job` does.
        """
        job = self.job(distinct(texts))
        if job.cut:
            self.say(f"{job.cut:,} of {len(job.order):,} texts are longer than {job.limit}; their ends are cut off.")
        parts = Parts(folder, job.order)
        parts.prune()
        self._fill(parts, job, progress)
        counts = {"missing": texts.texts.count(None), "distinct": len(job.order), "cut": job.cut}
        return scatter(parts, texts, make or (lambda shape: np.zeros(shape, np.float32))), counts

    def _fill(self, parts: Parts, job: Job, progress: Progress) -> None:
        """Make the parts that are not there. `progress` is told of these alone, so that its time left is right."""
        had, total = parts.done, len(job.order)
        if had == total:
            return
        if had:
            self.say(f"{had:,} of {total:,} texts are encoded already; going on from there.")
        held, kept_at = [], time.monotonic()
        for rows in job.batches(had):
            held.append(np.asarray(rows, np.float32))
            width = parts.width or held[0].shape[1]
            if held[-1].shape[1] != width:
                raise HarnessError(
                    f"'{self.word}' makes rows of {held[-1].shape[1]:,} dimensions now and of {width:,} before. If its "
                    f"model has changed, delete {parts.folder} and run again."
                )
            done = parts.done + sum(map(len, held))
            if done == total or time.monotonic() - kept_at >= self.keep_seconds:
                parts.add(np.concatenate(held))
                held, kept_at = [], time.monotonic()
            progress(done - had, total - had)
        if parts.done != total:
            made = parts.done + sum(map(len, held))
            raise HarnessError(f"'{self.word}' made {made:,} rows for {total:,} texts; it must make one a text.")

    def say(self, text: str) -> None:
        print(f"{self.word}: {text}", file=sys.stderr, flush=True)


def distinct(texts: Texts) -> list[str]:
    """The different texts of a catalogue, longest first. Raises HarnessError if no item has text.

    What surrounds a text in its batch moves its last digits, and items of equal text must have equal rows. Longest
    first, so that batches are even and time left is not underestimated.
    """
    found = sorted({text for text in texts.texts if text is not None}, key=lambda text: (-len(text), text))
    if not found:
        raise HarnessError("No item has text, so there is nothing to encode. See the data set's text template.")
    return found


def scatter(parts: Parts, texts: Texts, make: Callable[[tuple[int, int]], np.ndarray]) -> np.ndarray:
    """E, (N, D): to each item the row of its text, and zeros where there is none."""
    place = {text: i for i, text in enumerate(parts.order)}
    row = np.array([-1 if text is None else place[text] for text in texts.texts])
    items = np.argsort(row, kind="stable")
    E, start = make((len(texts), parts.width)), 0
    for part in parts:
        first, last = np.searchsorted(row[items], [start, start + len(part)])
        mine = items[first:last]
        E[mine] = part[row[mine] - start]
        start += len(part)
    return E


def spans(lengths: Sequence[int], start: int, budget: int, most: int) -> Iterator[slice]:
    """Slices that cover ``lengths[start:]``, descending lengths: at most `most` long and, padded, at most `budget`."""
    while start < len(lengths):
        stop = min(start + min(max(1, budget // max(1, lengths[start])), most), len(lengths))
        yield slice(start, stop)
        start = stop


class Derived(Encoder):
    """An encoder whose matrix is made of another's, so that the other's need not be computed twice."""

    takes = "another encoder"

    def __init__(self, argument: str, home: Path) -> None:
        super().__init__(argument, home)
        self.inner = encoder(argument, home)

    def on(self, texts: Texts) -> Encoder:
        made = copy.copy(self)
        made.inner = self.inner.on(texts)
        return made

    @property
    def word(self) -> str:
        return f"{self.name}:{self.inner.word}"

    @property
    def label(self) -> str:
        return f"{self.name}:{self.inner.label}"

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"inner": self.inner.identity()}

    def inputs(self, texts: Texts) -> list[Any]:
        return self.inner.inputs(texts)

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        return self.derive(self.inner.encode(texts, progress))

    def derive(self, E: np.ndarray) -> np.ndarray:
        """The matrix, (N, D) float32, out of the inner encoder's, (N, D) float32."""
        raise NotImplementedError


def encoder(word: str, home: Path) -> Encoder:
    """The encoder of a word such as ``minilm``, ``shuffled:minilm``, ``st:<model>`` or ``hf:<model>[pooling=last]``.

    ``home`` is the folder that holds models and caches. Raises HarnessError for an unknown name, a wrong argument or
    a wrong option.
    """
    name, _, argument = word.partition(":")
    known = registry.schema(registry.ENCODERS, name).params
    argument, options = registry.split_overrides(argument) if known else (argument, {})
    for option in options:
        if option not in known:
            raise HarnessError(f"'{word}': there is no option '{option}'. {registry.suggest(option, sorted(known))}")
    return registry.load(registry.ENCODERS, name)(argument, home, **options)


def one_of(word: str, option: str, value: Any, allowed: Sequence[str]) -> str:
    """The value of an option. Raises HarnessError if it is none of those allowed."""
    if value not in allowed:
        raise HarnessError(f"'{word}': {option} cannot be '{value}'. {registry.suggest(str(value), list(allowed))}")
    return value


def whole(word: str, option: str, value: Any, least: int, most: int) -> int:
    """The value of an option. Raises HarnessError if it is no whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise HarnessError(f"'{word}': {option} must be a whole number from {least} to {most:,}, not '{value}'.")
    return value


def hub_commit(word: str, model: str) -> str:
    """The commit, 40 hex digits, of a hub model ``id`` or ``id@revision``, for the encoder written `word`.

    Raises HarnessError if neither the local cache nor the hub knows it; ``id@<commit>`` asks neither.
    """
    from huggingface_hub import HfApi, snapshot_download

    name, _, revision = model.partition("@")
    if re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True)).name
    except (OSError, ValueError):  # not in the cache, or no model id
        pass
    try:
        return HfApi().model_info(name, revision=revision or None, timeout=10).sha or ""
    except Exception as error:  # the hub's client passes on its transport's exceptions, which change with versions
        raise HarnessError(
            f"'{word}' is no folder and no model in the local Hugging Face cache, and the hub does not know "
            f"it or cannot be reached ({type(error).__name__}). Give a folder: {word.partition(':')[0]}:<folder>."
        ) from error


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read once a process as long as its size and time stay what they are."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return files.sha256(path)
