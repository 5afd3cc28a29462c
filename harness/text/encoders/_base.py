"""Interface of encoders: `Encoder` and its input, `Texts`. Light to import: no torch before `encode`.

An encoder is written ``name``, ``name:argument`` or ``name:argument[option=value,...]``; the name is that of its file,
and each encoder defines its argument. Options are the keyword-only parameters of its class.
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
from harness.types import HarnessError, Json

Progress = Callable[[int, int], None]  # called with (done, total)


@dataclass(frozen=True)
class Texts:
    """A catalogue as an encoder sees it: one entry per item, in the order of the rows of E.

    ``texts``: None for items without text. ``source_rows``: the item's row in the raw items file, which has
    ``n_source_rows`` rows; None for items that the file lacks. ``matrices``: embedding files by name that the data set
    ``dataset`` provides.
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
    """Encodes texts as a matrix E. One subclass per module of this folder.

    Raise ``version`` when behaviour changes. ``takes`` describes the argument after the colon; empty: no argument.
    ``optional``: the argument may be omitted. ``needs_text``: useless if no item has text.
    """

    version = 1
    takes = ""
    optional = False
    needs_text = False

    def __init__(self, argument: str, home: Path, **options: Any) -> None:
        """Raises HarnessError for a missing or unexpected argument; cheap. `options`: all of them."""
        self.name = type(self).__module__.rpartition(".")[2]
        self.argument, self.home, self.options = argument, home, options
        if self.takes and not argument and not self.optional:
            raise HarnessError(f"The encoder '{self.name}' needs {self.takes} after a colon: {self.name}:...")
        if argument and not self.takes:
            raise HarnessError(f"The encoder '{self.name}' takes no argument, but got '{argument}'.")

    @property
    def word(self) -> str:
        """The encoder as written on the command line, without options at their default."""
        return self.name + (f":{self.argument}" if self.argument else "") + self._shown_options()

    @property
    def label(self) -> str:
        """The word as shown in tables: without folders."""
        return (
            ":".join([self.name, *(Path(part).name for part in self.argument.split(":") if part)])
            + self._shown_options()
        )

    def _shown_options(self) -> str:
        """The options that are not at their default, in brackets; "" if there are none."""
        defaults = registry.schema(registry.ENCODERS, self.name).params if self.options else {}
        changed = ",".join(f"{key}={value}" for key, value in self.options.items() if value != defaults[key])
        return f"[{changed}]" if changed else ""

    def on(self, texts: Texts) -> Encoder:
        """The encoder to use for this catalogue: itself, unless the data set determines which."""
        return self

    def match(self, texts: Texts) -> None:
        """Raise HarnessError if the encoder's rows do not match the catalogue, also where its matrix is cached."""
        return

    def identity(self) -> Json:
        """Everything that determines the output besides its input, as JSON: weights, pooling, seeds, never a path.
        Imports nothing heavy."""
        is_own = registry.own(registry.ENCODERS, self.name) is not None
        code = registry.schema(registry.ENCODERS, self.name).code if is_own else ""
        return {"encoder": self.name, "version": f"{self.version}+{code}" if code else self.version}

    def inputs(self, texts: Texts) -> list[Any]:
        """The parts of the catalogue that the output depends on, as JSON."""
        return list(texts.texts)

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        """E, (N, D) float32; zero rows for items without text."""
        raise NotImplementedError


@dataclass(frozen=True)
class Job:
    """A prepared encoding of distinct texts.

    ``order``: the texts in encoding order. ``batches(start)``: yields the rows of ``order[start:]`` in batches (n, D);
    starting at the end of an earlier batch gives the same later batches. ``cut``: number of texts longer than
    ``limit`` (described in words), whose ends are cut off.
    """

    order: list[str]
    batches: Callable[[int], Iterator[np.ndarray]]
    cut: int = 0
    limit: str = ""


class TextEncoder(Encoder):
    """An encoder whose rows depend only on their text: each distinct text is encoded once, and finished rows are kept.

    ``keep_seconds``: min time between two writes of rows to disk. ``uses_gpu``: worth a GPU of another machine.
    """

    keep_seconds = 5.0
    uses_gpu = False
    needs_text = True

    def job(self, distinct: list[str]) -> Job:
        """Prepare the encoding of one or more distinct texts, longest first."""
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
        """E, (N, D) float32, and the counts `missing`, `distinct` and `cut`. `make` returns the zeros that E fills.

        Rows are kept in `folder`, whose name is the key of E, and reused from there. Raises HarnessError if no item has
        text, or as `job` does.
        """
        job = self.job(distinct(texts))
        if job.cut:
            self.log(f"{job.cut:,} of {len(job.order):,} texts are longer than {job.limit}; their ends are cut off.")
        parts = Parts(folder, job.order)
        parts.prune()
        self._fill(parts, job, progress)
        counts = {"missing": texts.texts.count(None), "distinct": len(job.order), "cut": job.cut}
        return scatter(parts, texts, make or (lambda shape: np.zeros(shape, np.float32))), counts

    def _fill(self, parts: Parts, job: Job, progress: Progress) -> None:
        """Compute the missing parts. `progress` counts only these, so that its time left is right."""
        start, total = parts.done, len(job.order)
        if start == total:
            return
        if start:
            self.log(f"{start:,} of {total:,} texts are already encoded; resuming from there.")
        held, kept_at = [], time.monotonic()
        for rows in job.batches(start):
            held.append(np.asarray(rows, np.float32))
            width = parts.width or held[0].shape[1]
            if held[-1].shape[1] != width:
                raise HarnessError(
                    f"'{self.word}' now returns rows of {held[-1].shape[1]:,} dimensions, before of {width:,}. If its "
                    f"model has changed, delete {parts.folder} and rerun."
                )
            done = parts.done + sum(map(len, held))
            if done == total or time.monotonic() - kept_at >= self.keep_seconds:
                parts.add(np.concatenate(held))
                held, kept_at = [], time.monotonic()
            progress(done - start, total - start)
        if parts.done != total:
            rows = parts.done + sum(map(len, held))
            raise HarnessError(f"'{self.word}' returned {rows:,} rows for {total:,} texts; one per text is needed.")

    def log(self, message: str) -> None:
        print(f"{self.word}: {message}", file=sys.stderr, flush=True)


