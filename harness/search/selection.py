"""Selections of the command line: data sets, encoders, and the cells that they form with backbones and adapters."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from harness import registry
from harness.data import library, reader
from harness.search import ensembles
from harness.text.encoders import _base
from harness.types import BASELINE, NO_TEXT, Cell, HarnessError
from harness.words import check_once

DEFAULT_DATASET = "ml-100k"  # selected by `all` even if it is not on this machine yet


def datasets(selection: str, home: Path) -> list[str]:
    """Resolve a selection to names and folders of data sets.

    A word is a name, a glob over names, a folder, `all` (all ready on this machine, and the default one), or an
    exclusion `!name`. Raises HarnessError if a glob matches nothing, an exclusion names nothing, or nothing is left.
    """
    words: list[str] = []
    for word in registry.split_list(selection):
        drop, pattern = word.startswith("!"), word.removeprefix("!")
        if pattern == "all":
            hits = [*reader.ready(home), DEFAULT_DATASET]
        elif "/" not in pattern and any(char in pattern for char in "*?"):
            hits = fnmatch.filter(library.names(home), pattern)
            if not hits:
                hint = registry.suggest(pattern, library.names(home))
                raise HarnessError(f"--datasets '{pattern}' matches no data set. {hint}")
        else:
            hits = [pattern if "/" in pattern else library.find(pattern, home) or pattern]
            if drop and hits[0] not in (*words, *library.names(home)):
                hint = registry.suggest(pattern, list(dict.fromkeys([*words, *library.names(home)])))
                raise HarnessError(f"--datasets '{word}' excludes nothing: it is no data set. {hint}")
        words = [w for w in words if w not in hits] if drop else list(dict.fromkeys([*words, *hits]))
    if not words:
        raise HarnessError(f"--datasets '{selection}' selects no data set; {registry.SELECTABLE}.")
    return words


def not_ready(selection: str, home: Path) -> list[str]:
    """Return the data sets that `all` leaves out because they are not on this machine; [] for other selections."""
    if "all" not in registry.split_list(selection):
        return []
    ready = {*reader.ready(home), DEFAULT_DATASET}
    return [name for name in library.names(home) if name not in ready and f"!{name}" not in selection]


def encoders(selection: str, home: Path) -> dict[str, _base.Encoder]:
    """Return the encoders of a request by label. Raises HarnessError for an unknown encoder or equal labels."""
    words = registry.split_list(selection)
    for word in words:
        if word.endswith("]"):
            check_once(word)
    chosen = [_base.encoder(word, home) for word in words]
    if not chosen:
        raise HarnessError(f"--encoders '{selection}' selects no encoder; give names (`harness list` shows them).")
    by_label = {encoder.label: encoder for encoder in chosen}
    if len(by_label) < len(chosen):
        raise HarnessError(f"--encoders '{selection}': two encoders have the same name; rename a file.")
    return by_label


def cells(dataset: str, backbones: list[str], chosen: ensembles.Selection, encoders: list[str]) -> list[Cell]:
    """Return the cells of one data set: baselines first, then by backbone, each with its ensembles last."""

    def with_encoders(package: str, backbone: str, name: str) -> list[Cell]:
        base = registry.split_overrides(name)[0]
        reads = registry.schema(package, base).attributes.get("uses_text", package == registry.ADAPTERS)
        return [Cell(dataset, encoder, backbone, name) for encoder in (encoders if reads else [NO_TEXT])]

    selected = [
        c for name in registry.names(registry.BASELINES) for c in with_encoders(registry.BASELINES, BASELINE, name)
    ]
    for backbone in backbones:
        for adapter in chosen.adapters:
            selected += with_encoders(registry.ADAPTERS, backbone, adapter)
        selected += ensembles.cells(dataset, backbone, chosen.ensembles, encoders)
    return selected
