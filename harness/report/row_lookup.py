"""Look up a leaderboard row and load its runs, sequences, embeddings and weights.

A row is named as in tables, ``dataset/encoder/backbone/adapter``; parts may be left out as long as the rest matches one
row. Or by at least the first six hex digits of the id of a trial or study.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from harness import registry
from harness.data import preparation, reader, splits
from harness.data.cards import DataCard
from harness.record import artifacts
from harness.record.launches import LaunchRecord, StudyRecord
from harness.record.ledger import Ledger
from harness.registry import suggest
from harness.report import table_scope
from harness.system import checksums, parquet
from harness.text import embeddings
from harness.text.encoders import _base
from harness.types import Cell, HarnessError, Trial

ID = r"[0-9a-f]{6,24}"
SHOWN = 8  # rows listed in an error


@dataclass(frozen=True)
class LedgerRow:
    """One cell of a home's table.

    ``launch``: the newest launch with this cell; ``study``: as recorded there; ``planned``: ids of the confirmations of
    its winner, empty until the search has ended; ``run``: name of the launch; ``outdated``: why tables skip the row,
    if its data or texts have changed since.
    """

    cell: Cell
    study: StudyRecord
    launch: LaunchRecord
    planned: tuple[str, ...]
    run: str = ""
    outdated: str = ""

    @property
    def words(self) -> str:
        return "/".join((self.cell.dataset, self.cell.encoder, self.cell.backbone, self.cell.adapter))

    @property
    def parts(self) -> list[str]:
        """The rows that an ensemble combines, each once."""
        cells = [part.cell for part in self.study.parts]
        return ["/".join((cell.dataset, cell.encoder, cell.backbone, cell.adapter)) for cell in cells]

    @property
    def card(self) -> DataCard:
        """The data set's card as recorded at the launch."""
        return DataCard.from_json(self.launch.data[self.cell.dataset])

    @property
    def remedy(self) -> str:
        """What to do to complete this row: a bench with other options would begin another one."""
        file = " (`harness bench study.toml`; the file is beside its report)" if self.launch.study else ""
        return f"Rerun the bench of launch {self.run} with the same options{file}."


def of(ledger: Ledger, run: str | None = None) -> dict[Cell, LedgerRow]:
    """Return the rows of the newest table, or of the table as of launch `run`. Raises HarnessError if there are none.

    The newest launch that names a cell decides: if it skipped the cell, there is no row, even with earlier runs.
    """
    scope, rows = table_scope.of(ledger, run), {}
    for cell, study in scope.studies.items():
        run, planned = scope.launch_of[cell], tuple(ledger.confirmations(study))
        rows[cell] = LedgerRow(cell, study, ledger.launches[run], planned, run, scope.outdated.get(cell, ""))
    return rows


def find(rows: dict[Cell, LedgerRow], word: str) -> LedgerRow:
    """Return the row that `word` names.

    Raises HarnessError, with near names, if it matches no or several rows, and if tables skip the row as outdated.
    """
    parts = [part.strip() for part in word.strip().strip("/").split("/")]
    exact = [row for row in rows.values() if row.words == "/".join(parts)]
    hits = exact or [row for row in rows.values() if _within(parts, row.words.split("/"))]
    if not hits and re.fullmatch(ID, word):
        hits = [row for row in rows.values() if any(i.startswith(word) for i in (row.study.id, *row.planned))]
    if len(hits) == 1 and hits[0].outdated:
        row = hits[0]
        raise HarnessError(f"{row.words} is not in this table: {row.outdated}, or add --run {row.run} to use that one.")
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise HarnessError(f"'{word}' matches {len(hits)} rows: {_listed([row.words for row in hits])}. Choose one.")
    names = [row.words for row in rows.values()]
    near = suggest(word, names).partition(" Known:")[0] if len(names) > SHOWN else suggest(word, names)
    tail = near if near.startswith("Did") else f"Its rows: {_listed(names)}."
    raise HarnessError(f"There is no row '{word}' in this table. {tail}")


