"""Compare published numbers, with their protocol, to a home's table. Files: `harness/report/papers` or the user's.

    title = "..."                     # source and note are optional
    [protocol]                        # facts about every row: any of FACTS
    split = "loo"
    [data.ml-1m]                      # counts of a data set, any of COUNTS
    users = 6040
    [[row]]                           # one number; may override any of FACTS and have a note
    dataset = "ml-1m"
    backbone = "sasrec"               # "*": unknown, so it is compared with the best of ours
    adapter = "id"
    metric = "NDCG@10"
    value = 0.1821
    confidence = "repository"         # source of the number: one of CONFIDENCE
    selected_by = "test"              # optional: data that chose this configuration, one of SELECTED_BY

A row with `method = "TIGER"` needs neither backbone nor adapter: harness has no such method, and its number is compared
with the best of ours.

A fact missing from a file counts as not stated, never as equal.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import presets
from harness.paths import expanded
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import ledger_frames, tables
from harness.report.tables import Row, Section, Table
from harness.report.tables._format import interval
from harness.report.tables._scores import metrics
from harness.stats.resampling import Interval
from harness.system import decoding
from harness.types import HarnessError, Json

FOLDER = Path(__file__).parent / "papers"
FACTS = {
    "split": str,
    "candidates": str,
    "filter_seen": bool,
    "encoder": str,
    "loss": str,
    "d": int,
    "epochs": int,
}
SPLITS = tuple(presets.CHOICES["split"])  # a paper with another split leaves the fact out
MODEL_FACTS = ("loss", "d", "epochs")
COUNTS = ("users", "items", "events")
NEEDED = ("dataset", "backbone", "adapter", "metric", "value", "confidence")
SELECTED_BY = ("validation", "test")
CONFIDENCE = {
    "paper": "read in the paper",
    "repository": "read in the authors' repository",
    "second-hand": "as quoted by others",
    "scraped": "from a page that collects results",
    "memory": "from memory",
}
ANY = "*"


@dataclass(frozen=True)
class PublishedNumber:
    """One published number, with the protocol (`facts`) and data (`counts`) stated in its file."""

    dataset: str
    backbone: str
    adapter: str
    metric: str
    value: float
    confidence: str
    facts: Json
    counts: dict[str, int]
    note: str
    method: str = ""  # a method that harness does not have; backbone and adapter are then "*"
    selected_by: str = ""

    @property
    def row(self) -> str:
        """Data set and model, as a row of a table is called."""
        return f"{self.dataset}/{self.method or f'{self.backbone}/{self.adapter}'}"


@dataclass(frozen=True)
class Paper:
    title: str
    source: str
    note: str
    numbers: tuple[PublishedNumber, ...]


TIMED = ("target", "quantile of time", "validation")
OF_TEST = ("split", "candidates", *COUNTS, "held-out", "tied", "order")  # first words of differences in the test


@dataclass(frozen=True)
class PublishedComparison:
    """A published number and the matching row of ours.

    ``ours``: mean, low and high of the 95 % interval, or None if there is no such row (``hole``: the command to run);
    ``gap``: ours relative to theirs in percent; ``differs``: differences of the protocols in words; ``unstated``: facts
    missing from the paper's file.
    """

    number: PublishedNumber
    row: str
    ours: tuple[float, float, float] | None
    gap: float | None
    differs: tuple[str, ...]
    unstated: tuple[str, ...]
    hole: str

    @property
    def other_test(self) -> list[str]:
        """The differences that make ours a test of other events or items."""
        return [text for text in self.differs if text.split()[0] in OF_TEST]

    @property
    def match(self) -> str:
        if self.ours is None:
            return "no row here"
        if self.differs:
            return "protocols differ"
        return "protocols match as far as stated" if self.unstated else "protocols match"


def names() -> list[str]:
    """Return the names of the shipped papers."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(word: str) -> Paper:
    """Read a shipped paper by name, or a TOML file. Raises HarnessError, with file and key, if it is invalid."""
    path = expanded(word)
    if path.suffix != ".toml":
        shipped = {name.replace("_", "-"): name for name in names()}
        if word.replace("_", "-") not in shipped:
            hint = registry.suggest(word, names())
            raise HarnessError(f"There is no paper '{word}'. {hint} Your own file must end in .toml.")
        path = FOLDER / f"{shipped[word.replace('_', '-')]}.toml"
    try:
        value = decoding.toml(decoding.text(path))
    except (OSError, ValueError) as error:
        raise HarnessError(f"{path} cannot be read: {error}.") from error
    return _paper(path.name, value)


