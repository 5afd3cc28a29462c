"""What there is: components and data sets, described from their source without importing them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import registry, spaces
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
        found[kind] = [_entry(package, name) for name in registry.names(package)]
    found["published settings, for --spaces"] = [
        {"name": name, "summary": spaces.about(name)} for name in spaces.published()
    ]
    from harness import data

    ready = data.ready(home)
    for entry in found["datasets"]:
        entry["name"] = entry["name"].replace("_", "-")
        entry["ready"] = entry["name"] in ready
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
        for entry in entries:
            mark = " [not in 'all']" if entry.get("by_name_only") else ""
            if kind == "datasets":
                mark = " [ready]" if entry["ready"] else f" [get it: harness prepare {entry['name']}]"
            lines.append(f"  {entry['name']:18s} {entry['summary']}{mark}")
    return "\n".join([*lines, "Any folder with interactions.parquet|csv and items.parquet|csv is a data set, too."])


def one(name: str, home: Path) -> dict[str, Any]:
    """One component by name, or the card of a data set by name or folder.

    Raises HarnessError if nothing has that name.
    """
    for kind, package in KINDS.items():
        if kind != "datasets" and name.replace("-", "_") in registry.names(package):
            return _component(kind, package, name)
    known = [n for package in KINDS.values() for n in registry.names(package)]
    if name.replace("-", "_") not in registry.names(registry.DATASETS) and not Path(name).is_dir():
        raise HarnessError(f"Nothing is called '{name}'. {registry.suggest(name, known)}")
    return prepare(name, "", PrepSpec(), home)


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
        axes = spaces.read(spaces.Source().path(f"{kind}/{schema.name}.toml"), schema.name, schema.params)
        found["space"] = {k: str(v) for k, v in axes.items() if isinstance(v, spaces.Range | spaces.Choices)}
    return found


def prepare(word: str, encoders: str, spec: PrepSpec, home: Path) -> dict[str, Any]:
    """Fetch, prepare and embed one data set; its card, with what each encoder's basis came to."""
    from harness import data, plan, vectors

    prepared = data.prepare(data.open_dataset(word, home), spec, home)
    texts = vectors.texts_of(prepared)
    card = {"kind": "dataset", "name": prepared.name, "hash": prepared.hash, **prepared.card}
    for encoder_word in registry.split_list(encoders):
        encoder = vectors.encoder(encoder_word, home)
        key = vectors.embedding_hash(encoder, texts)
        basis = vectors.basis(vectors.embed(encoder, texts, home), key, home)
        card.setdefault("embeddings", {})[plan.label(encoder)] = {"hash": key, **basis.info}
    return card


def details(found: dict[str, Any]) -> str:
    """A description as aligned lines."""
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