def _within(parts: list[str], words: list[str]) -> bool:
    """Return whether `parts` occur in `words` in this order; brackets may be left out."""
    rest = iter(words)
    return all(any(part in (word, word.partition("[")[0]) for word in rest) for part in parts)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def check_components(row: LedgerRow, trial: Trial) -> None:
    """Raise HarnessError if a component from outside harness that a trial used is not here."""
    if not any(isinstance(version, str) for version in trial.inputs.versions.values()):
        return
    cell = trial.cell
    words = {registry.BASELINES: cell.adapter}
    if not cell.is_baseline:
        words = {registry.ADAPTERS: cell.adapter, registry.BACKBONES: cell.backbone}
        words[registry.LOSSES] = trial.params["train.loss"]
    named = [(package, registry.split_overrides(word)[0]) for package, word in words.items()]
    if away := [name for package, name in named if name not in registry.names(package)]:
        raise HarnessError(
            f"{row.words} uses components that are not built in: {', '.join(away)}. Add --components DIR."
        )


def confirmed(ledger: Ledger, row: LedgerRow) -> list[Trial]:
    """Return the row's finished confirmations. Raises HarnessError, with the remedy, if there are none."""
    done = [i for i in row.planned if (result := ledger.result(i)) is not None and result.status == "done"]
    if not done:
        why = "its search has not finished" if not row.planned else "none of its seeds has finished"
        raise HarnessError(f"{row.words} has no confirmed run yet: {why}. {row.remedy}")
    return [ledger.trials[i].trial for i in done]


def by_seed(row: LedgerRow, trials: list[Trial]) -> list[list[Trial]]:
    """Return finished confirmations of a row by seed: one each or, with folds, one a fold, earliest first.

    Raises HarnessError, with the remedy, if no seed has finished on every fold.
    """
    seeds: dict[int, list[Trial]] = {}
    for trial in trials:
        seeds.setdefault(trial.seed, []).append(trial)
    complete = [runs for runs in seeds.values() if len(runs) == max(row.study.folds, 1)]
    if not complete:
        raise HarnessError(f"{row.words}: no seed has finished on all {row.study.folds} folds. {row.remedy}")
    return complete


def sequences(home: Path, row: LedgerRow, key: str, word: str = "") -> splits.Prepared:
    """Return the prepared data set with hash `key`, from the cache or prepared from `word`.

    `word`: name or folder of the data set; if empty, the row's name. Raises HarnessError if the hash differs, or if
    there is no data set `word`, even where the cache has the sequences.
    """
    if not cached(home, key):
        prepared = prepare(home, row, word)
        if prepared.hash != key:
            raise HarnessError(
                f"{row.cell.dataset} has changed: its sequences have hash {prepared.hash}; the row was trained on "
                f"{key}, which is not in {home / 'cache' / 'prepared'}. Give the earlier files with --dataset FOLDER, "
                "or rerun the bench on the new data."
            )
        return prepared
    if word:
        _open(home, row, word)
    folder = _prepared(home, key)
    try:
        checksums.check(folder, checksums.sums(folder) or {})
        times = folder / "times.npy"
        return splits.Prepared(
            name=row.cell.dataset,
            hash=key,
            items=_mapped(folder / "items.npy"),
            offsets=_mapped(folder / "offsets.npy"),
            times=_mapped(times) if times.exists() else None,
            catalogue=parquet.read(folder / "catalogue.parquet"),
            users=parquet.read(folder / "users.parquet")["user_id"],
            card=row.card,
            matrices=_own_embeddings(home, row, word),
        )
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise HarnessError(f"{folder} is damaged ({error}); delete it and rerun the command.") from error


def _own_embeddings(home: Path, row: LedgerRow, word: str) -> dict[str, Path]:
    """Return the embedding files by name that the row's data set declares, if its encoder reads one and it is here."""
    if "own" not in re.split(r"[:+]", row.cell.encoder):
        return {}
    try:
        return reader.open_dataset(word or row.cell.dataset, home, row.card.text or "").matrices
    except HarnessError:
        return {}