def _paper(file: str, value: Json) -> Paper:
    _check_keys(file, value, ("title", "source", "note", "protocol", "data", "row"))
    common = value.get("protocol", {})
    _check_keys(f"{file}: protocol", common, tuple(FACTS))
    for key in ("title", "source", "note"):
        if not isinstance(value.get(key, ""), str):
            raise HarnessError(f"{file}: {key} is {value[key]!r}; it must be a text.")
    counts, rows = value.get("data", {}), value.get("row", [])
    if not isinstance(counts, dict):
        raise HarnessError(f"{file}: data is {counts!r}; it must be tables named by data set: [data.ml-1m].")
    for dataset, numbers_of in counts.items():
        _check_keys(f"{file}: data.{dataset}", numbers_of, COUNTS)
        for key, count in numbers_of.items():
            if not isinstance(count, int) or isinstance(count, bool):
                raise HarnessError(f"{file}: data.{dataset}.{key} is {count!r}; it must be a whole number.")
    if not isinstance(rows, list):
        raise HarnessError(f"{file}: row is {rows!r}; write each as [[row]].")
    numbers = tuple(_number(f"{file}: row {n}", row, common, counts) for n, row in enumerate(rows, 1))
    if not numbers:
        raise HarnessError(f"{file} has no [[row]].")
    return Paper(value.get("title", file), value.get("source", ""), value.get("note", ""), numbers)


def _number(where: str, row: Json, common: Json, counts: Json) -> PublishedNumber:
    _check_keys(where, row, (*NEEDED, *FACTS, "note", "method", "selected_by"))
    row = {"backbone": ANY, "adapter": ANY} | row if row.get("method") else row
    for key in NEEDED:
        if key not in row:
            raise HarnessError(f"{where} has no '{key}'; a row needs {', '.join(NEEDED)}.")
    for key in NEEDED:
        if key != "value" and not isinstance(row[key], str):
            raise HarnessError(f"{where}: {key} is {row[key]!r}; it must be a text.")
    facts = common | {key: row[key] for key in FACTS if key in row}
    for key, fact in facts.items():
        if not isinstance(fact, FACTS[key]) or (FACTS[key] is int and isinstance(fact, bool)):
            raise HarnessError(f"{where}: {key} is {fact!r}; it must be a {FACTS[key].__name__}.")
    if not isinstance(row["value"], int | float) or isinstance(row["value"], bool) or not 0 <= row["value"] <= 1:
        raise HarnessError(f"{where}: value is {row['value']!r}; it must be a number from 0 to 1.")
    for key, fact, allowed in (("metric", row["metric"], metrics()), ("split", facts.get("split"), SPLITS)):
        if fact not in (None, *allowed):
            raise HarnessError(f"{where}: {key} is {fact!r}. {registry.suggest(fact, list(allowed))}")
    if row["confidence"] not in CONFIDENCE:
        raise HarnessError(
            f"{where}: confidence is {row['confidence']!r}. {registry.suggest(row['confidence'], list(CONFIDENCE))}"
        )
    if row.get("selected_by", "test") not in SELECTED_BY:
        chosen = row["selected_by"]
        raise HarnessError(f"{where}: selected_by is {chosen!r}. {registry.suggest(str(chosen), list(SELECTED_BY))}")
    texts: Json = {key: str(row.get(key, "")) for key in ("note", "method", "selected_by")}
    required = {key: row[key] for key in NEEDED}
    return PublishedNumber(**required, **texts, facts=facts, counts=counts.get(row["dataset"], {}))


