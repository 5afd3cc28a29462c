"""List and describe components and data sets from their source code, without importing them."""

from __future__ import annotations

import itertools
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import cards, library
from harness.paths import expanded
from harness.search import axes, ensembles, spaces, suites
from harness.types import HarnessError, Json, PrepSpec, parts_of

KINDS = {
    "adapters": registry.ADAPTERS,
    "backbones": registry.BACKBONES,
    "losses": registry.LOSSES,
    "encoders": registry.ENCODERS,
    "baselines": registry.BASELINES,
    "metrics": registry.METRICS,
    "list metrics": registry.LIST_METRICS,
    "table formats": registry.TABLES,
    "datasets": registry.DATASETS,
}


def all_of(home: Path) -> dict[str, list[Json]]:
    """Return all components by kind, with `name`, `summary` and, for data sets, `ready`."""
    listing: dict[str, list[Json]] = {}
    for kind, package in KINDS.items():
        if kind == "datasets":
            listing[kind] = _datasets(home)
        else:
            listing[kind] = [_entry(package, name) for name in registry.names(package)]
    listing["ensembles, for --adapters"] = [
        {"name": name, "summary": summary} for name, summary in ensembles.SUMMARIES.items()
    ]
    listing["published settings, for --spaces"] = [
        {"name": name, "summary": spaces.about(name)} for name in spaces.published()
    ]
    listing["suites, for --suite"] = [{"name": name, "summary": suites.title(name)} for name in suites.names()]
    return listing


def _datasets(home: Path) -> list[Json]:
    """Return the user's folders, then the built-in data sets: `name`, `summary`, `ready`; `folder` for the user's."""
    folders, ready = library.folders(home), library.ready(home)
    entries: list[Json] = [
        {"name": name, "summary": str(folder), "ready": name in ready, "folder": str(folder)}
        for name, folder in folders.items()
    ]
    for name, (stem, variant) in library.built_in().items():
        if name not in folders:
            family = {} if variant is None else {"family": stem}
            entries.append({**_entry(registry.DATASETS, stem), "name": name, "ready": name in ready, **family})
    return entries


def _entry(package: str, name: str) -> Json:
    """Return `name`, `summary`, `by_name_only` if `all` leaves the component out, and `from`, a folder or package, if
    it is not built in."""
    component = registry.own(package, name)
    source = {"from": component.origin} if component else {}
    try:
        schema = registry.schema(package, name)
    except HarnessError as error:
        if not component:
            raise
        return {"name": name, "summary": f"Broken: {error}"} | source
    mark = {"by_name_only": True} if schema.attributes.get("by_name_only") else {}
    return {"name": name, "summary": schema.doc.split("\n\n")[0].replace("\n", " ")} | mark | source


def text(listing: dict[str, list[Json]]) -> str:
    lines = []
    for kind, entries in listing.items():
        lines.append(kind)
        if kind == "datasets":
            lines += _dataset_lines(entries)
            continue
        for entry in entries:
            mark = (" [not in 'all']" if entry.get("by_name_only") else "") + _origin(entry)
            lines.append(f"  {entry['name']:18s} {entry['summary']}{mark}")
    return "\n".join([*lines, "Any folder with interactions and items (.parquet, .csv, .tsv, ...) is a data set too."])


def _origin(entry: Json) -> str:
    return f" [from {entry['from']}]" if "from" in entry else ""


def _dataset_lines(entries: list[Json]) -> list[str]:
    """Return one line per data set; for a family, its summary once and its names below."""
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
            mark += _origin(entry)
            lines.append(f"  {entry['name']:18s} {entry['summary']}{mark}")
    return [*lines, "  (get a data set that is not marked ready: harness prepare NAME)"]


def one(name: str, home: Path, spec: PrepSpec | None = None, text: str = "") -> Json:
    """Describe one component, published setting or suite by name, or a data set by name or folder.

    A published setting or suite with the name of a component is described after it. For a data set: its card with
    preparation `spec` and text template `text`, or its sources if it is not downloaded yet.

    Raises HarnessError if nothing has that name.
    """
    if ensemble := ensembles.canonical(name):
        return {"kind": "ensemble", "name": ensemble, "doc": ensembles.__doc__, "parts": list(parts_of(ensemble))}
    if hits := [*_components(name), *_presets(name)]:
        return hits[0] | {other.pop("kind"): other for other in hits[1:]}
    dataset = None if "/" in name else library.find(name, home)
    if dataset is None and not expanded(name).is_dir():
        candidates = [n for kind, package in KINDS.items() if kind != "datasets" for n in registry.names(package)]
        candidates += [*spaces.published(), *suites.names(), *library.names(home)]
        hint = registry.suggest(name.partition("[")[0], list(dict.fromkeys(candidates)))
        raise HarnessError(f"There is no component, data set, published setting or suite '{name}'. {hint}")
    if dataset is not None and dataset not in library.folders(home) and not library.component(dataset).ready(home):
        return _to_fetch(dataset)
    return prepare(name, "", spec or PrepSpec(), home, text)


