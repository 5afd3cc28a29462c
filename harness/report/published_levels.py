"""Where several papers give a number for the same model, data set and protocol: how far their levels are apart.

A gain over the lowest of these levels shows little if the same backbone reaches a higher one elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.report import published
from harness.report.published import ANY, CONFIDENCE, COUNTS, Paper, PublishedComparison, PublishedNumber
from harness.report.tables._format import bounds
from harness.stats.resampling import Interval
from harness.types import Json

Comparisons = list[tuple[Paper, list[PublishedComparison]]]
SAME = ("split", "candidates", *COUNTS)  # stated facts that must not differ within a level


@dataclass(frozen=True)
class Level:
    """Numbers of a row of the bench (data set, backbone, adapter) at one metric, under protocols that agree as far as
    stated.

    ``numbers``: title of the paper and number, ascending. ``methods``: the same for methods that harness does not have.
    """

    numbers: tuple[tuple[str, PublishedNumber], ...]
    methods: tuple[tuple[str, PublishedNumber], ...]

    @property
    def row(self) -> str:
        return self.numbers[0][1].row

    @property
    def metric(self) -> str:
        return self.numbers[0][1].metric

    @property
    def low(self) -> float:
        return self._counted[0].value

    @property
    def high(self) -> float:
        return self._counted[-1].value

    @property
    def spread(self) -> float:
        """Highest relative to lowest number in percent, without those that the test set selected; infinite above
        a number of 0."""
        return 100 * (self.high / self.low - 1) if self.low else float("inf")

    @property
    def below(self) -> list[str]:
        """Names of the methods whose best number is below the highest number of this row."""
        best: dict[str, float] = {}
        for _, number in self.methods:
            best[number.method] = max(number.value, best.get(number.method, 0.0))
        return [f"{name} ({value:.4f})" for name, value in sorted(best.items()) if value < self.high]

    @property
    def papers(self) -> int:
        """Number of papers with a number that the test set did not select."""
        return len({title for title, number in self.numbers if number.selected_by != "test"})

    def to_json(self) -> Json:
        return {
            "low": self.low,
            "high": self.high,
            "papers": self.papers,
            "spread": self.spread,
            "methods_below": self.below,
        }

    @property
    def _counted(self) -> list[PublishedNumber]:
        return [number for _, number in self.numbers if number.selected_by != "test"]


def levels(papers: Iterable[Paper]) -> list[Level]:
    """Return the levels with numbers of at least two papers, by row and metric.

    Numbers share a level if they agree in all facts of `SAME` that both state. The number with most facts comes first,
    so a number that states little joins the level of the best documented one.
    """
    known = [(paper.title, number) for paper in papers for number in paper.numbers]
    known.sort(key=lambda pair: -len(_stated(pair[1])))
    rows = [pair for pair in known if ANY not in (pair[1].backbone, pair[1].adapter)]
    groups: list[list[tuple[str, PublishedNumber]]] = []
    for pair in rows:
        same = (group for group in groups if _key(group[0][1]) == _key(pair[1]) and _agrees(pair[1], group))
        group = next(same, None)
        if group is None:
            groups.append([pair])
        else:
            group.append(pair)
    found = [level for level in (_level(group, known) for group in groups) if level.papers > 1]
    return sorted(found, key=lambda level: (level.row, level.metric))


def of_number(found: list[Level], number: PublishedNumber) -> Level | None:
    """Return the level that contains a number, or None."""
    return next((level for level in found if any(number == other for _, other in level.numbers)), None)


def _level(group: list[tuple[str, PublishedNumber]], known: list[tuple[str, PublishedNumber]]) -> Level:
    first = group[0][1]
    methods = [
        pair
        for pair in known
        if pair[1].method
        and (pair[1].dataset, pair[1].metric) == (first.dataset, first.metric)
        and _agrees(pair[1], group)
    ]
    by_value = sorted(group, key=lambda pair: pair[1].value)
    return Level(tuple(by_value), tuple(sorted(methods, key=lambda pair: pair[1].value)))


def _key(number: PublishedNumber) -> tuple[str, ...]:
    return number.dataset, number.backbone, number.adapter, number.metric


def _stated(number: PublishedNumber) -> Json:
    return {name: value for name, value in {**number.facts, **number.counts}.items() if name in SAME}


def _agrees(number: PublishedNumber, group: list[tuple[str, PublishedNumber]]) -> bool:
    mine = _stated(number)
    return all(mine.get(k, v) == v for _, other in group for k, v in _stated(other).items())


def text(found: list[Level], papers: Comparisons) -> str:
    """Format the levels that contain a number of `papers` as lines, with our row if there is one; "" if none does."""
    lines = [line for _, comparisons in papers for line in comparisons]
    lines.sort(key=lambda line: -len(line.other_test))  # of several numbers of a row, the one with the nearest test
    ours = {_key(line.number): line for line in lines if line.ours is not None}
    asked = [of_number(found, line.number) for line in lines]
    shown = [level for level in found if any(level is one for one in asked)]
    head = "The same row in several papers (protocols agree as far as stated)"
    return "\n".join([head, *(line for level in shown for line in _lines(level, ours))]) if shown else ""


def to_json(papers: Comparisons, found: list[Level]) -> list[Json]:
    """Return `published.to_json` with the level of each number, or None, under `level`."""
    value = published.to_json(papers)
    for block, (_, comparisons) in zip(value, papers, strict=True):
        for row, line in zip(block["rows"], comparisons, strict=True):
            level = of_number(found, line.number)
            row["level"] = None if level is None else level.to_json()
    return value


def _lines(level: Level, ours: dict[tuple[str, ...], PublishedComparison]) -> list[str]:
    lines = [f"  {level.row}  {level.metric}  {level.low:.4f} to {level.high:.4f} in {level.papers} papers"]
    lines += [f"      {number.value:.4f}  {_about(title, number)}" for title, number in level.numbers]
    mine = ours.get(_key(level.numbers[0][1]))
    if mine is not None and mine.ours is not None:
        apart = f", protocols differ: {'; '.join(mine.other_test)}" if mine.other_test else ""
        lines.append(f"      {mine.ours[0]:.4f}  ours {bounds(Interval(*mine.ours))}{apart}")
    if 0 < level.spread < float("inf"):
        lines.append(f"      A gain below {level.spread:.0f} % over the lowest does not reach the highest.")
    if level.below:
        lines.append(f"      Methods published below the highest: {', '.join(level.below)}.")
    return lines


def _about(title: str, number: PublishedNumber) -> str:
    seen = {None: "", True: "seen items excluded", False: "seen items ranked"}[number.facts.get("filter_seen")]
    chosen = "selected by the test set: not counted" if number.selected_by == "test" else ""
    facts = [f"{key} {number.facts[key]}" for key in ("loss", "d", "epochs") if key in number.facts]
    parts = [number.note, *facts, seen, chosen, CONFIDENCE[number.confidence]]
    return f"{title}: {', '.join(part for part in parts if part)}"
