"""A linter for data sets: every fault that is known to spoil a result, with a number and a remedy.

`check` is pure on what it is given; `examine` finds a data set by name, prepares it and checks it whole.
"""

from __future__ import annotations

import re
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.findings import ERROR, INFO, LEVELS, Finding
from harness.types import HarnessError, PrepSpec

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
    """What `examine` found: `counts` of the file and of the preparation; findings, worst first."""

    name: str
    counts: dict[str, dict[str, int]]
    findings: list[Finding]
    encoder: str = ""

    @property
    def exit_code(self) -> int:
        """1 if anything found is an error, else 0."""
        return int(any(finding.level == ERROR for finding in self.findings))

    def to_json(self) -> dict[str, Any]:
        tally = {level: sum(f.level == level for f in self.findings) for level in LEVELS}
        found = [finding.to_json() for finding in self.findings]
        return {
            "dataset": self.name,
            "encoder": self.encoder or None,
            "counts": self.counts,
            "found": tally,
            "findings": found,
        }


def check(
    raw: RawDataset,
    prepared: Prepared | None = None,
    embedding: np.ndarray | None = None,
    *,
    now: float | None = None,
) -> list[Finding]:
    """All that is wrong with a data set, errors first, else in the order in which a reader should mend it.

    `prepared`: sequences of `raw`; with them ties and order are those that a model sees, else those of the file, and
    the counts are held against the published ones. `embedding` float32 (items of `prepared`, D). `now`: seconds since
    1970, default this moment. Reads both files of `raw`, writes nothing; a file that cannot be read is a finding.
    """
    from harness.checks import files
    from harness.checks._base import Facts

    found, events, texts = files.read(raw)
    facts = Facts(raw, events, texts, prepared, embedding, time.time() if now is None else now)
    return _sorted(found + _all(facts))


def examine(word: str, home: Path, encoder: str = "", spec: PrepSpec | None = None, text: str = "") -> LintReport:
    """Find, prepare and check the data set or folder `word`, with the embedding of `encoder`.

    Without `encoder` the default encoder's embedding is checked if it is in the cache. What cannot be prepared or
    encoded is a finding; raises HarnessError if there is no such data set or encoder.
    """
    from harness import registry
    from harness.checks import files, times
    from harness.checks._base import Facts
    from harness.data import preparation, reader
    from harness.text.encoders._base import encoder as encoder_of

    raw = reader.open_dataset(word, home, text)
    asked = encoder_of(registry.unquoted(encoder), home) if encoder else None
    found, events, texts = files.read(raw)
    facts, used = Facts(raw, events, texts, None, None, time.time()), ""
    if not any(finding.level == ERROR for finding in [*found, *files.find(facts), *times.refused(facts)]):
        try:
            facts = replace(facts, prepared=preparation.prepare(raw, spec or PrepSpec(), home))
        except HarnessError as error:
            found.append(_refused("preparation", "data set", error))
    if facts.prepared is not None:
        try:
            embedding, used = _embedding(facts.prepared, asked, home)
            facts = replace(facts, embedding=embedding)
        except HarnessError as error:
            found.append(_refused("embedding", "matrix", error))
    return LintReport(raw.name, _counts(facts), _sorted(found + _all(facts)), used)


def text(report: LintReport) -> str:
    """A report as aligned lines: for each finding its number, what it is, examples, the remedy."""
    lines = [report.name]
    for what, counts in report.counts.items():
        lines.append(f"{what + ':':10s}" + ", ".join(f"{count:,} {unit}" for unit, count in counts.items()))
    lines += [f"encoder:  {report.encoder}"] if report.encoder else []
    names = max((len(finding.name) for finding in report.findings), default=0)
    for finding in report.findings:
        of = f"{finding.count:,} of {finding.total:,} {finding.unit} ({_percent(finding.share)})"
        lines.append(f"{finding.level:7s}  {finding.name:{names}s}  {of}")
        for part in _parts(finding):
            lines += [" " * (names + 11) + line for line in textwrap.wrap(part, WIDTH - names - 11)]
    tally = report.to_json()["found"]
    some = ", ".join(
        f"{count} {level}{'s' * (count != 1 and level != INFO)}" for level, count in tally.items() if count
    )
    lines.append(f"Found: {some}." if some else "Nothing found.")
    return "\n".join(lines)


def _parts(finding: Finding) -> list[str]:
    said = f"{_capitalised(finding.says)}."
    return [said, *([f"E.g. {'; '.join(finding.examples)}"] if finding.examples else []), f"Remedy: {finding.remedy}"]


def _capitalised(sentence: str) -> str:
    """With a capital where a plain word begins the sentence: names of files and columns keep their case."""
    return sentence[0].upper() + sentence[1:] if re.match(r"[a-z]+([ ,;]|$)", sentence) else sentence


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{share:.1%}".replace("%", " %")


def _counts(facts: Facts) -> dict[str, dict[str, int]]:
    counts = {}
    if (events := facts.events) is not None:
        counts["file"] = {"users": len(events.users), "items": len(events.items), "events": len(events)}
    if (made := facts.prepared) is not None:
        counts["prepared"] = {"users": len(made.users), "items": made.catalogue.height, "events": len(made.items)}
    return counts


def _embedding(prepared: Prepared, encoder: Encoder | None, home: Path) -> tuple[np.ndarray | None, str]:
    """The matrix float32 (items, D) and its encoder's word; None where no encoder is asked for and none is cached."""
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
    if isinstance(encoder, File):  # not by way of the cache, which refuses the rows that are to be counted
        return np.asarray(encoder.encode(texts, embeddings.reporter(word)), np.float32), word
    return embeddings.embed(encoder, texts, home), word


def _refused(name: str, unit: str, error: HarnessError) -> Finding:
    return Finding(name, ERROR, 1, 1, unit, str(error).rstrip("."), "Mend what the line says and check again.")


def _all(facts: Facts) -> list[Finding]:
    from harness.checks import counts, embeddings, files, ids, texts, times

    return [finding for family in (files, ids, times, counts, texts, embeddings) for finding in family.find(facts)]


def _sorted(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
