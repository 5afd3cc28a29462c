"""Published numbers with their protocol, next to ours: files of `harness/report/papers` and the user's own.

    title = "..."                     # source and note are optional
    [protocol]                        # what holds for every row: any of FACTS
    split = "loo"
    [data.ml-1m]                      # counts of a data set, any of COUNTS
    users = 6040
    [[row]]                           # one number; may say any of FACTS itself, and a note
    dataset = "ml-1m"
    backbone = "sasrec"               # "*": theirs is not known, so that the best of ours stands beside it
    adapter = "id"
    metric = "NDCG@10"
    value = 0.1821
    confidence = "repository"         # how the number came here: one of CONFIDENCE

What a file does not say counts as not stated, never as equal.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import ledger_frames, tables
from harness.report.tables import Row, Section, Table
from harness.system import decoding
from harness.types import HarnessError

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
COUNTS = ("users", "items", "events")
NEEDED = ("dataset", "backbone", "adapter", "metric", "value", "confidence")
CONFIDENCE = {
    "paper": "read in the paper",
    "repository": "read in the authors' repository",
    "second-hand": "as others quote it",
    "scraped": "from a page that collects results",
    "memory": "from memory",
}
ANY = "*"


@dataclass(frozen=True)
class PublishedNumber:
    """One published number, with what its file says of its protocol (`facts`) and of its data (`counts`)."""

    dataset: str
    backbone: str
    adapter: str
    metric: str
    value: float
    confidence: str
    facts: dict[str, Any]
    counts: dict[str, int]
    note: str


@dataclass(frozen=True)
class Paper:
    title: str
    source: str
    note: str
    numbers: tuple[PublishedNumber, ...]


@dataclass(frozen=True)
class PublishedComparison:
    """A published number and the row of ours that answers to it.

    ``ours``: mean, low and high of its 95 % interval, or None for a hole (``hole`` says what to run); ``gap``: ours
    over theirs in percent. ``differs``: what of the two protocols is not equal, in words; ``unstated``: what the file
    of the paper does not say.
    """

    number: PublishedNumber
    row: str
    ours: tuple[float, float, float] | None
    gap: float | None
    differs: tuple[str, ...]
    unstated: tuple[str, ...]
    hole: str

    @property
    def match(self) -> str:
        if self.ours is None:
            return "no row here"
        if self.differs:
            return "protocols differ"
        return "protocols match as far as stated" if self.unstated else "protocols match"


def names() -> list[str]:
    """Papers that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(word: str) -> Paper:
    """A shipped paper by name, or a TOML file. Raises HarnessError, naming file and key, if it is none."""
    own = Path(word).expanduser()
    if own.suffix != ".toml":
        known = {name.replace("_", "-"): name for name in names()}
        if word.replace("_", "-") not in known:
            hint = registry.suggest(word, names())
            raise HarnessError(f"There is no paper '{word}'. {hint} A file of yours ends in .toml.")
        own = FOLDER / f"{known[word.replace('_', '-')]}.toml"
    try:
        value = tomllib.loads(decoding.text(own))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise HarnessError(f"{own} cannot be read: {error}.") from error
    return _paper(own.name, value)


def _paper(file: str, value: dict[str, Any]) -> Paper:
    _known(file, value, ("title", "source", "note", "protocol", "data", "row"))
    common = value.get("protocol", {})
    _known(f"{file}: protocol", common, tuple(FACTS))
    counts = value.get("data", {})
    for dataset, own in counts.items():
        _known(f"{file}: data.{dataset}", own, COUNTS)
    numbers = tuple(_number(f"{file}: row {n}", row, common, counts) for n, row in enumerate(value.get("row", []), 1))
    if not numbers:
        raise HarnessError(f"{file} holds no [[row]].")
    return Paper(value.get("title", file), value.get("source", ""), value.get("note", ""), numbers)


def _number(where: str, row: dict[str, Any], common: dict[str, Any], counts: dict[str, Any]) -> PublishedNumber:
    _known(where, row, (*NEEDED, *FACTS, "note"))
    for key in NEEDED:
        if key not in row:
            raise HarnessError(f"{where} has no '{key}'; a row needs {', '.join(NEEDED)}.")
    facts = common | {key: row[key] for key in FACTS if key in row}
    for key, fact in facts.items():
        if not isinstance(fact, FACTS[key]) or (FACTS[key] is int and isinstance(fact, bool)):
            raise HarnessError(f"{where}: {key} is {fact!r}; it must be a {FACTS[key].__name__}.")
    if not isinstance(row["value"], int | float) or not 0 <= row["value"] <= 1:
        raise HarnessError(f"{where}: value is {row['value']!r}; it is a number from 0 to 1.")
    if row["confidence"] not in CONFIDENCE:
        raise HarnessError(f"{where}: confidence: {registry.suggest(row['confidence'], list(CONFIDENCE))}")
    own = {key: row[key] for key in NEEDED}
    return PublishedNumber(**own, facts=facts, counts=counts.get(row["dataset"], {}), note=row.get("note", ""))


