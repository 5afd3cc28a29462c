"""A launch of a bench and the studies it planned, as the ledger records them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

from harness.types import MIDDLE, Budget, Cell, Engine, HarnessError, Json, PrepSpec, Protocol

# Of the ledger: raised when older versions can no longer read what is written. 2: trials of ensembles.
SCHEMA = 2


def merged(provenances: Iterable[Json]) -> Json:
    """Return the provenance of what several launches did: each fact once or, where they differ, a list of its values in
    the order of the launches; of dates, the first and the last. A fact about the machine that an older launch lacks is
    `not recorded` for it.

    >>> merged([{"code": "a", "date": "1 May"}, {"code": "b", "date": "2 May"}, {"code": "a", "date": "3 May"}])
    {'code': ['a', 'b'], 'date': '1 May to 3 May'}
    >>> merged([{"machine": {"cores": 2}}, {"machine": {"cores": 2, "vectors": "AVX2"}}])
    {'machine': {'cores': 2, 'vectors': ['not recorded', 'AVX2']}}
    """
    found: dict[str, list[object]] = {}
    for provenance in provenances:
        for key, value in provenance.items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    if machines := [value for value in found.get("machine", ()) if isinstance(value, dict)]:
        known = dict.fromkeys((key for machine in machines for key in machine), "not recorded")
        found["machine"] = [known | machine for machine in machines]
    whole: Json = {}
    for key, values in found.items():
        if len(values) == 1:
            whole[key] = values[0]
        elif all(isinstance(value, dict) for value in values):
            whole[key] = merged(value for value in values if isinstance(value, dict))
        else:
            whole[key] = f"{values[0]} to {values[-1]}" if key == "date" else values
    return whole


@dataclass(frozen=True)
class StudyRecord:
    """The study of one cell, as its launch planned it."""

    id: str  # identity of the study: cell, search space, budget, protocol, inputs
    cell: Cell
    trials: int  # planned search trials; 0: the default or a transferred configuration is confirmed without a search
    seeds: int  # planned confirmations
    searched: tuple[str, ...] | None = None  # searched parameters; None: not recorded (older versions)
    confirm: tuple[str, ...] | None = None  # ids of the confirmations, for a cell without a search
    cell_seconds: float | None = None  # time budget of the search, seconds
    allowed: int | None = None  # search trials of the budget, if a grid has fewer points
    warm: int | None = None  # configurations taken from the warm start; None: no warm start
    setting: str = ""  # name of the published setting
    warm_start: str = ""  # data set of the launch's warm start; recorded with the launch's engine
    parts: tuple[StudyRecord, ...] = ()  # of an ensemble: the studies of the rows that it combines, each once
    folds: int = 0  # test windows of its protocol, each with a run of every seed; 0 for a protocol without folds
    ranges: dict[str, str] = field(default_factory=dict)  # searched shared parameter -> its range; {}: not recorded
    version: int = 0  # of an ensemble: version of the combination (`ensembles.VERSION`)
    transferred: int = 0  # without a search: trials of the search whose winner is confirmed; 0 for the default
    cut: bool = False  # truncated by `cut_to`; not recorded

    def cut_to(self, trials: int) -> StudyRecord:
        """This study as if its search had ended after `trials` trials."""
        if self.parts:
            return replace(self, parts=tuple(part.cut_to(trials) for part in self.parts))
        return replace(self, trials=trials, cut=True) if self.trials > trials else self

    @property
    def runs(self) -> int:
        """Planned trials that confirm the winner: one a seed and fold."""
        return self.seeds * max(self.folds, 1)

    @property
    def warm_source(self) -> str:
        """Data set whose best configurations started the search, or whose winner is confirmed ("yes" if its name is not
        recorded); "" without. Earlier versions recorded configurations without a search that tries them."""
        return (self.warm_start or "yes") if self.warm and (self.trials or self.transferred) else ""

    def to_json(self) -> Json:
        """The entry of a `launched` event; fields that are off are left out."""
        optional = {
            "cell_seconds": self.cell_seconds,
            "allowed": self.allowed,
            "warm": self.warm,
            "setting": self.setting or None,
            "searched": None if self.searched is None else list(self.searched),
            "ranges": self.ranges or None,
            "confirm": None if self.confirm is None else list(self.confirm),
            "parts": [part.to_json() for part in self.parts] or None,
            "version": self.version or None,
            "transferred": self.transferred or None,
            "folds": self.folds or None,
        }
        value = {"study": self.id, "cell": asdict(self.cell), "trials": self.trials, "seeds": self.seeds}
        return value | {name: part for name, part in optional.items() if part is not None}

    @classmethod
    def from_json(cls, value: Json, warm_start: str = "") -> StudyRecord:
        searched, confirm = value.get("searched"), value.get("confirm")
        return cls(
            id=value["study"],
            cell=Cell(**value["cell"]),
            trials=value["trials"],
            seeds=value["seeds"],
            searched=None if searched is None else tuple(searched),
            confirm=None if confirm is None else tuple(confirm),
            cell_seconds=value.get("cell_seconds"),
            allowed=value.get("allowed"),
            warm=value.get("warm"),
            setting=value.get("setting", ""),
            warm_start=warm_start,
            parts=tuple(cls.from_json(part, warm_start) for part in value.get("parts", ())),
            ranges=value.get("ranges", {}),
            version=value.get("version", 0),
            folds=value.get("folds", 0),
            transferred=value.get("transferred", 0),
        )


@dataclass(frozen=True)
class SkippedCell:
    """A cell that a launch left out."""

    cell: Cell
    reason: str

    def to_json(self) -> Json:
        return {"cell": asdict(self.cell), "reason": self.reason}

    @classmethod
    def from_json(cls, value: Json) -> SkippedCell:
        return cls(Cell(**value["cell"]), value["reason"])


@dataclass(frozen=True)
class LaunchRecord:
    """A `launched` event: everything a reader of the table must know about how it came about."""

    table: str  # key of the table: launches with equal keys share one
    protocol: Protocol
    prep: PrepSpec
    budget: Budget
    engine: Engine
    studies: tuple[StudyRecord, ...]
    skipped: tuple[SkippedCell, ...]
    data: dict[str, Json]  # data set -> its card
    provenance: Json  # code, versions, machine, date, slots
    ties: str = MIDDLE  # how tied targets are measured; launches before the key existed used mid-ranks
    warm_cells: str = ""  # "3 of 8" cells that a warm start reached
    drawn_at_random: tuple[str, ...] = ()  # searched parameters that the sampler has no model of
    disk_bytes: int = 0  # estimate of the disk that the launch needs
    suite: Json = field(default_factory=dict)  # name, version, hash and changed options of the suite, if one was named
    study: str = ""  # text of the study file that repeats it, without secrets; "": not recorded
    time: float = 0.0  # when it was recorded, seconds since the epoch
    schema: int = SCHEMA

    @property
    def search(self) -> Json:
        """The engine as tables show it: sampler, pruner, warm start, parameters drawn at random."""
        optional = {"warm_cells": self.warm_cells, "drawn_at_random": list(self.drawn_at_random)}
        return self.engine.identity() | {name: value for name, value in optional.items() if value}

    def to_json(self) -> Json:
        """The event's keys, without `kind`, `seq` and `time`, which the segment adds."""
        value = {
            "schema": self.schema,
            "table": self.table,
            "protocol": self.protocol.identity(),
            "ties": self.ties,
            "prep": self.prep.identity(),
            "budget": self.budget.to_json(),
            "engine": self.search,
            "studies": [study.to_json() for study in self.studies],
            "skipped": [cell.to_json() for cell in self.skipped],
            "data": self.data,
            "provenance": self.provenance,
        }
        optional = {"room": self.disk_bytes, "suite": self.suite, "study": self.study}
        return value | {name: part for name, part in optional.items() if part}

    @classmethod
    def from_json(cls, event: Json) -> LaunchRecord:
        """Read an event of this or an earlier version; unknown keys are passed over, missing ones have no content.

        Raises HarnessError for an option that this version does not know: its results would be misread.
        """
        search = dict(event.get("engine", {}))
        warm_cells, drawn_at_random = search.pop("warm_cells", ""), search.pop("drawn_at_random", ())
        engine = _options(Engine, search)
        return cls(
            table=event.get("table", ""),
            protocol=_options(Protocol, event.get("protocol", {})),
            prep=_options(PrepSpec, event.get("prep", {})),
            budget=_options(Budget, NO_BUDGET | event.get("budget", {})),
            engine=engine,
            studies=tuple(StudyRecord.from_json(study, engine.warm_start) for study in event.get("studies", ())),
            skipped=tuple(SkippedCell.from_json(cell) for cell in event.get("skipped", ())),
            data=event.get("data", {}),
            provenance=event.get("provenance", {}),
            ties=event.get("ties", MIDDLE),
            warm_cells=warm_cells,
            drawn_at_random=tuple(drawn_at_random),
            disk_bytes=event.get("room", 0),
            suite=event.get("suite", {}),
            study=event.get("study", ""),
            time=event.get("time", 0.0),
            schema=event["schema"],
        )


NO_BUDGET = {"name": "", "trials": 0, "epochs": 0, "patience": 0, "seeds": 0}
Options = TypeVar("Options")


def _options(kind: type[Options], values: Json) -> Options:
    try:
        return kind(**values)
    except TypeError as error:
        raise HarnessError(
            f"A launch in the ledger has options that this version does not know ({error}); update harness."
        ) from None