def distinct(texts: Texts) -> list[str]:
    """The distinct texts of a catalogue, longest first. Raises HarnessError if no item has text.

    Distinct, because the other texts of a batch change a row's last digits, and items with equal text must have equal
    rows. Longest first, so that batches are even and the time left is not underestimated.
    """
    by_length = sorted({text for text in texts.texts if text is not None}, key=lambda text: (-len(text), text))
    if not by_length:
        raise HarnessError("No item has text, so there is nothing to encode. Check the data set's text template.")
    return by_length


def scatter(parts: Parts, texts: Texts, make: Callable[[tuple[int, int]], np.ndarray]) -> np.ndarray:
    """E, (N, D): for each item the row of its text, or zeros if it has none."""
    place = {text: i for i, text in enumerate(parts.order)}
    row = np.array([-1 if text is None else place[text] for text in texts.texts])
    items = np.argsort(row, kind="stable")
    E, start = make((len(texts), parts.width)), 0
    for part in parts:
        first, last = np.searchsorted(row[items], [start, start + len(part)])
        at = items[first:last]
        E[at] = part[row[at] - start]
        start += len(part)
    return E


def spans(lengths: Sequence[int], start: int, budget: int, most: int) -> Iterator[slice]:
    """Slices covering ``lengths[start:]`` (descending): up to `most` texts and, with padding, up to `budget` tokens."""
    while start < len(lengths):
        stop = min(start + min(max(1, budget // max(1, lengths[start])), most), len(lengths))
        yield slice(start, stop)
        start = stop


class Derived(Encoder):
    """An encoder that transforms the matrix of another one, which is computed and cached only once."""

    takes = "another encoder"

    def __init__(self, argument: str, home: Path) -> None:
        super().__init__(argument, home)
        self.inner = encoder(argument, home)

    def on(self, texts: Texts) -> Encoder:
        bound = copy.copy(self)
        bound.inner = self.inner.on(texts)
        return bound

    @property
    def word(self) -> str:
        return f"{self.name}:{self.inner.word}"

    @property
    def label(self) -> str:
        return f"{self.name}:{self.inner.label}"

    def identity(self) -> Json:
        return super().identity() | {"inner": self.inner.identity()}

    def inputs(self, texts: Texts) -> list[Any]:
        return self.inner.inputs(texts)

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        return self.derive(self.inner.encode(texts, progress))

    def derive(self, E: np.ndarray) -> np.ndarray:
        """Transform the matrix of the inner encoder, (N, D) float32, to (N, D) float32.

        If items have several texts, their rows come side by side as one matrix, so it must not mix columns."""
        raise NotImplementedError


def encoder(word: str, home: Path) -> Encoder:
    """Create an encoder from a word such as ``minilm``, ``shuffled:minilm`` or ``hf:<model>[pooling=last]``.

    ``home`` is the folder of models and caches. Raises HarnessError for an unknown name or an invalid argument or
    option.
    """
    name, _, argument = word.partition(":")
    params = registry.schema(registry.ENCODERS, name).params
    argument, options = registry.split_overrides(argument) if params else (argument, {})
    for option in options:
        if option not in params:
            raise HarnessError(f"'{word}': unknown option '{option}'. {registry.suggest(option, sorted(params))}")
    return registry.load(registry.ENCODERS, name)(argument, home, **options)


def one_of(word: str, option: str, value: Any, allowed: Sequence[str]) -> str:
    """Return the value of an option. Raises HarnessError unless it is one of `allowed`."""
    if value not in allowed:
        raise HarnessError(f"'{word}': {option} cannot be '{value}'. {registry.suggest(str(value), list(allowed))}")
    return value


def whole(word: str, option: str, value: Any, least: int, most: int) -> int:
    """Return the value of an option. Raises HarnessError unless it is a whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise HarnessError(f"'{word}': {option} must be a whole number from {least} to {most:,}, not '{value}'.")
    return value


def hub_commit(word: str, model: str) -> str:
    """The commit, 40 hex digits, of a hub model ``id`` or ``id@revision``; `word` names the encoder in errors.

    Raises HarnessError if neither the local cache nor the hub knows it; ``id@<commit>`` needs neither.
    """
    from huggingface_hub import HfApi, snapshot_download

    name, _, revision = model.partition("@")
    if re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True)).name
    except (OSError, ValueError):  # not in the cache, or not a model id
        pass
    try:
        return HfApi().model_info(name, revision=revision or None, timeout=10).sha or ""
    except Exception as error:  # the client lets transport exceptions through, which vary by version
        raise HarnessError(
            f"'{word}' is neither a folder nor a model in the local Hugging Face cache, and the hub does not know "
            f"it or cannot be reached ({type(error).__name__}). Use a folder: {word.partition(':')[0]}:<folder>."
        ) from error


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, cached in this process while its size and modification time do not change."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return files.sha256(path)
