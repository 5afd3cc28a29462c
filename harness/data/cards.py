"""The data card: counts, preparation, time, order, texts, terms and warnings of a data set, as a record and as text."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from harness.types import Json, PrepSpec

WIDTH = 110
LABEL = 12


@dataclass(frozen=True)
class DataCard:
    """Facts about a prepared data set, for people and reports. None: not known, or not applicable.

    Shares are between 0 and 1. Those of the test depend on the protocol; preparation fills them for leave-one-out.
    """

    name: str = ""
    hash: str = ""  # identity of the prepared sequences
    licence: str = ""
    citation: str = ""
    redistributable: bool | None = None
    spec: Json = field(default_factory=dict)  # the preparation: `PrepSpec` as JSON
    files: dict[str, str] = field(default_factory=dict)  # source file -> hash
    read: list[str] = field(default_factory=list)  # notes of the reader about the files' format
    users: int | None = None
    items: int | None = None
    events: int | None = None
    density: float | None = None  # events over users x items
    mean_length: float | None = None  # events per user
    raw_events: int | None = None  # before the preparation, like the next two
    raw_users: int | None = None
    raw_items: int | None = None  # with events
    source_rows: int | None = None  # of the items file
    duplicates_dropped: int | None = None
    orphans: int | None = None  # items without a row in the items file
    timed: bool | None = None  # whether events have timestamps
    missing_times: int | None = None
    missing_orders: int | None = None
    tie_share: float | None = None  # of a user's consecutive events, with equal times
    test_tie_share: float | None = None  # of users, whose last two events have equal times
    id_increasing_share: float | None = None  # of a user's consecutive events, with increasing item id
    order_test: Json | None = None  # see `harness.data.order_signal`
    cold_valid_share: float | None = None  # of validation targets, never trained on
    cold_test_share: float | None = None  # of test targets, never trained on
    valid_targets: int | None = None
    test_targets: int | None = None
    folds: list[Json] = field(default_factory=list)  # of sliding windows: the targets and cold shares of each
    text: str | None = None  # template of an item's text; "" without text
    missing_text: int | None = None
    duplicate_texts: int | None = None
    own_embeddings: list[str] = field(default_factory=list)  # embeddings that come with the data set
    embeddings: dict[str, Json] = field(default_factory=dict)  # encoder -> facts of its embedding
    published: Json | None = None  # see `harness.data.presets.compared`
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> Json:
        """The card as recorded: without the optional facts that it lacks."""
        return {name: value for name, value in vars(self).items() if name not in OPTIONAL or value not in EMPTY}

    @classmethod
    def from_json(cls, value: Json) -> DataCard:
        """Read a card of this or an earlier version; unknown keys are ignored, missing and null ones get defaults."""
        return cls(**{one.name: value[one.name] for one in fields(cls) if value.get(one.name) is not None})


# Recorded only if they are not empty; every other fact is recorded, as null if unknown.
EMPTY = (None, "", [], {})
OPTIONAL = (
    *("hash", "read", "raw_users", "raw_items", "duplicates_dropped", "missing_orders"),
    *("valid_targets", "test_targets", "folds", "embeddings", "published"),
)


def text(card: DataCard) -> str:
    """Return a card as aligned lines."""
    lines = [f"{card.name or 'data set'} {card.hash}".strip()]
    for label, sentence in rows(card):
        lines += _line(label, sentence)
    return "\n".join(lines)


def rows(card: DataCard) -> list[tuple[str, str]]:
    """Return the card as (label, sentence) pairs, without those whose values the card lacks."""
    pairs = [
        ("counts", _counts(card)),
        ("files", "; ".join(card.read)),
        ("published", _published(card.published)),
        ("prepared", _prepared(card)),
        ("time", _time(card)),
        ("order", _order(card.order_test)),
        ("cold", _cold(card)),
        ("text", _text(card)),
        ("embeddings", ", ".join(f"own:{name}" for name in card.own_embeddings)),
        *((word, _embedding(info)) for word, info in card.embeddings.items()),
        ("licence", card.licence),
        ("sharing", _sharing(card.redistributable)),
        ("citation", card.citation),
        *(("warning", sentence) for sentence in card.warnings),
    ]
    return [(label, sentence) for label, sentence in pairs if sentence.strip()]


def _line(label: str, sentence: str) -> list[str]:
    wrapped = textwrap.wrap(sentence, WIDTH - LABEL, break_on_hyphens=False)
    start = [f"{label:{LABEL}s}{wrapped[0]}"] if len(label) < LABEL else [label, " " * LABEL + wrapped[0]]
    return start + [" " * LABEL + line for line in wrapped[1:]]


def _sharing(allowed: bool | None) -> str:
    if allowed is None:
        return ""
    return "may be redistributed" if allowed else "must not be redistributed"


def _counts(card: DataCard) -> str:
    if None in (card.users, card.items, card.events, card.mean_length, card.density):
        return ""
    return (
        f"{card.users:,} users, {card.items:,} items, {card.events:,} events "
        f"({card.mean_length:.1f} per user, {_percent(card.density)} of all pairs)"
    )


def _published(published: Json | None) -> str:
    """Format the comparison that `harness.data.presets.compared` returns."""
    if not published:
        return ""
    numbers = {name: published[name] for name in ("users", "items", "events") if name in published}
    differ = [
        f"{name} {number['published']:,} ({number['percent']:+.2f} % here)"
        for name, number in numbers.items()
        if number["ours"] != number["published"]
    ]
    comparison = "differs: " + ", ".join(differ) if differ else f"the same {', '.join(numbers)}"
    return f"{comparison}; {published['source']}"


def _prepared(card: DataCard) -> str:
    """Format the spec (kcore and every value that is not the default) and the counts before filtering."""
    if not card.spec:
        return ""
    default = json.loads(json.dumps(asdict(PrepSpec())))
    spec = json.loads(json.dumps(card.spec))
    chosen = [f"{key} {_value(value)}" for key, value in spec.items() if key == "kcore" or value != default.get(key)]
    source = f"{card.raw_events:,} events in the source"
    if card.raw_users is not None and card.raw_items is not None:
        source += f" ({card.raw_users:,} users, {card.raw_items:,} items)"
    return f"{', '.join(chosen)}; {source}, {card.duplicates_dropped or 0:,} duplicates dropped"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " > ".join(map(str, value)) if isinstance(value, list) else str(value)


def _time(card: DataCard) -> str:
    if card.timed is None:
        return ""
    if not card.timed:
        missing = card.missing_times or 0
        ordered = "events are ordered by a column of the source"
        return f"{missing:,} timestamps are missing; {ordered}" if missing else f"no timestamps; {ordered}"
    return (
        f"{_percent(card.tie_share)} of a user's consecutive events have equal times, as do the last two events of "
        f"{_percent(card.test_tie_share)} of users; the item id increases in {_percent(card.id_increasing_share)}"
    )


def _order(test: Json | None) -> str:
    if not test:
        return ""
    return (
        f"NDCG@10 of a last-item Markov chain is {test['ndcg']:.4f}, with shuffled histories {test['shuffled']:.4f}: "
        f"{test['drop_percent']:.0f} % is due to the order"
    )


def _cold(card: DataCard) -> str:
    shares = {"validation": card.cold_valid_share, "test": card.cold_test_share}
    targets = [f"{_percent(share)} of {name} targets" for name, share in shares.items() if share is not None]
    windows = ", ".join(f"{_percent(one['cold_test_share'])} of {one['test_targets']:,}" for one in card.folds)
    return f"{' and '.join(targets)} do not occur in training{windows and f'; test by fold: {windows}'}" * bool(targets)


def _text(card: DataCard) -> str:
    if card.text is None:
        return ""
    if not card.text:
        return "none"
    missing, duplicates = card.missing_text, card.duplicate_texts
    return f"{card.text}; {missing:,} items without text, {duplicates:,} with the same text as an earlier item"


def _embedding(info: Json) -> str:
    notes = "".join(f"; {note}" for note in info.get("notes", []))
    if "texts" in info:
        notes = f"; mean of {info['texts']} texts an item, {info['incomplete']:,} items with text have fewer{notes}"
    return f"{info['items']:,} x {info['dim']:,}, mean cosine {info['mean_cosine']:.3f}{notes}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.3g} %"
