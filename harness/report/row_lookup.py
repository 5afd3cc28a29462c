"""A row of a table and what belongs to it: its runs in the ledger, its sequences, its text, its weights.

Rows are named as tables name them, ``dataset/encoder/backbone/adapter``, parts left out where what is left names one
row; or by the first six hex digits or more of a trial's or a study's id.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from harness.data import preparation, reader, splits
from harness.data.cards import DataCard
from harness.record import artifacts
from harness.record.launches import LaunchRecord, StudyRecord
from harness.record.ledger import Ledger
from harness.registry import quoted, suggest
from harness.report import ledger_frames
from harness.text import embeddings
from harness.text.encoders import _base
from harness.types import Cell, HarnessError, Trial

ID = r"[0-9a-f]{6,24}"
SHOWN = 8  # rows named in an error


@dataclass(frozen=True)
class LedgerRow:
    """One cell of a home's table.

    ``study``: as its newest launch recorded it; ``launch``: that launch. ``planned``: ids of the confirmations of its
    winner, empty while it is undecided.
    """

    cell: Cell
    study: StudyRecord
    launch: LaunchRecord
    planned: tuple[str, ...]

    @property
    def words(self) -> str:
        return "/".join((self.cell.dataset, self.cell.encoder, self.cell.backbone, self.cell.adapter))

    @property
    def card(self) -> DataCard:
        """The data set's card as it stood at the launch."""
        return DataCard.from_json(self.launch.data[self.cell.dataset])

    @property
    def command(self) -> str:
        """What runs this row to its end."""
        parts = [f"--datasets {self.cell.dataset}", f"--encoders {shlex.quote(quoted(self.cell.encoder))}"]
        parts = parts[: 1 if self.cell.encoder == "none" else 2]
        grid = [] if self.cell.is_baseline else [f"--backbones {self.cell.backbone}", f"--adapters {self.cell.adapter}"]
        return " ".join(["harness bench", *parts, *grid])


def of(ledger: Ledger, run: str | None = None) -> dict[Cell, LedgerRow]:
    """The rows of the newest table, or of the table as it stood at launch `run`. Raises HarnessError without any.

    A cell that the newest launch naming it skipped is no row, whatever an earlier launch trained.
    """
    rows: dict[Cell, LedgerRow] = {}
    for launch in ledger_frames.launches(ledger, run):
        for study in launch.studies:
            rows[study.cell] = LedgerRow(study.cell, study, launch, tuple(ledger.confirmations(study)))
        for skipped in launch.skipped:
            rows.pop(skipped.cell, None)
    return rows


def find(rows: dict[Cell, LedgerRow], word: str) -> LedgerRow:
    """The row that a word names. Raises HarnessError if none or more than one is, with the nearest names."""
    parts = [part.strip() for part in word.strip().strip("/").split("/")]
    exact = [row for row in rows.values() if row.words == "/".join(parts)]
    hits = exact or [row for row in rows.values() if _within(parts, row.words.split("/"))]
    if not hits and re.fullmatch(ID, word):
        hits = [row for row in rows.values() if any(i.startswith(word) for i in (row.study.id, *row.planned))]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise HarnessError(f"'{word}' is {len(hits)} rows: {_listed([row.words for row in hits])}. Name one of them.")
    known = [row.words for row in rows.values()]
    near = suggest(word, known).partition(" Known:")[0] if len(known) > SHOWN else suggest(word, known)
    tail = near if near.startswith("Did") else f"There are: {_listed(known)}."
    raise HarnessError(f"There is no row '{word}' in this table. {tail}")


def _within(parts: list[str], words: list[str]) -> bool:
    """Whether the parts stand among the words, in their order; an adapter may be named without its bracket."""
    rest = iter(words)
    return all(any(part in (word, word.partition("[")[0]) for word in rest) for part in parts)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def confirmed(ledger: Ledger, row: LedgerRow) -> list[Trial]:
    """Its confirming trials that are done. Raises HarnessError, with the command to run, if there is none."""
    done = [i for i in row.planned if (result := ledger.result(i)) is not None and result.status == "done"]
    if not done:
        why = "its search is not over" if not row.planned else "none of its seeds has been trained to the end"
        raise HarnessError(f"{row.words} has no confirmed run yet: {why}. Run: {row.command}")
    return [ledger.trials[i].trial for i in done]


