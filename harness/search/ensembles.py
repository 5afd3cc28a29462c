"""Ensembles: rows made of other rows of the grid. They are selected with the adapters: `id+id`, `id+text`, `id x5`.

Late fusion of models trained apart is the control of EnsRec (2025, arXiv 2512.17820), and averaged seeds are that of
any method that costs more than its control. See `training.ensemble` for the scores.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness import registry
from harness.record import ensembles
from harness.record.launches import StudyRecord
from harness.search.spaces import Space
from harness.search.study import Study
from harness.types import NO_TEXT, Cell, HarnessError, Inputs, Trial, digest, parts_of

ALWAYS = ("id+id", "id+text")  # in `all` if their parts are; and all seeds of `id` averaged
SUMMARIES = {
    "id+id": "Two seeds of `id` averaged: what any second model gives",
    "id+text": "Late fusion: `id` and `text` trained apart, scores added, weight chosen on validation",
    "id x5": "Five seeds of one row averaged: the control at five times the cost",
    "ensemble[a,b]": "The same of any rows of a section, also written a+b; not in 'all'",
}
LEAST = 3  # seeds from which averaging all of them differs from `id+id`


@dataclass(frozen=True)
class Selection:
    """The adapters of a selection, including the parts of its ensembles, and the ensembles."""

    adapters: list[str]
    ensembles: list[str]


def select(selection: str, seeds: int) -> Selection:
    """Resolve a selection of adapters and ensembles; seeds: confirmations of every row.

    `all` includes the ensembles of `ALWAYS` and `id x<seeds>` where their parts are selected; a named ensemble adds
    its parts. Raises HarnessError for an unknown part or an ensemble that needs more seeds.
    """
    words = registry.split_list(selection)
    for word in (word for word in words if not word.startswith("!") and "*" in word and _is_ensemble(word)):
        raise HarnessError(f"'{word}': ensembles are named one by one; a glob only excludes them, as '!{word}' does.")
    named = [canonical(word) for word in words if not word.startswith("!") and _is_ensemble(word)]
    dropped = [word[1:] for word in words if word.startswith("!") and _is_ensemble(word[1:])]
    plain = [word for word in words if not _is_ensemble(word.removeprefix("!"))]
    chosen = registry.select(registry.ADAPTERS, ",".join(map(registry.quoted, plain))) if plain else []
    if any(word == "all" for word in plain):
        named = [*_defaults(chosen, seeds), *named]
    kept = [name for name in dict.fromkeys(named) if not any(_matches(name, pattern) for pattern in dropped)]
    for name in kept:
        _check_seeds(name, seeds)
    parts = [part for name in kept for part in parts_of(name)]
    if not chosen and not parts:
        raise HarnessError(f"'{selection}' selects no adapter; {registry.SELECTABLE}.")
    return Selection(list(dict.fromkeys([*chosen, *parts])), kept)


def canonical(word: str) -> str:
    """Return the name under which an ensemble stands in tables; "" if the word names none.

    Raises HarnessError for an unknown part.

    >>> canonical("text+id"), canonical("ensemble[id,id,id]"), canonical("mlp[hidden=8]")
    ('id+text', 'id x3', '')
    """
    listed = word.startswith("ensemble[")
    if listed and not word.endswith("]"):
        raise HarnessError(f"'{word}': the bracket is not closed. Write ensemble[id,text].")
    parts = registry.split_list(word[len("ensemble[") : -1]) if listed else parts_of(word)
    if len(parts) < 2:
        if listed or parts:
            raise HarnessError(f"'{word}': an ensemble needs at least two parts, as in ensemble[id,text].")
        return ""
    return joined([_part(word, part.strip()) for part in parts])


def joined(parts: Sequence[str]) -> str:
    """Return the name of the ensemble of these adapters.

    >>> joined(["text", "id"]), joined(["id", "id", "id"])
    ('id+text', 'id x3')
    """
    parts = sorted(parts, key=lambda part: (part != "id", part))
    repeated = len(set(parts)) == 1 and len(parts) > 2
    return f"{parts[0]} x{len(parts)}" if repeated else "+".join(parts)


def _part(word: str, part: str) -> str:
    """Return an adapter of an ensemble as its row is named."""
    base, _ = registry.split_overrides(part)
    if parts_of(part) or base == "ensemble":
        raise HarnessError(f"'{word}': the parts of an ensemble are adapters; '{part}' is an ensemble.")
    return registry.find(registry.ADAPTERS, base) + part[len(base) :]


def _defaults(chosen: Sequence[str], seeds: int) -> list[str]:
    names = [*ALWAYS, *([f"id x{seeds}"] if seeds >= LEAST else [])]
    return [name for name in names if set(parts_of(name)) <= set(chosen) and _rounds(name, seeds)]


def _rounds(name: str, seeds: int) -> int:
    parts = parts_of(name)
    return ensembles.rounds(parts, dict.fromkeys(parts, seeds))


def _check_seeds(name: str, seeds: int) -> None:
    most = max(Counter(parts_of(name)).values())
    if not _rounds(name, seeds):
        raise HarnessError(f"'{name}' needs {most} seeds of each row, this bench has {seeds}: add --seeds {most}.")


def _is_ensemble(word: str) -> bool:
    """Whether a word names an ensemble, or several by a glob."""
    return word.startswith("ensemble[") or bool(parts_of(word)) or "*+" in word or "+*" in word


def _matches(name: str, pattern: str) -> bool:
    """Whether an ensemble is excluded by a name or a glob such as `*+*`."""
    return fnmatch.fnmatchcase(name, pattern if "*" in pattern else canonical(pattern))


@dataclass
class EnsembleStudy(Study):
    """The study of an ensemble: no search, one trial a round once all confirmations of its parts are done."""

    sources: tuple[Study, ...] = field(default=(), repr=False)  # of the rows that it combines, each once

    @cached_property
    def id(self) -> str:
        return digest(["ensemble", ensembles.VERSION, self.cell.adapter, [source.id for source in self.sources]])

    @property
    def seeds(self) -> int:
        return ensembles.rounds(self.cell.parts, {source.cell.adapter: source.seeds for source in self.sources})

    def combined(self) -> list[Trial]:
        return self.ledger.combined(self.record())

    def winner(self) -> Trial | None:
        """Return the trial of the first round, None until all confirmations of the parts are done."""
        return next(iter(self.combined()), None)

    def confirmations(self, winner: Trial) -> list[Trial]:
        return self.combined()

    def to_run(self) -> int:
        if any(source.state == "failed" for source in self.sources):
            return 0
        combined = self.combined()
        return sum(self.ledger.result(trial.id) is None for trial in combined) if combined else self.runs

    def record(self) -> StudyRecord:
        return StudyRecord(
            id=self.id,
            cell=self.cell,
            trials=0,
            seeds=self.seeds,
            searched=(),
            warm_start=self.engine.warm_start,
            parts=tuple(source.record() for source in self.sources),
            version=ensembles.VERSION,
            folds=self.protocol.folds,
        )


def cells(dataset: str, backbone: str, names: Sequence[str], encoders: Sequence[str]) -> list[Cell]:
    """Return the cells of ensembles with one backbone: one an encoder if a part reads text."""
    return [
        Cell(dataset, encoder, backbone, name)
        for name in names
        for encoder in (encoders if any(map(_reads_text, parts_of(name))) else [NO_TEXT])
    ]


def part_cells(cell: Cell) -> list[Cell]:
    """Return the cells that an ensemble combines, each once."""
    return [
        Cell(cell.dataset, cell.encoder if _reads_text(part) else NO_TEXT, cell.backbone, part)
        for part in dict.fromkeys(cell.parts)
    ]


def lacks(cell: Cell, skipped: Collection[Cell]) -> str:
    """Return why an ensemble cannot be planned: a part of it is skipped; "" if it can."""
    missing = next((part for part in part_cells(cell) if part in skipped), None)
    return f"its part {missing.adapter} is skipped" if missing else ""


def study(cell: Cell, of_cell: Mapping[Cell, Study]) -> EnsembleStudy:
    """Build the study of an ensemble from those of its parts."""
    sources = tuple(of_cell[part] for part in part_cells(cell))
    reads = next((one.inputs for one in sources if one.inputs.embedding), sources[0].inputs)
    inputs = Inputs(reads.data, reads.embedding, reads.basis)
    first = sources[0]
    shared = (first.budget, first.protocol, first.engine)
    return EnsembleStudy(cell, Space({}, {}, {}), *shared, inputs, first.ledger, sources=sources)


def _reads_text(adapter: str) -> bool:
    schema = registry.schema(registry.ADAPTERS, registry.split_overrides(adapter)[0])
    return schema.attributes.get("uses_text", True)