def cached(home: Path, key: str) -> bool:
    """Return whether the prepared data with this hash are cached."""
    return _prepared(home, key).is_dir()


def _prepared(home: Path, key: str) -> Path:
    return home / "cache" / "prepared" / key


def prepare(home: Path, row: LedgerRow, word: str = "") -> splits.Prepared:
    """Prepare the row's data set from its source with the launch's settings. Raises HarnessError if it is not found."""
    return preparation.prepare(_open(home, row, word), row.launch.prep, home)


def _open(home: Path, row: LedgerRow, word: str) -> reader.RawDataset:
    try:
        return reader.open_dataset(word or row.cell.dataset, home, row.card.text or "")
    except HarnessError as error:
        raise HarnessError(f"{error} Give the folder of {row.cell.dataset} with --dataset FOLDER.") from error


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def text(home: Path, row: LedgerRow, key: str, prepared: splits.Prepared) -> dict[str, np.ndarray]:
    """Return the arrays that a trial reads of the embedding with hash `key`, cached or re-encoded: U, S, V, mean, E
    and, if items have several texts, variants; empty for a row without text.

    Raises HarnessError if the encoder would now produce another embedding.
    """
    if not key:
        return {}
    matrices = embeddings.cached(key, home)
    if matrices is None:
        encoder, texts = _base.encoder(row.cell.encoder, home), embeddings.texts_of(prepared)
        if embeddings.embedding_hash(encoder, texts) != key:
            raise HarnessError(
                f"The embedding '{row.cell.encoder}' of {row.words} (hash {key}) is not cached in this home, and the "
                "encoder would now produce another one. Use the model and texts of that time, or rerun the bench."
            )
        matrices = embeddings.matrices(encoder, texts, home)
        embeddings.check_unchanged(encoder, texts, key)
    basis = embeddings.basis(matrices["E"], key, home)
    return {"U": basis.U, "S": basis.S, "V": basis.V, "mean": basis.mean, **matrices}


def weights_file(home: Path, trial: Trial) -> Path:
    """Return the trial's weights file. Raises HarnessError unless it is a complete safetensors file of this trial."""
    path = artifacts.fetch(home, trial.id, artifacts.WEIGHTS)
    again = f"Move {path.parent} away and rerun the bench to repeat this run."
    if not path.is_file():
        raise HarnessError(
            f"The weights of {trial.cell}, seed {trial.seed}, are missing: {path} does not exist. Use the home that "
            f"trained them, or move {path.parent} away and rerun the bench to repeat this run."
        )
    if artifacts.fault(home, trial.id, path.name) == "damaged":
        raise HarnessError(f"The weights of {trial.cell}, seed {trial.seed}, are damaged: {path}. {again}")
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size < path.stat().st_size else {}
        stop = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        stored = Trial.from_json(json.loads(header["__metadata__"]["trial"]))
        whole = 8 + size + stop == path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(f"The weights of {trial.cell}, seed {trial.seed}, are damaged: {path}. {again}") from error
    if not whole:
        raise HarnessError(f"The weights of {trial.cell}, seed {trial.seed}, are truncated: {path}. {again}")
    if stored.id != trial.id:
        raise HarnessError(f"{path} contains the weights of another trial, {stored.id}.")
    return path


def parts(home: Path, ledger: Ledger, trial: Trial) -> list[tuple[Trial, bytes]]:
    """Return the trials that an ensemble combines, with their weights; empty for any other trial.

    Raises HarnessError if weights are missing or damaged.
    """
    trials = [ledger.trials[trial_id].trial for trial_id in trial.inputs.parts]
    return [(part, weights_file(home, part).read_bytes()) for part in trials]


def ranks(home: Path, trial: Trial) -> pl.DataFrame:
    """Return test ranks `user`, `low`, `high` of a confirmation. Raises HarnessError if missing or damaged."""
    frame = artifacts.load_ranks(home, trial.id)
    if frame is None:
        raise HarnessError(
            f"The test ranks of {trial.cell}, seed {trial.seed}, are missing or damaged. Rerun the bench to repeat "
            "this run."
        )
    return frame