def _check_keys(where: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise HarnessError(f"{where} is {value!r}; it must be a table of: {', '.join(allowed)}.")
    for key in value:
        if key not in allowed:
            raise HarnessError(f"{where} has an unknown key '{key}'. {registry.suggest(key, list(allowed))}")


def compare(paper: Paper, table: Table | None) -> list[PublishedComparison]:
    """Compare each number of a paper with the matching row of a table; without a table, nothing matches."""
    if table is not None:
        for number in paper.numbers:
            if number.metric not in table.metrics:
                raise HarnessError(f"{paper.title}: metric: {registry.suggest(number.metric, list(table.metrics))}")
    return [_compare(number, table) for number in paper.numbers]


def table_of(home: Path, run: str | None = None) -> Table | None:
    """Return the newest table of a home, or the one as of launch `run`; None if there are no results yet."""
    ledger = Ledger.open(home)
    if not ledger.launches and run is None:
        return None
    return tables.build(ledger_frames.build(ledger, artifacts.sources(home), run))


def _compare(number: PublishedNumber, table: Table | None) -> PublishedComparison:
    rows = [] if table is None else [(s, r) for s in table.sections for r in s.rows if _matches(number, s, r)]
    if table is None or not rows:
        backbone = f" --backbones {number.backbone}" if number.backbone != ANY else ""
        adapter = f" --adapters {number.adapter}" if number.adapter != ANY else ""
        loss = f" --set train.loss={number.facts['loss']}" if number.facts.get("loss", "softmax") != "softmax" else ""
        hole = f"harness bench --datasets {number.dataset}{backbone}{adapter}{loss}"
        return PublishedComparison(number, "", None, None, (), (), hole)
    # the row that differs least from what the paper states, of equals the best in validation, never by the test; for a
    # method of theirs our best
    facts = {row.cell: _protocol(number, table, section, row) for section, row in rows}
    differences = {cell: 0 if number.method else len(differs) for cell, (differs, _) in facts.items()}
    _, row = min(rows, key=lambda pair: (differences[pair[1].cell], -_valid(pair[1])))
    ours, (differs, unstated) = row.metrics[number.metric], facts[row.cell]
    gap = 100 * (ours.mean / number.value - 1) if number.value else None
    words = str(row.cell).replace(" / ", "/")
    return PublishedComparison(
        number, words, (ours.mean, ours.low, ours.high), gap, tuple(differs), tuple(unstated), ""
    )


def _valid(row: Row) -> float:
    """Return the validation score that chooses among rows; a baseline, which has none, comes last."""
    valid = row.fit.valid if row.fit is not None else None
    return -math.inf if valid is None else valid


def _matches(number: PublishedNumber, section: Section, row: Row) -> bool:
    """Return whether a row has the data set, backbone and adapter of a number, and text of its own if any; brackets
    after names are ignored."""
    return (
        row.fit is not None
        and not row.cell.is_control
        and section.dataset.replace("_", "-") == number.dataset.replace("_", "-")
        and number.backbone in (ANY, registry.split_overrides(row.cell.backbone)[0])
        and number.adapter in (ANY, registry.split_overrides(row.cell.adapter)[0])
    )


def _protocol(number: PublishedNumber, table: Table, section: Section, row: Row) -> tuple[list[str], list[str]]:
    """Return the differences as 'theirs / ours', and the facts that the file does not state."""
    assert row.fit is not None
    protocol = table.header.get("protocol") or {}
    ours: Json = {
        "split": protocol.get("split"),
        "candidates": "all",
        "filter_seen": protocol.get("filter_seen"),
        "encoder": None if row.cell.encoder == "none" else row.cell.encoder,
        "loss": row.fit.params.get("train.loss"),
        "d": row.fit.params.get("train.d"),
        "epochs": ((table.header.get("budget") or {}).get("epochs") or 0) * section.pace,
    }
    words = {"filter_seen": "seen items excluded", "epochs": "max epochs", "encoder": "text encoder"}
    facts = {**{name: number.counts.get(name) for name in COUNTS}, **{name: number.facts.get(name) for name in FACTS}}
    ours = {**{name: section.card.get(name) for name in COUNTS}, **ours}
    differs, unstated = _of_our_test(table)
    for key, theirs in facts.items():
        if (key == "encoder" and ours[key] is None) or (number.method and key in MODEL_FACTS):
            continue  # a row without text has no encoder to compare; another method is not our model
        name = words.get(key, key)
        if theirs is None:
            unstated.append(name)
        elif theirs != ours[key]:
            differs.append(f"{name} {_format(theirs)} / {_format(ours[key])}")
    if number.backbone == ANY and not number.method:
        unstated.append("backbone")
    return differs, unstated


def _of_our_test(table: Table) -> tuple[list[str], list[str]]:
    """Return what changes our test and papers' files have no fact for: options that no paper's number has, as
    differences, and what a split in time or by user leaves open, as unstated."""
    protocol, prep = table.header.get("protocol") or {}, table.header.get("prep") or {}
    held_out, order = protocol.get("cold_items"), prep.get("tie_policy", "source")
    differs = [f"held-out items none / {held_out:g}"] if held_out else []
    differs += ["tied tests kept / dropped"] if protocol.get("drop_tied_test") else []
    differs += [f"order of ties as in the file / {order}"] if order != "source" else []
    split = protocol.get("split")
    unstated = {"gts": TIMED, "windows": TIMED, "users": ("target", "share of trained users")}.get(str(split), ())
    return differs, list(unstated)


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def to_json(papers: list[tuple[Paper, list[PublishedComparison]]]) -> list[Json]:
    return [
        {"title": paper.title, "source": paper.source, "note": paper.note}
        | {"rows": [asdict(line) | {"match": line.match} for line in lines]}
        for paper, lines in papers
    ]


def text(papers: list[tuple[Paper, list[PublishedComparison]]]) -> str:
    """Format papers as lines: their numbers, ours, the gap and the differences of the protocols."""
    return "\n\n".join("\n".join(_lines(paper, lines)) for paper, lines in papers)


def _lines(paper: Paper, comparisons: list[PublishedComparison]) -> list[str]:
    lines = [f"{paper.title}. {paper.source}".rstrip(". ")] + ([" ".join(paper.note.split())] if paper.note else [])
    width = max(len(_name(line.number)) for line in comparisons)
    lines.append(f"  {'row':{width}s}  metric   theirs  ours [95 %]              gap      protocol")
    for line in comparisons:
        lines += _row_lines(line, width)
    return lines


def _name(number: PublishedNumber) -> str:
    return number.row + (f" ({number.note})" if number.note else "")


def _row_lines(line: PublishedComparison, width: int) -> list[str]:
    number, indent = line.number, " " * 6
    head = f"  {_name(number):{width}s}  {number.metric:7s}  {number.value:.4f}"
    source = f"{indent}theirs: {CONFIDENCE[number.confidence]}"
    source += ", selected by the test set" if number.selected_by == "test" else ""
    if line.ours is None:
        return [f"{head}  -", f"{source}; to get ours: {line.hole}"]
    ours = interval(Interval(*line.ours))
    gap = "" if line.gap is None else f"{line.gap:+.1f} %"
    lines = [f"{head}  {ours}  {gap:>8s}  {line.match}", f"{source}; ours: {line.row}"]
    lines += [f"{indent}differs (theirs / ours): {'; '.join(line.differs)}"] if line.differs else []
    lines += [f"{indent}not stated: {', '.join(line.unstated)}"] if line.unstated else []
    return lines