def _known(where: str, value: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in value:
        if key not in known:
            raise HarnessError(f"{where} has the key '{key}'. {registry.suggest(key, list(known))}")


def beside(paper: Paper, table: Table | None) -> list[PublishedComparison]:
    """Every number of a paper beside the row of a table that answers to it; all holes without a table."""
    if table is not None:
        for number in paper.numbers:
            if number.metric not in table.metrics:
                raise HarnessError(f"{paper.title}: metric: {registry.suggest(number.metric, list(table.metrics))}")
    return [_beside(number, table) for number in paper.numbers]


def table_of(home: Path, run: str | None = None) -> Table | None:
    """The newest table of a home, or as it stood at a launch; None where there are no results yet."""
    ledger = Ledger.open(home)
    if not ledger.launches and run is None:
        return None
    return tables.build(ledger_frames.build(ledger, artifacts.sources(home), run))


def _beside(number: PublishedNumber, table: Table | None) -> PublishedComparison:
    found = [] if table is None else [(s, r) for s in table.sections for r in s.rows if _answers(number, s, r)]
    if table is None or not found:
        backbone = f" --backbones {number.backbone}" if number.backbone != ANY else ""
        loss = f" --set train.loss={number.facts['loss']}" if number.facts.get("loss", "softmax") != "softmax" else ""
        hole = f"harness bench --datasets {number.dataset}{backbone} --adapters {number.adapter}{loss}"
        return PublishedComparison(number, "", None, None, (), (), hole)
    section, row = max(found, key=lambda pair: pair[1].metrics[number.metric].mean)
    ours = row.metrics[number.metric]
    differs, unstated = _protocol(number, table, section, row)
    gap = 100 * (ours.mean / number.value - 1) if number.value else None
    words = str(row.cell).replace(" / ", "/")
    return PublishedComparison(
        number, words, (ours.mean, ours.low, ours.high), gap, tuple(differs), tuple(unstated), ""
    )


def _answers(number: PublishedNumber, section: Section, row: Row) -> bool:
    """Whether a row is of the data set, backbone and adapter of a number; brackets behind names do not count."""
    return (
        row.fit is not None
        and section.dataset.replace("_", "-") == number.dataset.replace("_", "-")
        and number.backbone in (ANY, registry.split_overrides(row.cell.backbone)[0])
        and number.adapter == registry.split_overrides(row.cell.adapter)[0]
    )


def _protocol(number: PublishedNumber, table: Table, section: Section, row: Row) -> tuple[list[str], list[str]]:
    """What is not equal, as 'theirs / ours' in words, and what the file does not say."""
    assert row.fit is not None
    protocol = table.header.get("protocol") or {}
    ours: dict[str, Any] = {
        "split": protocol.get("split"),
        "candidates": "all",
        "filter_seen": protocol.get("filter_seen"),
        "encoder": None if row.cell.encoder == "none" else row.cell.encoder,
        "loss": row.fit.params.get("train.loss"),
        "d": row.fit.params.get("train.d"),
        "epochs": ((table.header.get("budget") or {}).get("epochs") or 0) * section.pace,
    }
    words = {"filter_seen": "seen items left out", "epochs": "epochs at most", "encoder": "text encoder"}
    facts = {**{name: number.counts.get(name) for name in COUNTS}, **{name: number.facts.get(name) for name in FACTS}}
    ours = {**{name: section.card.get(name) for name in COUNTS}, **ours}
    differs, unstated = [], []
    for key, theirs in facts.items():
        if key == "encoder" and ours[key] is None:
            continue  # a row without text has no encoder to differ in
        name = words.get(key, key)
        if theirs is None:
            unstated.append(name)
        elif theirs != ours[key]:
            differs.append(f"{name} {_said(theirs)} / {_said(ours[key])}")
    if number.backbone == ANY:
        unstated.append("backbone")
    return differs, unstated


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def to_json(papers: list[tuple[Paper, list[PublishedComparison]]]) -> list[dict[str, Any]]:
    return [
        {"title": paper.title, "source": paper.source, "note": paper.note}
        | {"rows": [asdict(line) | {"match": line.match} for line in lines]}
        for paper, lines in papers
    ]


def text(papers: list[tuple[Paper, list[PublishedComparison]]]) -> str:
    """The papers as lines: theirs, ours, the gap, and in words what of the protocols differs."""
    return "\n\n".join("\n".join(_lines(paper, lines)) for paper, lines in papers)


def _lines(paper: Paper, found: list[PublishedComparison]) -> list[str]:
    lines = [f"{paper.title}. {paper.source}".rstrip(". ")] + ([" ".join(paper.note.split())] if paper.note else [])
    width = max(len(_name(line.number)) for line in found)
    lines.append(f"  {'row':{width}s}  metric   theirs  ours [95 %]              gap      protocol")
    for line in found:
        lines += _row_lines(line, width)
    return lines


def _name(number: PublishedNumber) -> str:
    return f"{number.dataset}/{number.backbone}/{number.adapter}" + (f" ({number.note})" if number.note else "")


def _row_lines(line: PublishedComparison, width: int) -> list[str]:
    number, indent = line.number, " " * 6
    head = f"  {_name(number):{width}s}  {number.metric:7s}  {number.value:.4f}"
    source = f"{indent}theirs: {CONFIDENCE[number.confidence]}"
    if line.ours is None:
        return [f"{head}  -", f"{source}; to have ours: {line.hole}"]
    mean, low, high = line.ours
    gap = "" if line.gap is None else f"{line.gap:+.1f} %"
    lines = [f"{head}  {mean:.4f} [{low:.4f}, {high:.4f}]  {gap:>8s}  {line.match}", f"{source}; ours: {line.row}"]
    lines += [f"{indent}differs (theirs / ours): {'; '.join(line.differs)}"] if line.differs else []
    lines += [f"{indent}not stated: {', '.join(line.unstated)}"] if line.unstated else []
    return lines
