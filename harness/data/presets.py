"""Named preparations of published works, their published counts, and validation of specs and protocols.

A preset is only a set of `PrepSpec` values: its name is in no hash. Published counts are in data_counts.toml.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import asdict, fields, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from harness.data.cards import DataCard
from harness.registry import split_overrides, suggest
from harness.types import STEPS, HarnessError, Json, PrepSpec, Protocol
from harness.words import check_once

COUNTS = Path(__file__).with_name("data_counts.toml")
DEDUP = ("exact", "none", "first", "last")
CHOICES = {  # values of a protocol; the splits in ONLY_FIRST allow only the first
    "split": ["loo", "gts", "windows", "users"],
    "validation": ["by_time", "last_train"],
    "target": ["last", "first", "successive"],
}
ONLY_FIRST = {"validation": ("loo", "users"), "target": ("loo",)}

PRESETS = {
    "default": PrepSpec(),
    "raw": PrepSpec(kcore=0, dedup="none"),
    # SeqRecBenchmark of SpecTran's group (github.com/Tiny-Snow/SeqRecBenchmark-Datasets, process_data/base_dataset.py):
    # drops items without a title, then exact repeats (in either order), then takes the 5-core to its fixed point
    "spectran": PrepSpec(require_text=True),
    # S3-Rec, CIKM 2020 (github.com/aHuiWang/CIKM2020-S3Rec, data/data_process.py): the 5-core, repeats kept
    "s3rec": PrepSpec(dedup="none"),
    # LLM-ESR, NeurIPS 2024 (github.com/liuqidong07/LLM-ESR, data/data_process.py, filter_common and filter_minmum):
    # counts before any removal, one pass, then users with at least 3 events. Its user_num includes the dropped users.
    "llm-esr": PrepSpec(kcore=3, dedup="none", iterate=False),
    # MiniOneRec 2025 and D3 (github.com/AkaliKong/MiniOneRec, data/amazon18_data_process.py): titles of at most 20
    # words without page markup, 5-core within the window. Its split (8:1:1 of all prefixes by time) is not offered.
    "minionerec": PrepSpec(require_text=True, max_title_words=20, window="2016-10-01:2018-11-01", dedup="none"),
    # Amazon Reviews 2023 (github.com/hyp1231/AmazonReviews2023, benchmark_scripts/kcore_filtering.py): of a repeated
    # (user, item) the earliest event is kept, then the 5-core
    "amazon2023": PrepSpec(dedup="first"),
    # AlphaFuse, SIGIR 2025 (github.com/Hugo-Chinn/AlphaFuse: pickles without their preparation). Read from the data
    # that three of its authors published with PreferDiff, ICLR 2025 (github.com/lswhim/PreferDiff, data/): the 5-core,
    # then each user's last 11 events, 10 of history and a target. Its split is the protocol `users`.
    "alphafuse": PrepSpec(dedup="none", max_history=11),
}


def preset(word: str) -> PrepSpec:
    """Return the spec of a preset, optionally with overrides in brackets: `amazon2023[kcore=0]`.

    Raises HarnessError for an unknown name or option, or a value that `check` refuses.
    """
    name, overrides = split_overrides(word)
    if name not in PRESETS:
        raise HarnessError(f"There is no preparation '{name}'. {suggest(name, list(PRESETS))}")
    check_once(word)
    options = [field.name for field in fields(PrepSpec)]
    for key in overrides:
        if key not in options:
            raise HarnessError(f"'{word}': a preparation has no option '{key}'. {suggest(key, options)}")
    spec = replace(PRESETS[name], **overrides)
    check(spec)
    return spec


def check(spec: PrepSpec) -> None:
    """Raise HarnessError, naming the allowed values, if a value of the spec is not one that `PrepSpec` allows."""
    for name in ("kcore", "max_title_words", "max_history"):
        value = getattr(spec, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise HarnessError(f"{name} is {value}; it must be 0 (off) or more.")
    for name in ("require_text", "iterate"):
        if not isinstance(value := getattr(spec, name), bool):
            raise HarnessError(f"{name} is {value!r}; it must be true or false.")
    if spec.dedup not in DEDUP:
        raise HarnessError(f"There is no dedup '{spec.dedup}'. {suggest(str(spec.dedup), list(DEDUP))}")
    if spec.min_rating is not None and not _is_number(spec.min_rating):
        raise HarnessError(f"min_rating is {spec.min_rating!r}; it must be a number.")
    named = isinstance(spec.order, tuple | list) and all(isinstance(step, str) for step in spec.order)
    if not named or sorted(spec.order) != sorted(STEPS):
        order = ",".join(map(str, spec.order)) if isinstance(spec.order, tuple | list) else spec.order
        raise HarnessError(f"The order of steps is '{order}'; it must name each of {', '.join(STEPS)} once.")
    tie_policy(spec)
    window(spec)


def check_protocol(protocol: Protocol) -> None:
    """Raise HarnessError, naming the allowed values, if a value of the protocol is not one that `Protocol` allows."""
    kind, defaults = protocol.split, Protocol()
    for name, choices in CHOICES.items():
        if (value := getattr(protocol, name)) not in choices:
            raise HarnessError(f"There is no {name} '{value}'. {suggest(str(value), choices)}")
        if kind in (only := ONLY_FIRST.get(name, ())) and value != choices[0]:
            *others, last = (other for other in CHOICES["split"] if other not in only)
            others = f"{', '.join(others)} or {last}" if others else last
            raise HarnessError(f"--{name} {value} needs --protocol {others}; {kind} allows only '{choices[0]}'.")
    if kind in ("gts", "windows") and not 0 < protocol.quantile < 1:
        raise HarnessError(f"--quantile is {protocol.quantile}; it must lie between 0 and 1.")
    _check_folds(protocol)
    if not 0 < protocol.train_users < 1:
        raise HarnessError(f"--train-users is {protocol.train_users}; it must lie between 0 and 1.")
    if kind != "users" and protocol.train_users != defaults.train_users:
        raise HarnessError(f"--train-users needs --protocol users; the protocol is '{kind}'.")
    if not 0 <= protocol.cold_items < 1:
        raise HarnessError(f"--cold-items is {protocol.cold_items}; it must be 0 (off) or a share below 1.")
    if protocol.cold_items and protocol.target == "successive":
        raise HarnessError(
            "--cold-items needs --target last or first: with 'successive', held-out items would enter histories."
        )
    if protocol.split_seed != defaults.split_seed and not protocol.cold_items and kind != "users":
        raise HarnessError("--split-seed needs --cold-items or --protocol users; otherwise nothing is drawn.")


def _check_folds(protocol: Protocol) -> None:
    folds, fold = protocol.folds, protocol.fold
    if protocol.split != "windows":
        if folds or fold:
            raise HarnessError(f"--folds needs --protocol windows; the protocol is '{protocol.split}'.")
    elif folds < 2:
        raise HarnessError(f"--protocol windows needs --folds of at least 2, not {folds}; one fold is --protocol gts.")
    elif not 0 <= fold < folds:
        raise HarnessError(f"There is no fold {fold}; the folds are 0 to {folds - 1}.")


def tie_policy(spec: PrepSpec) -> tuple[str, int]:
    """Return (`source`, `item_id` or `random`, seed). Raises HarnessError for an unknown policy."""
    kind, colon, seed = str(spec.tie_policy).partition(":")
    if kind == "random" and re.fullmatch("0|[1-9][0-9]*", seed):  # one spelling: it is part of the identity
        return kind, int(seed)
    if colon or kind not in ("source", "item_id"):
        hint = suggest(str(spec.tie_policy), ["source", "item_id", "random:<seed>"])
        raise HarnessError(f"There is no tie policy '{spec.tie_policy}'. {hint}")
    return kind, 0


def window(spec: PrepSpec) -> tuple[int, int] | None:
    """Return the first second of the first day and of the day after the last, UTC, in seconds since 1970.

    None without a window. Raises HarnessError if the window is not two days in order.
    """
    if spec.window is None:
        return None
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d:\d{4}-\d\d-\d\d", spec.window, re.ASCII):
            raise ValueError
        first, last = map(date.fromisoformat, spec.window.split(":"))
        if first > last:
            raise ValueError
        return _second(first), _second(last + timedelta(1))
    except (TypeError, ValueError, OverflowError):
        raise HarnessError(
            f"The window is '{spec.window}'; it must be two days in order, such as 2016-10-01:2018-11-01."
        ) from None


def _second(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@cache
def _published() -> list[Json]:
    return tomllib.loads(COUNTS.read_text(encoding="utf-8"))["counts"]


def compared(name: str, spec: PrepSpec, card: DataCard) -> Json | None:
    """Compare the counts of `card` with those published for this data set and preparation; None if there are none.

    Keys users, items, events, each with published, ours and the difference in percent of the published; and source.
    """
    wanted = _counting(spec)
    for entry in _published():
        if entry["dataset"] == name and any(_counting(preset(word)) == wanted for word in entry["prep"]):
            numbers = {
                key: _beside(entry[key], getattr(card, key)) for key in ("users", "items", "events") if key in entry
            }
            return {**numbers, "source": entry["source"]}
    return None


def _counting(spec: PrepSpec) -> Json:
    """Return the values of a spec that the counts depend on."""
    return asdict(replace(spec, tie_policy="source"))


def _beside(published: int, ours: int) -> dict[str, float]:
    return {"published": published, "ours": ours, "percent": round(100 * (ours - published) / published, 2)}
