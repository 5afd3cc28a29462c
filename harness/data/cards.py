"""A data card in words: what a data set is, what the preparation made of it, and what a reader must know."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import Any

from harness.types import PrepSpec

WIDTH = 110
LABEL = 12


def text(card: dict[str, Any]) -> str:
    """Aligned lines of a card as `harness.data.preparation` makes it (`Prepared.card`)."""
    lines = [f"{card.get('name', 'data set')} {card.get('hash', '')}".strip()]
    for label, words in told(card):
        lines += _line(label, words)
    return "\n".join(lines)


def told(card: dict[str, Any]) -> list[tuple[str, str]]:
    """(label, sentence) of all that a reader must know of a data set; what the card does not hold is left out."""
    said = [
        ("counts", _counts(card)),
        ("files", "; ".join(card.get("read", []))),
        ("published", _published(card.get("published"))),
        ("prepared", _prepared(card)),
        ("time", _time(card)),
        ("order", _order(card.get("order_test"))),
        ("cold", _cold(card)),
        ("text", _text(card)),
        ("brings", ", ".join(f"own:{name}" for name in card.get("own_embeddings", []))),
        *((word, _embedding(info)) for word, info in card.get("embeddings", {}).items()),
        ("licence", card.get("licence", "")),
        ("passed on", _passed_on(card.get("redistributable"))),
        ("citation", card.get("citation", "")),
        *(("warning", sentence) for sentence in card.get("warnings") or []),
    ]
    return [(label, words) for label, words in said if words]


def _line(label: str, words: str) -> list[str]:
    wrapped = textwrap.wrap(words, WIDTH - LABEL, break_on_hyphens=False)
    start = [f"{label:{LABEL}s}{wrapped[0]}"] if len(label) < LABEL else [label, " " * LABEL + wrapped[0]]
    return start + [" " * LABEL + line for line in wrapped[1:]]


def _passed_on(allowed: bool | None) -> str:
    if allowed is None:
        return ""
    return "may be redistributed" if allowed else "not to be redistributed"


def _counts(card: dict[str, Any]) -> str:
    if not {"users", "items", "events", "mean_length", "density"} <= card.keys():
        return ""
    return (
        f"{card['users']:,} users, {card['items']:,} items, {card['events']:,} events "
        f"({card['mean_length']:.1f} a user, {_percent(card['density'])} of all pairs)"
    )


def _published(published: dict[str, Any] | None) -> str:
    """What `harness.data.presets.compared` tells."""
    if not published:
        return ""
    numbers = {name: published[name] for name in ("users", "items", "events") if name in published}
    differ = [
        f"{name} {number['published']:,} ({number['percent']:+.2f} % here)"
        for name, number in numbers.items()
        if number["ours"] != number["published"]
    ]
    told = "differs: " + ", ".join(differ) if differ else f"the same {', '.join(numbers)}"
    return f"{told}; {published['source']}"


def _prepared(card: dict[str, Any]) -> str:
    """How many events went in, and the spec where it is not the default one."""
    if "spec" not in card:
        return ""
    default = json.loads(json.dumps(asdict(PrepSpec())))
    spec = json.loads(json.dumps(card["spec"]))
    own = [f"{name} {_value(value)}" for name, value in spec.items() if name == "kcore" or value != default.get(name)]
    return f"{', '.join(own)}; of {card['raw_events']:,} events, {card.get('duplicates_dropped', 0):,} repeats dropped"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " > ".join(map(str, value)) if isinstance(value, list) else str(value)


def _time(card: dict[str, Any]) -> str:
    if "timed" not in card:
        return ""
    if not card["timed"]:
        missing = card.get("missing_times", 0)
        return f"{missing:,} times are missing; the order is a column of the source" if missing else "order only"
    return (
        f"{_percent(card['tie_share'])} of neighbouring events share their time, and so do the last two of "
        f"{_percent(card['test_tie_share'])} of users; {_percent(card['id_increasing_share'])} rise in item id"
    )


def _order(test: dict[str, Any] | None) -> str:
    if not test:
        return ""
    return (
        f"NDCG@10 of a last-item Markov chain {test['ndcg']:.4f}, with histories shuffled {test['shuffled']:.4f}: "
        f"{test['drop_percent']:.0f} % of it is order"
    )


def _cold(card: dict[str, Any]) -> str:
    shares = {"validation": card.get("cold_valid_share"), "test": card.get("cold_test_share")}
    told = " and ".join(f"{_percent(share)} of {name} targets" for name, share in shares.items() if share is not None)
    return f"{told} are never trained on" if told else ""


def _text(card: dict[str, Any]) -> str:
    if "text" not in card:
        return ""
    if not card.get("text"):
        return "none"
    lacks, equal = card["missing_text"], card["duplicate_texts"]
    return f"{card['text']}; {lacks:,} items without, {equal:,} with the text of another"


def _embedding(info: dict[str, Any]) -> str:
    notes = "".join(f"; {note}" for note in info.get("notes", []))
    return f"{info['items']:,} x {info['dim']:,}, mean cosine {info['mean_cosine']:.3f}{notes}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
