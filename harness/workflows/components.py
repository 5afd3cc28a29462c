"""What there is: components and data sets, described from their source without importing them."""

from __future__ import annotations

import itertools
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import cards, library
from harness.search import axes, spaces
from harness.types import HarnessError, PrepSpec

KINDS = {
    "adapters": registry.ADAPTERS,
    "backbones": registry.BACKBONES,
    "losses": registry.LOSSES,
    "encoders": registry.ENCODERS,
    "baselines": registry.BASELINES,
    "metrics": registry.METRICS,
    "datasets": registry.DATASETS,
}


def all_of(home: Path) -> dict[str, list[dict[str, Any]]]:
    """Kind -> components with `name`, `summary` and, for data sets, `ready`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, package in KINDS.items():
        if kind == "datasets":
            found[kind] = _datasets(home)
        else:
            found[kind] = [_entry(package, name) for name in registry.names(package)]
    found["published settings, for --spaces"] = [
        {"name": name, "summary": spaces.about(name)} for name in spaces.published()
    ]
    return found


def _datasets(home: Path) -> list[dict[str, Any]]:
    """The user's folders, then the built-in ones: `name`, `summary`, `ready`, and `folder` of the user's."""
    own, ready = library.folders(home), library.ready(home)
    found: list[dict[str, Any]] = [
        {"name": name, "summary": str(folder), "ready": name in ready, "folder": str(folder)}
        for name, folder in own.items()
    ]
    for name, (stem, variant) in library.built_in().items():
        if name not in own:
            family = {} if variant is None else {"family": stem}
            found.append({**_entry(registry.DATASETS, stem), "name": name, "ready": name in ready, **family})
    return found


def _entry(package: str, name: str) -> dict[str, Any]:
    """`name`, `summary`, and `by_name_only` where `all` leaves it out."""
    schema = registry.schema(package, name)
    own = {"by_name_only": True} if schema.attributes.get("by_name_only") else {}
    return {"name": name, "summary": schema.doc.split("\n\n")[0].replace("\n", " ")} | own


def text(found: dict[str, list[dict[str, Any]]]) -> str:
    lines = []
    for kind, entries in found.items():
        lines.append(kind)
        if kind == "datasets":
            lines += _dataset_lines(entries)
            continue
        for entry in entries:
            mark = " [not in 'all']" if entry.get("by_name_only") else ""
            lines.append(f"  {entry['name']:18s} {entry['summary']}{mark}")
    return "\n".join([*lines, "Any folder with interactions and items (.parquet, .csv, .tsv, ...) is a data set, too."])


def _dataset_lines(entries: list[dict[str, Any]]) -> list[str]:
    """A line a data set; a family has its summary once, and its names below it."""
    lines = []
    for family, group in itertools.groupby(entries, key=lambda entry: entry.get("family")):
        members = list(group)
        if family is not None:
            lines.append(f"  {family.replace('_', '-') + '-*':18s} {members[0]['summary']}")
            names = [entry["name"] + (" [ready]" if entry["ready"] else "") for entry in members]
            indent = " " * 21
            lines += textwrap.wrap(
                ", ".join(names), 116, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
            )
            continue
        for entry in members:
            mark = " [ready]" if entry["ready"] else " [no such folder]" if "folder" in entry else ""
            lines.append(f"  {entry['name']:18s} {entry['summary']}{mark}")
    return [*lines, "  (what is not marked ready: harness prepare NAME gets it)"]


def one(name: str, home: Path, spec: PrepSpec | None = None, text: str = "") -> dict[str, Any]:
    """One component by name, or a data set by name or folder: its card under a preparation and a template of its texts,
    or where it comes from if it is not here yet.

    Raises HarnessError if nothing has that name.
    """
    for kind, package in KINDS.items():
        if kind != "datasets" and name.replace("-", "_") in registry.names(package):
            return _component(kind, package, name)
    dataset = None if "/" in name else library.find(name, home)
    if dataset is None and not Path(name).expanduser().is_dir():
        known = [n for kind, package in KINDS.items() if kind != "datasets" for n in registry.names(package)]
        raise HarnessError(f"Nothing is called '{name}'. {registry.suggest(name, [*known, *library.names(home)])}")
    if dataset is not None and dataset not in library.folders(home) and not library.component(dataset).ready(home):
        return _to_fetch(dataset)
    return prepare(name, "", spec or PrepSpec(), home, text)


def _to_fetch(name: str) -> dict[str, Any]:
    """What is known of a built-in data set whose files are not here."""
    dataset = library.component(name)
    found = {"kind": "dataset", "name": name, "ready": False, "get it": f"harness prepare {name}"}
    found["doc"] = registry.schema(registry.DATASETS, library.built_in()[name][0]).doc
    found |= {key: getattr(dataset, key) for key in ("licence", "citation", "text", "page") if hasattr(dataset, key)}
    if hasattr(dataset, "sources"):
        found["files"] = {
            source.file: f"{', '.join(source.urls) or 'by hand'} (sha256 {source.sha256 or 'noted at the first use'})"
            for source in dataset.sources().values()
        }
    return found


def _component(kind: str, package: str, name: str) -> dict[str, Any]:
    schema = registry.schema(package, name)
    found = {
        "kind": kind,
        "name": schema.name,
        "version": schema.version,
        "doc": schema.doc,
        "parameters": schema.params,
    }
    if kind in spaces.COMPONENT_FOLDERS:
        space = spaces.read(
            spaces.SpaceSource().path(f"{kind}/{schema.name}.toml"), schema.name, schema.params, schema.domains
        )
        found["space"] = {k: str(v) for k, v in space.items() if isinstance(v, axes.Range | axes.Choices)}
    return found


def price(word: str, encoders: str, spec: PrepSpec, home: Path, dollars: float, text: str = "") -> list[str]:
    """What paid encoders would still cost on a data set, a line each, at a price a million tokens; nothing is sent."""
    from harness.data import preparation, reader
    from harness.text import embeddings
    from harness.text.encoders._base import encoder as encoder_of
    from harness.text.encoders.api import Api

    texts = embeddings.texts_of(preparation.prepare(reader.open_dataset(word, home, text), spec, home))
    lines = []
    for encoder in (encoder_of(name, home) for name in registry.split_list(encoders)):
        if isinstance(encoder, Api):
            left = embeddings.cost(encoder, texts, home, dollars)
            lines.append(
                f"{word} / {encoder.label}: {left.texts:,} texts, about {left.tokens:,} tokens, {left.money:.2f}"
            )
        else:
            lines.append(f"{word} / {encoder.label}: runs on this machine, costs nothing")
    return lines


def prepare(word: str, encoders: str, spec: PrepSpec, home: Path, text: str = "") -> dict[str, Any]:
    """Fetch, prepare and embed one data set; its card, with what each encoder's basis came to."""
    from harness.data import preparation, reader
    from harness.search import plan
    from harness.text import embeddings
    from harness.text.encoders._base import encoder as encoder_of

    prepared = preparation.prepare(reader.open_dataset(word, home, text), spec, home)
    texts = embeddings.texts_of(prepared)
    warnings, facts = [*prepared.card.warnings], {}
    for encoder_word in registry.split_list(encoders):
        encoder = encoder_of(encoder_word, home)
        if not embeddings.can_encode(encoder, texts):
            warnings.append(f"There is no text, so {encoder.label} has nothing to encode.")
            continue
        key = embeddings.embedding_hash(encoder, texts)
        basis = embeddings.basis(embeddings.embed(encoder, texts, home), key, home)
        counts = embeddings.embedding_info(encoder, texts, home)
        facts[plan.label(encoder)] = {"hash": key, **counts, **basis.info}
    card = replace(prepared.card, hash=prepared.hash, warnings=warnings, embeddings=facts)
    return {"kind": "dataset", **card.to_json()}


def details(found: dict[str, Any]) -> str:
    """A description as aligned lines."""
    if found.get("kind") == "dataset" and "users" in found:
        return cards.text(cards.DataCard.from_json(found))
    lines = []
    for key, value in found.items():
        if isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [f"  {k:18s} {_value(v)}" for k, v in value.items()]
        elif isinstance(value, list):
            lines += [f"{key}: {_value(v)}" for v in value]
        else:
            lines.append(f"{key:20s} {_value(value)}")
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
