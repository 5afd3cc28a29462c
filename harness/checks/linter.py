"""Lint data sets: report every known fault that can spoil a result, with its count and a remedy.

`check` works on data that are already open; `examine` opens a data set by name, prepares it and runs all checks.
"""

from __future__ import annotations

import re
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.findings import ERROR, INFO, LEVELS, Finding
from harness.types import HarnessError, Json, PrepSpec

if TYPE_CHECKING:
    import numpy as np

    from harness.checks._base import Facts
    from harness.data.reader import RawDataset
    from harness.data.splits import Prepared
    from harness.text.encoders._base import Encoder

WIDTH = 110
DEFAULT_ENCODER = "minilm"


@dataclass(frozen=True)
class LintReport:
    """The result of `examine`: `counts` of the file and of the prepared data; findings, worst first."""

    name: str
    counts: dict[str, dict[str, int]]
    findings: list[Finding]
    encoder: str = ""

    @property
    def exit_code(self) -> int:
        """1 if any finding is an error, otherwise 0."""
        return int(any(finding.level == ERROR for finding in self.findings))

    @property
    def tally(self) -> dict[str, int]:
        """Level -> number of findings."""
        return {level: sum(finding.level == level for finding in self.findings) for level in LEVELS}

    def to_json(self) -> Json:
        return {
            "dataset": self.name,
            "encoder": self.encoder or None,
            "counts": self.counts,
            "found": self.tally,
            "findings": [finding.to_json() for finding in self.findings],
        }


def check(
    raw: RawDataset,
    prepared: Prepared | None = None,
    embedding: np.ndarray | None = None,
    *,
    now: float | None = None,
) -> list[Finding]:
    """Return all faults of a data set, errors first, otherwise in the order in which to correct them.

    `prepared`: sequences of `raw`; if given, ties and order are checked as a model sees them instead of as in the file,
    and the counts are compared with the published ones. `embedding` float32 (items of `prepared`, D). `now`: seconds
    since 1970, default the current time. Reads both files of `raw` and writes nothing; an unreadable file is a finding.
    """
    from harness.checks import files
    from harness.checks._base import Facts

    findings, events, texts = files.read(raw)
    spec = PrepSpec(**prepared.card.spec) if prepared else PrepSpec()
    facts = Facts(raw, events, texts, prepared, embedding, time.time() if now is None else now, spec)
    return _sorted(findings + _all(facts))


def examine(word: str, home: Path, encoder: str = "", spec: PrepSpec | None = None, text: str = "") -> LintReport:
    """Open, prepare and check the data set or folder `word`, with the embedding of `encoder`.

    Without `encoder`, the default encoder's embedding is checked if cached. An unreadable file and a failure of
    preparation or encoding are findings. Raises HarnessError if there is no such data set or encoder.
    """
    from harness import registry
    from harness.checks import files, times
    from harness.checks._base import Facts
    from harness.data import preparation
    from harness.text.encoders._base import encoder as encoder_of

    raw, fault = _opened(word, home, text)
    chosen = encoder_of(registry.unquoted(encoder), home) if encoder else None
    findings, events, texts = files.read(raw)
    if fault is not None and not any(finding.level == ERROR for finding in findings):
        findings.append(_refused("files", "data set", fault))
    spec = spec or PrepSpec()
    facts, used = Facts(raw, events, texts, None, None, time.time(), spec), ""
    if not any(finding.level == ERROR for finding in [*findings, *files.find(facts), *times.refused(facts)]):
        try:
            facts = replace(facts, prepared=preparation.prepare(raw, spec, home))
        except HarnessError as error:
            findings.append(_refused("preparation", "data set", error))
    if facts.prepared is not None:
        try:
            embedding, used = _embedding(facts.prepared, chosen, home)
            facts = replace(facts, embedding=embedding)
        except HarnessError as error:
            findings.append(_refused("embedding", "matrix", error))
    return LintReport(raw.name, _counts(facts), _sorted(findings + _all(facts)), used)


def _opened(word: str, home: Path, text: str) -> tuple[RawDataset, HarnessError | None]:
    """Open a data set, and return the fault of a file that cannot be read; other faults raise HarnessError."""
    from harness.data import reader

    try:
        return reader.open_dataset(word, home, text), None
    except reader.Unreadable as error:
        return error.raw, error


def text(report: LintReport) -> str:
    """Format a report as aligned lines: for each finding its counts, the fault, examples and the remedy."""
    lines = [report.name]
    for source, counts in report.counts.items():
        lines.append(f"{source + ':':10s}" + ", ".join(f"{count:,} {unit}" for unit, count in counts.items()))
    lines += [f"encoder:  {report.encoder}"] if report.encoder else []
    names = max((len(finding.name) for finding in report.findings), default=0)
    for finding in report.findings:
        of = f"{finding.count:,} of {finding.total:,} {finding.unit} ({_percent(finding.share)})"
        lines.append(f"{finding.level:7s}  {finding.name:{names}s}  {of}")
        for part in _parts(finding):
            lines += [" " * (names + 11) + line for line in textwrap.wrap(part, WIDTH - names - 11)]
    tally = ", ".join(
        f"{count} {level}{'s' * (count != 1 and level != INFO)}" for level, count in report.tally.items() if count
    )
    lines.append(f"Found: {tally}." if tally else "Nothing found.")
    return "\n".join(lines)


def _parts(finding: Finding) -> list[str]:
    shown = [f"E.g. {'; '.join(finding.examples)}"] if finding.examples else []
    return [f"{_capitalised(finding.says)}.", *shown, f"Remedy: {finding.remedy}"]


def _capitalised(sentence: str) -> str:
    """Capitalise a sentence that begins with a plain word; names of files and columns keep their case."""
    return sentence[0].upper() + sentence[1:] if re.match(r"[a-z]+([ ,;]|$)", sentence) else sentence


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{share:.1%}".replace("%", " %")


def _counts(facts: Facts) -> dict[str, dict[str, int]]:
    counts = {}
    if (events := facts.events) is not None:
        counts["file"] = {"users": len(events.users), "items": len(events.items), "events": len(events)}
    if (data := facts.prepared) is not None:
        counts["prepared"] = {"users": len(data.users), "items": data.catalogue.height, "events": len(data.items)}
    return counts


def _embedding(prepared: Prepared, encoder: Encoder | None, home: Path) -> tuple[np.ndarray | None, str]:
    """Return the matrix float32 (items, D) and its encoder's word.

    Without `encoder`, it is that of `DEFAULT_ENCODER` if cached, otherwise None.
    """
    import numpy as np

    from harness.text import embeddings
    from harness.text.encoders._base import encoder as encoder_of
    from harness.text.encoders.file import File

    texts = embeddings.texts_of(prepared)
    if encoder is None:
        encoder = encoder_of(DEFAULT_ENCODER, home)
        if not (home / "cache" / "embeddings" / embeddings.embedding_hash(encoder, texts)).is_dir():
            return None, ""
    word, encoder = encoder.word, encoder.on(texts)
    if isinstance(encoder, File):  # not through the cache, which refuses the rows to be counted
        return np.asarray(encoder.encode(texts, embeddings.reporter(word)), np.float32), word
    return embeddings.embed(encoder, texts, home), word


def _refused(name: str, unit: str, error: HarnessError) -> Finding:
    return Finding(name, ERROR, 1, 1, unit, str(error).rstrip("."), "Correct this fault and rerun the check.")


def _all(facts: Facts) -> list[Finding]:
    from harness.checks import counts, embeddings, files, ids, texts, times

    return [finding for family in (files, ids, times, counts, texts, embeddings) for finding in family.find(facts)]


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
