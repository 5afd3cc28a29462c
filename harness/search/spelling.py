"""Spell selected components as rows of one table: `mlp[dropout=0]` and `mlp[ dropout = 0.0 ]` are one configuration.

A spelling that the ledger has stays, since names are part of identities. Any other is replaced by the canonical one:
parameters sorted, values of their parameter's type.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness import registry
from harness.record.ledger import Ledger
from harness.search import ensembles, spaces
from harness.types import HarnessError, parts_of
from harness.words import check_once

Meaning = tuple[str, tuple[tuple[str, Any], ...]]  # a component and its fixed parameters, sorted by name


def backbones(names: Iterable[str], ledger: Ledger) -> list[str]:
    """Return selected backbones as the ledger or the canonical spelling has them, each once."""
    recorded = [study.cell.backbone for study in _studies(ledger, names)]
    return list(dict.fromkeys(_spelled(registry.BACKBONES, name, recorded) for name in names))


def adapters(chosen: ensembles.Selection, ledger: Ledger) -> ensembles.Selection:
    """Return selected adapters and ensembles as the ledger or the canonical spelling has them, each once."""
    recorded = [study.cell.adapter for study in _studies(ledger, chosen.adapters) if not study.cell.is_ensemble]
    names = {name: _spelled(registry.ADAPTERS, name, recorded) for name in chosen.adapters}
    combined = (ensembles.joined([names[part] for part in parts_of(name)]) for name in chosen.ensembles)
    return ensembles.Selection(list(dict.fromkeys(names.values())), list(dict.fromkeys(combined)))


def _studies(ledger: Ledger, names: Iterable[str]) -> list[Any]:
    """Return the recorded studies, those of the newest launch first; [] if no name has brackets."""
    if not any("[" in name for name in names):
        return []
    return [study for run in sorted(ledger.launches, reverse=True) for study in ledger.launches[run].studies]


def _spelled(package: str, word: str, recorded: Iterable[str]) -> str:
    if "[" not in word:
        return word
    check_once(word)
    meant = meaning(package, word)
    same = (name for name in dict.fromkeys(recorded) if "[" in name and _recorded_meaning(package, name) == meant)
    return next(same, None) or _canonical(package, meant) or word


def meaning(package: str, word: str) -> Meaning:
    """Return the component that a word names and its fixed parameters. Raises HarnessError for an unknown component or
    a value that its parameter does not allow."""
    base, fixed = registry.split_overrides(word)
    stem = registry.find(package, base)
    domains = registry.schema(package, stem).domains
    domains = spaces.TEXT_DOMAINS | domains if package == registry.ADAPTERS else domains
    typed = {n: domains[n].checked(f"{stem}[{n}]", value) if n in domains else value for n, value in fixed.items()}
    return stem, tuple((name, typed[name]) for name in sorted(typed))


def _recorded_meaning(package: str, name: str) -> Meaning | None:
    """Return the meaning of a recorded name, None if its component is gone or has changed."""
    try:
        return meaning(package, name)
    except HarnessError:
        return None


def _canonical(package: str, meant: Meaning) -> str:
    """Return the canonical spelling, "" if it would not be read as meant."""
    stem, fixed = meant
    pairs = ",".join(f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in fixed)
    word = f"{stem}[{pairs}]" if fixed else stem
    return word if registry.split_list(word) == [word] and _recorded_meaning(package, word) == meant else ""