def _components(name: str) -> list[Json]:
    stem = name.replace("-", "_")
    packages = [(kind, package) for kind, package in KINDS.items() if kind != "datasets"]
    return [_component(kind, package, name) for kind, package in packages if stem in registry.names(package)][:1]


def _presets(name: str) -> list[Json]:
    """Describe the published setting and the suite of this name."""
    found: list[Json] = []
    if name in spaces.published():
        found.append(
            {"kind": "published setting, for --spaces", "name": name, "doc": spaces.about(name)} | spaces.files(name)
        )
    if name in suites.names():
        facts = {"kind": "suite, for --suite", "name": name, "title": suites.title(name)}
        suite = suites.suite(name)
        found.append(facts | {"version": suite.version, "hash": suite.hash, "options": suites.options(name)})
    return found


def _to_fetch(name: str) -> Json:
    """Describe a built-in data set whose files are not downloaded yet."""
    dataset = library.component(name)
    facts = {"kind": "dataset", "name": name, "ready": False, "get it": f"harness prepare {name}"}
    facts["doc"] = registry.schema(registry.DATASETS, library.built_in()[name][0]).doc
    facts |= {key: getattr(dataset, key) for key in ("licence", "citation", "text", "page") if hasattr(dataset, key)}
    if hasattr(dataset, "sources"):
        facts["files"] = {
            source.file: f"{', '.join(source.urls) or 'by hand'} (sha256 {source.sha256 or 'recorded at first use'})"
            for source in dataset.sources().values()
        }
    return facts


def _component(kind: str, package: str, name: str) -> Json:
    schema = registry.schema(package, name)
    facts = {
        "kind": kind,
        "name": schema.name,
        "version": schema.revision,
        "doc": schema.doc,
        "parameters": schema.params,
    }
    if component := registry.own(package, schema.name):
        facts["from"] = registry.place_of(component)
    if kind in spaces.COMPONENT_FOLDERS:
        space = spaces.read(
            spaces.SpaceSource().path(f"{kind}/{schema.name}.toml"), schema.name, schema.params, schema.domains
        )
        facts["space"] = {k: str(v) for k, v in space.items() if isinstance(v, axes.Range | axes.Choices)}
    return facts


def price(word: str, encoders: str, spec: PrepSpec, home: Path, dollars: float, text: str = "") -> list[str]:
    """Return a line per encoder: the cost of the remaining texts at `dollars` per million tokens. Sends nothing."""
    from harness.data import preparation, reader
    from harness.text import embeddings
    from harness.text.encoders._base import encoder as encoder_of
    from harness.text.encoders.api import Api

    texts = embeddings.texts_of(preparation.prepare(reader.open_dataset(word, home, text), spec, home))
    lines = []
    chosen = [source for name in registry.split_list(encoders) for source in embeddings.sources(encoder_of(name, home))]
    for encoder in {encoder.word: encoder for encoder in chosen}.values():
        if isinstance(encoder, Api):
            left = embeddings.cost(encoder, texts, home, dollars)
            lines.append(
                f"{word} / {encoder.label}: {left.texts:,} texts, about {left.tokens:,} tokens, {left.money:.2f}"
            )
        else:
            lines.append(f"{word} / {encoder.label}: runs on this machine, costs nothing")
    return lines


def prepare(word: str, encoders: str, spec: PrepSpec, home: Path, text: str = "") -> Json:
    """Fetch, prepare and embed one data set; return its card, with facts about each encoder's basis."""
    from harness.data import preparation, reader
    from harness.search import selection
    from harness.text import embeddings

    chosen = selection.encoders(encoders, home) if registry.split_list(encoders) else {}
    prepared = preparation.prepare(reader.open_dataset(word, home, text), spec, home)
    texts = embeddings.texts_of(prepared)
    warnings, facts = [*prepared.card.warnings], {}
    for label, encoder in chosen.items():
        if not embeddings.can_encode(encoder, texts):
            warnings.append(f"No item has text, so {label} has nothing to encode.")
            continue
        key = embeddings.embedding_hash(encoder, texts)
        E = embeddings.embed(encoder, texts, home)
        embeddings.check_unchanged(encoder, texts, key)
        basis = embeddings.basis(E, key, home)
        counts = embeddings.embedding_info(encoder, texts, home)
        facts[label] = {"hash": key, **counts, **basis.info}
    card = replace(prepared.card, hash=prepared.hash, warnings=warnings, embeddings=facts)
    return {"kind": "dataset", **card.to_json()}


def details(facts: Json) -> str:
    """Format a description as aligned lines."""
    if facts.get("kind") == "dataset" and "users" in facts:
        return cards.text(cards.DataCard.from_json(facts))
    lines = []
    for key, value in facts.items():
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