def sequences(home: Path, row: LedgerRow, key: str, word: str = "") -> splits.Prepared:
    """The prepared data set of that hash: out of the cache, or prepared again from `word` (its name or folder; as the
    row names it if empty). Raises HarnessError if neither gives it."""
    if not cached(home, key):
        prepared = prepare(home, row, word)
        if prepared.hash != key:
            raise HarnessError(
                f"{row.cell.dataset} is not what the row was made of: its sequences have the hash {prepared.hash}, "
                f"the row's {key}, and these are not in {home / 'cache' / 'prepared'}."
            )
        return prepared
    folder = _prepared(home, key)
    try:
        times = folder / "times.npy"
        return splits.Prepared(
            name=row.cell.dataset,
            hash=key,
            items=_mapped(folder / "items.npy"),
            offsets=_mapped(folder / "offsets.npy"),
            times=_mapped(times) if times.exists() else None,
            catalogue=pl.read_parquet(folder / "catalogue.parquet"),
            users=pl.read_parquet(folder / "users.parquet")["user_id"],
            card=row.card,
        )
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise HarnessError(f"{folder} is damaged ({error}); delete it and run again.") from error


def cached(home: Path, key: str) -> bool:
    """Whether the prepared data of that hash are in the cache."""
    return _prepared(home, key).is_dir()


def _prepared(home: Path, key: str) -> Path:
    return home / "cache" / "prepared" / key


def prepare(home: Path, row: LedgerRow, word: str = "") -> splits.Prepared:
    """The row's data set prepared from its source as the row's launch did. Raises HarnessError if it is not found."""
    try:
        raw = reader.open_dataset(word or row.cell.dataset, home, row.card.text or "")
    except HarnessError as error:
        raise HarnessError(f"{error} Say with --dataset FOLDER where {row.cell.dataset} is.") from error
    return preparation.prepare(raw, row.launch.prep, home)


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def text(home: Path, row: LedgerRow, key: str, prepared: splits.Prepared) -> dict[str, np.ndarray]:
    """Arrays U, S, V, mean, E of the embedding of that hash: out of the cache, or encoded again. Empty for a row
    without text. Raises HarnessError if the encoder here would make another embedding."""
    if not key:
        return {}
    E = embeddings.cached(key, home)
    if E is None:
        encoder, texts = _base.encoder(row.cell.encoder, home), embeddings.texts_of(prepared)
        if embeddings.embedding_hash(encoder, texts) != key:
            raise HarnessError(
                f"The embedding '{row.cell.encoder}' of {row.words} (hash {key}) is not in the cache of this home, and "
                "what the encoder would make here is another one."
            )
        E = embeddings.embed(encoder, texts, home)
    basis = embeddings.basis(E, key, home)
    return {"U": basis.U, "S": basis.S, "V": basis.V, "mean": basis.mean, "E": E}


def weights_file(home: Path, trial: Trial) -> Path:
    """Its weights, checked to be a whole safetensors file of this very trial. Raises HarnessError if they are not."""
    path = artifacts.artifact_folder(home, trial.id) / "model.safetensors"
    if not path.is_file():
        raise HarnessError(f"The weights of {trial.cell}, seed {trial.seed}, are missing: {path} is not there.")
    if artifacts.fault(home, trial.id, path.name) == "damaged":
        raise HarnessError(
            f"The weights of {trial.cell}, seed {trial.seed}, are damaged: {path}. Move {path.parent} away and repeat "
            "the bench: the run is made again."
        )
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size < path.stat().st_size else {}
        stop = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        own = Trial.from_json(json.loads(header["__metadata__"]["trial"]))
        whole = 8 + size + stop == path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(f"The weights of {trial.cell}, seed {trial.seed}, are damaged: {path}.") from error
    if not whole:
        raise HarnessError(f"The weights of {trial.cell}, seed {trial.seed}, are cut off: {path}.")
    if own.id != trial.id:
        raise HarnessError(f"{path} holds the weights of another trial, {own.id}.")
    return path


def ranks(home: Path, trial: Trial) -> pl.DataFrame:
    """Test ranks `user`, `low`, `high` of a confirmed trial. Raises HarnessError if they are gone or damaged."""
    found = artifacts.load_ranks(home, trial.id)
    if found is None:
        raise HarnessError(f"The test ranks of {trial.cell}, seed {trial.seed}, are missing or damaged.")
    return found
