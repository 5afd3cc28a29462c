"""Format a data card as text: counts, preparation, time, order, texts, terms and warnings of a data set."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import Any

from harness.types import PrepSpec

WIDTH = 110
LABEL = 12


def text(card: dict[str, Any]) -> str:
    """Return a card (`Prepared.card`) as aligned lines."""
    lines = [f"{card.get('name', 'data set')} {card.get('hash', '')}".strip()]
    for label, sentence in rows(card):
        lines += _line(label, sentence)
    return "\n".join(lines)


def rows(card: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the card as (label, sentence) pairs, without those whose values the card lacks."""
    pairs = [
        ("counts", _counts(card)),
        ("files", "; ".join(card.get("read", []))),
        ("published", _published(card.get("published"))),
        ("prepared", _prepared(card)),
        ("time", _time(card)),
        ("order", _order(card.get("order_test"))),
        ("cold", _cold(card)),
        ("text", _text(card)),
        ("embeddings", ", ".join(f"own:{name}" for name in card.get("own_embeddings", []))),
        *((word, _embedding(info)) for word, info in card.get("embeddings", {}).items()),
        ("licence", card.get("licence", "")),
        ("sharing", _sharing(card.get("redistributable"))),
        ("citation", card.get("citation", "")),
        *(("warning", sentence) for sentence in card.get("warnings") or []),
    ]
    return [(label, sentence) for label, sentence in pairs if sentence]


def _line(label: str, sentence: str) -> list[str]:
    wrapped = textwrap.wrap(sentence, WIDTH - LABEL, break_on_hyphens=False)
    start = [f"{label:{LABEL}s}{wrapped[0]}"] if len(label) < LABEL else [label, " " * LABEL + wrapped[0]]
    return start + [" " * LABEL + line for line in wrapped[1:]]


def _sharing(allowed: bool | None) -> str:
    if allowed is None:
        return ""
    return "may be redistributed" if allowed else "must not be redistributed"


def _counts(card: dict[str, Any]) -> str:
    if not {"users", "items", "events", "mean_length", "density"} <= card.keys():
        return ""
    return (
        f"{card['users']:,} users, {card['items']:,} items, {card['events']:,} events "
        f"({card['mean_length']:.1f} per user, {_percent(card['density'])} of all pairs)"
    )


def _published(published: dict[str, Any] | None) -> str:
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


def _prepared(card: dict[str, Any]) -> str:
    """Format the spec (kcore and every value that is not the default) and the counts before filtering."""
    if "spec" not in card:
        return ""
    default = json.loads(json.dumps(asdict(PrepSpec())))
    spec = json.loads(json.dumps(card["spec"]))
    chosen = [f"{key} {_value(value)}" for key, value in spec.items() if key == "kcore" or value != default.get(key)]
    dropped = f"{card.get('duplicates_dropped', 0):,} duplicates dropped"
    return f"{', '.join(chosen)}; {card['raw_events']:,} events in the source, {dropped}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " > ".join(map(str, value)) if isinstance(value, list) else str(value)


def _time(card: dict[str, Any]) -> str:
    if "timed" not in card:
        return ""
    if not card["timed"]:
        missing = card.get("missing_times", 0)
        ordered = "events are ordered by a column of the source"
        return f"{missing:,} timestamps are missing; {ordered}" if missing else f"no timestamps; {ordered}"
    return (
        f"{_percent(card['tie_share'])} of a user's consecutive events have equal times, as do the last two events of "
        f"{_percent(card['test_tie_share'])} of users; the item id increases in {_percent(card['id_increasing_share'])}"
    )


def _order(test: dict[str, Any] | None) -> str:
    if not test:
        return ""
    return (
        f"NDCG@10 of a last-item Markov chain is {test['ndcg']:.4f}, with shuffled histories {test['shuffled']:.4f}: "
        f"{test['drop_percent']:.0f} % is due to the order"
    )


def _cold(card: dict[str, Any]) -> str:
    shares = {"validation": card.get("cold_valid_share"), "test": card.get("cold_test_share")}
    targets = [f"{_percent(share)} of {name} targets" for name, share in shares.items() if share is not None]
    return f"{' and '.join(targets)} do not occur in training" if targets else ""


def _text(card: dict[str, Any]) -> str:
    if "text" not in card:
        return ""
    if not card.get("text"):
        return "none"
    missing, duplicates = card["missing_text"], card["duplicate_texts"]
    return f"{card['text']}; {missing:,} items without text, {duplicates:,} with the same text as another item"


def _embedding(info: dict[str, Any]) -> str:
    notes = "".join(f"; {note}" for note in info.get("notes", []))
    return f"{info['items']:,} x {info['dim']:,}, mean cosine {info['mean_cosine']:.3f}{notes}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
